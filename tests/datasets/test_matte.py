"""Masks made from a plain background: what is surely outside, surely inside, and neither."""

import pytest
import torch
from PIL import Image

from datasets.formats.blender import load_blender as load
from datasets.load import LoadOptions
from datasets.matte import UNKNOWN, cut_out, reached_from_sides
from datasets.scene import View
from tests.conftest import write_sphere_scene
from utils.errors import UserError

WHITE = torch.ones(3)


def photo(image):
    height, width = image.shape[:2]
    return View(image, None, torch.eye(4)[:3], 9.0, 9.0, width / 2, height / 2, "v")


def flooded(free):
    """Pixel by pixel."""
    height, width = free.shape
    reached = torch.zeros_like(free)
    sides = [(i, j) for i in range(height) for j in (0, width - 1)]
    todo = sides + [(i, j) for i in (0, height - 1) for j in range(width)]
    while todo:
        i, j = todo.pop()
        if 0 <= i < height and 0 <= j < width and free[i, j] and not reached[i, j]:
            reached[i, j] = True
            todo += [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
    return reached


@pytest.mark.parametrize("seed", range(6))
def test_reached_as_pixel_by_pixel(seed):
    g = torch.Generator().manual_seed(seed)
    free = torch.rand(31, 23, generator=g) < 0.62  # near the percolation threshold: winding ways
    found, plain = reached_from_sides(free), flooded(free)
    assert torch.equal(found, plain)
    assert 0 < int(plain.sum()) < int(free.sum())


def test_outside_inside_and_neither():
    image = torch.full((20, 20, 3), 255, dtype=torch.uint8)
    image[0, 0] = 254  # a level of noise
    image[4:16, 4:16] = torch.tensor([250, 200, 30], dtype=torch.uint8)
    image[9:11, 9:11] = 255  # as white as the background, but within
    image[4:16, 15] = torch.tensor([254, 250, 240], dtype=torch.uint8)  # pale, or a mixed edge
    alpha = cut_out(photo(image), WHITE).alpha
    expected = torch.zeros(20, 20, dtype=torch.uint8)
    expected[4:16, 4:16] = UNKNOWN
    expected[5:15, 5:14] = 255  # a pixel away from all that may be background
    expected[8:12, 8:12] = UNKNOWN
    assert torch.equal(alpha, expected)


def test_the_background_may_have_another_colour():
    image = torch.full((9, 9, 3), 51, dtype=torch.uint8)
    image[3:6, 3:6] = 255
    alpha = cut_out(photo(image), torch.full((3,), 0.2)).alpha
    assert alpha[4, 4] == 255 and int((alpha > 0).sum()) == 9


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_scene_without_masks_gets_nearly_the_box_of_one_with_them(tmp_path, mode):
    write_sphere_scene(tmp_path / "masks", 60, 50)
    write_sphere_scene(tmp_path / "photos", 60, 50, mode=mode)
    masks = load(tmp_path / "masks", LoadOptions())
    bare = load(tmp_path / "photos", LoadOptions(hull=False))
    cut = load(tmp_path / "photos", LoadOptions(hull=False, matte=True))
    assert masks.has_alpha and cut.has_alpha and not bare.has_alpha
    cell = (masks.bounds[1] - masks.bounds[0]).max() / 20
    assert (cut.bounds - masks.bounds).abs().max() < cell
    assert (bare.bounds - masks.bounds).abs().max() > 2 * cell
    kept = load(tmp_path / "masks", LoadOptions(matte=True))
    assert all(torch.equal(a.alpha, b.alpha) for a, b in zip(kept.train, masks.train, strict=True))


def test_photos_full_of_scene_are_left_as_they_are(tmp_path, caplog):
    write_sphere_scene(tmp_path / "s", 60, 50, mode="RGB", lens=None)
    scene = load(tmp_path / "s", LoadOptions(matte=True, background=(0.0, 0.0, 0.0)))
    assert scene.surrounds and not scene.has_alpha
    assert "--matte makes no masks" in caplog.text


@pytest.mark.parametrize(
    ("blank", "words"),
    [([2], r"nothing but plain background on r_2; leave it out"), (range(3), r"r_0, .*--no-matte")],
)
def test_a_photo_of_nothing_does_not_carve_the_object_away(tmp_path, blank, words):
    write_sphere_scene(tmp_path / "s", 20, 16, {"train": 3, "val": 1, "test": 1}, mode="RGB")
    for number in blank:
        Image.new("RGB", (20, 16), "white").save(tmp_path / "s/train" / f"r_{number}.png")
    with pytest.raises(UserError, match=words):
        load(tmp_path / "s", LoadOptions(matte=True))
