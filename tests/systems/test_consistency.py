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
from opt import EvalOptions
from systems.consistency import (
    CONSTANT,
    GAPS,
    TEXTURE,
    FeatureDistance,
    consistency_table,
    default_path,
    measure_consistency,
    score,
)
from tests.systems.test_warp import (
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


def test_noise_of_known_size_scores_that_size():
    generator = torch.Generator().manual_seed(1)
    cameras = plane_cameras(N)
    changes = {"noise": noisy(0.05, generator), "texture": noisy(0.02, generator)}
    found = score(plane_frames(cameras, 1, **changes), cameras, {})["gaps"]
    for gap in GAPS:
        assert found[gap]["pairs"] == N - gap
        assert found[gap]["coverage"] == pytest.approx((WIDTH - gap - 1) / WIDTH)
        row = found[gap]["pictures"]["noise"]
        # the difference of two pictures, each with its own noise
        assert row["rmse"] == pytest.approx(0.05 * math.sqrt(2), rel=0.05)
        # uniform noise against itself elsewhere: sqrt(1 / 6), and twice the noise
        size = math.sqrt(1 / 6 + 2 * 0.05**2)
        assert row["normalised"] == pytest.approx(0.05 * math.sqrt(2) / size, rel=0.1)
        assert row["of_floor"]["rmse"] == pytest.approx(2.5, rel=0.1)
        assert found[gap]["pictures"][TEXTURE]["of_floor"]["rmse"] == 1


def test_losing_contrast_does_not_improve_the_normalised_score():
    cameras = plane_cameras(N)
    noise = noisy(0.05, torch.Generator().manual_seed(1))
    faded = noisy(0.05, torch.Generator().manual_seed(1))
    changes = {"full": noise, "faded": lambda picture: 0.5 + 0.1 * (faded(picture) - 0.5)}
    pictures = score(plane_frames(cameras, 1, **changes), cameras, {})["gaps"][1]["pictures"]
    assert pictures["faded"]["rmse"] == pytest.approx(pictures["full"]["rmse"] / 10, rel=1e-3)
    assert pictures["faded"]["normalised"] == pytest.approx(
        pictures["full"]["normalised"], rel=1e-3
    )


def test_a_flat_picture_has_no_normalised_score():
    cameras = plane_cameras(N)
    report = score(plane_frames(cameras, 1, flat=lambda p: torch.full_like(p, 0.4)), cameras, {})
    row = report["gaps"][1]["pictures"]["flat"]
    assert row["normalised"] is None
    assert row["rmse"] < 1e-6
    line = next(x for x in consistency_table(report).splitlines() if "| flat" in x)
    assert line.count("n/a") == 3  # nor is it a multiple of the floor


def test_swapping_two_frames_changes_the_score():
    cameras = plane_cameras(N)
    frames = list(plane_frames(cameras, 1))
    before = score(frames, cameras, {})
    frames[1].pictures, frames[11].pictures = frames[11].pictures, frames[1].pictures
    after = score(frames, cameras, {})
    for gap in GAPS:
        rmse = [r["gaps"][gap]["pictures"][TEXTURE]["rmse"] for r in (before, after)]
        assert rmse[0] < 1e-6
        assert rmse[1] > 0.02


def test_pairs_that_hardly_overlap_are_dropped_and_counted():
    cameras = plane_cameras(N, 3)
    found = score(plane_frames(cameras, 3), cameras, {})["gaps"]
    # of 32 columns 28 are left, 10 and 1; 10 are 31 %
    assert [(found[gap]["pairs"], found[gap]["dropped"]) for gap in GAPS] == [
        (N - 1, 0),
        (N - 7, 0),
        (0, N - 10),
    ]
    assert found[10]["coverage"] is None
    assert "gap 10: 0 pairs, coverage n/a, 3 dropped" in consistency_table({"gaps": found})
    short = plane_cameras(5)
    found = score(plane_frames(short, 1), short, {})["gaps"]
    assert (found[7]["pairs"], found[7]["dropped"]) == (0, 0)


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
    renderer, cameras = renderer_of("voxels", raw=12.0), looking_at_origin(SPACES["world"], 9)
    cameras = cameras.resized(48, 36)

    def unsteady(feature, x, d, code):
        """A texture that moves as the viewing direction does."""
        return 0.5 + 0.5 * torch.sin(8 * x + 40 * d)

    found = measure_consistency(renderer, cameras, {"unsteady": unsteady}, {}, nullcontext(), 500)
    assert (found["gaps"][1]["pairs"], found["gaps"][7]["pairs"]) == (8, 2)
    for gap in (1, 7):
        rows = found["gaps"][gap]["pictures"]
        assert found["gaps"][gap]["coverage"] > 0.5
        assert rows[TEXTURE]["normalised"] < 0.15
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
