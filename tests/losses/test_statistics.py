import pytest
import torch

from losses.statistics import (
    StatisticsTerm,
    channel_statistics,
    moment_sums,
    statistics_from_sums,
    statistics_loss,
)


def test_known_statistics():
    features = torch.tensor([[1.0, 3.0], [5.0, 7.0]])[None, None]
    mean, std = channel_statistics(features)
    assert mean.item() == pytest.approx(4)
    assert std.item() == pytest.approx(5**0.5)
    mean, std = channel_statistics(features, torch.tensor([[1.0, 1.0], [0.0, 0.0]])[None, None])
    assert mean.item() == pytest.approx(2)
    assert std.item() == pytest.approx(1)


def test_loss_is_the_two_squared_differences():
    features = torch.randn(1, 3, 6, 8)
    mean, std = channel_statistics(features)
    assert statistics_loss(features, mean, std).item() == pytest.approx(0, abs=1e-12)
    scale = ((mean + 2).square() + (std - 1).square()).mean().item()
    assert statistics_loss(features, mean + 2, std - 1).item() == pytest.approx(5 / scale, rel=1e-5)


def test_loss_does_not_depend_on_the_magnitude_of_the_features():
    render, style = torch.randn(2, 1, 3, 6, 8).unbind(0)
    small, large = (
        statistics_loss(k * render, *channel_statistics(k * style)).item() for k in (1.0, 1000.0)
    )
    assert small == pytest.approx(large, rel=1e-4)


@pytest.mark.parametrize("mask", [None, torch.zeros(1, 1, 6, 8)])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_degenerate_input_has_finite_gradient(mask, value):
    features = torch.full((1, 4, 6, 8), value, requires_grad=True)
    loss = statistics_loss(features, torch.ones(1, 4), torch.ones(1, 4), mask)
    loss.backward()
    assert features.grad.isfinite().all()
    if mask is not None:
        assert loss.item() == 0 and not features.grad.any()


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(4, 6\)"):
        channel_statistics(torch.zeros(4, 6))
    with pytest.raises(ValueError, match=r"\(1, 5\)"):
        statistics_loss(torch.zeros(1, 4, 6, 8), torch.zeros(1, 5), torch.zeros(1, 4))


def test_gradient():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 1, 3, dtype=torch.float64)
    mask = torch.rand(2, 1, 8, 10, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda f: statistics_loss(f, target[0], target[1], mask), features
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_moments_equal_their_plain_twin(dtype):
    """In values and gradients; the sums are at least in single precision."""
    torch.manual_seed(0)
    features = torch.randn(2, 3, 4, 5).to(dtype).requires_grad_()
    centre, weight = torch.randn(1, 3).to(dtype), torch.rand(2, 1, 4, 5)
    sums = moment_sums(features, centre, weight)
    centred = features.double() - centre.double()[..., None, None]
    weight = weight.double()
    plain = torch.stack(
        [(weight * centred).sum((2, 3)), (weight * centred.square()).sum((2, 3))], 1
    )
    assert sums.value.dtype == torch.promote_types(dtype, torch.float32)
    bound = 1e-6 if dtype == torch.float64 else 2e-2
    torch.testing.assert_close(sums.value.double(), plain, rtol=bound, atol=bound)
    upstream = torch.randn_like(plain)
    (found,) = torch.autograd.grad(sums.value, features, upstream.to(sums.value))
    (expected,) = torch.autograd.grad(plain, features, upstream)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=bound, atol=bound)


def plain_distance(sums, mean, std):
    """Of one layer, written out."""
    own_mean, own_std = statistics_from_sums(sums, mean)
    error = (own_mean - mean).square() + (own_std - std).square()
    scale = (mean.square() + std.square()).mean(dim=1)
    return (error.mean(dim=1) / scale * sums.coverage()).mean()


def test_layers_side_by_side_are_the_sum_over_layers():
    """With as many channels as they like, and a mask that hardly covers one of them."""
    torch.manual_seed(0)
    terms, sums, expected = [], [], 0
    for channels, covered in ((3, 1.0), (5, 0.01), (2, 0.5)):
        term = StatisticsTerm()
        term.add_style(torch.randn(1, channels, 6, 8, dtype=torch.float64))
        term.finish_style()
        features = torch.randn(2, channels, 4, 5, dtype=torch.float64)
        mask = covered * torch.rand(2, 1, 4, 5, dtype=torch.float64)
        terms.append(term)
        sums.append(term.sums(features, None, mask))
        expected = expected + plain_distance(sums[-1], term.style_mean, term.style_std)
    total = StatisticsTerm.total(terms, sums)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    alone = sum(term.value(own) for term, own in zip(terms, sums, strict=True))
    torch.testing.assert_close(alone, expected, rtol=1e-12, atol=0)
