"""COLMAP captures: a folder of images and a sparse model."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from torch import Tensor

from datasets.cameras.poses import checked_pose
from datasets.cameras.rays import Cameras
from datasets.formats.colmap_model import SparseModel, count_images, has_model, read_model
from datasets.formats.folders import (
    below,
    best_folder,
    frames_in_size,
    images_in,
    with_any_extension,
)
from datasets.formats.frames import Frame, distinct_names, load_views, split_frames
from datasets.load import LoadOptions, make_scene, named
from datasets.scene import Scene, View
from utils.errors import UserError

log = logging.getLogger(__name__)

MODEL_FOLDERS = ("sparse", "colmap/sparse", "")  # below the scene's folder
OUTLIERS = 1e-3  # share of the points seen by a view that are ignored at either end
SLACK = 0.1  # the range of rays is wider than that of the points by this share


def load_colmap(root_dir: Path, options: LoadOptions) -> Scene:
    """Load the images that a COLMAP model has poses for; those without are named and left out.

    Of several models (sparse/0, sparse/1, ...) the one with the most images is taken.  Images
    are undistorted.  near and far come from the sparse points.

    Args:
        root_dir: the folder with images/ (or images_N/) and sparse/.
        options: sizes, range, background and held-out views.

    Returns:
        The scene, in the model's own units and axes.

    Raises:
        UserError: anything missing, unreadable or contradictory, naming the file or option.
    """
    model = read_model(largest_model(root_dir))
    frames = _frames(root_dir, model)
    frames = frames_in_size(root_dir, frames, options.img_wh)
    splits = split_frames(root_dir, frames, options.hold_out)
    splits["train"] = options.selection.of(splits["train"])
    views = load_views(splits, options.img_wh, options.background)
    points = torch.from_numpy(model.points).float()
    every = [*views["train"], *views["val"], *views["test"]]
    return make_scene(root_dir, views, options, range_of_points(every, points))


def largest_model(root_dir: Path) -> Path:
    """The folder of the model with the most images below ``root_dir``.

    Raises:
        UserError: there is none.
    """
    for name in MODEL_FOLDERS:
        folder = root_dir / name
        inner = sorted(folder.iterdir()) if name and folder.is_dir() else []
        models = [path for path in (folder, *inner) if has_model(path)]
        if not models:
            continue
        counts = {path: count_images(path) for path in models}
        best = max(models, key=lambda path: counts[path])
        if len(models) > 1:
            others = named([f"{p.name}: {n}" for p, n in counts.items() if p != best])
            log.warning("%s: the model with %d images is used, not %s", best, counts[best], others)
        return best
    raise UserError(
        f"{root_dir}: has no COLMAP model; it needs cameras and images (.bin or .txt) in sparse/0"
    )


def range_of_points(views: list[View], points: Tensor) -> tuple[float, float] | None:
    """near and far that hold the points (P, 3) which the views see, but for `OUTLIERS`; None
    where no view sees any."""
    nearest, farthest = [], []
    cameras = Cameras.of(views, 0.0, math.inf)
    for index in range(len(cameras)):
        seen = cameras.project(index, points)[2]
        distances = (points[seen] - cameras.c2w[index, :, 3]).norm(dim=1).sort().values
        if len(distances):
            skipped = int(OUTLIERS * len(distances))
            nearest.append(float(distances[skipped]))
            farthest.append(float(distances[-1 - skipped]))
    if not nearest:
        return None
    return min(nearest) * (1.0 - SLACK), max(farthest) * (1.0 + SLACK)


def _frames(root_dir: Path, model: SparseModel) -> list[Frame]:
    """The registered images that are there; messages name the others."""
    folder = best_folder(root_dir / "images", None)
    if folder is None:
        raise UserError(f"{root_dir}: has no images in images/ or images_N/; put them there")
    if (root_dir / "images").is_dir() and images_in(root_dir / "images"):
        folder = root_dir / "images"
    if not model.images:
        raise UserError(f"{model.folder}: has no registered images; run COLMAP's mapper again")
    frames, missing = [], []
    for image in model.images:
        path = with_any_extension(below(folder, image.name, str(model.folder)))
        if path is None:
            missing.append(image.name)
            continue
        where = f"{model.folder}: {image.name}"
        c2w = checked_pose(image.camera_to_world(), where, "pose")
        frames.append(Frame(path, c2w, model.lenses[image.camera], path.stem))
    if missing:
        log.warning("%s: %d images are missing, left out: %s", folder, len(missing), named(missing))
    if not frames:
        raise UserError(
            f"{folder}: has none of the {len(missing)} images of {model.folder}, whose first is "
            f"{missing[0]}; put them there under the names that COLMAP saw"
        )
    posed = {frame.path for frame in frames}
    unposed = [path.relative_to(folder) for path in images_in(folder) if path not in posed]
    if unposed:
        log.warning(
            "%s: %d images have no pose, left out: %s", folder, len(unposed), named(unposed)
        )
    return distinct_names(root_dir, frames)
