"""The measure of consistency: frames with known errors, and a rendered field."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.cameras.camera_path import cameras_along
from datasets.formats.blender import load_blender
from datasets.load import LoadOptions
from features.network import FeatureNetwork, Layer
from measures.consistency import (
    ALONE,
    CONSTANT,
    GAPS,
    PHOTOGRAPHS,
    TEXTURE,
    FeatureDistance,
    Warp,
    consistency_table,
    default_path,
    frames_by_hand,
    measure_consistency,
    measure_photographs,
    path_pairs,
    photo_pairs,
    score,
)
from measures.flow import flow_correspondence
from opt import EvalOptions
from tests.models.test_warp import (
    HEIGHT,
    SPACES,
    WIDTH,
    looking_at_origin,
    plane_cameras,
    plane_frame,
    renderer_of,
)

N = 13


def noisy(sigma, generator):
    return lambda picture: picture + sigma * torch.randn(picture.shape, generator=generator)


def plane_frames(cameras, pixels, **changes):
    """Frames of a plane with a texture that moves by so many pixels; each picture is the texture
    after a change."""
    texture = torch.rand(HEIGHT, WIDTH + N * pixels, 3, generator=torch.Generator().manual_seed(0))
    for view in range(len(cameras)):
        shown = texture[:, view * pixels : view * pixels + WIDTH]
        pictures = {name: change(shown) for name, change in changes.items()}
        pictures[TEXTURE] = pictures.pop("texture", shown)
        yield plane_frame(cameras, view, pictures)


def by_gap(frames, cameras):
    return score(frames, cameras, path_pairs(len(cameras)), {})["geometry"]


def test_the_pairs_of_a_path():
    pairs = path_pairs(60)
    assert {gap: len(found) for gap, found in pairs.items()} == {1: 19, 7: 17, 10: 16}
    assert pairs[7][0] == (9, 2)
    assert all(t - s == gap and t % 3 == 0 for gap, found in pairs.items() for t, s in found)
    views = frames_by_hand(pairs)
    assert len(views) == 8
    for target in (t for t in views if t - 1 in views and t % 3 == 0):
        assert {target - gap for gap in GAPS} <= views
    assert frames_by_hand(path_pairs(5)) == {2, 3}


def test_noise_of_known_size_scores_that_size():
    generator = torch.Generator().manual_seed(1)
    cameras = plane_cameras(N)
    changes = {"noise": noisy(0.05, generator), "texture": noisy(0.02, generator)}
    found = by_gap(plane_frames(cameras, 1, **changes), cameras)
    for gap, pairs in ((1, 4), (7, 2), (10, 1)):
        assert (found[gap]["pairs"], found[gap]["doubt"]) == (pairs, None)
        assert found[gap]["coverage"] == pytest.approx((WIDTH - gap - 1) / WIDTH)
        row = found[gap]["pictures"]["noise"]
        # the difference of two pictures, each with its own noise
        assert row["rmse"] == pytest.approx(0.05 * math.sqrt(2), rel=0.05)
        # uniform noise against itself elsewhere: sqrt(1 / 6), and twice the noise
        size = math.sqrt(1 / 6 + 2 * 0.05**2)
        assert row["misregistration"] == pytest.approx(size, rel=0.05)
        assert row["of_floor"]["rmse"] == pytest.approx(2.5, rel=0.1)
        assert found[gap]["pictures"][TEXTURE]["of_floor"]["rmse"] == 1
    rows = found[1]["pictures"]
    assert rows["noise"]["normalised"] > 1.1 * rows[TEXTURE]["normalised"]


def test_a_flat_picture_has_no_normalised_score():
    cameras = plane_cameras(N)
    gaps = by_gap(plane_frames(cameras, 1, flat=lambda p: torch.full_like(p, 0.4)), cameras)
    row = gaps[1]["pictures"]["flat"]
    assert row["normalised"] is None
    assert row["rmse"] < 1e-6
    line = next(x for x in consistency_table(gaps).splitlines() if "| flat" in x)
    assert line.count("n/a") == 3  # nor is it a multiple of the floor


def test_swapping_two_frames_changes_the_score():
    cameras = plane_cameras(N)
    frames = list(plane_frames(cameras, 1))
    before = by_gap(frames, cameras)
    frames[2].pictures, frames[9].pictures = frames[9].pictures, frames[2].pictures
    after = by_gap(frames, cameras)
    for gap in GAPS:
        rmse = [r[gap]["pictures"][TEXTURE]["rmse"] for r in (before, after)]
        assert rmse[0] < 1e-6
        assert rmse[1] > 0.02


def test_pairs_that_hardly_overlap_are_dropped_and_the_table_says_so():
    cameras = plane_cameras(N, 3)
    found = by_gap(plane_frames(cameras, 3), cameras)
    # of 32 columns 28 are left, 10 and 1; 10 are 31 %
    counts = [(found[gap]["pairs"], found[gap]["dropped"]) for gap in GAPS]
    assert counts == [(4, 0), (2, 0), (0, 1)]
    assert found[10]["coverage"] == pytest.approx(1 / 32)
    assert "| n/a: 3% of the pixels meet" in consistency_table(found)
    short = plane_cameras(5)
    found = by_gap(plane_frames(short, 1), short)
    assert (found[7]["pairs"], found[7]["dropped"]) == (0, 0)
    assert "n/a: no two frames are so far apart" in consistency_table(found)


def test_a_warp_that_errs_is_not_trusted():
    """Its floor, the solid texture, does not fit itself any more."""
    cameras = plane_cameras(N)
    astray = noisy(1.0, torch.Generator().manual_seed(1))
    found = by_gap(plane_frames(cameras, 1, style=lambda p: p, texture=astray), cameras)
    assert found[1]["doubt"].startswith("the warp alone scores 0.")
    table = consistency_table({1: found[1]})
    assert "n/a: the warp alone scores 0." in table
    assert "style" not in table


def test_what_lies_below_the_floor_shows_that_it_is_none():
    cameras = plane_cameras(N)
    noise = noisy(0.05, torch.Generator().manual_seed(1))
    changes = {"steady": lambda p: p, "texture": noise}
    gaps = by_gap(plane_frames(cameras, 1, **changes), cameras)
    assert (gaps[1]["doubt"], gaps[1]["below_floor"]) == (None, "steady")
    assert gaps[1]["pictures"]["steady"]["of_floor"] == {}
    assert "gap 1: steady lies below the solid texture" in consistency_table(gaps)
    gaps = by_gap(plane_frames(cameras, 1, shaky=noise), cameras)
    assert gaps[1]["below_floor"] is None
    assert "below" not in consistency_table(gaps)


def test_a_picture_that_some_frames_lack_is_compared_where_it_is():
    cameras = plane_cameras(N)
    frames = list(plane_frames(cameras, 1))
    for view in (5, 6, 8, 12):
        frames[view].pictures[ALONE] = frames[view].pictures[TEXTURE] + 0.1 * (view % 2)
    rows = by_gap(frames, cameras)[1]["pictures"]
    assert (rows[TEXTURE]["pairs"], rows[ALONE]["pairs"]) == (4, 1)  # 6 and 5 alone
    assert rows[ALONE]["rmse"] == pytest.approx(0.1, rel=1e-4)


def test_flow_finds_what_geometry_finds():
    """A flow that is right, and one that does not lead back."""
    cameras = plane_cameras(N)
    pairs = path_pairs(N)

    def flow(a, b, back=-1.0):
        """The plane moves by a pixel a frame; a picture's red says which frame it is."""
        by = 20 * (a[0, 0, 0] - b[0, 0, 0])
        there = torch.stack([by.expand(HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH)], -1)
        return there if by > 0 else -back * there

    def frames():
        for frame in plane_frames(cameras, 1):
            frame.pictures["number"] = torch.full((HEIGHT, WIDTH, 3), frame.view / 20)
            yield frame

    good = Warp(flow_correspondence(flow, "number"))
    bad = Warp(flow_correspondence(lambda a, b: flow(a, b, 1.0), "number"), every=6)
    found = score(frames(), cameras, pairs, {}, {"good": good, "bad": bad})
    geometry = score(frames(), cameras, pairs, {})["geometry"]
    for gap in GAPS:
        assert found["good"][gap]["coverage"] == pytest.approx(geometry[gap]["coverage"])
        assert found["good"][gap]["pictures"][TEXTURE]["rmse"] < 1e-5
    assert [found["bad"][gap]["dropped"] for gap in GAPS] == [2, 1, 1]  # of 6 and 12
    assert found["bad"][1]["doubt"] == "0% of the pixels meet"


