"""Small fields, and rays that look at them."""

import pytest
import torch
from torch import nn

from datasets.cameras.rays import Rays
from models import FIELDS

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 0.5]])


def build_field(kind, cells=None, **style):
    torch.manual_seed(0)
    cells = torch.ones(8, 8, 6, dtype=torch.bool) if cells is None else cells
    field = {"nerf": {"kind": "nerf", "n_frequencies": 10}, "voxels": {"kind": "voxels"}}[kind]
    return FIELDS[kind].build({"field": field, "style": {"kind": kind, **style}}, BOUNDS, cells)


@pytest.fixture
def make_field():
    """``make_field(kind, cells=None, **style)``: an untrained field, drawn with seed 0 in `bounds`,
    whose style has the given options."""
    return build_field


@pytest.fixture
def bounds():
    """(2, 3) box of the fields."""
    return BOUNDS


@pytest.fixture
def points():
    """``points(n)``: positions (n, 3) inside `bounds`, and unit directions (n, 3)."""

    def draw(n=40, dtype=torch.float32):
        g = torch.Generator().manual_seed(1)
        x = BOUNDS[0] + torch.rand(n, 3, generator=g) * (BOUNDS[1] - BOUNDS[0])
        d = nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
        return x.to(dtype), d.to(dtype)

    return draw


@pytest.fixture
def gradients():
    """``gradients(out, inputs)``: of a fixed random linear function of ``out``, one for each."""

    def of(out, inputs):
        g = torch.Generator().manual_seed(2)
        factor = torch.randn(out.shape, generator=g, dtype=torch.float64).to(out.dtype)
        return torch.autograd.grad((out * factor).sum(), list(inputs), retain_graph=True)

    return of


class Ball(nn.Module):
    """A dense ball around the origin; its density is a parameter."""

    def __init__(self, radius=0.5, density=200.0):
        super().__init__()
        self.radius = radius
        self.density = nn.Parameter(torch.tensor(density))
        self.style = lambda feature, x, d, code: torch.full_like(x, 0.5)

    def geometry(self, x):
        return (x.norm(dim=-1) < self.radius) * self.density, x


@pytest.fixture
def ball():
    """An analytic field: a ball of radius 0.5 around the origin."""
    return Ball()


@pytest.fixture
def rays_at():
    """``rays_at(offsets, near, far)``: rays down from z = 2 at the given x."""

    def make(offsets, near=0.5, far=3.5):
        n = len(offsets)
        origins = torch.stack([offsets, torch.zeros(n), torch.full((n,), 2.0)], -1)
        directions = torch.tensor([0.0, 0, -1]).expand(n, 3)
        return Rays(origins, directions, torch.full((n,), near), torch.full((n,), far))

    return make
