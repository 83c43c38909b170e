"""How steps along rays lead through contracted space."""

import pytest
import torch
from torch import nn

from datasets.cameras.march import HORIZON, ContractedMarch
from datasets.cameras.rays import Rays
from datasets.cameras.space import Contracted
from models.hierarchical import HierarchicalSampler
from models.occupancy import OccupancyGrid, OccupancySampler
from models.render import render

FOREGROUND = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
STEP = 0.02
ORIGIN, UNIT = torch.tensor([-2.0, -2, -2]), torch.tensor([0.1, 0.2, 0.4])  # of counted positions


def rays_from(eye, n=64, foreground=FOREGROUND):
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    origins = torch.tensor(eye).expand(n, 3)
    return Rays(
        origins,
        directions,
        torch.full((n,), 0.05),
        torch.full((n,), 3.0),
        None,
        Contracted(foreground),
    )


def every(rays):
    return torch.arange(len(rays))


def steps_of(path, rays, s):
    return path.steps(path.counted_in(ORIGIN, UNIT), UNIT, every(rays), s, STEP)


@pytest.mark.parametrize(
    "eye", [(0.0, 0.1, 0.2), (0.9, 0.9, 0.9), (2.5, 0.3, 0.1), (0.0, 9.0, 0.0)]
)
def test_steps_are_about_even_in_contracted_space(eye):
    rays = rays_from(list(eye))
    path = rays.march()
    assert isinstance(path, ContractedMarch)
    n = 400
    s = path.near[:, None] + (path.far - path.near)[:, None] * torch.linspace(0, 1, n)
    lengths = path.lengths(every(rays), s) / (s[:, 1:] - s[:, :-1])
    assert float(lengths.max()) < 1.8  # sideways, contraction shrinks less than straight outward
    assert (path.distance(every(rays), s).diff(dim=-1) > 0).all()


def test_the_horizon_is_reached():
    rays = rays_from([0.3, 0.1, -0.2])
    path = rays.march()
    t = path.distance(every(rays), path.far)
    m = (rays.origins + t[:, None] * rays.directions).abs().amax(-1)
    assert (m > 0.9 * HORIZON).all()
    assert (m < 1.2 * HORIZON).all()


def test_in_the_foreground_a_step_is_a_step():
    rays = rays_from([0.0, 0.0, 0.0])
    path = rays.march()
    s = torch.full((64, 1), 0.5)
    assert torch.equal(path.distance(every(rays), s), s)
    _, lengths = steps_of(path, rays, s)
    torch.testing.assert_close(lengths, torch.full((64, 1), STEP))


@pytest.mark.parametrize("eye", [(0.9, -0.8, 0.7), (1.5, 0.2, 0.1), (0.0, 0.0, 0.0)])
def test_steps_share_a_chord_around_their_points(eye):
    """The plain twin asks for the point of every step."""
    rays = rays_from(list(eye), n=2000)
    rays.directions[:3] = torch.eye(3)
    path = rays.march()
    s = path.near + (path.far - path.near) * torch.linspace(0.01, 0.99, 2000)
    s[::2] = path.exit[::2] + STEP * torch.linspace(-8, 1, 1000)
    s = s[:, None] + STEP * torch.arange(8)
    before_far = s < path.far[:, None]
    cells, lengths = steps_of(path, rays, s)
    ends = torch.stack([s[:, 0] - STEP / 2, s[:, -1] + STEP / 2], -1)
    whole = before_far.all(1) & (ends[:, 1] < path.far)
    chords = path.lengths(every(rays), ends)
    torch.testing.assert_close((8 * lengths)[whole], chords.expand_as(s)[whole], atol=2e-5, rtol=0)
    x = rays.points(every(rays).repeat_interleave(8), path.distance(every(rays), s).flatten())
    middles = ORIGIN + cells.flatten(1).T * UNIT
    away = (middles - x).norm(dim=-1).view_as(s).where(before_far, 0.0)
    assert float(away.max()) < 2 * STEP  # the most: where a ray bends
    assert float(away[1::2].quantile(0.9)) < 0.1 * STEP


def test_the_last_steps_end_where_the_ray_does():
    """As many of eight as there are before far lie there, not at a share of what follows."""
    rays = rays_from([0.0, 0.1, 0.2])
    path = rays.march()
    s = path.far[:, None] + STEP * (torch.arange(8) - 2.5)
    cells, lengths = steps_of(path, rays, s)
    t = path.distance(every(rays), s[:, :3])
    x = rays.points(every(rays).repeat_interleave(3), t.flatten())
    middles = ORIGIN + cells[..., :3].flatten(1).T * UNIT
    torch.testing.assert_close(middles, x, atol=0.1 * STEP, rtol=0)
    chords = path.lengths(every(rays), torch.stack([s[:, 0], s[:, 2]], -1))
    torch.testing.assert_close(2 * lengths[:, :1], chords, atol=0.05 * STEP, rtol=0.05)


def test_points_are_the_plain_ones_in_columns():
    rays = rays_from([0.9, -0.8, 0.7])
    t = torch.linspace(0.1, 20, 64)
    x = rays.points(every(rays), t)
    plain = rays.space.from_world(rays.origins + t[:, None] * rays.directions)
    torch.testing.assert_close(x, plain, atol=1e-6, rtol=0)
    assert x.T.is_contiguous()


def test_positions_are_the_points():
    rays = rays_from([0.9, -0.8, 0.7])
    path = rays.march()
    s = path.near + (path.far - path.near) * torch.linspace(0, 1, 64)
    positions = path.counted_in(ORIGIN, UNIT)(every(rays), s).movedim(0, -1)
    x = rays.points(every(rays), path.distance(every(rays), s))
    torch.testing.assert_close(positions * UNIT + ORIGIN, x, atol=1e-5, rtol=1e-5)


class Shell(nn.Module):
    """Dense beyond a cube of half side ``radius`` around the origin, in contracted space."""

    def __init__(self, radius):
        super().__init__()
        self.radius = radius
        self.style = lambda feature, x, d, code: torch.full_like(x, 0.5)

    def geometry(self, x):
        return (x.abs().amax(-1) > self.radius) * 500.0, x


def occupancy_sampler(box):
    return OccupancySampler(OccupancyGrid(torch.ones(64, 64, 64, dtype=torch.bool), box), STEP)


def hierarchical_sampler(box):
    return HierarchicalSampler(Shell(1.75), 64, 64, None)


@pytest.mark.parametrize("sampler", [occupancy_sampler, hierarchical_sampler])
def test_depth_of_a_wall_far_behind_the_foreground(sampler):
    """At 1.75 half widths in contracted space, which is 4 in the world."""
    rays = rays_from([0.0, 0.0, 0.0])
    shell = Shell(1.75)
    samples = sampler(Contracted(FOREGROUND).box(FOREGROUND))(shell, rays, None)
    with torch.no_grad():
        rendering = render(shell, rays, samples)
    truth = 4 / rays.directions.abs().amax(-1)
    assert (rendering.opacity > 0.99).all()
    assert float((rendering.depth / truth - 1).abs().max()) < 0.1


def test_samples_come_in_waves_as_all_at_once():
    rays = rays_from([0.2, 0.0, 0.0])
    sampler = occupancy_sampler(Contracted(FOREGROUND).box(FOREGROUND))
    empty = Shell(9.0)
    waves, plain = sampler(empty, rays, None), sampler(None, rays, None)
    for a, b in (
        (waves.t, plain.t),
        (waves.delta, plain.delta),
        (waves.ray_index, plain.ray_index),
    ):
        assert torch.equal(a, b)
