"""Samplers: where they look, and that all of their randomness is in the generator."""

import torch
from torch import nn

from datasets.cameras.rays import Rays
from models.hierarchical import HierarchicalSampler, importance, partition, stratified
from models.occupancy import HIDDEN, OccupancyGrid, OccupancySampler, dilate
from models.render import render
from models.samples import transmittance

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


class Ball(nn.Module):
    """A dense ball around the origin."""

    def __init__(self, radius=0.5, density=200.0):
        super().__init__()
        self.radius, self.density = radius, density
        self.style = lambda feature, x, d: torch.full_like(x, 0.5)

    def geometry(self, x):
        return (x.norm(dim=-1) < self.radius) * self.density, x


def rays_at(offsets, near=0.5, far=3.5):
    n = len(offsets)
    origins = torch.stack([offsets, torch.zeros(n), torch.full((n,), 2.0)], -1)
    directions = torch.tensor([0.0, 0, -1]).expand(n, 3)
    return Rays(origins, directions, torch.full((n,), near), torch.full((n,), far))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_stratified_puts_one_sample_in_each_bin():
    near, far = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 6.0])
    t = stratified(near, far, 8, generator())
    bins = ((t - near[:, None]) / (far - near)[:, None] * 8).floor()
    assert torch.equal(bins, torch.arange(8.0).expand(2, 8))


def test_importance_follows_its_distribution():
    edges = torch.tensor([0.0, 1, 2, 3, 5]).expand(200, 5)
    weights = torch.tensor([1.0, 0, 3, 4]).expand(200, 4)
    u = stratified(torch.zeros(200), torch.ones(200), 256, generator())
    t = importance(edges, weights, u)
    counts = torch.histogram(t.flatten(), torch.tensor([0.0, 1, 2, 3, 5])).hist / t.numel()
    assert torch.allclose(counts, torch.tensor([1.0, 0, 3, 4]) / 8, atol=2e-3)
    inside = t[(t > 3) & (t < 5)]
    assert abs(float(inside.mean()) - 4) < 0.02  # uniform within a bin
    assert (t.diff(dim=-1) >= 0).all()


def test_importance_of_an_empty_ray_is_uniform():
    edges = torch.linspace(0, 4, 9)[None]
    u = stratified(torch.zeros(1), torch.ones(1), 16, None)
    t = importance(edges, torch.zeros(1, 8), u)
    assert torch.allclose(t, stratified(torch.zeros(1), torch.full((1,), 4.0), 16, None), atol=1e-5)


def test_partition_covers_the_ray():
    t = torch.tensor([[1.0, 2, 4]])
    edges = partition(t, torch.tensor([0.5]), torch.tensor([5.0]))
    assert torch.equal(edges, torch.tensor([[0.5, 1.5, 3, 5]]))


def test_hierarchical_sampler_finds_the_surface():
    ball = Ball()
    sampler = HierarchicalSampler(ball, 32, 64, None).eval()
    rays = rays_at(torch.tensor([0.0, 0.2, 0.45]))
    rendering = render(ball, rays, sampler(ball, rays, None))
    expected = 2 - (0.25 - torch.tensor([0.0, 0.2, 0.45]) ** 2).sqrt()
    assert torch.allclose(rendering.depth, expected, atol=0.02)
    samples = sampler(ball, rays, None)
    on_surface = (samples.t - expected[samples.ray_index]).abs() < 0.1
    assert on_surface.sum() > 3 * 40


def test_hierarchical_sampler_carries_the_coarse_rendering_in_training_only():
    ball = Ball()
    sampler = HierarchicalSampler(ball, 16, 16, None)
    rays = rays_at(torch.tensor([0.0]))
    assert sampler.train()(ball, rays, generator()).proposal is not None
    assert sampler.eval()(ball, rays, None).proposal is None


def test_hierarchical_sampler_leaves_out_empty_cells_and_missed_rays():
    occupied = torch.zeros(8, 8, 8, dtype=torch.bool)
    occupied[:, :, 4:] = True
    ball = Ball()
    sampler = HierarchicalSampler(ball, 16, 16, OccupancyGrid(occupied, BOUNDS)).eval()
    rays = rays_at(torch.tensor([0.0, 0.1]))
    rays.far[1] = rays.near[1] - 1
    samples = sampler(ball, rays, None)
    z = rays.points(samples.ray_index, samples.t)[:, 2]
    assert (z >= 0).all()
    assert (samples.ray_index == 0).all()
    assert len(samples) > 0


