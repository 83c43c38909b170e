"""Posed image files -> views, the same for all formats: which are kept for test; decoded,
undistorted, resized."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.cameras.distortion import is_ideal, undistort
from datasets.cameras.lens import Lens
from datasets.scene import View
from utils.errors import UserError
from utils.images import image_size, over, read_image, resize, to_uint8

log = logging.getLogger(__name__)

HOLD_OUT = 8  # every 8th view is kept for test, as is usual for real captures
EXTENSIONS = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".webp", ".tif", ".tiff", ".bmp")
THREADS = 4
BLACK = 127  # 8-bit level up to which a mask counts as black; JPEG makes greys at its edges
NEARLY = 1e-5  # from 1: more than rounding takes away


@dataclass(frozen=True)
class Frame:
    """A posed image file.

    Attributes:
        path: of the image.
        c2w: (3, 4) camera-to-world, OpenGL axes.
        lens: its intrinsics.
        name: of the view.
        upright: whether the pose is that of the image turned as its EXIF data say; None: see
            `_decode`.
        mask: an image that is black where this one is to be ignored.
    """

    path: Path
    c2w: Tensor
    lens: Lens
    name: str
    upright: bool | None = None
    mask: Path | None = None


def split_frames(
    root_dir: Path, frames: list[Frame], hold_out: float = HOLD_OUT
) -> dict[str, list[Frame]]:
    """Training frames, and those kept from training, for both validation and test.

    Args:
        root_dir: for messages.
        frames: in the capture's order.
        hold_out: n >= 2 keeps every n-th from the first on, a number below 1 that fraction of the
            frames, evenly spread, and 0 the single one nearest to the middle of the cameras.

    Raises:
        UserError: ``hold_out`` is something else.
    """
    count = len(frames)
    if hold_out == 0:
        held = {_most_central(frames)}
    elif 0 < hold_out < 1:
        number = min(max(1, round(hold_out * count)), count)
        held = {math.floor((i + 0.5) * count / number) for i in range(number)}
    elif hold_out >= 2 and hold_out == int(hold_out):
        held = set(range(0, count, int(hold_out))) if count >= hold_out else set()
    else:
        raise UserError(
            f"--hold_out {hold_out:g}: give a whole number from 2 on (every n-th view is kept for "
            "test), a fraction below 1, or 0 (the view nearest to the middle)"
        )
    if not held or len(held) == count:
        log.warning("%s: few views; one of the training views is used for test", root_dir)
        middle = [frames[count // 2]]
        return {"train": frames, "val": middle, "test": middle}
    train = [frame for i, frame in enumerate(frames) if i not in held]
    test = [frame for i, frame in enumerate(frames) if i in held]
    return {"train": train, "val": test, "test": test}


def _most_central(frames: Sequence[Frame]) -> int:
    positions = torch.stack([frame.c2w[:, 3] for frame in frames])
    return int((positions - positions.mean(dim=0)).norm(dim=1).argmin())


def load_views(
    splits: dict[str, list[Frame]], img_wh: tuple[int, int] | None, background: Tensor
) -> dict[str, list[View]]:
    """Decode the images of all splits, each file once, in order.

    Args:
        splits: by name; a frame may be in several.
        img_wh: width, height to resize every image to; where there are upright and wide images,
            the other orientation gets width and height swapped.
        background: (3,) in [0, 1], laid under images with alpha.

    Raises:
        UserError: an image is unreadable, or of another size than the lens declares.
    """
    every = list({id(frame): frame for split in splits.values() for frame in split}.values())
    sizes = _sizes(every, img_wh)
    with ThreadPoolExecutor(THREADS) as pool:  # decoding releases Python's global lock
        futures = [
            pool.submit(load_view, frame, size, background)
            for frame, size in zip(every, sizes, strict=True)
        ]
        try:
            views = [future.result() for future in futures]
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise
    _check_sizes(every, views)
    trained = {id(frame) for frame in splits["train"]}
    alpha = [v.alpha for f, v in zip(every, views, strict=True) if id(f) in trained]
    if all(a is not None and bool((a == 255).all()) for a in alpha):
        # an alpha channel that is opaque everywhere is no mask
        views = [replace(view, alpha=None) for view in views]
    of = {id(frame): view for frame, view in zip(every, views, strict=True)}
    return {split: [of[id(frame)] for frame in frames] for split, frames in splits.items()}


def find_image(path: Path) -> Path | None:
    """The image ``path``, as is or with an extension appended; None where there is none."""
    candidates = (path, *(Path(f"{path}{extension}") for extension in EXTENSIONS))
    return next((candidate for candidate in candidates if is_file(candidate)), None)


def is_file(path: Path) -> bool:
    """Whether there is such a file; False, too, for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def distinct_names(root_dir: Path, frames: list[Frame]) -> list[Frame]:
    """The same frames; of equal names each becomes the path below ``root_dir``."""
    repeated = Counter(frame.name for frame in frames)
    return [replace(f, name=_long_name(root_dir, f)) if repeated[f.name] > 1 else f for f in frames]


