"""The occupancy grid, and the sampler that takes uniform steps through its occupied cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.cameras.march import March, Positions
from datasets.cameras.rays import Rays
from models.field import Field
from models.render import Samples, first_samples, segment_sum, transmittance
from models.sampler import Sampler

MIN_CELL_OPACITY = 0.01  # a cell with less counts as empty
PRUNE_CHUNK = 1 << 18  # cells at once
MIN_TRANSMITTANCE = 1e-3  # a ray ends where its transmittance falls below this
BLOCK = 4  # cells along a block of the coarse grid, which the sampler tests first
SEGMENT = 2 * BLOCK - 0.5  # cells along a ray segment that one test of the coarse grid covers
# Segments of a ray, front to back, that are evaluated together: most rays end at the first surface.
# A GPU takes longer to wait for the end of a wave than to evaluate a few rays whole.
ALL = 1 << 30
WAVES = (3, 6, 10, 16, ALL)
GPU_WAVES = (4, ALL)
FEW_RAYS = 1 << 14


def grid_shape(bounds: Tensor, resolution: int) -> tuple[int, int, int]:
    """Number of cells along each axis of a box ``bounds (2, 3)``: nearly cubic cells,
    ``resolution`` of them along the longest side."""
    extent = bounds[1] - bounds[0]
    shape = (extent / extent.max() * resolution).round().clamp(min=4)
    return tuple(int(n) for n in shape)


def flat_index(cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Raster-order index of the cell that contains each position.

    Args:
        cells: (3, ...) positions in cell coordinates; those outside are clamped to the boundary
            cells.
        shape: cells along each axis.

    Returns:
        (...) int32.
    """
    first, last = (n.view(3, *[1] * (cells.ndim - 1)) for n in _ends(tuple(shape), cells.device))
    x, y, z = cells.to(torch.int32).clamp_(first, last)
    return z.add_(y.add_(x, alpha=shape[1]), alpha=shape[2])


