"""Folders of images, and the same images in other sizes beside them: images, images_2, images_4."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from datasets.formats.frames import EXTENSIONS, Frame, is_file
from utils.errors import UserError
from utils.images import image_size

SIZED = re.compile(r"(?P<base>.+?)(_(?P<factor>[1-9]\d*))?")
ROUNDING = 0.01  # by which sizes may differ from the exact fraction


def below(folder: Path, name: str, where: str) -> Path:
    """The path of what a file calls ``name``, which has to be in ``folder``: a data set of unknown
    origin is not to point anywhere else.  Symbolic links in it may.

    Raises:
        UserError: it is not; the message begins with ``where``.
    """
    inside = os.path.normpath(folder.absolute() / name)
    if not Path(inside).is_relative_to(os.path.normpath(folder.absolute())):
        raise UserError(
            f"{where}: {name:.200} is outside of {folder}; move it there, or a link to it"
        )
    return folder / name


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder and those below it, by extension, sorted; none without a folder."""
    paths = sorted(folder.rglob("*")) if folder.is_dir() else []
    return [
        path
        for path in paths
        if path.suffix.lower() in EXTENSIONS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def best_folder(folder: Path, img_wh: tuple[int, int] | None) -> Path | None:
    """Out of ``folder`` and its siblings in other sizes the one whose images are the smallest that
    are not smaller than asked for; where all are smaller, or no size is asked for, the largest.

    Args:
        folder: need not exist itself.
        img_wh: width and height in pixels, or the other way round for the other orientation.

    Returns:
        The folder, or None where none has images.
    """
    sizes = _sizes(folder)
    if img_wh is not None:
        short, long = sorted(img_wh)
        enough = [path for path, size in sizes.items() if size[0] >= short and size[1] >= long]
        if enough:
            return min(enough, key=lambda path: sizes[path])
    return max(sizes, key=lambda path: sizes[path], default=None)


def frames_in_size(
    root_dir: Path, frames: list[Frame], img_wh: tuple[int, int] | None
) -> list[Frame]:
    """The same frames, their images taken from the folder of the best size.

    A frame keeps its own image where there is none of that name (the extension may differ) or of
    the declared shape.
    """
    if img_wh is None:
        return frames
    roots = {frame.path: _root(root_dir, frame.path) for frame in frames}
    best = {root: best_folder(root, img_wh) for root in {*roots.values()} - {None}}
    return [_moved(f, roots[f.path], best.get(roots[f.path])) for f in frames]


def with_any_extension(path: Path) -> Path | None:
    """The file itself, or one of the same stem that is an image; None where there is none."""
    stems = (path.with_suffix(extension) for extension in EXTENSIONS)
    return next((candidate for candidate in (path, *stems) if is_file(candidate)), None)


def _sizes(folder: Path) -> dict[Path, tuple[int, int]]:
    """Shorter and longer side of the first image of the folder and of each sibling ``base_N`` that
    has the same images at an N-th of the size (two cameras, cam_1 and cam_2, have not)."""
    base = SIZED.fullmatch(folder.name)["base"]
    sizes: dict[Path, tuple[int, int]] = {}
    full: tuple[float, float] | None = None
    for path in (folder, *sorted(folder.parent.glob(f"{base}*"))):
        match = SIZED.fullmatch(path.name)
        images = images_in(path) if match["base"] == base and path not in sizes else []
        if not images:
            continue
        short, long = sorted(image_size(images[0]))
        factor = int(match["factor"] or 1)
        full = full or (short * factor, long * factor)
        if abs(short * factor - full[0]) <= max(factor, ROUNDING * full[0]):
            sizes[path] = (short, long)
    return sizes


def _root(root_dir: Path, path: Path) -> Path | None:
    """The folder right in ``root_dir`` that an image is in."""
    if not path.is_relative_to(root_dir):
        return None
    parts = path.relative_to(root_dir).parts
    return root_dir / parts[0] if len(parts) > 1 else None


def _moved(frame: Frame, root: Path | None, folder: Path | None) -> Frame:
    if folder in (None, root) or not frame.lens.declares_size:
        return frame
    found = with_any_extension(folder / frame.path.relative_to(root))
    if found is None:
        return frame
    width, height = image_size(found)
    if not frame.lens.fits(width, height) and not frame.lens.fits(height, width):
        return frame
    return replace(frame, path=found)
