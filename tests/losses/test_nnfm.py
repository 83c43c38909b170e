import pytest
import torch

from losses import nnfm
from losses.nnfm import mean_distance, nearest_neighbours, nnfm_loss, unit_features


def plain_loss(features, style, weight):
    """All pairs at once, one image."""
    rows = torch.nn.functional.normalize(features[0].flatten(1).T)
    bank = torch.nn.functional.normalize(style[0].flatten(1).T)
    distance = (1 - rows @ bank.T).min(dim=1).values
    return (distance * weight.flatten()).sum() / weight.sum()


def test_same_as_all_pairs_at_once(monkeypatch):
    features, style = torch.randn(1, 6, 7, 9), torch.randn(1, 6, 5, 4)
    mask = torch.rand(1, 1, 7, 9)
    mask[mask < 0.2] = 0
    expected = plain_loss(features, style, mask)
    torch.testing.assert_close(nnfm_loss(features, unit_features(style), mask), expected)
    # blocks of three rows
    monkeypatch.setattr(nnfm, "_BLOCK_BYTES", 3 * 20 * 4)
    torch.testing.assert_close(nnfm_loss(features, unit_features(style), mask), expected)


def test_nearest_row_is_found_in_every_block(monkeypatch):
    bank = unit_features(torch.randn(1, 16, 4, 5))
    order = torch.randperm(20)
    monkeypatch.setattr(nnfm, "_BLOCK_BYTES", 1)
    assert torch.equal(nearest_neighbours(bank[order], bank), order)


def test_identity_is_zero_at_any_scale_and_place():
    style = torch.randn(1, 16, 6, 8)
    bank = unit_features(style)
    assert nnfm_loss(style, bank).item() == pytest.approx(0, abs=1e-6)
    assert nnfm_loss(7 * style.flip(2), bank).item() == pytest.approx(0, abs=1e-6)
    assert nnfm_loss(-style, bank).item() > 0.1


def test_faint_locations_take_no_part():
    features = torch.randn(1, 4, 2, 2, requires_grad=True)
    mask = torch.tensor([[1.0, 0.05], [0.0, 0.5]])[None, None]
    nnfm_loss(features, unit_features(torch.randn(1, 4, 3, 3)), mask).backward()
    touched = features.grad[0].abs().sum(dim=0) > 0
    assert touched.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("mask", [None, torch.zeros(1, 1, 6, 8)])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_degenerate_input_has_finite_gradient(mask, value):
    features = torch.full((1, 4, 6, 8), value, requires_grad=True)
    loss = nnfm_loss(features, unit_features(torch.zeros(1, 4, 3, 3)), mask)
    loss.backward()
    assert features.grad.isfinite().all()
    assert loss.item() == (1 if mask is None else 0)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(4, 6\)"):
        unit_features(torch.zeros(4, 6))
    with pytest.raises(ValueError, match=r"\(9, 5\)"):
        nnfm_loss(torch.zeros(1, 4, 6, 8), torch.zeros(9, 5))


def test_gradient():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    bank = unit_features(torch.randn(1, 3, 3, 3, dtype=torch.float64))
    mask = torch.rand(2, 1, 8, 10, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: nnfm_loss(f, bank, mask), features)


def test_mean_distance_is_that_of_all_pairs():
    rows = unit_features(torch.randn(1, 5, 4, 6) + 1)
    assert mean_distance(rows).item() == pytest.approx((1 - rows @ rows.T).mean().item(), rel=1e-5)
