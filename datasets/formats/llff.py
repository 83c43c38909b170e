"""LLFF data sets: poses_bounds.npy beside images/ and images_N/ (Mildenhall et al. 2019)."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from datasets.cameras.lens import Lens
from datasets.cameras.poses import around_look_at, checked_pose, mean_axes, moved
from datasets.cameras.rays import Cameras
from datasets.cameras.space import NDC
from datasets.formats.folders import best_folder, images_in
from datasets.formats.frames import Frame, load_views, split_frames
from datasets.formats.perturb import perturb_views
from datasets.load import LoadOptions, chosen_range, make_scene
from datasets.scene import GREY, Scene, View
from utils.errors import UserError

log = logging.getLogger(__name__)

FILE = "poses_bounds.npy"
# what NumPy raises on damaged files
DAMAGE = (OSError, ValueError, EOFError, SyntaxError, MemoryError, TokenError, BadZipFile)
NEAREST = 4 / 3  # where the nearest content lies once scaled, in distances of the near plane
FORWARD = math.cos(math.radians(45))  # cameras within this angle of their mean face forward
MARGIN = 0.05  # around the box of the warped rays, for cameras between and beside the given ones


def load_llff(root_dir: Path, options: LoadOptions) -> Scene:
    """Load images with poses and depth ranges as LLFF's tools write them.

    Forward-facing captures are turned to look along -z from around the origin, scaled so that the
    nearest content lies a third beyond the near plane, and warped to NDC; near and far are then
    distances along the warped rays.  Captures from around have the point that the cameras look at
    as origin, z up, and the cameras at mean distance 1.

    Args:
        root_dir: the folder with poses_bounds.npy and images, images_4 and so on; out of these
            the smallest size is taken that is not smaller than asked for.
        options: sizes, range, background, held-out views and `spheric_poses`.

    Raises:
        UserError: anything missing, unreadable or contradictory, naming the file or option.
    """
    c2w, sizes, ranges = _read(root_dir / FILE)
    images = _images(root_dir, options, len(c2w))
    spheric_poses = options.spheric_poses
    if spheric_poses is None:
        spheric_poses = not _faces_forward(c2w)
        log.info("%s: %s", root_dir, "seen from around" if spheric_poses else "forward-facing, NDC")
    frames = [
        Frame(path, pose, Lens(focal, focal, None, None, width, height), path.stem)
        for path, pose, (height, width, focal) in zip(images, c2w, sizes.tolist(), strict=True)
    ]
    splits = split_frames(root_dir, frames, options.hold_out)
    if not options.selection.takes_all:
        splits["train"] = options.selection.of(splits["train"])
        kept = {id(frame) for frame in splits["train"]}
        ranges = ranges[[id(frame) in kept for frame in frames]]
    origin, axes, scale = around_look_at(c2w) if spheric_poses else _forward(c2w, ranges)
    c2w = moved(c2w, origin, axes, scale)
    placed = {id(f): replace(f, c2w=pose) for f, pose in zip(frames, c2w, strict=True)}
    splits = {split: [placed[id(f)] for f in part] for split, part in splits.items()}
    views = load_views(splits, options.img_wh, options.background)
    if not spheric_poses:
        return _ndc_scene(root_dir, views, options)
    near, far = scale * float(ranges[:, 0].min()), scale * float(ranges[:, 1].max())
    return make_scene(root_dir, views, options, (near, far * _slant(views["train"])))


def _read(file: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Poses (V, 3, 4) with OpenGL axes; height, width and focal length (V, 3) in pixels; nearest
    and farthest depth (V, 2)."""
    try:
        table = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; is this an LLFF data set's folder?") from None
    except DAMAGE as error:
        raise UserError(f"{file}: not readable as an array ({error}); write it again") from None
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] != 17:
        shape = getattr(table, "shape", "of no one array")
        raise UserError(f"{file}: is {shape}; it has to be (images, 17), as LLFF's tools write it")
    if len(table) == 0 or table.dtype.kind not in "fiu" or not np.isfinite(table).all():
        raise UserError(f"{file}: has no rows, or NaN or infinite numbers; write it again")
    poses, ranges = table[:, :15].reshape(-1, 3, 5).astype(np.float64), table[:, 15:]
    # from (down, right, backwards) to (right, up, backwards)
    axes = np.stack([poses[:, :, 1], -poses[:, :, 0], poses[:, :, 2], poses[:, :, 3]], axis=2)
    c2w = [checked_pose(pose, f"{file}: row {i}", "pose") for i, pose in enumerate(axes)]
    if (poses[:, :, 4] <= 0).any():
        raise UserError(f"{file}: a height, width or focal length is not above 0; write it again")
    if (ranges[:, 0] <= 0).any() or (ranges[:, 0] >= ranges[:, 1]).any():
        raise UserError(f"{file}: the last two columns are no near and far above 0; write it again")
    return torch.stack(c2w), torch.from_numpy(poses[:, :, 4]), torch.from_numpy(ranges).float()