class Pixels(FeatureNetwork):
    """The colours themselves, and their mean over 2 x 2 pixels."""

    name = "pixels"

    def __init__(self):
        super().__init__()
        self.layers, self.roles = {"fine": Layer(3, 1, 0), "coarse": Layer(3, 2, 0)}, {}

    def forward(self, image, layers):
        found = {"fine": image, "coarse": torch.nn.functional.avg_pool2d(image, 2)}
        return {layer: found[layer] for layer in layers}


def test_feature_distance_counts_the_mask_alone():
    distance = FeatureDistance(Pixels(), ["fine", "coarse"])
    a, b = torch.zeros(8, 8, 3), torch.zeros(8, 8, 3)
    a[..., 0], b[..., 1] = 0.7, 0.2  # at right angles: |e_1 - e_2|^2 = 2, whatever their lengths
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :4] = True
    assert distance(a, b, mask) == pytest.approx(2)
    b[:, :4] = 0.3 * a[:, :4]
    assert distance(a, b, mask) == pytest.approx(0, abs=1e-6)
    half = b.clone()
    half[:4, :4] = torch.tensor([0.0, 0.2, 0.0])
    assert distance(a, half, mask) == pytest.approx(1)


def test_a_field_that_changes_with_the_view_scores_worse_than_a_solid_texture():
    """On an opaque block; a flat colour has nothing that could be out of place."""
    renderer, cameras = renderer_of("voxels", raw=12.0), looking_at_origin(SPACES["world"], 10)
    cameras = cameras.resized(48, 36)

    def unsteady(feature, x, d, code):
        """A texture that moves as the viewing direction does."""
        return 0.5 + 0.5 * torch.sin(8 * x + 40 * d)

    found = measure_consistency(renderer, cameras, {"unsteady": unsteady}, {}, nullcontext(), 500)
    gaps = found["geometry"]["gaps"]
    assert (gaps[1]["pairs"], gaps[7]["pairs"]) == (3, 1)
    for gap in (1, 7):
        rows = gaps[gap]["pictures"]
        assert gaps[gap]["coverage"] > 0.5
        assert rows[TEXTURE]["normalised"] < 0.2
        assert rows["unsteady"]["of_floor"]["normalised"] > 2
        assert rows[CONSTANT]["normalised"] is None


