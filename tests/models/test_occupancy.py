"""The occupancy grid, and the sampler that steps through it, against plain twins."""

import pytest
import torch

import models.occupancy
from datasets.cameras.rays import Rays
from models.occupancy import (
    MIN_CELL_OPACITY,
    MIN_TRANSMITTANCE,
    OccupancyGrid,
    OccupancySampler,
    bordered_index,
    dilate,
    grid_shape,
    resample_any,
    resample_nearest,
    with_border,
)
from models.render import render, transmittance

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def full_grid(n=16):
    return OccupancyGrid(torch.ones(n, n, n, dtype=torch.bool), BOUNDS)


def test_grid_shape_makes_cubes():
    box = torch.tensor([[-1.0, -1, -1], [1, 1, 0.5]])
    assert grid_shape(box, 64) == (64, 64, 48)


def test_places_outside_are_in_no_cell():
    nowhere = [[-0.5, 0, 0], [2, 0, 0], [1, 0, 4.0], [0, torch.nan, 0], [0, -1e20, 1e20]]
    position = torch.tensor([[0.0, 0, 0], [1.9, 2.9, 3.9], *nowhere])
    cells = with_border(torch.arange(24).view(2, 3, 4), -1).flatten()
    number = cells[bordered_index(position.T, (2, 3, 4))]
    assert number.tolist() == [0, 23, *[-1] * len(nowhere)]


def test_a_point_is_in_an_occupied_cell_or_not():
    g = torch.Generator().manual_seed(0)
    occupied = torch.rand(3, 4, 5, generator=g) < 0.5
    bounds = torch.tensor([[-1.0, 2, -7], [2, 3, 5]])
    x = bounds[0] + (1.4 * torch.rand(500, 3, generator=g) - 0.2) * (bounds[1] - bounds[0])
    cell = ((x - bounds[0]) / (bounds[1] - bounds[0]) * torch.tensor(occupied.shape)).floor().long()
    inside = ((cell >= 0) & (cell < torch.tensor(occupied.shape))).all(-1)
    expected = torch.zeros(500, dtype=torch.bool)
    expected[inside] = occupied[tuple(cell[inside].T)]
    assert 0 < expected.sum() < inside.sum() < 500
    grid = OccupancyGrid(occupied, bounds)
    assert torch.equal(grid.contains(x), expected)
    x[0] = torch.nan
    assert not grid.contains(x)[0]


def test_a_grid_at_another_resolution():
    grid = torch.zeros(4, 4, 4, dtype=torch.bool)
    grid[1, 2, 3] = True
    coarse = resample_any(grid, (2, 2, 2))
    assert coarse.nonzero().tolist() == [[0, 1, 1]]
    fine = resample_nearest(grid, (8, 8, 8))
    assert torch.equal(
        fine, grid.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    )


def test_sampler_equals_its_plain_twin(rays_at):
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
    samples = sampler(None, rays)
    t = rays.near[:, None] + 0.05 * (torch.arange(60) + 0.5)
    x = rays.origins[:, None] + rays.directions[:, None] * t[..., None]
    keep = grid.contains(x.flatten(0, 1)).view(50, 60) & (t < rays.far[:, None])
    ray, column = keep.nonzero(as_tuple=True)
    assert torch.equal(samples.ray_index, ray)
    assert torch.allclose(samples.t, t[ray, column], atol=1e-5)
    assert len(samples) > 30


def test_what_no_light_reaches_is_left_out_and_the_rest_is_told_along(ball, rays_at):
    """The plain twin takes all samples in occupied cells and drops the dark ones afterwards."""
    torch.manual_seed(0)
    grid = OccupancyGrid(torch.rand(40, 40, 40) > 0.3, BOUNDS)
    rays = rays_at(torch.linspace(-0.9, 0.9, 31), near=1.0, far=3.0)
    sampler = OccupancySampler(grid, 0.01)
    everything = sampler(None, rays)
    density, _ = ball.geometry(rays.points(everything.ray_index, everything.t))
    lit = transmittance(density, everything) > MIN_TRANSMITTANCE
    samples = sampler(ball, rays)
    assert 100 < len(samples) < len(everything)
    assert torch.equal(samples.ray_index, everything.ray_index[lit])
    assert torch.equal(samples.t, everything.t[lit])
    assert torch.equal(samples.geometry[0], density[lit])
    assert torch.equal(samples.geometry[1], rays.points(samples.ray_index, samples.t))
    assert not samples.geometry[0].requires_grad


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_cells_are_marked_when_asked_for_and_only_then(training, grad, ball, rays_at):
    """Whatever the module's mode; nothing else changes."""
    sampler = OccupancySampler(full_grid(), 0.02).train(training)
    rays = rays_at(torch.linspace(-0.9, 0.9, 7), 1.0, 3.0)
    with torch.set_grad_enabled(grad):
        alone = sampler(ball, rays, generator())
        assert not sampler.grid.lit.any()
        samples = sampler(ball, rays, generator(), mark=True, propose=True)
    assert torch.equal(samples.t, alone.t)
    assert samples.proposal is None
    expected = OccupancyGrid(torch.zeros_like(sampler.grid.occupied), BOUNDS)
    expected.mark(rays.points(samples.ray_index, samples.t))
    assert torch.equal(sampler.grid.lit, expected.lit)
    assert 0 < sampler.grid.lit.sum() < 7 * 16
    # above the ball light comes, below it does not
    assert sampler.grid.lit[8, 8, 15]
    assert not sampler.grid.lit[8, 8, 0]


