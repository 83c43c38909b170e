import pytest
import torch

from datasets.formats.perturb import occlude, perturb_views, shift_colours
from datasets.scene import View
from utils.errors import UserError

WHITE = torch.ones(3)


def make_view(height=24, width=32, alpha=None, level=128):
    image = torch.full((height, width, 3), level, dtype=torch.uint8)
    return View(image, alpha, torch.eye(4)[:3], 1.0, 1.0, 0.0, 0.0, "v")


@pytest.mark.parametrize("kinds", [("color",), ("occ",), ("color", "occ")])
def test_first_view_stays_and_the_others_change(kinds):
    views = [make_view() for _ in range(4)]
    perturbed = perturb_views(views, kinds, WHITE)
    assert torch.equal(perturbed[0].image, views[0].image)
    for i in range(1, 4):
        assert not torch.equal(perturbed[i].image, views[i].image)
        assert (views[i].image == 128).all()  # the given views are not written to
    assert not torch.equal(perturbed[1].image, perturbed[2].image)
    again = perturb_views(views, kinds, WHITE)
    for one, other in zip(perturbed, again, strict=True):
        assert torch.equal(one.image, other.image)


def test_no_kinds_change_nothing():
    views = [make_view() for _ in range(3)]
    assert perturb_views(views, (), WHITE) == views


def test_unknown_kind():
    with pytest.raises(UserError, match="--data_perturb: 'noise' is unknown; use color or occ"):
        perturb_views([make_view()], ["noise"], WHITE)


@pytest.mark.parametrize("seed", range(1, 6))
def test_color_is_affine_within_its_ranges(seed):
    """From levels that do not clip, scale and shift of each channel are recovered."""
    low, high = (
        shift_colours(make_view(level=level), seed, WHITE).image[0, 0].double() / 255
        for level in (64, 166)
    )
    scale = (high - low) / ((166 - 64) / 255)
    shift = low - scale * 64 / 255
    assert ((scale > 0.79) & (scale < 1.21)).all()
    assert ((shift > -0.21) & (shift < 0.21)).all()
    assert scale.max() - scale.min() > 1e-3  # every channel has its own


@pytest.mark.parametrize("level", [0, 255])
def test_color_clips(level):
    for seed in range(1, 6):
        image = shift_colours(make_view(level=level), seed, WHITE).image.float()
        step = (image - level).abs().max()
        assert step <= 0.2 * 255 + 0.2 * level + 1  # a wrapped value would be far off


def test_color_leaves_the_background():
    """Half-covered pixels change by half, those without alpha not at all."""
    alpha = torch.zeros(24, 32, dtype=torch.uint8)
    alpha[:, 10:20], alpha[:, 20:] = 128, 255
    share = alpha[..., None].float() / 255
    view = make_view(alpha=alpha)
    view.image = (255 * (share * 0.5 + 1 - share)).round().byte()
    image = shift_colours(view, 3, WHITE).image.float() / 255
    assert (image[:, :10] == 1.0).all()
    expected = share[0, 15] * image[0, 25] + 1 - share[0, 15]
    assert (image[0, 15] - expected).abs().max() < 1.5 / 255


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (48, 48), (3, 50), (1, 1)])
def test_occluder_is_a_striped_square_in_the_middle_half(height, width):
    for seed in range(1, 8):
        view = make_view(height, width, alpha=torch.zeros(height, width, dtype=torch.uint8))
        got = occlude(view, seed)
        rows, columns = got.alpha.nonzero(as_tuple=True)
        side = max(1, min(height, width) // 4)
        assert len(rows) == side * side
        for index, length in ((rows, height), (columns, width)):
            assert index.max() - index.min() == side - 1
            assert index.min() >= length // 4
            assert index.max() <= max(length // 4, 3 * length // 4)
        square = got.image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (square == square[:1]).all()  # vertical stripes
        assert len(square[0].unique(dim=0)) == min(10, side)
        outside = got.alpha == 0
        assert (got.image[outside] == 128).all()
        assert (got.alpha[~outside] == 255).all()


def test_occluder_without_alpha():
    got = occlude(make_view(), 1)
    assert got.alpha is None
    assert (got.image != 128).any(dim=-1).sum() == 36
