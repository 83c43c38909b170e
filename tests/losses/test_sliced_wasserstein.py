import pytest
import torch

from losses import sliced_wasserstein
from losses.sliced_wasserstein import SlicedWasserstein, interpolate_quantiles, quantile_table


def test_quantiles_of_equal_count_are_the_sorted_values():
    values = torch.randn(3, 10)
    levels = ((torch.arange(10) + 0.5) / 10).double().expand(3, -1)
    table = quantile_table(values)
    torch.testing.assert_close(table, values.sort(dim=1).values)
    torch.testing.assert_close(interpolate_quantiles(table, levels), table)


def test_quantiles_between_and_beyond_entries():
    table = torch.tensor([[0.0, 1.0, 3.0]])
    levels = torch.tensor([[0.0, 1 / 3, 2 / 3, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        interpolate_quantiles(table, levels), torch.tensor([[0.0, 0.5, 2.0, 3.0]])
    )
    assert interpolate_quantiles(torch.tensor([[2.0]]), levels).tolist() == [[2.0] * 4]


def test_thinned_table_keeps_the_distribution():
    values = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    table = quantile_table(values, 101)
    assert table.shape == (1, 101)
    assert table[0, 50].item() == pytest.approx(values.median().item(), abs=0.01)


def test_identity_is_zero():
    style = torch.rand(1, 3, 20, 33)
    loss = SlicedWasserstein(style)
    assert loss(style).item() == pytest.approx(0, abs=1e-10)
    assert loss(style.flip(3).contiguous() ** 2).item() > 1e-4


def test_shift_of_one_colour():
    """Without patches the distance of two flat images is that of their projected colours."""
    loss = SlicedWasserstein(torch.full((1, 3, 4, 4), 0.5), patch=1, levels=1)
    shift = torch.tensor([0.1, -0.2, 0.3])
    expected = (loss.filters.flatten(1) @ shift).square().mean()
    image = 0.5 + shift.view(1, 3, 1, 1).expand(1, 3, 6, 8)
    torch.testing.assert_close(loss(image), expected)


def test_seed_decides():
    style, image = torch.rand(1, 3, 20, 24), torch.rand(1, 3, 16, 18)
    values = [SlicedWasserstein(style, seed=seed)(image).item() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_background_does_not_count():
    style, image = torch.rand(1, 3, 20, 24), torch.rand(1, 3, 24, 30)
    mask = torch.zeros(1, 1, 24, 30)
    mask[..., 4:15, 6:20] = 1
    loss = SlicedWasserstein(style)
    torch.testing.assert_close(loss(image * mask + 1 - mask, mask), loss(image * mask, mask))


def test_other_sizes_and_an_image_smaller_than_the_pyramid():
    loss = SlicedWasserstein(torch.rand(1, 3, 40, 30))
    assert loss(torch.rand(2, 3, 7, 50)).isfinite()


@pytest.mark.parametrize("mask", [None, torch.zeros(1, 1, 12, 9)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_degenerate_input_has_finite_gradient(mask, value):
    image = torch.full((1, 3, 12, 9), value, requires_grad=True)
    loss = SlicedWasserstein(torch.ones(1, 3, 10, 10))(image, mask)
    loss.backward()
    assert image.grad.isfinite().all()
    if mask is not None:
        assert loss.item() == 0 and not image.grad.any()


def test_wrong_shapes():
    loss = SlicedWasserstein(torch.rand(1, 3, 10, 10))
    with pytest.raises(ValueError, match=r"\(3, 10, 10\)"):
        loss(torch.rand(3, 10, 10))
    with pytest.raises(ValueError, match="smaller than a 5-pixel patch"):
        loss(torch.rand(1, 3, 4, 10))
    with pytest.raises(ValueError, match="smaller than a 5-pixel patch"):
        SlicedWasserstein(torch.rand(1, 3, 4, 10))


def test_gradient():
    style = torch.rand(1, 3, 9, 8, dtype=torch.float64)
    image = torch.rand(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 1, 6, 7, dtype=torch.float64)
    loss = SlicedWasserstein(style, patch=3, projections=4, levels=2)
    assert torch.autograd.gradcheck(lambda x: loss(x, mask), image)


def test_filters_a_few_at_a_time_change_nothing(monkeypatch):
    loss = SlicedWasserstein(torch.rand(1, 3, 40, 30).double())
    mask = torch.rand(2, 1, 21, 34).round().double()
    found = []
    for at_once in (1 << 30, 20_000, 1):  # all of them, several, one by one
        monkeypatch.setattr(sliced_wasserstein, "_RESPONSES", at_once)
        image = torch.linspace(0, 1, 2 * 3 * 21 * 34).double().sin().view(2, 3, 21, 34)
        image.requires_grad_()
        value = loss(image, mask)
        found.append((value.detach(), *torch.autograd.grad(3 * value, image)))
    assert found[0][1].norm() > 0
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-15)
