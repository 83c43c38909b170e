"""Hierarchical sampling: where it looks, and that nothing but its arguments decides it."""

import pytest
import torch

from models.hierarchical import (
    HierarchicalSampler,
    importance,
    interval_edges,
    max_blurred,
    stratified,
)
from models.occupancy import OccupancyGrid
from models.render import render

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


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


def test_importance_equals_its_plain_twin():
    """The inverse of each ray's own distribution, with one search and two look-ups written out."""
    g = generator()
    edges = torch.rand(9, 7, generator=g, dtype=torch.float64).cumsum(-1)
    weights = torch.rand(9, 6, generator=g, dtype=torch.float64)
    u = stratified(torch.zeros(9).double(), torch.ones(9).double(), 20, g)
    pdf = (weights + 1e-5) / (weights + 1e-5).sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros(9, 1), pdf.cumsum(-1)], -1)
    for ray, row in enumerate(importance(edges, weights, u)):
        for t, value in zip(row, u[ray], strict=True):
            k = int((cdf[ray, 1:-1] <= value).sum())
            share = (value - cdf[ray, k]) / (cdf[ray, k + 1] - cdf[ray, k])
            torch.testing.assert_close(t, torch.lerp(edges[ray, k], edges[ray, k + 1], share))


def test_interval_edges_cover_the_ray():
    t = torch.tensor([[1.0, 2, 4]])
    edges = interval_edges(t, torch.tensor([0.5]), torch.tensor([5.0]))
    assert torch.equal(edges, torch.tensor([[0.5, 1.5, 3, 5]]))


def test_max_blurred_is_the_mean_of_the_larger_neighbours():
    weights = torch.tensor([[0.0, 4, 2, 0, 0]])
    assert torch.equal(max_blurred(weights), torch.tensor([[2.0, 4, 3, 1, 0]]))


def test_sampler_finds_the_surface(ball, rays_at):
    sampler = HierarchicalSampler(ball, 32, 64, None)
    rays = rays_at(torch.tensor([0.0, 0.2, 0.45]))
    rendering = render(ball, rays, sampler(ball, rays))
    expected = 2 - (0.25 - torch.tensor([0.0, 0.2, 0.45]) ** 2).sqrt()
    assert torch.allclose(rendering.depth, expected, atol=0.02)
    samples = sampler(ball, rays)
    on_surface = (samples.t - expected[samples.ray_index]).abs() < 0.1
    assert on_surface.sum() > 3 * 40


@pytest.mark.parametrize("training", [False, True])
def test_coarse_rendering_comes_when_asked_for_and_only_then(training, ball, rays_at):
    """Whatever the module's mode: with its graph, and without moving a sample."""
    sampler = HierarchicalSampler(ball, 16, 16, None).train(training)
    ball.density.data.fill_(2.0)  # light comes through it, or the opacity would have no gradient
    rays = rays_at(torch.tensor([0.0, 0.3]))
    alone = sampler(ball, rays, generator())
    assert alone.proposal is None
    assert not alone.t.requires_grad
    samples = sampler(ball, rays, generator(), propose=True)
    assert torch.equal(samples.t, alone.t)
    assert torch.equal(samples.ray_index, alone.ray_index)
    assert not samples.t.requires_grad
    assert samples.proposal.rgb.shape == (2, 3)
    (gradient,) = torch.autograd.grad(samples.proposal.opacity.sum(), ball.density)
    assert gradient > 0


@pytest.mark.parametrize("propose", [False, True])
def test_the_grad_mode_decides_no_sample(propose, ball, rays_at):
    sampler = HierarchicalSampler(ball, 16, 16, None)
    rays = rays_at(torch.tensor([0.0, 0.3]))
    with_graph = sampler(ball, rays, generator(), propose=propose)
    with torch.no_grad():
        without = sampler(ball, rays, generator(), propose=propose)
    assert torch.equal(with_graph.t, without.t)
    assert (with_graph.proposal is None) == (without.proposal is None) == (not propose)


def test_without_fine_samples_the_stratified_ones_are_all(make_field, rays_at):
    """And there is no coarse field."""
    spec = {"n_coarse": 16, "n_fine": 0}
    field = make_field("nerf")
    grid = OccupancyGrid(torch.ones(4, 4, 4, dtype=torch.bool), 9 * BOUNDS)
    sampler = HierarchicalSampler.build(spec, field, grid)
    assert sampler.coarse is None
    assert sampler.parameter_groups(None) == []
    rays = rays_at(torch.tensor([0.0, 0.3]))
    samples = sampler(field, rays, propose=True)
    assert samples.proposal is None
    expected = stratified(rays.near, rays.far, 16, None)
    torch.testing.assert_close(samples.t, expected.flatten())


def test_sampler_of_a_specification(make_field):
    field = make_field("nerf")
    grid = OccupancyGrid(torch.ones(4, 4, 4, dtype=torch.bool), BOUNDS)
    style = {"kind": "nerf", "n_frequencies": 1, "depth": 2}
    sampler = HierarchicalSampler.build({"n_coarse": 16, "n_fine": 8, "style": style}, field, grid)
    assert (sampler.n_coarse, sampler.n_fine) == (16, 8)
    assert sampler.coarse.style.spec().items() >= style.items()
    found = [id(p) for group in sampler.parameter_groups(None) for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in sampler.coarse.parameters())
    assert not set(found) & {id(p) for p in field.parameters()}


def test_pruning_leaves_its_grid_alone(ball):
    grid = OccupancyGrid(torch.ones(4, 4, 4, dtype=torch.bool), BOUNDS)
    HierarchicalSampler(ball, 4, 4, grid).prune(ball, lit_only=True)
    assert grid.occupied.all()


def test_sampler_leaves_out_empty_cells_and_missed_rays(ball, rays_at):
    occupied = torch.zeros(8, 8, 8, dtype=torch.bool)
    occupied[:, :, 4:] = True
    sampler = HierarchicalSampler(ball, 16, 16, OccupancyGrid(occupied, BOUNDS))
    rays = rays_at(torch.tensor([0.0, 0.1]))
    rays.far[1] = rays.near[1] - 1
    samples = sampler(ball, rays)
    z = rays.points(samples.ray_index, samples.t)[:, 2]
    assert (z >= 0).all()
    assert (samples.ray_index == 0).all()
    assert len(samples) > 0


def test_same_generator_same_samples(ball, rays_at):
    grid = OccupancyGrid(torch.ones(16, 16, 16, dtype=torch.bool), BOUNDS)
    rays = rays_at(torch.linspace(-0.9, 0.9, 7))
    sampler = HierarchicalSampler(ball, 8, 8, grid)
    first, again, other = (sampler(ball, rays, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.t, again.t)
    assert first.t.shape != other.t.shape or not torch.equal(first.t, other.t)