def test_same_generator_same_samples():
    grid = OccupancyGrid(torch.ones(16, 16, 16, dtype=torch.bool), BOUNDS)
    rays = rays_at(torch.linspace(-0.9, 0.9, 7))
    for sampler in (OccupancySampler(grid, 0.1), HierarchicalSampler(Ball(), 8, 8, grid)):
        first, again = (sampler(Ball(), rays, generator(3)) for _ in range(2))
        other = sampler(Ball(), rays, generator(4))
        assert torch.equal(first.t, again.t)
        assert first.t.shape != other.t.shape or not torch.equal(first.t, other.t)


def test_occupancy_sampler_equals_its_plain_twin():
    """The plain twin tests every step of every ray against the grid."""
    torch.manual_seed(0)
    occupied = torch.rand(20, 24, 16) > 0.97
    bounds = torch.tensor([[-1.0, -1.2, -0.8], [1, 1.2, 0.8]])
    grid = OccupancyGrid(occupied, bounds)
    sampler = OccupancySampler(grid, 0.05)
    rays = rays_at(torch.linspace(-1.1, 1.1, 50))
    tilt = torch.nn.functional.normalize(rays.directions + 0.3 * torch.randn(50, 3), dim=-1)
    ends = ((bounds[:, None] - rays.origins) / tilt).sort(dim=0).values
    near, far = ends[0].amax(-1).clamp(min=0), ends[1].amin(-1)
    rays = Rays(rays.origins, tilt, near, far)
    samples = sampler(None, rays, None)
    t = rays.near[:, None] + 0.05 * (torch.arange(60) + 0.5)
    x = rays.origins[:, None] + rays.directions[:, None] * t[..., None]
    keep = grid.contains(x.flatten(0, 1)).view(50, 60) & (t < rays.far[:, None])
    ray, column = keep.nonzero(as_tuple=True)
    assert torch.equal(samples.ray_index, ray)
    assert torch.allclose(samples.t, t[ray, column], atol=1e-5)
    assert len(samples) > 30


def test_what_no_light_reaches_is_left_out_and_the_rest_is_told_along():
    """The plain twin takes all samples in occupied cells and drops the dark ones afterwards."""
    torch.manual_seed(0)
    grid = OccupancyGrid(torch.rand(40, 40, 40) > 0.3, BOUNDS)
    rays = rays_at(torch.linspace(-0.9, 0.9, 31), near=1.0, far=3.0)
    ball, sampler = Ball(), OccupancySampler(grid, 0.01)
    everything = sampler(None, rays, None)
    density, _ = ball.geometry(rays.points(everything.ray_index, everything.t))
    lit = transmittance(density, everything) > HIDDEN
    samples = sampler(ball, rays, None)
    assert 100 < len(samples) < len(everything)
    assert torch.equal(samples.ray_index, everything.ray_index[lit])
    assert torch.equal(samples.t, everything.t[lit])
    assert torch.equal(samples.geometry[0], density[lit])


def test_depth_of_a_ball_through_the_occupancy_sampler():
    grid = OccupancyGrid(torch.ones(64, 64, 64, dtype=torch.bool), BOUNDS)
    ball = Ball()
    grid.lit[:] = True
    grid.prune(lambda x: ball.geometry(x)[0], threshold=1.0, chunk=4096, lit_only=True)
    share = float(grid.occupied.float().mean())
    assert 4 / 3 * 3.1416 * 0.5**3 / 8 < share < 0.1
    offsets = torch.tensor([0.0, 0.1, 0.3, 0.4])
    rays = rays_at(offsets)
    rendering = render(ball, rays, OccupancySampler(grid, 0.005)(ball, rays, None))
    assert torch.allclose(rendering.depth, 2 - (0.25 - offsets**2).sqrt(), atol=0.01)


def test_dilate_grows_by_one_cell():
    grid = torch.zeros(5, 5, 5, dtype=torch.bool)
    grid[2, 2, 2] = True
    assert int(dilate(grid).sum()) == 27
