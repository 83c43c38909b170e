"""The same cameras, written in each format, give the same rays."""

import importlib
import shutil

import pytest
import torch

from datasets.cameras.rays import Cameras
from datasets.cameras.space import WORLD, Contracted
from datasets.formats.names import FORMATS
from datasets.load import load_scene
from opt import parse_eval
from utils.errors import UserError


def load(root, *more):
    options = parse_eval(["--ckpt_path", "x", "--root_dir", str(root), *more])
    return options.dataset_name, load_scene(options)


def rays_of(scene):
    """Rays of all pixels of every view, by name."""
    views = {view.name: view for view in (*scene.train, *scene.test)}
    cameras = Cameras.within(scene, [views[name] for name in sorted(views)])
    return [cameras.view_rays(i) for i in range(len(cameras))]


WRITERS = {
    "transforms": lambda c, s, r: c.transforms(s, r),
    "transforms per frame": lambda c, s, r: c.transforms(s, r, per_frame=True),
    "colmap binary": lambda c, s, r: c.colmap(s, r),
    "colmap text": lambda c, s, r: c.colmap(s, r, binary=False),
    "colmap at nerfstudio's place": lambda c, s, r: c.colmap(s, r, folder="colmap/sparse/0"),
    "colmap without number": lambda c, s, r: c.colmap(s, r, folder="sparse"),
    "llff": lambda c, s, r: c.llff(s, r),
}


@pytest.mark.parametrize("name", WRITERS)
def test_same_rays_and_images(tmp_path, captures, source, name):
    reference = load(source)[1]
    found, scene = load(WRITERS[name](captures, source, tmp_path / "capture"))
    assert found == name.split()[0]
    assert scene.name == "capture"
    assert [v.name for v in scene.test] == [v.name for v in reference.test]
    for a, b in zip(rays_of(reference), rays_of(scene), strict=True):
        if found == "llff":
            b = in_the_system_of(reference, scene, b)
        torch.testing.assert_close(a.origins, b.origins, atol=2e-5, rtol=0)
        torch.testing.assert_close(a.view_directions, b.view_directions, atol=1e-5, rtol=0)
    for a, b in zip(reference.train, scene.train, strict=True):
        assert b.alpha is None
        assert (a.image.int() - b.image.int()).abs().max() <= 1
    assert scene.space is WORLD  # all is white around the sphere


def in_the_system_of(reference, scene, rays):
    """Undo LLFF's similarity transform, which the first two cameras tell."""
    a, b = ([view.c2w for view in s.train[:2]] for s in (reference, scene))
    scale = (a[1] - a[0])[:, 3].norm() / (b[1] - b[0])[:, 3].norm()
    turn = a[0][:, :3] @ b[0][:, :3].T
    rays.origins = scale * (rays.origins - b[0][:, 3]) @ turn.T + a[0][:, 3]
    rays.view_directions = rays.view_directions @ turn.T
    return rays


def test_the_first_sign_counts(tmp_path, captures, source):
    root = captures.colmap(source, tmp_path / "capture")
    assert load(root)[0] == "colmap"
    shutil.copy(captures.llff(source, tmp_path / "llff") / "poses_bounds.npy", root)
    assert load(root)[0] == "llff"
    shutil.copy(captures.transforms(source, tmp_path / "t") / "transforms.json", root)
    assert load(root)[0] == "transforms"
    assert load(root, "--dataset_name", "colmap")[0] == "colmap"


def test_white_alone_is_no_background(tmp_path, captures, source):
    root = captures.transforms(source, tmp_path / "capture")
    from PIL import Image

    for path in (root / "images").iterdir():
        image = Image.open(path)
        Image.composite(
            Image.new("RGB", image.size, (90, 120, 150)),
            image,
            image.convert("L").point(lambda v: 255 * (v > 250)),
        ).save(path)
    assert isinstance(load(root)[1].space, Contracted)


def test_nothing_to_load(tmp_path):
    with pytest.raises(UserError, match="not a scene, it has none of transforms_train"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["auto", *FORMATS])
def test_no_such_directory(tmp_path, name):
    with pytest.raises(UserError, match=r"none: no such directory.*--root_dir"):
        load(tmp_path / "none", "--dataset_name", name)


def test_every_format_is_loaded_by_a_function_of_its_own_file():
    for name, (loader, signs) in FORMATS.items():
        module, function = loader.split(":")
        assert callable(getattr(importlib.import_module(module), function))
        assert module.endswith(f".{name}")
        assert signs


def test_photos_without_poses(tmp_path, captures, source):
    root = captures.transforms(source, tmp_path / "capture")
    (root / "transforms.json").unlink()
    with pytest.raises(UserError, match=r"no camera poses; find them with: python prepare\.py"):
        load(root)
