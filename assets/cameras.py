"""The cameras of a scene as the field sees it: transforms.json and COLMAP's text files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor

from assets.colours import premultiplied
from assets.job import Job
from datasets.scene import Scene, View
from utils.files import replacing
from utils.images import to_uint8

SPLITS = ("train", "val", "test")
OPENCV = np.diag([1.0, -1.0, -1.0])  # y down and looking along z, from OpenGL's axes

Named = tuple[str, View]  # the image's path below images/, and the view


def export_cameras(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """Writes the cameras of all splits, and their photos if asked for.

    Returns:
        The files, and entries for the report.

    Raises:
        UserError: a file cannot be written.
    """
    axes, rotation = job.orientation(job.options.axes)
    directory = job.directory / f"{job.options.name}_cameras"
    paths = write_cameras(directory, job.scene, rotation, job.options.images)
    return paths, {"axes": axes, "views": {s: len(getattr(job.scene, s)) for s in SPLITS}}


def write_cameras(directory: Path, scene: Scene, rotation: np.ndarray, photos: bool) -> list[Path]:
    """Writes the cameras of all splits.

    ``transforms.json`` has every view, with the lists of names that nerfstudio splits by;
    ``transforms_{train,val,test}.json`` make the folder a Blender data set; ``sparse/0`` is
    COLMAP's model in text, without points.  The images they name lie in ``images/SPLIT``.

    Args:
        directory: for all of them.
        rotation: (3, 3) applied to the world.
        photos: write the images, too, as PNG; with alpha where there is one.

    Returns:
        The files, without the images.

    Raises:
        UserError: a file cannot be written.
    """
    views = [(f"{s}/{view.name}.png", view) for s in SPLITS for view in getattr(scene, s)]
    if photos:
        for name, view in views:
            with replacing(directory / "images" / name) as partial:
                image = straight(view, scene.background).cpu().numpy()
                Image.fromarray(image).save(partial)
    paths = []
    for split in (None, *SPLITS):
        part = [item for item in views if split is None or item[0].startswith(f"{split}/")]
        path = directory / ("transforms.json" if split is None else f"transforms_{split}.json")
        if part:
            text = json.dumps(transforms(part, scene, rotation), indent=1) + "\n"
            paths.append(_written(path, text))
    for name, text in colmap(views, rotation).items():
        paths.append(_written(directory / "sparse" / "0" / name, text))
    return paths


def _written(path: Path, text: str) -> Path:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def turned(c2w: Tensor, rotation: np.ndarray) -> np.ndarray:
    """Camera-to-world (4, 4) of a pose (3, 4), in a world turned by ``rotation (3, 3)``."""
    pose = np.eye(4)
    pose[:3] = rotation @ c2w.double().cpu().numpy()
    return pose


def transforms(views: list[Named], scene: Scene, rotation: np.ndarray) -> dict[str, Any]:
    """What a transforms.json says of the views: OpenGL axes, intrinsics in pixels, each its own."""
    frames = [
        {
            "file_path": f"images/{name}",
            "fl_x": view.fx,
            "fl_y": view.fy,
            "cx": view.cx,
            "cy": view.cy,
            "w": view.width,
            "h": view.height,
            "transform_matrix": turned(view.c2w, rotation).tolist(),
        }
        for name, view in views
    ]
    lists = {split: [name for name, _ in views if name.startswith(split)] for split in SPLITS}
    corners = scene.bounds.double().cpu().numpy() @ rotation.T
    place = {
        "near": scene.near,
        "far": scene.far,
        "bounds": [corners.min(0).tolist(), corners.max(0).tolist()],
    }
    return {
        "camera_model": "OPENCV",
        # in NDC it would be of warped space, and not of the cameras'
        **({} if scene.space.forward_facing else place),
        **{f"{s}_filenames": [f"images/{n}" for n in names] for s, names in lists.items() if names},
        "frames": frames,
    }


def colmap(views: list[Named], rotation: np.ndarray) -> dict[str, str]:
    """COLMAP's cameras.txt, images.txt and points3D.txt, by name.

    Cameras are PINHOLE; poses are world-to-camera, quaternion w x y z and translation, OpenCV axes.
    """
    known: dict[tuple, int] = {}
    images = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of 2-D points (none)"]
    for number, (name, view) in enumerate(views, start=1):
        camera = (view.width, view.height, view.fx, view.fy, view.cx, view.cy)
        camera_id = known.setdefault(camera, len(known) + 1)
        pose = turned(view.c2w, rotation)
        turn = OPENCV @ pose[:3, :3].T
        x, y, z, w = Rotation.from_matrix(turn).as_quat()
        numbers = [w, x, y, z, *(-turn @ pose[:3, 3])]
        words = " ".join(repr(float(value)) for value in numbers)
        images += [f"{number} {words} {camera_id} {name}", ""]
    cameras = ["# CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY"]
    cameras += [f"{i} PINHOLE {' '.join(map(repr, camera))}" for camera, i in known.items()]
    return {
        "cameras.txt": "\n".join([*cameras, ""]),
        "images.txt": "\n".join([*images, ""]),
        "points3D.txt": "# POINT3D_ID X Y Z R G B ERROR TRACK[] (none)\n",
    }


def straight(view: View, background: Tensor) -> Tensor:
    """A view's pixels (H, W, 3) uint8, or (H, W, 4) with straight alpha where it has one."""
    if view.alpha is None:
        return view.image
    layer = premultiplied(view, background)
    colour = (layer[..., :3] / layer[..., 3:].clamp(min=1 / 255)).clamp(max=1)
    return torch.cat([to_uint8(colour), view.alpha[..., None]], -1)
