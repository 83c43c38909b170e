"""The option --path: the camera path it names, and nerfstudio's camera-path files."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from datasets.cameras.paths import cameras_in, circle_path, interpolated_path, spiral_path
from datasets.cameras.poses import checked_pose
from datasets.cameras.rays import Cameras
from datasets.cameras.spline import CameraSpline
from datasets.formats.names import PATHS
from datasets.scene import Scene
from utils.errors import UserError
from utils.files import read_text, replacing

log = logging.getLogger(__name__)

FRAMES = 60  # of a path that does not say how many
LARGEST = 16384  # pixels of an image's side
LARGEST_FILE = 64 << 20  # bytes


class PathOptions(Protocol):
    """The options that say which path."""

    path: str
    path_views: tuple[str, ...]
    n_frames: int | None
    img_wh: tuple[int, int] | None
    given: frozenset[str]


def cameras_along(scene: Scene, options: PathOptions) -> tuple[Cameras, float | None]:
    """The cameras of ``--path``, and its frames per second, if it says.

    Raises:
        UserError: a file or a choice of views that makes no path.
    """
    n_frames = options.n_frames or FRAMES
    if options.path == "circle":
        return circle_path(scene, n_frames), None
    if options.path == "spiral":
        return spiral_path(scene, n_frames), None
    if options.path == "interpolate":
        return interpolated_path(scene, n_frames, options.path_views), None
    img_wh = options.img_wh if "img_wh" in options.given else None
    return read_camera_path(Path(options.path).expanduser(), scene, options.n_frames, img_wh)


def read_camera_path(
    file: Path, scene: Scene, n_frames: int | None = None, img_wh: tuple[int, int] | None = None
) -> tuple[Cameras, float | None]:
    """The cameras of a camera path as nerfstudio's viewer and its Blender add-on save it.

    The poses are taken as they are, OpenGL axes, in the coordinates of the scene: those of the
    transforms.json that `export.py cameras` writes.  They are the data set's own, but for llff,
    whose scenes are moved, turned and scaled when loaded; a path is not adapted to that, and
    nerfstudio's own normalisation is not undone.

    Args:
        file: JSON with camera_path: a list of camera_to_world (16 numbers, row by row) and fov
            (vertical, degrees); render_width, render_height, and perhaps fps and is_cycle.
        scene: the scene.
        n_frames: number of frames in place of the file's, evenly in time along the same path.
        img_wh: image size in place of the file's, with the same vertical field of view.

    Returns:
        The cameras, and the file's frames per second; None where it has none.

    Raises:
        UserError: no such path, or one of other than perspective cameras.
    """
    data = _read(file)
    width, height = img_wh or (
        round(_number(data, key, str(file), 0.5, LARGEST))
        for key in ("render_width", "render_height")
    )
    entries = data.get("camera_path")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{file}: has no cameras in camera_path; save the path again")
    if data.get("crop"):
        log.warning("%s: its crop is not applied", file)
    default = {"fov": data.get("default_fov")}
    cameras = [
        _camera(default | entry if isinstance(entry, dict) else {}, f"{file}: camera {i}", height)
        for i, entry in enumerate(entries)
    ]
    c2w = torch.stack([pose for pose, _ in cameras])
    lens = torch.tensor([[f, f, width / 2, height / 2] for _, f in cameras])
    fps = _number(data, "fps", str(file), 0.0, 1e4) if data.get("fps") is not None else None
    if n_frames is not None and n_frames != len(c2w):
        c2w, lens = _resampled(c2w, lens, n_frames, bool(data.get("is_cycle")))
    return cameras_in(scene, c2w, lens, height, width), fps


def write_camera_path(file: Path, cameras: Cameras, fps: float, closed: bool) -> None:
    """Writes a camera path that `read_camera_path`, and nerfstudio, read.

    Args:
        file: JSON; its folder is made as needed.
        cameras: at least one, all of one image size, the lens's axis in the middle of the image.
        fps: frames per second.
        closed: whether the path goes on from the last camera to the first.

    Raises:
        UserError: the file cannot be written.
    """
    height, width = cameras.sizes[0].tolist()
    entries = []
    for c2w, focal in zip(cameras.c2w, cameras.intrinsics[:, 1].tolist(), strict=True):
        fov = 2 * math.degrees(math.atan(height / 2 / focal))
        matrix = [*c2w.flatten().tolist(), 0.0, 0.0, 0.0, 1.0]
        entries.append({"camera_to_world": matrix, "fov": fov, "aspect": width / height})
    content = {
        "camera_type": "perspective",
        "render_width": width,
        "render_height": height,
        "fps": fps,
        "seconds": len(entries) / fps,
        "is_cycle": closed,
        "camera_path": entries,
    }
    with replacing(file) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def _resampled(c2w: Tensor, lens: Tensor, n_frames: int, closed: bool) -> tuple[Tensor, Tensor]:
    """The same path in ``n_frames`` frames."""
    if len(c2w) == 1:
        return c2w.repeat(n_frames, 1, 1), lens.repeat(n_frames, 1)
    spline = CameraSpline(c2w, lens, np.arange(len(c2w) + closed, dtype=np.float64))
    return spline.at(spline.in_time(n_frames))


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(file, LARGEST_FILE))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON ({error}); save the path again") from None
    if not isinstance(data, dict) or "camera_path" not in data:
        raise UserError(
            f"{file}: is no camera path, it has no camera_path; give a file that nerfstudio's "
            f"viewer has saved, or one of {', '.join(PATHS)}"
        )
    kind = data.get("camera_type", "perspective")
    if str(kind).lower() != "perspective":
        raise UserError(
            f"{file}: camera_type {kind!r} is not known; set it to perspective in the viewer and "
            "save the path again"
        )
    return data


def _camera(entry: dict[str, Any], where: str, height: int) -> tuple[Tensor, float]:
    """Pose (3, 4) and focal length in pixels of one entry of camera_path."""
    matrix = entry.get("camera_to_world")
    if isinstance(matrix, list) and len(matrix) == 16:
        matrix = [matrix[row : row + 4] for row in range(0, 16, 4)]
    pose = checked_pose(matrix, where, "camera_to_world")
    fov = _number(entry, "fov", where, 0.0, 180.0)
    return pose, height / 2 / math.tan(math.radians(fov) / 2)


def _number(data: dict[str, Any], key: str, where: str, low: float, high: float) -> float:
    """A number between ``low`` and ``high``, both excluded."""
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise UserError(
            f"{where}: {key} is {value!r}; it has to be a number between {low:g} and {high:g}"
        )
    return float(value)
