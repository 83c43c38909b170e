"""Few views: which ones, and that nothing of the others reaches the scene."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from datasets.load import LoadOptions, chosen_range, load_scene, shows_background
from datasets.selection import Selection
from opt import parse_train
from tests.conftest import COUNTS, write_sphere_scene
from utils.errors import UserError


def load(root, *words):
    argv = ["--stage", "geometry", "--root_dir", str(root), *words]
    return load_scene(parse_train(argv))


def names(scene):
    return [view.name for view in scene.train]


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """A data set of 100 tiny training photos."""
    root = tmp_path_factory.mktemp("hundred")
    return write_sphere_scene(root, 6, 5, {"train": 100, "test": 1})


def test_eight_of_a_hundred_are_diet_nerfs(hundred):
    scene = load(hundred, "--few_shot", "8", "--shuffle_seed", "0")
    assert names(scene) == [f"r_{i}" for i in (26, 86, 2, 55, 75, 93, 16, 73)]
    assert names(load(hundred, "--few_shot", "8", "--shuffle_seed", "1")) != names(scene)
    assert len(scene.test) == 1


@pytest.mark.parametrize(("words", "one_place"), [("--views 0", True), ("--views 0 3", False)])
def test_photos_from_one_place_say_nothing_about_depth(tiny_scene_dir, caplog, words, one_place):
    load(tiny_scene_dir, *words.split())
    assert ("taken from one place" in caplog.text) == one_place


def test_a_camera_that_turns_on_the_spot_finds_no_distances(tmp_path):
    with pytest.raises(UserError, match="all cameras are in one place"):
        chosen_range(tmp_path, LoadOptions(), (0.0, 0.0))


def test_named_views_in_their_order(tiny_scene_dir):
    assert names(load(tiny_scene_dir, "--views", "r_5", "0", "r_2", "5")) == ["r_5", "r_0", "r_2"]


def test_left_and_right_share_the_first_camera_alone(tiny_scene_dir):
    left = names(load(tiny_scene_dir, "--occluded", "left"))
    right = names(load(tiny_scene_dir, "--occluded", "right"))
    assert set(left) | set(right) == {f"r_{i}" for i in range(COUNTS["train"])}
    assert set(left) & set(right) == {"r_0"}
    scene = load(tiny_scene_dir)
    # every camera on the left is on the left side of the first image
    first = scene.train[0]
    for view in scene.train:
        local = (view.c2w[:, 3] - first.c2w[:, 3]) @ first.c2w[:, :3]
        if view.name != "r_0":
            assert (local[0] < 0) == (view.name in left)
    assert len(load(tiny_scene_dir, "--occluded", "left", "--few_shot", "2").train) == 2


@pytest.mark.parametrize("mode", ["RGBA", "RGB"])
def test_what_is_left_out_is_never_seen(tmp_path, mode):
    """Damaging every other photo and its mask changes nothing."""
    root = write_sphere_scene(tmp_path, mode=mode)
    words = ("--few_shot", "3")
    before = load(root, *words)
    for i in range(COUNTS["train"]):
        if f"r_{i}" not in names(before):
            (root / "train" / f"r_{i}.png").write_bytes(b"no image")
    after = load(root, *words)
    assert names(after) == names(before)
    assert torch.equal(after.bounds, before.bounds)
    assert (after.near, after.far) == (before.near, before.far)


def test_llff_ranges_of_other_views_are_not_read(tmp_path):
    import numpy as np

    poses = np.zeros((6, 17))
    for i in range(6):
        matrix = np.zeros((3, 5))
        matrix[:, :3] = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]  # (down, right, backwards)
        matrix[:, 3] = [0.1 * i, 0.03 * i * i, 0]
        matrix[:, 4] = [37, 53, 60]
        poses[i] = [*matrix.flatten(), 2.0, 9.0]
    (tmp_path / "images").mkdir()
    for i in range(6):
        Image.fromarray(np.full((37, 53, 3), 40 * i, np.uint8)).save(
            tmp_path / "images" / f"p_{i}.png"
        )
    np.save(tmp_path / "poses_bounds.npy", poses)
    words = ("--views", "p_1", "p_2", "p_4", "--hold_out", "0")
    scene = load(tmp_path, *words)
    assert names(scene) == ["p_1", "p_2", "p_4"]
    assert scene.space.forward_facing
    poses[[0, 3, 5], 15] = 0.1
    np.save(tmp_path / "poses_bounds.npy", poses)
    assert torch.equal(load(tmp_path, *words).train[0].c2w, scene.train[0].c2w)
    assert not torch.equal(load(tmp_path, "--hold_out", "0").bounds, scene.bounds)


def test_photos_on_white_are_bounded_by_what_all_of_them_show(tmp_path, sphere):
    """Without masks: a box around the sphere, and far smaller than that of the cameras."""
    root = write_sphere_scene(tmp_path, mode="RGB")
    scene = load(root)
    centre, radius = torch.from_numpy(sphere[0]).float(), sphere[1]
    assert (scene.bounds[0] < centre - radius).all()
    assert (scene.bounds[1] > centre + radius).all()
    assert float((scene.bounds[1] - scene.bounds[0]).max()) < 4.0  # cameras: 6 from side to side
    assert not shows_background(scene.train, scene.background)
    for rows, surrounded in ((4, False), (20, True)):  # an object that leaves the picture, a place
        views = [replace(view, image=view.image.clone()) for view in scene.train]
        for view in views:
            view.image[-rows:, 0] = view.image[-rows:, -1] = 90
        assert shows_background(views, scene.background) == surrounded


def test_without_hull_alpha_is_no_mask(tmp_path):
    with_alpha, without = (
        load(write_sphere_scene(tmp_path / mode, mode=mode), "--no-hull")
        for mode in ("RGBA", "RGB")
    )
    assert not with_alpha.has_alpha
    assert torch.equal(with_alpha.bounds, without.bounds)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--few_shot", "9"), "training photos: 8; give a smaller number"),
        (("--views", "r_77"), "--views r_77: no training photo"),
    ],
)
def test_impossible_selections(tiny_scene_dir, words, says):
    with pytest.raises(UserError, match=says):
        load(tiny_scene_dir, *words)


def test_eval_sees_the_same_views(tiny_scene_dir):
    """The selection says which scene it is: a later stage takes it over with the scene."""
    from opt import SCENE

    assert {"few_shot", "shuffle_seed", "views", "occluded", "hull"} <= set(SCENE)
    assert Selection().takes_all and LoadOptions().selection.takes_all
    frames = json.loads((tiny_scene_dir / "transforms_train.json").read_text())["frames"]
    assert len(load(tiny_scene_dir).train) == len(frames)