def _images(root_dir: Path, options: LoadOptions, count: int) -> list[Path]:
    """The images of the best size, as many as poses: their order is all that connects them."""
    folder = best_folder(root_dir / "images", options.img_wh)
    if folder is None:
        raise UserError(f"{root_dir}: has no images in images/ or images_N/; put them there")
    images = images_in(folder)
    if len(images) != count:
        raise UserError(
            f"{folder}: has {len(images)} images, but {root_dir / FILE} {count} poses; take out "
            "the images that have none, or use --dataset_name colmap where there is a sparse model"
        )
    return images


def _faces_forward(c2w: Tensor) -> bool:
    axes = mean_axes(c2w)
    return bool((c2w[:, :, 2] @ axes[:, 2] > FORWARD).all())


def _forward(c2w: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor, float]:
    """Origin, axes and scale with which the cameras look along -z from around the origin."""
    return c2w[:, :, 3].mean(dim=0), mean_axes(c2w), NEAREST / float(ranges[:, 0].min())


def _ndc_scene(root_dir: Path, views: dict[str, list[View]], options: LoadOptions) -> Scene:
    # masks would carve world space, and the bounds are those of warped space
    views = {s: [replace(view, alpha=None) for view in part] for s, part in views.items()}
    train = perturb_views(views["train"], options.data_perturb, options.background)
    every = [view for split in views.values() for view in split]
    fields = torch.tensor([[v.fx / v.width, v.fy / v.height] for v in every])
    if float((fields / fields[0] - 1).abs().max()) > 1e-3:
        raise UserError(
            f"{root_dir / FILE}: the images have several fields of view, which NDC cannot have; "
            "give --spheric_poses, or use --dataset_name colmap"
        )
    space = NDC.of(train[0])
    cameras = Cameras.of(every, 0.0, math.inf, space)
    ends, lengths = [], []
    for index, view in enumerate(every):
        row = torch.tensor([0, 0, view.height - 1, view.height - 1])
        column = torch.tensor([0, view.width - 1, 0, view.width - 1])
        rays = cameras.rays(index, row, column)
        if not bool((rays.far > 0).all()):
            raise UserError(
                f"{root_dir / FILE}: {view.name} does not face the way the others do; "
                "for a scene seen from around give --spheric_poses"
            )
        ends += [rays.origins, rays.origins + rays.far[:, None] * rays.directions]
        lengths.append(rays.far)
    corners = torch.cat(ends)
    lower, upper = corners.amin(dim=0), corners.amax(dim=0)
    margin = MARGIN * (upper - lower) * torch.tensor([1.0, 1.0, 0.0])
    near, far = chosen_range(root_dir, options, (0.0, float(torch.cat(lengths).max())))
    bounds = torch.stack([lower - margin, upper + margin])
    name = root_dir.resolve().name
    splits = (train, views["val"], views["test"])
    return Scene(name, *splits, near, far, bounds, torch.tensor(GREY), space)


def _slant(views: list[View]) -> float:
    """How much longer than its depth a ray is in an image's corner, at most."""
    return max(
        math.hypot(
            1.0,
            max(view.cx, view.width - view.cx) / view.fx,
            max(view.cy, view.height - view.cy) / view.fy,
        )
        for view in views
    )
