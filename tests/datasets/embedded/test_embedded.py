"""The embedded demo: exact geometry, a valid data set, a painting, and the same bytes each time."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.cameras.rays import Cameras
from datasets.embedded import write as demo
from datasets.embedded.painting import paint, write_demo_painting
from datasets.embedded.scene import (
    RADIUS,
    camera,
    render,
    surface_distance,
    trace,
    write_demo_scene,
)
from datasets.embedded.toys import FLOOR, PARTS, ball, block, rings, taper
from datasets.scene import View
from utils.errors import UserError

SMALL = {"size": (20, 14), "n_train": 3, "n_val": 1, "n_test": 2}
BEACH_BALL = torch.tensor([0.42, -0.4, FLOOR + 0.37], dtype=torch.float64)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "scene"
    write_demo_scene(directory, **SMALL)
    return directory


def test_depth_of_a_ray_straight_at_a_ball_is_distance_minus_radius():
    outward = torch.nn.functional.normalize(torch.tensor([[0.5, -0.6, 0.5]]).double(), dim=-1)
    rgb, depth, hit = trace(BEACH_BALL + 3 * outward, -outward)
    assert hit.all()
    assert depth.item() == pytest.approx(3 - 0.37, abs=2e-5)
    assert 0 < rgb.min() <= rgb.max() <= 1


def test_depth_of_rays_at_a_ball_is_the_root_of_the_quadratic():
    generator = torch.Generator().manual_seed(0)
    origin = BEACH_BALL + torch.tensor([1.5, -2.0, 1.5], dtype=torch.float64)
    jitter = 0.2 * (torch.rand(50, 3, generator=generator, dtype=torch.float64) - 0.5)
    directions = torch.nn.functional.normalize(BEACH_BALL + jitter - origin, dim=-1)
    _, depth, hit = trace(origin.expand(50, 3), directions)
    b = (directions * (origin - BEACH_BALL)).sum(-1)
    c = (origin - BEACH_BALL).square().sum() - 0.37**2
    assert hit.all()
    torch.testing.assert_close(depth, -b - (b * b - c).sqrt(), atol=5e-5, rtol=0)


def test_a_ray_from_below_meets_the_flat_underside_of_the_plinth():
    _, depth, hit = trace(torch.tensor([[0.3, 0.2, -3.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    assert hit.all()
    assert depth.item() == pytest.approx(3 + FLOOR - 0.2, abs=2e-5)


def test_a_ray_that_misses_has_infinite_depth_and_no_colour():
    rgb, depth, hit = trace(torch.tensor([[4.0, 0.0, 3.0]]), torch.tensor([[-1.0, 0.0, 0.0]]))
    assert not hit.any()
    assert depth.isinf().all()
    assert rgb.eq(0).all()


def test_every_hit_lies_on_the_surface_and_nothing_stands_before_it():
    generator = torch.Generator().manual_seed(1)
    origins = RADIUS * torch.nn.functional.normalize(
        torch.randn(400, 3, generator=generator, dtype=torch.float64), dim=-1
    )
    targets = torch.rand(400, 3, generator=generator, dtype=torch.float64) - 0.5
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    _, depth, hit = trace(origins, directions)
    assert hit.sum() > 200
    points = origins[hit] + depth[hit, None] * directions[hit]
    assert surface_distance(points).abs().max() < 2e-5
    for fraction in (0.5, 0.9, 0.97):
        before = origins[hit] + fraction * depth[hit, None] * directions[hit]
        assert surface_distance(before).min() > 0


@pytest.mark.parametrize(
    ("shape", "point", "expected"),
    [
        (ball(0.5), (0.0, 3.0, 4.0), 4.5),
        (block(1.0, 0.2), (3.0, 0.0, 0.5), 2.0),
        (block(1.0, 0.2), (2.8, 2.8, 0.0), 2 * math.sqrt(2) - 0.2),
        (rings((2.0, 0.5, 0.0)), (0.0, 0.0, 0.0), 1.5),
        (rings((2.0, 0.5, 0.0)), (5.0, 0.0, 4.0), 4.5),
        (taper(0.5, 0.5, 2.0), (3.0, 0.0, 0.7), 2.5),
        (taper(0.5, 0.25, 2.0), (0.0, 0.0, 3.0), 1.75),
    ],
)
def test_shapes_know_their_distance(shape, point, expected):
    got = shape(torch.tensor(point, dtype=torch.float64)[:, None])
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_all_parts_lie_in_the_stated_box():
    axis = torch.linspace(-2, 2, 41)
    grid = torch.cartesian_prod(axis, axis, axis)
    inside = grid[surface_distance(grid) <= 0]
    assert len(inside) > 100
    assert inside.abs().max() <= 1.2
    assert len(PARTS) >= 8


def test_light_from_the_other_side_changes_the_shading_but_not_the_geometry():
    view, n = camera(20, 40), 200
    origins = view[:3, 3].expand(n, 3)
    targets = torch.rand(n, 3, generator=torch.Generator().manual_seed(2)).double() - 0.5
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    rgb, depth, _ = trace(origins, directions)
    other, same, _ = trace(
        origins, directions, torch.tensor([-0.5, 0.5, 0.2]).double().expand(n, 3)
    )
    assert torch.equal(depth, same)
    assert (rgb - other).abs().mean() > 0.02


def test_cameras_look_at_the_centre_from_the_stated_elevations():
    elevations = []
    for i in range(40):
        pose = camera(i, 40)
        rotation, position = pose[:3, :3], pose[:3, 3]
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
        assert torch.linalg.det(rotation).item() == pytest.approx(1)
        assert position.norm().item() == pytest.approx(RADIUS)
        torch.testing.assert_close(-rotation[:, 2] * RADIUS + position, torch.zeros(3).double())
        assert rotation[2, 1] > 0
        elevations.append(math.degrees(math.asin(position[2] / RADIUS)))
    assert -5 <= min(elevations) < 0
    assert 65 < max(elevations) <= 75


def test_pictures_agree_with_the_rays_of_the_cameras(tmp_path):
    scene = tmp_path / "scene"
    write_demo_scene(scene, size=(72, 54), n_train=2, n_val=1, n_test=1)
    meta = json.loads((scene / "transforms_train.json").read_text())
    rgba = torch.from_numpy(np.array(Image.open(scene / "train" / "r_1.png")))
    height, width = rgba.shape[:2]
    focal = 0.5 * width / math.tan(0.5 * meta["camera_angle_x"])
    c2w = torch.tensor(meta["frames"][1]["transform_matrix"])[:3]
    view = View(rgba[..., :3], rgba[..., 3], c2w, focal, focal, width / 2, height / 2, "r_1")
    rays = Cameras.of([view], 2.0, 6.0).view_rays(0)
    rgb, depth, hit = trace(rays.origins, rays.directions)
    whole, empty = rgba[..., 3].flatten() == 255, rgba[..., 3].flatten() == 0
    assert hit[whole].all()
    assert not hit[empty].any()
    assert ((depth[hit] > 2) & (depth[hit] < 6)).all()
    shown = rgba.reshape(-1, 4)[whole, :3] / 255
    truth = rgb[whole] ** (1 / 2.2)
    assert (shown - truth).abs().mean() < 0.07
    assert (shown - truth.roll(3, 0)).abs().mean() > 0.14  # three pixels aside is another picture


def test_coverage_is_partial_at_edges_and_fills_a_good_part():
    alpha = render(camera(20, 40), (40, 40))[..., 3]
    assert 0.2 < (alpha == 255).float().mean() < 0.6
    assert 0.3 < (alpha == 0).float().mean() < 0.75
    assert 0.01 < ((alpha > 0) & (alpha < 255)).float().mean() < 0.2
    assert alpha[0].max() == alpha[-1].max() == alpha[:, 0].max() == alpha[:, -1].max() == 0


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_the_scene_stays_in_the_picture_when_it_is_not_square(size):
    rgba = render(camera(10, 40), size)
    assert rgba.shape == (size[1], size[0], 4)
    alpha = rgba[..., 3]
    assert alpha[0].max() == alpha[-1].max() == alpha[:, 0].max() == alpha[:, -1].max() == 0
    assert alpha.max() == 255


def test_strips_do_not_change_a_picture(monkeypatch):
    whole = render(camera(5, 40), (16, 12))
    monkeypatch.setattr("datasets.embedded.scene.CHUNK", 16 * 9 * 5)
    difference = (whole.int() - render(camera(5, 40), (16, 12)).int()).abs()
    assert difference.max() <= 1


def test_the_data_set_has_the_blender_format(scene):
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        meta = json.loads((scene / f"transforms_{split}.json").read_text())
        assert meta["camera_angle_x"] == pytest.approx(2 * math.atan(20 / 14 * math.tan(0.345)))
        assert len(meta["frames"]) == count
        for i, frame in enumerate(meta["frames"]):
            assert frame["file_path"] == f"./{split}/r_{i}"
            matrix = np.array(frame["transform_matrix"])
            assert matrix.shape == (4, 4)
            assert matrix[3].tolist() == [0, 0, 0, 1]
            image = Image.open(scene / f"{frame['file_path']}.png")
            assert (image.mode, image.size) == ("RGBA", (20, 14))
    assert [p.name for p in scene.parent.iterdir()] == ["scene"]


def test_the_splits_look_from_different_places(scene):
    places = [
        tuple(np.array(frame["transform_matrix"])[:3, 3].round(3))
        for split in ("train", "val", "test")
        for frame in json.loads((scene / f"transforms_{split}.json").read_text())["frames"]
    ]
    assert len(set(places)) == 6


def test_the_same_options_give_the_same_bytes_and_another_seed_others(scene, tmp_path):
    write_demo_scene(tmp_path / "again", **SMALL)
    assert files(tmp_path / "again") == files(scene)
    write_demo_scene(tmp_path / "other", **SMALL, seed=1)
    assert files(tmp_path / "other") != files(scene)


def test_a_complete_data_set_is_reused_without_a_write(scene):
    before = {path: path.stat().st_mtime_ns for path in scene.rglob("*")}
    write_demo_scene(scene, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in scene.rglob("*")} == before


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(pose, size, world, calls=[]):  # noqa: B006
        calls.append(pose)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render(pose, size)

    monkeypatch.setattr("datasets.embedded.scene.render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_demo_scene(tmp_path / "scene", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_foreign_contents_are_never_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="something other than this demo scene"):
        write_demo_scene(tmp_path, **SMALL)
    assert files(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("wrong", [{"size": (0, 8)}, {"n_val": 0}])
def test_impossible_options_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match="at least 1"):
        write_demo_scene(tmp_path / "scene", **{**SMALL, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_demo_scene(tmp_path / "file" / "scene", **SMALL)
    with pytest.raises(UserError, match="cannot be written"):
        write_demo_painting(tmp_path / "file" / "painting.png", (8, 6))


def test_the_painting_uses_the_whole_palette():
    picture = paint((96, 72)).astype(np.float64) / 255
    assert picture.shape == (72, 96, 3)
    red, green, blue = np.moveaxis(picture, -1, 0)
    assert (blue > red + 0.3).mean() > 0.15  # ultramarine and cerulean
    assert ((red > 0.7) & (green > 0.5) & (blue < 0.4)).mean() > 0.05  # ochre and cadmium yellow
    assert ((red > 0.65) & (green < 0.45) & (blue < 0.35)).mean() > 0.004  # vermilion
    assert (picture.min(axis=-1) > 0.65).mean() > 0.005  # off-white
    assert picture.std(axis=(0, 1)).min() > 0.15


def test_the_painting_has_brushwork_at_every_scale():
    grey = paint((96, 72)).mean(axis=-1) / 255
    for step in (1, 3, 8):
        coarse = grey.reshape(72 // step, step, 96 // step, step).mean(axis=(1, 3))
        assert np.abs(np.diff(coarse, axis=0)).mean() > 0.03
        assert np.abs(np.diff(coarse, axis=1)).mean() > 0.02
    # strokes are longer than they are wide: in the field, which lies, rows differ more than columns
    field = grey[62:]
    assert np.abs(np.diff(field, axis=0)).mean() > 1.2 * np.abs(np.diff(field, axis=1)).mean()


def test_the_painting_is_a_function_of_its_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_demo_painting(tmp_path / name, (24, 16), seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
    assert Image.open(tmp_path / "a").size == (24, 16)


@pytest.mark.parametrize("size", [(1, 1), (7, 3)])
def test_tiny_paintings_work(size):
    assert paint(size).shape == (size[1], size[0], 3)


def test_a_painting_without_pixels_is_refused(tmp_path):
    with pytest.raises(UserError, match="positive"):
        write_demo_painting(tmp_path / "p.png", (0, 3))


def test_write_demo_writes_both_and_keeps_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "write_demo_scene", lambda d: write_demo_scene(d, **SMALL))
    monkeypatch.setattr(demo, "write_demo_painting", lambda p: write_demo_painting(p, (16, 12)))
    scene, painting = demo.write_demo(tmp_path / "new")
    assert (scene, painting) == (tmp_path / "new" / "scene", tmp_path / "new" / "painting.png")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*")}
    assert demo.write_demo(tmp_path / "new") == (scene, painting)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*")} == before


def test_the_command_prints_two_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "write_demo", lambda d: (d / "scene", d / "painting.png"))
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path)])
    demo.main()
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "scene"), str(tmp_path / "painting.png")
    ]  # fmt: skip


def test_the_command_ends_a_mistake_with_one_line_and_code_2(tmp_path, monkeypatch, capsys):
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "notes.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {tmp_path / 'scene'}: ")
    assert message.count("\n") == 1