def _long_name(root_dir: Path, frame: Frame) -> str:
    relative = Path(os.path.relpath(frame.path.with_suffix(""), root_dir))
    return "_".join(part for part in relative.parts if part != "..")


def _sizes(frames: Sequence[Frame], img_wh: tuple[int, int] | None) -> list[tuple[int, int] | None]:
    """The width and height to resize each image to."""
    if img_wh is None:
        return [None] * len(frames)
    upright = [height > width for width, height in (image_size(f.path) for f in frames)]
    if all(upright) or not any(upright):
        return [img_wh] * len(frames)
    as_asked = img_wh[1] > img_wh[0]
    return [img_wh if is_upright == as_asked else img_wh[::-1] for is_upright in upright]


def load_view(frame: Frame, img_wh: tuple[int, int] | None, background: Tensor) -> View:
    """One frame's view, see `load_views`."""
    rgb, alpha, stored = _decode(frame, img_wh)
    height, width = rgb.shape[:2]
    valid = None if frame.mask is None else _valid(frame, stored, (width, height))
    fx, fy, cx, cy = frame.lens.at(frame.path, *stored)
    sx, sy = width / stored[0], height / stored[1]
    lens = (fx * sx, fy * sy, cx * sx, cy * sy)
    width, height = img_wh or (width, height)
    model, coefficients = frame.lens.model, frame.lens.coefficients
    layer = None
    if alpha is not None:
        layer = torch.cat([torch.from_numpy(rgb), torch.from_numpy(alpha)[..., None]], 2) / 255.0
        layer[..., :3] *= layer[..., 3:]
    elif (width, height) != rgb.shape[1::-1] or not is_ideal(model, coefficients):
        layer = torch.from_numpy(rgb) / 255.0
    if layer is None:
        return View(torch.from_numpy(rgb), None, frame.c2w, *lens, frame.name, valid)
    if valid is not None:
        layer = torch.cat([layer, valid[..., None]], 2)
    if not is_ideal(model, coefficients):
        layer, zoom = undistort(layer, model, coefficients, lens)
        lens = (lens[0] * zoom, lens[1] * zoom, *lens[2:])
    sx, sy = width / layer.shape[1], height / layer.shape[0]
    lens = (lens[0] * sx, lens[1] * sy, lens[2] * sx, lens[3] * sy)
    layer = resize(layer, width, height)
    if valid is not None:
        # a pixel is as valid as all that went into it
        valid = layer[..., -1] > 1 - NEARLY
    if alpha is None:
        return View(to_uint8(layer[..., :3]), None, frame.c2w, *lens, frame.name, valid)
    image = over(layer[..., :3], layer[..., 3], background)
    return View(to_uint8(image), to_uint8(layer[..., 3]), frame.c2w, *lens, frame.name, valid)


def _valid(frame: Frame, stored: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(height, width) bool: where a frame's mask is not black, in a ``size`` (width, height); its
    image has the size ``stored``.

    Raises:
        UserError: the mask is missing, unreadable, or not of the image's shape.
    """
    if not is_file(frame.mask):
        raise UserError(
            f"{frame.mask}: no such file, the mask of {frame.path.name}; put it there, or take "
            "mask_path out of the frame"
        )
    # it belongs to the stored image, whose EXIF data it seldom shares
    rgb, _ = read_image(frame.mask, upright=False)
    own = rgb.shape[1::-1]
    if not Lens(width=stored[0], height=stored[1]).fits(*own):
        raise UserError(
            f"{frame.mask}: is {own[0]}x{own[1]}, which is not the shape of its image "
            f"{frame.path.name}, {stored[0]}x{stored[1]}; make it as large as the image"
        )
    valid = torch.from_numpy((rgb > BLACK).any(2))
    return resize(valid[..., None].float(), *size)[..., 0] > 1 - NEARLY


def _decode(
    frame: Frame, img_wh: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int]]:
    """Colour, alpha, and the width and height of what is stored; where ``img_wh`` is much smaller
    than that, it is shrunk to no less than twice the size.  Where a size is declared, the image is
    taken as it is stored, or turned upright if only then it has that size: COLMAP, which finds the
    poses, ignores EXIF."""
    upright = not frame.lens.declares_size if frame.upright is None else frame.upright
    least = None if img_wh is None else (2 * img_wh[0], 2 * img_wh[1])
    stored = image_size(frame.path, upright)
    if 0 not in stored and not frame.lens.fits(*stored) and frame.lens.fits(*stored[::-1]):
        upright = not upright
        stored = image_size(frame.path, upright)
    return *read_image(frame.path, upright, least), stored


def _check_sizes(frames: Sequence[Frame], views: Sequence[View]) -> None:
    """Without a declared size, one focal length for images of several sizes means nothing."""
    size = (views[0].width, views[0].height)
    for frame, view in zip(frames, views, strict=True):
        if (view.width, view.height) != size and not frame.lens.declares_size:
            raise UserError(
                f"{frame.path}: is {view.width}x{view.height}, but {frames[0].path} is "
                f"{size[0]}x{size[1]}; give one size with --img_wh"
            )
