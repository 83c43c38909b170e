import pytest
import torch

from losses.colour_transfer import fit_colour_transfer


def colours(seed, count=500):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.rand(3, 3, generator=generator)
    return torch.rand(count, 3, generator=generator) @ mix / 2


def test_mean_and_covariance_become_the_targets():
    source, target = colours(0), colours(1, 300)
    moved = fit_colour_transfer(source, target).apply(source)
    torch.testing.assert_close(moved.mean(0), target.mean(0), atol=1e-5, rtol=1e-5)
    covariance = [torch.cov(c.T, correction=0) for c in (moved, target)]
    torch.testing.assert_close(*covariance, atol=1e-5, rtol=1e-3)


def test_same_colours_stay_as_they_are():
    source = colours(2)
    torch.testing.assert_close(
        fit_colour_transfer(source, source).apply(source), source, atol=1e-5, rtol=0
    )


def test_any_leading_shape_and_no_clamping():
    transfer = fit_colour_transfer(colours(0), colours(1))
    image = torch.rand(4, 5, 3) * 10
    assert transfer.apply(image).shape == (4, 5, 3)
    assert transfer.apply(image).max() > 1


@pytest.mark.parametrize("count", [1, 50])
def test_flat_source_goes_to_the_targets_mean(count):
    source, target = torch.full((count, 3), 0.3), colours(1)
    transfer = fit_colour_transfer(source, target)
    assert transfer.matrix.isfinite().all()
    torch.testing.assert_close(transfer.apply(source)[0], target.mean(0), atol=1e-4, rtol=0)


def test_grey_source_is_not_stretched_beyond_reason():
    source = torch.rand(200, 1).expand(-1, 3)
    transfer = fit_colour_transfer(source, colours(1))
    assert transfer.matrix.abs().max() < 400
    assert transfer.apply(source).isfinite().all()


def test_flat_target_makes_everything_its_colour():
    moved = fit_colour_transfer(colours(0), torch.full((7, 3), 0.6)).apply(colours(3))
    torch.testing.assert_close(moved, torch.full_like(moved, 0.6), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(5, 4), (3,), (0, 3)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match=str(shape[0])):
        fit_colour_transfer(torch.zeros(shape), colours(0))
    with pytest.raises(ValueError, match="got"):
        fit_colour_transfer(colours(0), colours(0)).apply(torch.zeros(5, 4))
