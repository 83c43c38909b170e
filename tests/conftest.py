"""A tiny data set with known answers: an analytic sphere, seen by cameras around it."""

import json
import math
import os

import numpy as np
import pytest
from PIL import Image

from utils.threads import spin_briefly

# before PyTorch is imported; for networks as small as those of the tests a second thread only waits
os.environ.setdefault("OMP_NUM_THREADS", "1")
spin_briefly()

SPHERE_CENTRE = np.array([0.1, -0.15, 0.2])
SPHERE_RADIUS = 0.7
CAMERA_DISTANCE = 3.0
CAMERA_ANGLE_X = 0.9
COUNTS = {"train": 8, "val": 2, "test": 2}
SUBPIXELS = 4


def orbit_pose(index, count):
    """Camera-to-world (4, 4) of a camera on a spiral over the sphere's upper side, facing it."""
    azimuth, elevation = 2.4 * index, 0.1 + 0.9 * index / count
    backward = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(backward, right), backward], axis=1)
    pose[:3, 3] = SPHERE_CENTRE + CAMERA_DISTANCE * backward
    return pose


def render_sphere(pose, width, height, fx, fy):
    """RGBA (H, W, 4) uint8 of the sphere, coloured by its normal; black where alpha is 0."""
    n = SUBPIXELS
    column, row = np.meshgrid((np.arange(width * n) + 0.5) / n, (np.arange(height * n) + 0.5) / n)
    local = np.stack(
        [(column - width / 2) / fx, (height / 2 - row) / fy, -np.ones_like(row)], axis=-1
    )
    direction = local @ pose[:3, :3].T
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    arm = pose[:3, 3] - SPHERE_CENTRE
    half_b = direction @ arm
    discriminant = half_b**2 - (arm @ arm - SPHERE_RADIUS**2)
    distance = -half_b - np.sqrt(np.maximum(discriminant, 0.0))
    normal = (arm + distance[..., None] * direction) / SPHERE_RADIUS
    hit = (discriminant > 0)[..., None]
    layer = np.concatenate([(0.5 + 0.4 * normal) * hit, hit], axis=-1)
    layer = layer.reshape(height, n, width, n, 4).mean(axis=(1, 3))
    color = layer[..., :3] / np.maximum(layer[..., 3:], 1e-9)
    return np.rint(255 * np.concatenate([color, layer[..., 3:]], axis=-1)).astype(np.uint8)


def write_sphere_scene(
    root,
    width=24,
    height=20,
    counts=COUNTS,
    extension=".png",
    mode="RGBA",
    named_extension="",
    prefix="./",
    lens=None,
):
    """Write the sphere as a Blender data set.

    Args:
        root: the folder, made as needed.
        width, height: pixels.
        counts: views per split; a split left out gets no transforms file.
        extension: of the image files, which decides their format.
        mode: Pillow mode of the image files; without alpha the sphere lies over white.
        named_extension: what file_path has for an extension.
        prefix: what file_path starts with.
        lens: top-level entries in place of camera_angle_x; fl_x and fl_y are followed.

    Returns:
        root.
    """
    lens = {"camera_angle_x": CAMERA_ANGLE_X} if lens is None else lens
    fx = lens.get("fl_x", 0.5 * width / math.tan(0.5 * CAMERA_ANGLE_X))
    fy = lens.get("fl_y", fx)
    total, index = sum(counts.values()), 0
    for split, count in counts.items():
        (root / split).mkdir(parents=True, exist_ok=True)
        frames = []
        for i in range(count):
            pose = orbit_pose(index, total)
            index += 1
            image = Image.fromarray(render_sphere(pose, width, height, fx, fy))
            if mode != "RGBA":
                white = Image.new("RGBA", image.size, (255, 255, 255, 255))
                image = Image.alpha_composite(white, image).convert(mode)
            image.save(root / split / f"r_{i}{extension}", quality=100, subsampling=0)
            frames.append(
                {
                    "file_path": f"{prefix}{split}/r_{i}{named_extension}",
                    "transform_matrix": pose.tolist(),
                }
            )
        text = json.dumps({**lens, "frames": frames})
        (root / f"transforms_{split}.json").write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def two_threads():
    """PyTorch computes in two threads, whose order differs from run to run."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def short_warm_up():
    """Painting begins with recoloured photos, of which a step draws 4096 pixels: eight times as
    many as a view has here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("systems.style_task.RECOLOUR_RAYS", 256)
        yield


@pytest.fixture
def tiny_scene_dir(tmp_path):
    """A Blender RGBA data set, 24 x 20 pixels: 8 training, 2 validation and 2 test views."""
    return write_sphere_scene(tmp_path / "sphere")


@pytest.fixture
def write_scene():
    """The function that writes variations of the tiny data set, see `write_sphere_scene`."""
    return write_sphere_scene


@pytest.fixture
def sphere():
    """Centre (3,) and radius of the sphere in the tiny data set."""
    return SPHERE_CENTRE, SPHERE_RADIUS