def test_the_default_path_suits_the_space(tiny_scene_dir):
    scene = load_blender(tiny_scene_dir, LoadOptions())
    for space, name in (("world", "circle"), ("contracted", "interpolate"), ("ndc", "spiral")):
        scene = replace(scene, space=SPACES[space])
        path = default_path(scene)
        options = EvalOptions(ckpt_path=Path("none.ckpt"), path=path)
        cameras, _ = cameras_along(scene, options)
        assert (len(cameras), path) == (60, name)
        cameras, _ = cameras_along(scene, replace(options, n_frames=12))
        assert len(cameras) == 12


def test_photographs_are_compared_with_their_neighbours(tiny_scene_dir):
    scene = load_blender(tiny_scene_dir, LoadOptions())
    views, pairs = photo_pairs(scene.train)
    assert len(views) == 16
    for target, source in pairs[PHOTOGRAPHS]:
        position = [views[i].c2w[:, 3] for i in (target, source)]
        apart = [float((position[0] - v.c2w[:, 3]).norm()) for v in scene.train]
        assert float((position[0] - position[1]).norm()) == pytest.approx(sorted(apart)[1])
    renderer = renderer_of("voxels", raw=12.0)
    found = measure_photographs(renderer, scene, {"own": renderer.field.style}, {}, nullcontext())
    assert found["pairs"] + found["dropped"] == 8
    rows = found["pictures"]
    assert {*rows} == {"own", TEXTURE, CONSTANT, PHOTOGRAPHS}
    assert rows[TEXTURE]["normalised"] < rows[PHOTOGRAPHS]["normalised"]
    assert photo_pairs(scene.train[:1])[1] == {PHOTOGRAPHS: []}
