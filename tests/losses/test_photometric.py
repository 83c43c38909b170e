import pytest
import torch

from losses.photometric import (
    photometric_loss,
    psnr_of,
    robust_loss,
    silhouette_loss,
    transparency_loss,
)


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


def test_a_robust_fit_is_the_colour_of_most_photos():
    """A third of the photos of a surface show somebody before it: the least squared error is at the
    mean, the least robust one where the others are."""
    wall, passer_by = torch.tensor([0.3, 0.5, 0.7]), torch.tensor([0.9, 0.1, 0.1])
    photos = torch.cat([wall.expand(20, 3), passer_by.expand(10, 3)]).double()
    fits = []
    for loss in (photometric_loss, lambda a, b: robust_loss(a, b, 0.1)):
        colour = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([colour], max_iter=100, line_search_fn="strong_wolfe")

        def closure(colour=colour, loss=loss, optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(colour.expand(30, 3), photos)
            value.backward()
            return value

        optimizer.step(closure)
        fits.append(colour.detach())
    torch.testing.assert_close(fits[0], photos.mean(0), atol=1e-6, rtol=0)
    assert (fits[1] - photos[0]).abs().max() < 0.02


def test_robust_loss_is_the_squared_error_of_small_errors_and_bounded():
    target = torch.zeros(4, 3, dtype=torch.float64)
    small = robust_loss(target + 1e-3, target, 0.1)
    torch.testing.assert_close(small, photometric_loss(target + 1e-3, target), rtol=1e-3, atol=0)
    assert robust_loss(target + 1, target, 0.1) < 0.1**2
    rendered = torch.full((1, 3), 0.1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(robust_loss(rendered, target[:1], 0.1), rendered)
    torch.testing.assert_close(gradient, 2 * rendered.detach() / 3 / 4)


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
