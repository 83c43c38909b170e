import pytest
import torch

from losses.photometric import photometric_loss, psnr_of, silhouette_loss, transparency_loss


def test_known_values():
    target = torch.zeros(4, 3)
    mse = photometric_loss(target + 0.1, target)
    assert mse.item() == pytest.approx(0.01)
    assert psnr_of(mse).item() == pytest.approx(20)
    assert psnr_of(photometric_loss(target, target)).item() == float("inf")


def test_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"\(4, 1\)"):
        photometric_loss(torch.zeros(4, 3), torch.zeros(4, 1))


def test_gradient():
    rendered = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: photometric_loss(r, target), rendered)


def test_transparency_is_training_on_random_backgrounds():
    """Over grey, plus the term: the mean of the loss over uniform backgrounds, which a sum over
    the two ends of the middle of each half of [0, 1] has exactly (Gauss, two points)."""
    g = torch.Generator().manual_seed(0)
    colour, target = torch.rand(2, 50, 3, generator=g, dtype=torch.float64)
    opacity = torch.rand(50, generator=g, dtype=torch.float64)
    light = (1 - opacity)[:, None]
    nodes = 0.5 + 0.5 * torch.tensor([-1.0, 1.0], dtype=torch.float64) / 3**0.5
    mean = sum(photometric_loss(colour + light * node, target) for node in nodes) / 2
    ours = photometric_loss(colour + light * 0.5, target) + transparency_loss(opacity)
    torch.testing.assert_close(ours, mean)


def test_silhouettes_ask_nothing_of_pixels_that_may_be_either():
    alpha = torch.tensor([0, 255, 128, 1], dtype=torch.uint8)
    opacity = torch.tensor([0.5, 0.8, 0.3, 0.9], dtype=torch.float64, requires_grad=True)
    loss = silhouette_loss(opacity, alpha)
    assert loss.item() == pytest.approx((0.25 + 0.04) / 4)
    (gradient,) = torch.autograd.grad(loss, opacity)
    torch.testing.assert_close(gradient, torch.tensor([0.25, -0.1, 0, 0], dtype=torch.float64))
