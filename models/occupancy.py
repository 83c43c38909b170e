"""A boolean grid of where something may be, and the sampler that steps through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.cameras.march import March
from datasets.cameras.rays import Rays
from models.field import Field
from models.render import Samples, segment_sum, transmittance
from models.style import ParameterGroups

THIN = 0.01  # share of the light that a cell must stop in order not to count as empty
PRUNE_CHUNK = 1 << 18  # cells at once
HIDDEN = 1e-3  # transmittance from which on nothing behind can be seen
BLOCK = 4  # cells along a block of the coarse grid that the sampler looks at first
STRETCH = 2 * BLOCK - 0.5  # cells that a look at the coarse grid answers for
# Stretches of a ray, front to back, that are looked at together: most rays end at the first surface
WAVES = (3, 6, 1 << 30)


def grid_shape(bounds: Tensor, resolution: int) -> tuple[int, int, int]:
    """Cells along each axis of a box ``bounds (2, 3)``: nearly cubes, ``resolution`` of them along
    the longest."""
    extent = bounds[1] - bounds[0]
    shape = (extent / extent.max() * resolution).round().clamp(min=4)
    return tuple(int(n) for n in shape)


def cell_number(place: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Number (...) int32, in raster order, of the cell of a grid of ``shape`` that each place lies
    in.

    Args:
        place: a tensor (...) for each axis, in units of cells; what is outside belongs to the rim.
    """
    number = 0
    for n, along in zip(shape, place, strict=True):
        number = number * n + along.to(torch.int32).clamp_(0, n - 1)
    return number