def test_a_mark_is_in_the_cell_of_the_point():
    grid = full_grid(4)
    grid.mark(torch.tensor([[-0.9, 0.1, 0.9], [0.9, -0.1, -0.9]]))
    assert grid.lit.nonzero().tolist() == [[0, 2, 3], [3, 1, 0]]
    grid.set(torch.ones(8, 8, 8, dtype=torch.bool))
    assert not grid.lit.any()


def test_depth_of_a_ball_through_a_pruned_grid(ball, rays_at, monkeypatch):
    monkeypatch.setattr(models.occupancy, "PRUNE_CHUNK", 4096)
    sampler = OccupancySampler(full_grid(64), 0.005)
    sampler.grid.lit[:] = True
    sampler.prune(ball, lit_only=True)
    share = float(sampler.grid.occupied.float().mean())
    assert 4 / 3 * 3.1416 * 0.5**3 / 8 < share < 0.1
    offsets = torch.tensor([0.0, 0.1, 0.3, 0.4])
    rays = rays_at(offsets)
    rendering = render(ball, rays, sampler(ball, rays))
    assert torch.allclose(rendering.depth, 2 - (0.25 - offsets**2).sqrt(), atol=0.01)


@pytest.mark.parametrize(("factor", "stays"), [(0.99, False), (1.01, True)])
def test_thin_is_what_stops_little_light_within_a_cell(factor, stays):
    def density(x):
        left = factor * MIN_CELL_OPACITY / 0.25
        return torch.where(x[:, 0] < 0, left, 0.0) + torch.where(x[:, 0] > 0.7, 100.0, 0.0)

    grid = full_grid(8)
    grid.prune(density, lit_only=False)
    assert grid.occupied[6:].all()
    assert bool(grid.occupied[:4].all()) is bool(grid.occupied[:4].any()) is stays


def test_a_grid_in_which_all_is_thin_stays_whole():
    """A run of a few steps is pruned before its field has learned anything."""
    grid = full_grid(8)
    grid.prune(lambda x: torch.zeros_like(x[:, 0]), lit_only=False)
    assert grid.occupied.all()


def test_pruning_may_keep_only_what_light_has_reached():
    """With the neighbours, and never a cell that was empty before."""
    occupied = torch.ones(8, 8, 8, dtype=torch.bool)
    occupied[5] = False
    for lit_only in (False, True):
        grid = OccupancyGrid(occupied, BOUNDS)
        grid.mark(torch.tensor([[0.1, 0.1, 0.1]]))  # cell 4, 4, 4
        grid.prune(lambda x: torch.full_like(x[:, 0], 100.0), lit_only)
        if lit_only:
            assert int(grid.occupied.sum()) == 18
            assert grid.occupied[3:5, 3:6, 3:6].all()
        else:
            assert torch.equal(grid.occupied, occupied)
        # what was reached counts until it has been asked for
        assert bool(grid.lit.any()) is not lit_only


def test_step_of_a_specification(make_field):
    field, grid = make_field("voxels"), full_grid()
    assert OccupancySampler.build({"n_steps": 40}, field, grid).step == pytest.approx(0.05)
    assert OccupancySampler.build({"n_steps": 0}, field, grid).step == field.step


def test_a_grid_of_another_resolution_is_loaded_and_sampled(rays_at):
    torch.manual_seed(0)
    saved = OccupancySampler(OccupancyGrid(torch.rand(20, 24, 16) > 0.9, BOUNDS), 0.05)
    loaded = OccupancySampler(full_grid(8), 0.05)
    loaded.load_state_dict(saved.state_dict())
    rays = rays_at(torch.linspace(-0.9, 0.9, 20), 1.0, 3.0)
    a, b = saved(None, rays), loaded(None, rays)
    assert torch.equal(a.t, b.t)
    assert len(a) > 10


def test_dilate_grows_by_one_cell():
    grid = torch.zeros(5, 5, 5, dtype=torch.bool)
    grid[2, 2, 2] = True
    assert int(dilate(grid).sum()) == 27


def test_same_generator_same_samples(ball, rays_at):
    rays = rays_at(torch.linspace(-0.9, 0.9, 7))
    sampler = OccupancySampler(full_grid(), 0.1)
    first, again, other = (sampler(ball, rays, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.t, again.t)
    assert first.t.shape != other.t.shape or not torch.equal(first.t, other.t)
