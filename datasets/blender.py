"""Blender data sets: transforms_{train,val,test}.json beside images, as NeRF introduced them."""

from __future__ import annotations

import json
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

from datasets.hull import near_far, scene_bounds
from datasets.perturb import perturb_views
from datasets.scene import Scene, View
from utils.errors import UserError
from utils.images import over, read_image, resize, to_uint8

log = logging.getLogger(__name__)

WHITE = (1.0, 1.0, 1.0)
EXTENSIONS = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG", ".webp", ".tif", ".tiff", ".bmp")
POSITIVE = ("camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "w", "h")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
HOLD_OUT = 8  # where a split is missing, one training view of this many is taken for it
THREADS = 4
HUGE = 1e30  # beyond every real focal length; JSON integers may be too long for a float


@dataclass
class _Frame:
    """One entry of a transforms file: image, pose (3, 4) and the numbers that tell the lens."""

    path: Path
    c2w: Tensor
    lens: dict[str, float]
    name: str


def load_blender(
    root_dir: Path,
    img_wh: tuple[int, int] | None = None,
    near: float | None = None,
    far: float | None = None,
    data_perturb: Sequence[str] = (),
    background: Sequence[float] | Tensor = WHITE,
) -> Scene:
    """Load a data set of posed images, with or without alpha, of any size.

    The focal length comes from ``camera_angle_x``, or from ``fl_x, fl_y, cx, cy, w, h`` of the
    file or of a frame.  A missing val or test split is taken from the training views.

    Args:
        root_dir: the folder with transforms_train.json.
        img_wh: width, height to resize every image to; the intrinsics follow axis by axis.
        near, far: range of ray distances, scene units; None: from the cameras and the content.
        data_perturb: corruptions of the training views, see `perturb_views`.
        background: (3,) in [0, 1], laid under images with alpha.

    Returns:
        The scene, with bounds from the alpha masks where there are any (see `scene_bounds`).

    Raises:
        UserError: anything missing, unreadable or contradictory, naming the file or option.
    """
    root_dir = Path(root_dir)
    _check_options(root_dir, img_wh, near, far)
    frames = {split: _read_frames(root_dir, split) for split in ("train", "val", "test")}
    background = torch.as_tensor(background, dtype=torch.float32)
    views = _load_views(frames, img_wh, background)
    for split in ("val", "test"):
        if not views[split]:
            views["train"], views[split] = _hold_out(root_dir, views["train"], split)
    train = perturb_views(views["train"], data_perturb, background)
    bounds = scene_bounds(train)
    nearest, farthest = near_far(train, bounds)
    near, far = nearest if near is None else near, farthest if far is None else far
    if near >= far:
        raise UserError(
            f"--near/--far: near ({near:g}) is not below far ({far:g}); "
            f"for {root_dir} near {nearest:.3g} and far {farthest:.3g} hold the scene"
        )
    name = root_dir.resolve().name
    return Scene(name, train, views["val"], views["test"], near, far, bounds, background)


def _check_options(
    root_dir: Path, img_wh: tuple[int, int] | None, near: float | None, far: float | None
) -> None:
    if not root_dir.is_dir():
        raise UserError(f"{root_dir}: no such directory; give the data set's folder (--root_dir)")
    if img_wh is not None and (len(img_wh) != 2 or min(img_wh) < 1):
        raise UserError(f"--img_wh {list(img_wh)}: give a width and a height of at least 1 pixel")
    for option, value in (("--near", near), ("--far", far)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UserError(f"{option} {value}: give a finite distance of at least 0")
    if near is not None and far is not None and near >= far:
        raise UserError(f"--near {near:g} --far {far:g}: near has to be below far")


def _read_frames(root_dir: Path, split: str) -> list[_Frame]:
    """Entries of one transforms file, checked; none where a val or test file is missing."""
    file = root_dir / f"transforms_{split}.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if split != "train":
            return []
        raise UserError(f"{file}: no such file; is this a Blender data set's folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON ({error}); write it again") from None
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{file}: has no frames; it needs a list 'frames' of posed images")
    parsed = [_frame(root_dir, f"{file}: frame {i}", data, f) for i, f in enumerate(frames)]
    if any(data.get(key) for key in DISTORTION):
        log.warning("%s: lens distortion is left uncorrected; undistort the images first", file)
    repeated = Counter(frame.name for frame in parsed)
    return [replace(f, name=_long_name(root_dir, f)) if repeated[f.name] > 1 else f for f in parsed]


def _long_name(root_dir: Path, frame: _Frame) -> str:
    relative = Path(os.path.relpath(frame.path.with_suffix(""), root_dir))
    return "_".join(part for part in relative.parts if part != "..")


def _frame(root_dir: Path, where: str, data: dict, frame: object) -> _Frame:
    if not isinstance(frame, dict):
        raise UserError(f"{where}: not an object with file_path and transform_matrix")
    file_path = frame.get("file_path")
    if not isinstance(file_path, str) or not file_path:
        raise UserError(f"{where}: has no file_path; name its image")
    where = f"{where} ({file_path})"
    c2w = _pose(frame.get("transform_matrix"), where)
    lens = _lens({**data, **frame}, where)
    path = _find_image(root_dir, file_path, where)
    return _Frame(path, c2w, lens, path.stem)


def _pose(value: object, where: str) -> Tensor:
    """Camera-to-world (3, 4) with axes of unit length, from a 4x4 or 3x4 matrix."""
    if value is None:
        raise UserError(f"{where}: has no transform_matrix; give the camera-to-world pose")
    try:
        matrix = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{where}: transform_matrix is not a matrix of numbers") from None
    if matrix.shape not in ((4, 4), (3, 4)):
        raise UserError(f"{where}: transform_matrix is {matrix.shape}; it has to be 4x4 or 3x4")
    if not np.isfinite(matrix).all():
        raise UserError(f"{where}: transform_matrix has NaN or infinite numbers")
    if len(matrix) == 4 and not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-4):
        raise UserError(f"{where}: transform_matrix has not 0 0 0 1 as last row; is it transposed?")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    axes = matrix[:3, :3] / np.maximum(lengths, 1e-12)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-2 or np.linalg.det(axes) < 0:
        raise UserError(f"{where}: transform_matrix has no rotation in its first three columns")
    return torch.from_numpy(np.column_stack([axes, matrix[:3, 3]])).float()


def _lens(data: dict, where: str) -> dict[str, float]:
    """The numbers given of `POSITIVE` and the image centre, checked."""
    lens = {}
    for key in (*POSITIVE, "cx", "cy"):
        value = data.get(key)
        if value is None:
            continue
        if not isinstance(value, (int, float)) or not -HUGE < value < HUGE:
            raise UserError(f"{where}: {key} is {value!r}; it has to be a finite number")
        if key in POSITIVE and value <= 0:
            raise UserError(f"{where}: {key} is {value!r}; it has to be above 0")
        if key.startswith("camera_angle") and value >= math.pi:
            raise UserError(f"{where}: {key} is {value!r}; it has to be below pi (radians)")
        lens[key] = float(value)
    if "fl_x" not in lens and "camera_angle_x" not in lens:
        raise UserError(f"{where}: no focal length; give camera_angle_x, or fl_x (and fl_y)")
    return lens


def _find_image(root_dir: Path, file_path: str, where: str) -> Path:
    path = root_dir / file_path.replace("\\", "/")
    for candidate in (path, *(Path(f"{path}{extension}") for extension in EXTENSIONS)):
        if candidate.is_file():
            return candidate
    tried = " ".join(EXTENSIONS[:3])
    raise UserError(f"{where}: image {path} is missing, as is and with {tried} and others appended")


def _load_views(
    frames: dict[str, list[_Frame]], img_wh: tuple[int, int] | None, background: Tensor
) -> dict[str, list[View]]:
    """Decode the images of all splits, in order."""
    every = [frame for split in frames.values() for frame in split]
    with ThreadPoolExecutor(THREADS) as pool:  # decoding releases Python's global lock
        futures = [pool.submit(_load_view, frame, img_wh, background) for frame in every]
        try:
            views = [future.result() for future in futures]
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise
    size = (views[0].width, views[0].height)
    for frame, view in zip(every, views, strict=True):
        if (view.width, view.height) != size:
            raise UserError(
                f"{frame.path}: is {view.width}x{view.height}, but {every[0].path} is "
                f"{size[0]}x{size[1]}; give one size with --img_wh"
            )
    train_alpha = [view.alpha for view in views[: len(frames["train"])]]
    if all(alpha is not None and bool((alpha == 255).all()) for alpha in train_alpha):
        # an alpha that hides nothing is no mask
        views = [replace(view, alpha=None) for view in views]
    rest = iter(views)
    return {split: [next(rest) for _ in entries] for split, entries in frames.items()}


def _load_view(frame: _Frame, img_wh: tuple[int, int] | None, background: Tensor) -> View:
    rgb, alpha = read_image(frame.path)
    height, width = rgb.shape[:2]
    fx, fy, cx, cy = _intrinsics(frame, width, height)
    new_width, new_height = img_wh or (width, height)
    sx, sy = new_width / width, new_height / height
    lens = (fx * sx, fy * sy, cx * sx, cy * sy)
    color = torch.from_numpy(rgb)
    if alpha is None:
        if img_wh is not None:
            color = to_uint8(resize(color.float() / 255.0, *img_wh))
        return View(color, None, frame.c2w, *lens, frame.name)
    cover = torch.from_numpy(alpha).float()[..., None] / 255.0
    layer = resize(torch.cat([color.float() / 255.0 * cover, cover], 2), new_width, new_height)
    image = over(layer[..., :3], layer[..., 3], background)
    return View(to_uint8(image), to_uint8(layer[..., 3]), frame.c2w, *lens, frame.name)


def _intrinsics(frame: _Frame, width: int, height: int) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels of the image as it is in the file."""
    lens = frame.lens
    declared = (lens.get("w", width), lens.get("h", height))
    sx, sy = width / declared[0], height / declared[1]
    # an image scaled to whole pixels may be off by one
    if abs(declared[0] * sy - width) > 1 and abs(declared[1] * sx - height) > 1:
        raise UserError(
            f"{frame.path}: is {width}x{height}, which is not the shape of the declared w and h, "
            f"{declared[0]:g}x{declared[1]:g}; correct them or the image"
        )
    if "fl_x" in lens:
        fx = lens["fl_x"] * sx
        fy = lens.get("fl_y", lens["fl_x"]) * sy
    else:
        fx = 0.5 * width / math.tan(0.5 * lens["camera_angle_x"])
        angle_y = lens.get("camera_angle_y")
        fy = fx if angle_y is None else 0.5 * height / math.tan(0.5 * angle_y)
    cx, cy = lens.get("cx", 0.5 * declared[0]), lens.get("cy", 0.5 * declared[1])
    return fx, fy, cx * sx, cy * sy


def _hold_out(root_dir: Path, train: list[View], split: str) -> tuple[list[View], list[View]]:
    """Training views without every `HOLD_OUT`-th, and those; few views are shared, not taken."""
    if len(train) < HOLD_OUT:
        log.warning("%s: no %s split; one of the training views is used", root_dir, split)
        return train, [train[len(train) // 2]]
    held = train[HOLD_OUT // 2 :: HOLD_OUT]
    kept = [view for i, view in enumerate(train) if i % HOLD_OUT != HOLD_OUT // 2]
    log.warning("%s: no %s split; %d training views are held out", root_dir, split, len(held))
    return kept, held
