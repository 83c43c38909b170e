import pytest
import torch

from losses.content import content_loss


def test_content_without_mask_is_the_mean_squared_error():
    features, photo = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    expected = torch.nn.functional.mse_loss(features, photo)
    torch.testing.assert_close(content_loss(features, photo), expected)
    assert content_loss(photo, photo).item() == 0


def test_content_counts_only_under_the_mask():
    photo = torch.randn(1, 3, 4, 5)
    features = photo.clone()
    features[..., :2] += 2
    features[..., 2:] += 100
    mask = torch.zeros(1, 1, 4, 5)
    mask[..., :2] = 0.5
    assert content_loss(features, photo, mask).item() == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_mask_and_flat_features(value):
    features = torch.full((1, 3, 6, 8), value, requires_grad=True)
    content_loss(features, features.detach() + 1).backward()
    assert features.grad.isfinite().all()
    features.grad = None
    cost = content_loss(features, features.detach() + 1, torch.zeros(1, 1, 6, 8))
    cost.backward()
    assert cost.item() == 0 and not features.grad.any()


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 6\)"):
        content_loss(torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 6))


def test_gradient():
    features = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    photo, mask = torch.rand_like(features), torch.rand(2, 1, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: content_loss(x, photo, mask), features)
