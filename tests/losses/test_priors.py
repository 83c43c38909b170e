"""Few-view priors, against analytic answers."""

import math

import pytest
import torch

from losses.priors import cell_roughness, depth_smoothness, ray_entropy


def test_entropy_is_that_of_the_weights():
    """A surface has none, even fog has 1, a ray that meets nothing does not count."""
    weights = torch.tensor([0.9, 0, 0, 0, 0.2, 0.2, 0.2, 0.2, 0.01, 0.01])
    ray = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    opacity = torch.zeros(3).index_add(0, ray, weights)
    assert float(ray_entropy(weights, ray, opacity)) == pytest.approx(1 / 3, abs=1e-5)
    lopsided = torch.tensor([0.6, 0.2])
    found = ray_entropy(lopsided, torch.zeros(2, dtype=torch.int64), lopsided.sum()[None])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_descending_the_entropy_makes_a_surface():
    density = torch.tensor([0.5, 0.6, 0.5, 0.4], requires_grad=True)
    ray = torch.zeros(4, dtype=torch.int64)
    for _ in range(200):
        before = density.cumsum(0) - density
        weights = torch.exp(-before) * -torch.expm1(-density)
        loss = ray_entropy(weights, ray, weights.sum()[None])
        (gradient,) = torch.autograd.grad(loss, density)
        density = (density - 0.3 * gradient).detach().clamp(min=0).requires_grad_()
    assert float((weights.max() / weights.sum()).detach()) > 0.95


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