@cache
def _ends(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The first and the last cell along each axis, (3,) int32, which are copied to a GPU once."""
    last = torch.tensor(shape, dtype=torch.int32, device=device) - 1
    return torch.zeros_like(last), last


def bordered_index(cells: Tensor, shape: Sequence[int]) -> Tensor:
    """As `flat_index`, in a grid with a border of one cell around it (`with_border`), in which all
    positions outside, and NaN, end up."""
    # rounded down before the conversion to an integer, or -0.5 would be inside
    return flat_index(cells.floor() + 1, [n + 2 for n in shape])


def with_border(grid: Tensor, value: float) -> Tensor:
    """The grid (R0, R1, R2) with one more cell of ``value`` on every side."""
    return functional.pad(grid, [1] * 6, value=value)


def with_sides(grid: Tensor) -> Tensor:
    """The boolean grid (R0, R1, R2) with all of its outermost cells."""
    inner = torch.zeros_like(grid)
    inner[1:-1, 1:-1, 1:-1] = True
    return grid | ~inner


def dilate(grid: Tensor) -> Tensor:
    """The boolean grid (R0, R1, R2) grown by one cell in all 26 directions."""
    return functional.max_pool3d(grid[None, None].half(), 3, stride=1, padding=1)[0, 0] > 0


def resample_any(grid: Tensor, shape: Sequence[int]) -> Tensor:
    """The boolean grid (R0, R1, R2) at resolution ``shape``: a cell is True if any old cell that it
    overlaps is True."""
    return functional.adaptive_max_pool3d(grid[None].float(), shape)[0] > 0


def resample_nearest(grid: Tensor, shape: Sequence[int]) -> Tensor:
    """The boolean grid (R0, R1, R2) at resolution ``shape``: a cell takes the value of the old cell
    that contains its centre."""
    return functional.interpolate(grid[None, None].float(), shape, mode="nearest")[0, 0] > 0


class OccupancyGrid(nn.Module):
    """Which cells of a box may have density.

    Args:
        occupied: (R0, R1, R2) bool.
        bounds: (2, 3) corners of the box in the field's space.

    Attributes:
        lit: (R0, R1, R2) bool, cells that an unoccluded ray has reached since the last `set`, or
            the last `prune` that asked for them.
        cell: (3,) edge lengths of a cell, units of the field's space.
        smallest: of them.
        scale, first: (3, 1) cells per unit, and what is added so that the cells of the grid with a
            border (`with_border`) are counted from its corner.
    """

    occupied: Tensor
    lit: Tensor
    bounds: Tensor
    blocks: Tensor
    bordered: Tensor
    cell: Tensor
    scale: Tensor
    first: Tensor
    smallest: float

    def __init__(self, occupied: Tensor, bounds: Tensor) -> None:
        super().__init__()
        self.register_buffer("occupied", occupied)
        self.register_buffer("lit", torch.zeros_like(occupied))
        self.register_buffer("bounds", bounds.clone())
        for name in ("blocks", "bordered", "cell", "scale", "first"):  # see `_derive`
            self.register_buffer(name, None, persistent=False)
        self._derive()

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: object) -> None:
        self.set(state[prefix + "occupied"])
        super()._load_from_state_dict(state, prefix, *args)
        self._derive()

    def _derive(self) -> None:
        """What follows from the grid, and would take its time at each step.

        A block is occupied if it or a neighbour has an occupied cell, so that testing one point of
        a ray finds everything within `BLOCK` cells, half a segment, of it.
        """
        resolution = torch.tensor(self.occupied.shape, device=self.bounds.device)
        self.cell = (self.bounds[1] - self.bounds[0]) / resolution
        self.smallest = float(self.cell.min())
        self.scale = (1 / self.cell)[:, None]
        self.first = 1 - self.bounds[0][:, None] * self.scale
        self.bordered = with_border(self.occupied, False)
        pooled = functional.max_pool3d(self.occupied[None, None].half(), BLOCK, ceil_mode=True)
        self.blocks = functional.max_pool3d(pooled, 3, stride=1, padding=1)[0, 0] > 0

    def set(self, occupied: Tensor) -> None:
        """Replaces the grid by ``occupied (R0, R1, R2) bool``, of any resolution."""
        self.occupied = occupied.to(self.bounds.device)
        self.lit = torch.zeros_like(self.occupied)
        self._derive()

    def _in_cells(self, x: Tensor) -> Tensor:
        """(3, M) positions ``x (M, 3)`` in cell coordinates."""
        return (x.T.contiguous() - self.bounds[0][:, None]) / self.cell[:, None]

    def contains(self, x: Tensor) -> Tensor:
        """(M,) bool: whether each position ``x (M, 3)`` lies in an occupied cell."""
        # as `bordered_index`, in fewer operations
        cells = torch.addcmul(self.first, x.T, self.scale)
        index = flat_index(cells.floor(), self.bordered.shape)
        return self.bordered.flatten().index_select(0, index)

    def centres(self, cells: Tensor) -> Tensor:
        """(K, 3) centres of the cells given by integer coordinates ``cells (K, 3)``."""
        return self.bounds[0] + (cells + 0.5) * self.cell

    def mark(self, x: Tensor) -> None:
        """Records that an unoccluded ray reached the cells of ``x (M, 3)``."""
        self.lit.view(-1)[flat_index(self._in_cells(x), self.lit.shape)] = True

    @torch.no_grad()
    def prune(self, density: Callable[[Tensor], Tensor], lit_only: bool) -> None:
        """Empties the cells whose opacity, from the density at their centre, is below
        `MIN_CELL_OPACITY`.  Neighbours of remaining cells remain too; if none would remain, all do.

        Args:
            density: (K, 3) positions -> (K,) density per unit of the field's space.
            lit_only: also empty the cells that no unoccluded ray has reached since the last time.
        """
        threshold = MIN_CELL_OPACITY / self.smallest
        cells = (self.occupied & self.lit if lit_only else self.occupied).nonzero()
        parts = cells.split(PRUNE_CHUNK)
        stays = torch.cat([density(self.centres(part)) > threshold for part in parts])
        if not stays.any():  # pruned before the field has learned anything
            return
        grid = torch.zeros_like(self.occupied)
        grid[tuple(cells[stays].T)] = True
        lit = self.lit
        self.set(dilate(grid) & self.occupied)
        if not lit_only:
            self.lit = lit


class OccupancySampler(Sampler):
    """Uniform steps along each ray, kept where the grid is occupied (Müller et al. 2022) and the
    ray is not yet blocked.

    Args:
        grid: where samples are taken.
        step: distance between samples, units of the field's space; None: the field's, see
            `Field.step`.
        field: the field whose step is used where ``step`` is None.
    """

    def __init__(self, grid: OccupancyGrid, step: float | None, field: Field | None = None) -> None:
        super().__init__()
        self.grid = grid
        self.follows_field = step is None
        self.step = field.step if step is None else step

    @classmethod
    def spec_of(cls, options: Any, style: dict[str, Any]) -> dict[str, Any]:
        return {"n_steps": options.N_samples + options.N_importance}

    @classmethod
    def build(cls, spec: dict[str, Any], field: Field, grid: OccupancyGrid) -> OccupancySampler:
        """The sampler of ``spec``, whose "n_steps" is the number of steps along the longest side of
        the box; 0: determined by the field's resolution."""
        longest = float((grid.bounds[1] - grid.bounds[0]).max())
        return cls(grid, longest / spec["n_steps"] if spec["n_steps"] else None, field)

    def refine(self, field: Field, resolution: int) -> None:
        if self.follows_field:
            self.step = field.step

    def prune(self, field: Field, lit_only: bool) -> None:
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
        """Samples of ``rays``, which are clipped to the grid's bounds.

        Args:
            field: its density decides where rays are blocked; None: all samples in occupied cells.
            rays: N rays.
            generator: for one random shift per ray; None: the midpoints of the steps.
            mark: record in the grid which cells unoccluded rays reach, for the next `prune`.
            propose: unused here.
        """
        n = len(rays)
        if generator is None:
            shift = torch.full_like(rays.near, 0.5)
        else:
            near = rays.near
            shift = torch.rand(n, generator=generator, device=near.device, dtype=near.dtype)
        path = rays.march()
        in_cells = path.counted_in(self.grid.bounds[0], self.grid.cell)
        segments = self._segments(path, in_cells)
        if field is None:
            return Samples(*self._steps(path, in_cells, shift, *segments), n)
        ends = _ends_of_waves(n, shift.device)
        rank = _index_within_group(segments[0], n) if len(ends) > 1 else None
        waves, passed = [], None
        for begin, end in pairwise((0, *ends)):
            ray, start = segments
            if rank is not None:
                chosen = (rank >= begin) & (rank < end)
                if passed is not None:
                    chosen &= (passed < -math.log(MIN_TRANSMITTANCE)).index_select(0, ray)
                index = chosen.nonzero()[:, 0]
                ray, start = ray.index_select(0, index), start.index_select(0, index)
            if begin and not len(ray):
                break
            steps = Samples(*self._steps(path, in_cells, shift, ray, start), n)
            wave, density = self._visible(field, rays, steps, passed, mark)
            waves.append(wave)
            if end < ends[-1]:
                depth = segment_sum((density * steps.delta).double(), steps.ray_index, n)
                passed = depth if passed is None else passed + depth
        return waves[0] if len(waves) == 1 else _merged(waves, n)

    def _segments(self, path: March, in_cells: Positions) -> tuple[Tensor, Tensor]:
        """Segments of the rays near occupied cells: ray (K,) ascending, and start (K,) as a path
        parameter, ascending within a ray."""
        length = self._n_steps() * self.step
        counts = torch.ceil((path.far - path.near) / length).long().clamp_(min=0)
        ray = torch.repeat_interleave(counts, output_size=int(counts.sum()))
        rank = torch.arange(len(ray), device=ray.device)
        rank -= (counts.cumsum(0) - counts).index_select(0, ray)
        start = path.near.index_select(0, ray) + length * rank
        blocks = self.grid.blocks
        block = flat_index(in_cells(ray, start + length / 2) / BLOCK, blocks.shape)
        hit = blocks.flatten().index_select(0, block).nonzero()[:, 0]
        return ray.index_select(0, hit), start.index_select(0, hit)

    def _n_steps(self) -> int:
        """Steps in a segment."""
        return max(1, int(SEGMENT * self.grid.smallest / self.step))

    def _steps(
        self, path: March, in_cells: Positions, shift: Tensor, ray: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ray, distance and length (M,) each of the steps of some segments that lie in occupied
        cells."""
        steps = torch.arange(self._n_steps(), device=ray.device) * self.step
        s = (start + shift.index_select(0, ray) * self.step)[:, None] + steps
        occupied = self.grid.occupied
        cells, lengths = path.steps(in_cells, self.grid.cell, ray, s, self.step)
        cell = flat_index(cells, occupied.shape).flatten()
        keep = occupied.flatten().index_select(0, cell).view(s.shape)
        keep &= s < path.far.index_select(0, ray)[:, None]
        index = keep.flatten().nonzero()[:, 0]
        ray, s = ray.index_select(0, index // len(steps)), s.flatten().index_select(0, index)
        return ray, path.distance(ray, s), lengths.flatten().index_select(0, index)

    def _visible(
        self, field: nn.Module, rays: Rays, samples: Samples, passed: Tensor | None, mark: bool
    ) -> tuple[Samples, Tensor]:
        """The samples of a wave that are visible from the camera, with the field's density and
        feature; and the density of all.

        ``passed (N,)`` is the optical depth in front of the wave; None: there is nothing.
        """
        ray = samples.ray_index
        x = rays.points(ray, samples.t)
        density, feature = field.geometry(x)
        light = transmittance(density, samples)
        if passed is not None:
            light = light * torch.exp(-passed.index_select(0, ray)).to(density.dtype)
        visible = (light > MIN_TRANSMITTANCE).nonzero()[:, 0]
        if mark:
            self.grid.mark(x.T.index_select(1, visible).T)
        samples = samples.take(visible)
        samples.geometry = density.index_select(0, visible), feature.index_select(0, visible)
        return samples, density


def _ends_of_waves(n_rays: int, device: torch.device) -> tuple[int, ...]:
    """Until which of a ray's segments each wave goes."""
    if device.type != "cuda":
        return WAVES
    return GPU_WAVES if n_rays > FEW_RAYS else (ALL,)


def _merged(waves: list[Samples], n: int) -> Samples:
    """The samples of several waves of ``n`` rays, given front to back, sorted by ray."""
    edges = torch.arange(n + 1, device=waves[0].t.device)
    starts = [torch.searchsorted(wave.ray_index, edges) for wave in waves]
    place = sum(starts)[:-1]  # where the samples of a ray begin, and then the wave's part of them
    parts = [(w.ray_index, w.t, w.delta, *w.geometry) for w in waves]
    total = sum(map(len, waves))
    merged = [x.new_empty(total, *x.shape[1:]) for x in parts[0]]
    for start, part in zip(starts, parts, strict=True):
        ray = part[0]
        index = (place - start[:-1]).index_select(0, ray)
        index += torch.arange(len(ray), device=ray.device)
        for out, x in zip(merged, part, strict=True):
            out.index_copy_(0, index, x)
        place = place + start.diff()
    ray, t, delta, density, feature = merged
    return Samples(ray, t, delta, n, geometry=(density, feature))


def _index_within_group(group: Tensor, n_groups: int) -> Tensor:
    """``0 .. c - 1`` for each of ``n_groups``, of ascending ``group (K,)`` with c members each."""
    first = first_samples(group, n_groups)
    return torch.arange(len(group), device=group.device) - first.index_select(0, group)
