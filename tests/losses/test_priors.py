"""Few-view priors, against analytic answers."""

import pytest
import torch

from losses.priors import cell_roughness, depth_smoothness


def test_depth_of_a_slope_and_of_empty_pixels():
    slope = torch.arange(4.0).expand(1, 4, 4)
    opaque = torch.ones(1, 4, 4)
    assert float(depth_smoothness(slope, opaque, 2.0)) == pytest.approx(0.25)
    assert float(depth_smoothness(slope, 0 * opaque, 2.0)) == 0
    opaque.requires_grad_()
    depth_smoothness(slope.clone().requires_grad_(), opaque, 2.0).backward()
    assert opaque.grad is None  # or transparency would make depth smooth


def test_roughness_of_a_cell():
    """Of f = 2 x + 3 y + 5 z at the corners."""
    from models.trilinear import CORNERS

    values = (CORNERS.float() * torch.tensor([2.0, 3.0, 5.0])).sum(1).view(1, 8, 1)
    assert float(cell_roughness(values)) == pytest.approx(4 + 9 + 25)
    assert float(cell_roughness(torch.full((3, 8, 2), 7.0))) == 0
