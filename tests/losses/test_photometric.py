import pytest
import torch

from losses.photometric import photometric_loss, psnr_of


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
