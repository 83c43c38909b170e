import pytest
import torch

from datasets.pixels import TrainingPixels
from datasets.scene import View
from utils.errors import UserError

SIZES = [(4, 6), (3, 3), (5, 2)]


@pytest.fixture
def views():
    """Views of different sizes whose pixels tell (view, row, column)."""
    made = []
    for v, (height, width) in enumerate(SIZES):
        image = torch.zeros(height, width, 3, dtype=torch.uint8)
        image[..., 0] = v
        image[..., 1] = torch.arange(height)[:, None]
        image[..., 2] = torch.arange(width)
        made.append(View(image, None, torch.eye(4)[:3], 1.0, 1.0, 0.0, 0.0, str(v)))
    return made


@pytest.fixture
def pixels(views):
    return TrainingPixels.of(views)[0]


def test_every_pixel_is_located(pixels):
    flat = torch.arange(len(pixels))
    assert len(pixels) == sum(h * w for h, w in SIZES)
    assert pixels.rgb.dtype == torch.uint8
    assert torch.equal(torch.stack(pixels.locate(flat), dim=1), pixels.rgb.long())
    assert torch.equal(pixels.colours(flat), pixels.rgb.float() / 255)


def test_one_copy_of_each_photo_for_those_who_go_on_with_the_returned_views(views):
    before = [view.image for view in views]
    pixels, shared = TrainingPixels.of(views)
    assert all(view.image is image for view, image in zip(views, before, strict=True))
    for view, other, start in zip(views, shared, pixels.offsets.tolist(), strict=False):
        assert torch.equal(other.image, view.image)
        assert other.image.data_ptr() == pixels.rgb[start].data_ptr()
        assert other.name == view.name


def test_draw_is_uniform_over_all_pixels(pixels):
    drawn = pixels.draw(43_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=len(pixels))
    assert counts.shape == (43,)
    assert counts.min() > 850  # 1000 expected, standard deviation 31
    assert counts.max() < 1150


def test_draw_is_a_function_of_the_generator(pixels):
    first, again, other = (pixels.draw(50, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_candidates_limit_the_draw(pixels, dtype):
    pixels.candidates = torch.tensor([3, 17, 42], dtype=dtype)
    drawn = pixels.to("cpu").draw(200, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    assert drawn.unique().tolist() == [3, 17, 42]


def test_crop_draws_the_centre_of_each_view(pixels):
    drawn = pixels.draw(2000, torch.Generator().manual_seed(0), crop=0.5)
    found = {tuple(pixel) for pixel in torch.stack(pixels.locate(drawn), dim=1).tolist()}
    expected = {(0, r, c) for r in (1, 2) for c in (1, 2, 3)}  # 2 x 3 of 4 x 6
    expected |= {(1, r, c) for r in (0, 1) for c in (0, 1)}  # 2 x 2 of 3 x 3
    expected |= {(2, r, c) for r in (1, 2) for c in (0,)}  # 2 x 1 of 5 x 2
    assert found == expected


def test_crop_keeps_at_least_a_pixel(pixels):
    drawn = pixels.draw(300, torch.Generator().manual_seed(0), crop=0.01)
    assert len(drawn.unique()) == len(SIZES)


@pytest.fixture
def masked(views):
    """The same views, the first with its left half ignored, the last as a whole."""
    views[0].valid = torch.arange(6).expand(4, 6) >= 3
    views[2].valid = torch.zeros(5, 2, dtype=torch.bool)
    return TrainingPixels.of(views)[0]


@pytest.mark.parametrize("crop", [1.0, 0.5])
@pytest.mark.parametrize("candidates", [None, [0, 1, 4, 24, 33]])
def test_what_is_ignored_is_never_drawn(masked, crop, candidates):
    if candidates:
        masked.candidates = torch.tensor(candidates)
    drawn = masked.to("cpu").draw(4000, torch.Generator().manual_seed(0), crop)
    view, _, column = masked.locate(drawn)
    assert (view < 2).all()
    assert (column[view == 0] >= 3).all()
    assert len(drawn.unique()) == 12 + 9


def test_only_valid_pixels_count(masked):
    assert masked.n_candidates == 12 + 9
    counts = torch.bincount(masked.draw(21_000, torch.Generator().manual_seed(0)), minlength=43)
    assert counts[counts > 0].min() > 850


def test_masks_that_leave_nothing(views):
    for view in views:
        view.valid = torch.zeros(view.height, view.width, dtype=torch.bool)
    with pytest.raises(UserError, match="leave no pixel"):
        TrainingPixels.of(views)
