import pytest
import torch

from losses.total_variation import total_variation


def test_ramp():
    ramp = torch.arange(5.0).expand(1, 3, 4, 5)
    assert total_variation(ramp).item() == pytest.approx(1)
    assert total_variation(2 * ramp.transpose(2, 3)).item() == pytest.approx(4)
    assert total_variation(torch.ones(1, 3, 4, 5)).item() == 0


def test_the_outline_costs_nothing():
    image, mask = torch.ones(1, 3, 6, 6), torch.zeros(1, 1, 6, 6)
    image[..., 2:4, 2:4], mask[..., 2:4, 2:4] = 0, 1
    assert total_variation(image, mask).item() == 0
    assert total_variation(image).item() > 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_mask_and_flat_image(value):
    image = torch.full((1, 3, 6, 8), value, requires_grad=True)
    total_variation(image).backward()
    assert image.grad.isfinite().all()
    image = torch.rand(1, 3, 6, 8, requires_grad=True)
    cost = total_variation(image, torch.zeros(1, 1, 6, 8))
    cost.backward()
    assert cost.item() == 0 and not image.grad.any()


def test_single_row_of_pixels():
    assert total_variation(torch.arange(3.0).expand(1, 3, 1, 3)).item() == pytest.approx(1)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(3, 4, 5\)"):
        total_variation(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 6\)"):
        total_variation(torch.zeros(1, 3, 4, 5), torch.zeros(1, 1, 4, 6))


def test_gradient():
    image = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 1, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: total_variation(x, mask), image)
