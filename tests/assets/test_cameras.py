"""Cameras out and in again: by our own loaders, and by COLMAP's definition of its text files."""

import json

import numpy as np
import pytest
import torch

from assets.cameras import write_cameras
from datasets.load import load_scene
from opt import parse_eval

Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def load(directory):
    return load_scene(parse_eval(["--ckpt_path", "x", "--root_dir", str(directory)]))


@pytest.fixture
def scene(tiny_scene_dir):
    return load(tiny_scene_dir)


def read_colmap(model):
    """Name -> (3, 4) world-to-camera, and (width, height, fx, fy, cx, cy)."""
    rows = [r.split() for r in (model / "cameras.txt").read_text().splitlines() if r[0] != "#"]
    lenses = {row[0]: tuple(map(float, row[2:])) for row in rows}
    lines = [r for r in (model / "images.txt").read_text().splitlines() if not r.startswith("#")]
    views = {}
    for line in lines[::2]:
        _, *numbers, camera, name = line.split()
        w, x, y, z, *t = map(float, numbers)
        turn = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        views[name] = np.column_stack([turn, t]), lenses[camera]
    assert all(line == "" for line in lines[1::2])
    return views


def test_our_loader_reads_the_same_scene(scene, tmp_path):
    write_cameras(tmp_path, scene, np.eye(3), photos=True)
    again = load(tmp_path)
    for split in ("train", "val", "test"):
        pairs = zip(getattr(scene, split), getattr(again, split), strict=True)
        for a, b in pairs:
            assert torch.allclose(a.c2w, b.c2w, atol=1e-6)
            assert (a.fx, a.fy, a.cx, a.cy) == pytest.approx((b.fx, b.fy, b.cx, b.cy))
            assert torch.equal(a.alpha, b.alpha)
            assert (a.image.int() - b.image.int()).abs().max() <= 1


def test_one_file_has_all_splits(scene, tmp_path):
    paths = write_cameras(tmp_path, scene, np.eye(3), photos=False)
    data = json.loads((tmp_path / "transforms.json").read_text())
    assert len(data["frames"]) == 12
    assert [len(data[f"{s}_filenames"]) for s in ("train", "val", "test")] == [8, 2, 2]
    assert {f["file_path"] for f in data["frames"]} >= set(data["test_filenames"])
    assert all(path.is_file() for path in paths)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("rotation", [np.eye(3), Y_UP])
def test_colmap_projects_a_point_to_the_same_pixel(scene, rotation, tmp_path):
    write_cameras(tmp_path, scene, rotation, photos=False)
    views = read_colmap(tmp_path / "sparse" / "0")
    assert len(views) == 12
    point = np.array([0.2, -0.1, 0.4])
    for view in scene.train:
        pose, (width, height, fx, fy, cx, cy) = views[f"train/{view.name}.png"]
        x, y, z = pose @ [*(rotation @ point), 1]
        right, up, back = (point - view.c2w[:, 3].numpy()) @ view.c2w[:, :3].numpy()
        assert z == pytest.approx(-back, abs=1e-5)
        assert fx * x / z + cx == pytest.approx(view.cx - view.fx * right / back, abs=1e-3)
        assert fy * y / z + cy == pytest.approx(view.cy + view.fy * up / back, abs=1e-3)
        assert (width, height) == (view.width, view.height)
