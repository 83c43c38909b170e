import pytest
import torch

from losses.gram import gram_loss, gram_matrix


def test_full_mask_is_the_usual_normalisation():
    features = torch.randn(1, 6, 5, 7)
    flat = features.reshape(6, 35)
    expected = flat @ flat.T / (1 * 6 * 5 * 7)
    torch.testing.assert_close(gram_matrix(features)[0], expected)
    torch.testing.assert_close(gram_matrix(features, torch.ones(1, 1, 5, 7))[0], expected)


def test_only_the_masked_part_counts():
    features = torch.randn(2, 4, 6, 8)
    mask = torch.zeros(2, 1, 6, 8)
    mask[..., :3] = 1
    torch.testing.assert_close(gram_matrix(features, mask), gram_matrix(features[..., :3]))
    # a uniform mask, however faint, is no mask
    torch.testing.assert_close(
        gram_matrix(features, 0.1 * torch.ones_like(mask)), gram_matrix(features)
    )


def test_identity_is_zero_and_difference_is_not():
    features = torch.randn(2, 4, 6, 8)
    assert gram_loss(features, gram_matrix(features)).item() == 0
    assert gram_loss(2 * features, gram_matrix(features)).item() > 0


@pytest.mark.parametrize("mask", [None, torch.zeros(1, 1, 6, 8), torch.full((1, 1, 6, 8), 1e-38)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_degenerate_input_has_finite_gradient(mask, value):
    features = torch.full((1, 4, 6, 8), value, requires_grad=True)
    loss = gram_loss(features, torch.rand(1, 4, 4), mask)
    loss.backward()
    assert features.grad.isfinite().all()
    if mask is not None and not mask.any():
        assert loss.item() == 0 and not features.grad.any()


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(4, 6, 8\)"):
        gram_matrix(torch.zeros(4, 6, 8))
    with pytest.raises(ValueError, match=r"\(1, 5, 5\)"):
        gram_loss(torch.zeros(1, 4, 6, 8), torch.zeros(1, 5, 5))


def test_gradient():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    style = torch.randn(1, 3, 3, dtype=torch.float64)
    mask = torch.rand(2, 1, 8, 10, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: gram_loss(f, style, mask), features)