def locate(position: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Number (M,) of the cell that each ``position (M, 3)``, in units of cells, lies in, and
    whether it lies in one (M,)."""
    # rounded down before it is made an integer, or -0.5 would be inside
    place = position.floor().unbind(1)
    inside = torch.ones_like(place[0], dtype=torch.bool)
    for n, along in zip(shape, place, strict=True):
        inside &= (along >= 0) & (along < n)
    return cell_number(place, shape), inside


def dilate(grid: Tensor) -> Tensor:
    """The boolean grid (R0, R1, R2) grown by one cell in all 26 directions."""
    return functional.max_pool3d(grid[None, None].half(), 3, stride=1, padding=1)[0, 0] > 0


def resampled(grid: Tensor, shape: Sequence[int]) -> Tensor:
    """The boolean grid at another resolution: a cell is True where any of it was."""
    return functional.adaptive_max_pool3d(grid[None].float(), shape)[0] > 0


def upsampled(grid: Tensor, shape: Sequence[int]) -> Tensor:
    """The boolean grid at another resolution: a cell is what its middle lies in."""
    return functional.interpolate(grid[None, None].float(), shape, mode="nearest")[0, 0] > 0


class OccupancyGrid(nn.Module):
    """Which cells of a box may hold density.

    Args:
        occupied: (R0, R1, R2) bool.
        bounds: (2, 3) corners of the box, scene units.
    """

    occupied: Tensor
    lit: Tensor
    bounds: Tensor

    def __init__(self, occupied: Tensor, bounds: Tensor) -> None:
        super().__init__()
        self.register_buffer("occupied", occupied)
        self.register_buffer("lit", torch.zeros_like(occupied))
        self.register_buffer("bounds", bounds.clone())
        self.register_buffer("blocks", torch.zeros(1, 1, 1, dtype=torch.bool), persistent=False)
        self._pool_blocks()

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: object) -> None:
        self.set(state[prefix + "occupied"])
        super()._load_from_state_dict(state, prefix, *args)
        self._pool_blocks()

    @property
    def resolution(self) -> Tensor:
        return torch.tensor(self.occupied.shape, device=self.bounds.device)

    @property
    def cell(self) -> Tensor:
        """(3,) edge lengths of a cell, scene units."""
        return (self.bounds[1] - self.bounds[0]) / self.resolution

    def _pool_blocks(self) -> None:
        """A block counts when it or a neighbour of it holds an occupied cell: what is within
        `BLOCK` cells, half a stretch, of any place in it is found by a look at that place."""
        pooled = functional.max_pool3d(self.occupied[None, None].half(), BLOCK, ceil_mode=True)
        self.blocks = functional.max_pool3d(pooled, 3, stride=1, padding=1)[0, 0] > 0

    def set(self, occupied: Tensor) -> None:
        """Replaces the grid by ``occupied (R0, R1, R2) bool``, of any resolution."""
        self.occupied = occupied.to(self.bounds.device)
        self.lit = torch.zeros_like(self.occupied)
        self._pool_blocks()

    def contains(self, x: Tensor) -> Tensor:
        """(M,) bool: whether each position ``x (M, 3)`` lies in an occupied cell."""
        number, inside = locate((x - self.bounds[0]) / self.cell, self.occupied.shape)
        return self.occupied.flatten()[number] & inside

    def centres(self, cells: Tensor) -> Tensor:
        """(K, 3) centres of the cells given by integer coordinates ``cells (K, 3)``."""
        return self.bounds[0] + (cells + 0.5) * self.cell

    def mark(self, x: Tensor) -> None:
        """Remembers that light reaches the cells of ``x (M, 3)``."""
        place = ((x - self.bounds[0]) / self.cell).unbind(1)
        self.lit.view(-1)[cell_number(place, self.lit.shape)] = True

    @torch.no_grad()
    def prune(self, density: Callable[[Tensor], Tensor], lit_only: bool) -> None:
        """Empties cells that are thin: that stop less than `THIN` of the light at their centre's
        density.  A cell beside one that stays, stays.

        Args:
            density: (K, 3) positions -> (K,) density per scene unit.
            lit_only: empty what no light has reached since the last time, too.
        """
        threshold = THIN / float(self.cell.min())
        cells = (self.occupied & self.lit if lit_only else self.occupied).nonzero()
        parts = cells.split(PRUNE_CHUNK)
        stays = [density(self.centres(part)) > threshold for part in parts]
        grid = torch.zeros_like(self.occupied)
        grid[tuple(cells[torch.cat(stays)].T)] = True
        self.set(dilate(grid) & self.occupied)


class OccupancySampler(nn.Module):
    """Equal steps along each ray, kept where the grid is occupied (Mueller et al. 2022) and light
    still comes.

    Args:
        grid: where to look.
        step: distance between samples, scene units; None: the field's, see `Field.step`.
        field: whose step it is.
    """

    def __init__(self, grid: OccupancyGrid, step: float | None, field: Field | None = None) -> None:
        super().__init__()
        self.grid = grid
        self.follows_field = step is None
        self.step = field.step if step is None else step

    @classmethod
    def build(cls, spec: dict[str, Any], field: Field, grid: OccupancyGrid) -> OccupancySampler:
        """The sampler of ``spec``: "n_steps" along the longest side of the box; 0: as many as the
        field's resolution asks for."""
        longest = float((grid.bounds[1] - grid.bounds[0]).max())
        return cls(grid, longest / spec["n_steps"] if spec["n_steps"] else None, field)

    def parameter_groups(self, lr: float | None) -> ParameterGroups:
        """None: what it learns is counted, not descended to."""
        return []

    def refine(self, field: Field, resolution: int) -> None:
        """Follows the field to its new resolution."""
        if self.follows_field:
            self.step = field.step

    def prune(self, field: Field, lit_only: bool) -> None:
        """Empties the cells in which the field turned out thin, see `OccupancyGrid.prune`."""
        self.grid.prune(lambda x: field.geometry(x)[0], lit_only)

    @torch.no_grad()
    def forward(
        self,
        field: nn.Module | None,
        rays: Rays,
        generator: torch.Generator | None = None,
        mark: bool = False,
        propose: bool = False,
    ) -> Samples:
        """Samples of ``rays``, which end within the grid's bounds.

        Args:
            field: whose density ends the rays; None for all samples in occupied cells.
            generator: for one random shift per ray; None for the middles of the steps.
            mark: remember in the grid which cells light reaches, for the next `prune`.
            propose: no matter here, see `HierarchicalSampler`.
        """
        n = len(rays)
        shift = torch.full_like(rays.near, 0.5)
        if generator is not None:
            shift = torch.rand(n, generator=generator, device=shift.device, dtype=shift.dtype)
        path = rays.march()
        stretches = self._stretches(path, n)
        if field is None:
            return Samples(*self._steps(path, shift, *stretches[:2]), n)
        waves, passed = [], torch.zeros(n, dtype=torch.float64, device=shift.device)
        begin = 0
        for end in WAVES:
            ray, start, rank = stretches
            now = (rank >= begin) & (rank < end) & (passed[ray] < -math.log(HIDDEN))
            if not now.any():
                break
            steps = Samples(*self._steps(path, shift, ray[now], start[now]), n)
            waves.append(self._visible(field, rays, steps, passed, mark))
            begin = end
        return _merged(waves, rays)

    def _stretches(self, path: March, n_rays: int) -> tuple[Tensor, Tensor, Tensor]:
        """Stretches of the rays with something near: ray (K,) ascending, start (K,) along its path,
        and which of its ray's stretches it is, from the front."""
        length = self._n_steps() * self.step
        live = (path.far > path.near).nonzero()[:, 0]
        near, far = path.near.index_select(0, live), path.far.index_select(0, live)
        counts = torch.ceil((far - near) / length).long()
        ray = torch.repeat_interleave(live, counts)
        start = near.repeat_interleave(counts) + length * _numbers(counts)
        blocks, grid = self.grid.blocks, self.grid
        place = path.positions(ray, start + length / 2, grid.bounds[0], grid.cell * BLOCK)
        near_something = blocks.flatten().index_select(0, cell_number(place, blocks.shape))
        hit = near_something.nonzero()[:, 0]
        ray, start = ray.index_select(0, hit), start.index_select(0, hit)
        return ray, start, _numbers(torch.bincount(ray, minlength=n_rays))

    def _n_steps(self) -> int:
        """Steps in a stretch."""
        return max(1, int(STRETCH * float(self.grid.cell.min()) / self.step))

    def _steps(
        self, path: March, shift: Tensor, ray: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ray, distance and length of the steps in some stretches that lie in occupied cells."""
        steps = torch.arange(self._n_steps(), device=ray.device) * self.step
        s = (start + shift.index_select(0, ray) * self.step)[:, None] + steps
        place = path.positions(ray, s, self.grid.bounds[0], self.grid.cell)
        occupied = self.grid.occupied
        number = cell_number(place, occupied.shape).flatten()
        keep = occupied.flatten().index_select(0, number).view(s.shape)
        keep &= s < path.far.index_select(0, ray)[:, None]
        index = keep.flatten().nonzero()[:, 0]
        ray, s = ray.index_select(0, index // len(steps)), s.flatten().index_select(0, index)
        return ray, path.distance(ray, s), path.length(ray, s, self.step)

    def _visible(
        self, field: nn.Module, rays: Rays, samples: Samples, passed: Tensor, mark: bool
    ) -> Samples:
        """Of a wave's samples those that light reaches, with what the field said there.

        ``passed (N,)``, the optical depth of what is in front of the wave, goes on behind it.
        """
        ray = samples.ray_index
        x = rays.points(ray, samples.t)
        density, feature = field.geometry(x)
        before = torch.exp(-passed.index_select(0, ray)).to(density.dtype)
        light = transmittance(density, samples) * before
        passed += segment_sum((density * samples.delta).double(), ray, samples.n_rays)
        visible = (light > HIDDEN).nonzero()[:, 0]
        if mark:
            self.grid.mark(x.index_select(0, visible))
        samples = samples.take(visible)
        samples.geometry = density.index_select(0, visible), feature.index_select(0, visible)
        return samples


def _merged(waves: list[Samples], rays: Rays) -> Samples:
    """The samples of several waves, front ones first, in the order of their rays."""
    n = len(rays)
    if not waves:
        empty = rays.near[:0]
        return Samples(empty.long(), empty, empty, n)
    counts = [torch.bincount(wave.ray_index, minlength=n) for wave in waves]
    total = sum(counts)
    first = total.cumsum(0) - total
    parts = [(w.ray_index, w.t, w.delta, *w.geometry) for w in waves]
    whole = [torch.empty(int(total.sum()), *part.shape[1:]).to(part) for part in parts[0]]
    for own, part in zip(counts, parts, strict=True):
        place = first.repeat_interleave(own) + _numbers(own)
        for all_of_it, some in zip(whole, part, strict=True):
            all_of_it[place] = some
        first = first + own
    ray, t, delta, density, feature = whole
    return Samples(ray, t, delta, n, geometry=(density, feature))


def _numbers(counts: Tensor) -> Tensor:
    """``0 .. c - 1`` for every count c of ``counts (N,)``, one after the other."""
    first = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) - first.repeat_interleave(counts)
