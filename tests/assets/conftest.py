"""Renderers with known answers: a ball, and a hollow one, as voxels without any training."""

import pytest
import torch

from tests.renderers import voxel_renderer

CENTRE = torch.tensor([0.1, -0.15, 0.2])
RADIUS = 0.7
BOUNDS = torch.tensor([[-1.0, -1.2, -0.9], [1.2, 1.0, 1.1]])
SHAPE = (44, 44, 40)  # cells of 0.05
STEEP = 40.0  # rise of the raw density per cell, from outside in


def voxels(distance, shape=SHAPE, bounds=BOUNDS):
    """A voxel renderer that is solid where ``distance(x (M, 3))`` is negative; its colour is white
    until a test says otherwise."""
    torch.manual_seed(0)
    active = torch.ones(shape, dtype=torch.bool)
    renderer = voxel_renderer(bounds, active)
    geometry = renderer.field.geometry
    d = distance(geometry.lattice.vertices())
    with torch.no_grad():
        geometry.raw[:, 0] = (-d / float(geometry.lattice.cell.min()) * STEEP).clamp(-20, 200)
    return renderer


def position_colour(feature, x, d):
    """(M, 3) in [0, 1]: a colour for every place, from every direction the same."""
    return ((x - BOUNDS[0].to(x)) / (BOUNDS[1] - BOUNDS[0]).to(x)).clamp(0, 1)


class Painted(torch.nn.Module):
    """A style module with `position_colour`."""

    reads_features = True

    def forward(self, feature, x, d, code=None):
        return position_colour(feature, x, d)


@pytest.fixture
def ball():
    """A ball with known colours."""
    renderer = voxels(lambda x: (x - CENTRE).norm(dim=-1) - RADIUS)
    renderer.field.style = Painted()
    return renderer


@pytest.fixture
def shell():
    """A hollow ball with the wall from 0.5 to 0.7, and noise of no density inside."""
    return voxels(lambda x: ((x - CENTRE).norm(dim=-1) - 0.6).abs() - 0.1)
