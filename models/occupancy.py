"""The occupancy grid, and the sampler that takes uniform steps through its occupied cells."""

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
from models.sampler import Sampler

MIN_CELL_OPACITY = 0.01  # a cell with less counts as empty
PRUNE_CHUNK = 1 << 18  # cells at once
MIN_TRANSMITTANCE = 1e-3  # a ray ends where its transmittance falls below this
BLOCK = 4  # cells along a block of the coarse grid, which the sampler tests first
SEGMENT = 2 * BLOCK - 0.5  # cells along a ray segment that one test of the coarse grid covers
# Segments of a ray, front to back, that are evaluated together: most rays end at the first surface
WAVES = (3, 6, 1 << 30)


def grid_shape(bounds: Tensor, resolution: int) -> tuple[int, int, int]:
    """Number of cells along each axis of a box ``bounds (2, 3)``: nearly cubic cells,
    ``resolution`` of them along the longest side."""
    extent = bounds[1] - bounds[0]
    shape = (extent / extent.max() * resolution).round().clamp(min=4)
    return tuple(int(n) for n in shape)


def flat_index(cell_coords: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Raster-order index of the cell that contains each position.

    Args:
        cell_coords: for each axis a tensor (...) of positions in cell coordinates; those outside
            are clamped to the boundary cells.
        shape: cells along each axis.

    Returns:
        (...) int32.
    """
    index = 0
    for n, along in zip(shape, cell_coords, strict=True):
        index = index * n + along.to(torch.int32).clamp_(0, n - 1)
    return index


def locate(position: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The cell that contains each position.

    Args:
        position: (M, 3) in cell coordinates.
        shape: cells along each axis.

    Returns:
        (M,) int32 indices in raster order, and (M,) bool: whether the position is inside the grid.
    """
    # rounded down before the conversion to an integer, or -0.5 would be inside
    cell_coords = position.floor().unbind(1)
    inside = torch.ones_like(cell_coords[0], dtype=torch.bool)
    for n, along in zip(shape, cell_coords, strict=True):
        inside &= (along >= 0) & (along < n)
    return flat_index(cell_coords, shape), inside


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
        lit: (R0, R1, R2) bool, cells that an unoccluded ray has reached since the last `set`.
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
        """(3,) int64 number of cells along each axis."""
        return torch.tensor(self.occupied.shape, device=self.bounds.device)

    @property
    def cell(self) -> Tensor:
        """(3,) edge lengths of a cell, units of the field's space."""
        return (self.bounds[1] - self.bounds[0]) / self.resolution

    def _pool_blocks(self) -> None:
        """A block is occupied if it or a neighbour has an occupied cell, so that testing one point
        of a ray finds everything within `BLOCK` cells, half a segment, of it."""
        pooled = functional.max_pool3d(self.occupied[None, None].half(), BLOCK, ceil_mode=True)
        self.blocks = functional.max_pool3d(pooled, 3, stride=1, padding=1)[0, 0] > 0

    def set(self, occupied: Tensor) -> None:
        """Replaces the grid by ``occupied (R0, R1, R2) bool``, of any resolution."""
        self.occupied = occupied.to(self.bounds.device)
        self.lit = torch.zeros_like(self.occupied)
        self._pool_blocks()

    def contains(self, x: Tensor) -> Tensor:
        """(M,) bool: whether each position ``x (M, 3)`` lies in an occupied cell."""
        index, inside = locate((x - self.bounds[0]) / self.cell, self.occupied.shape)
        return self.occupied.flatten()[index] & inside

    def centres(self, cells: Tensor) -> Tensor:
        """(K, 3) centres of the cells given by integer coordinates ``cells (K, 3)``."""
        return self.bounds[0] + (cells + 0.5) * self.cell

    def mark(self, x: Tensor) -> None:
        """Records that an unoccluded ray reached the cells of ``x (M, 3)``."""
        cell_coords = ((x - self.bounds[0]) / self.cell).unbind(1)
        self.lit.view(-1)[flat_index(cell_coords, self.lit.shape)] = True

    @torch.no_grad()
    def prune(self, density: Callable[[Tensor], Tensor], lit_only: bool) -> None:
        """Empties the cells whose opacity, from the density at their centre, is below
        `MIN_CELL_OPACITY`.  Neighbours of remaining cells remain too.

        Args:
            density: (K, 3) positions -> (K,) density per unit of the field's space.
            lit_only: also empty the cells that no unoccluded ray has reached since the last time.
        """
        threshold = MIN_CELL_OPACITY / float(self.cell.min())
        cells = (self.occupied & self.lit if lit_only else self.occupied).nonzero()
        parts = cells.split(PRUNE_CHUNK)
        stays = [density(self.centres(part)) > threshold for part in parts]
        grid = torch.zeros_like(self.occupied)
        grid[tuple(cells[torch.cat(stays)].T)] = True
        self.set(dilate(grid) & self.occupied)


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
        shift = torch.full_like(rays.near, 0.5)
        if generator is not None:
            shift = torch.rand(n, generator=generator, device=shift.device, dtype=shift.dtype)
        path = rays.march()
        segments = self._segments(path, n)
        if field is None:
            return Samples(*self._steps(path, shift, *segments[:2]), n)
        waves, passed = [], torch.zeros(n, dtype=torch.float64, device=shift.device)
        begin = 0
        for end in WAVES:
            ray, start, rank = segments
            now = (rank >= begin) & (rank < end) & (passed[ray] < -math.log(MIN_TRANSMITTANCE))
            if not now.any():
                break
            steps = Samples(*self._steps(path, shift, ray[now], start[now]), n)
            waves.append(self._visible(field, rays, steps, passed, mark))
            begin = end
        return _merged(waves, rays)

    def _segments(self, path: March, n_rays: int) -> tuple[Tensor, Tensor, Tensor]:
        """Segments of the rays near occupied cells: ray (K,) ascending, start (K,) as a path
        parameter, and rank (K,) among the ray's segments, from the front."""
        length = self._n_steps() * self.step
        live = (path.far > path.near).nonzero()[:, 0]
        near, far = path.near.index_select(0, live), path.far.index_select(0, live)
        counts = torch.ceil((far - near) / length).long()
        ray = torch.repeat_interleave(live, counts)
        start = near.repeat_interleave(counts) + length * _index_within_group(counts)
        blocks, grid = self.grid.blocks, self.grid
        coords = path.positions(ray, start + length / 2, grid.bounds[0], grid.cell * BLOCK)
        block_occupied = blocks.flatten().index_select(0, flat_index(coords, blocks.shape))
        hit = block_occupied.nonzero()[:, 0]
        ray, start = ray.index_select(0, hit), start.index_select(0, hit)
        return ray, start, _index_within_group(torch.bincount(ray, minlength=n_rays))

    def _n_steps(self) -> int:
        """Steps in a segment."""
        return max(1, int(SEGMENT * float(self.grid.cell.min()) / self.step))

    def _steps(
        self, path: March, shift: Tensor, ray: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ray, distance and length (M,) each of the steps of some segments that lie in occupied
        cells."""
        steps = torch.arange(self._n_steps(), device=ray.device) * self.step
        s = (start + shift.index_select(0, ray) * self.step)[:, None] + steps
        cell_coords = path.positions(ray, s, self.grid.bounds[0], self.grid.cell)
        occupied = self.grid.occupied
        cell = flat_index(cell_coords, occupied.shape).flatten()
        keep = occupied.flatten().index_select(0, cell).view(s.shape)
        keep &= s < path.far.index_select(0, ray)[:, None]
        index = keep.flatten().nonzero()[:, 0]
        ray, s = ray.index_select(0, index // len(steps)), s.flatten().index_select(0, index)
        return ray, path.distance(ray, s), path.length(ray, s, self.step)

    def _visible(
        self, field: nn.Module, rays: Rays, samples: Samples, passed: Tensor, mark: bool
    ) -> Samples:
        """The samples of a wave that are visible from the camera, with the field's density and
        feature.

        ``passed (N,)`` is the optical depth in front of the wave; the wave's own is added to it, in
        place.
        """
        ray = samples.ray_index
        x = rays.points(ray, samples.t)
        density, feature = field.geometry(x)
        before = torch.exp(-passed.index_select(0, ray)).to(density.dtype)
        light = transmittance(density, samples) * before
        passed += segment_sum((density * samples.delta).double(), ray, samples.n_rays)
        visible = (light > MIN_TRANSMITTANCE).nonzero()[:, 0]
        if mark:
            self.grid.mark(x.index_select(0, visible))
        samples = samples.take(visible)
        samples.geometry = density.index_select(0, visible), feature.index_select(0, visible)
        return samples


def _merged(waves: list[Samples], rays: Rays) -> Samples:
    """The samples of several waves, given front to back, sorted by ray."""
    n = len(rays)
    if not waves:
        empty = rays.near[:0]
        return Samples(empty.long(), empty, empty, n)
    counts = [torch.bincount(wave.ray_index, minlength=n) for wave in waves]
    total = sum(counts)
    first = total.cumsum(0) - total
    parts = [(w.ray_index, w.t, w.delta, *w.geometry) for w in waves]
    merged = [torch.empty(int(total.sum()), *x.shape[1:]).to(x) for x in parts[0]]
    for count, part in zip(counts, parts, strict=True):
        index = first.repeat_interleave(count) + _index_within_group(count)
        for out, x in zip(merged, part, strict=True):
            out[index] = x
        first = first + count
    ray, t, delta, density, feature = merged
    return Samples(ray, t, delta, n, geometry=(density, feature))


def _index_within_group(counts: Tensor) -> Tensor:
    """``0 .. c - 1`` for every count c of ``counts (N,)``, concatenated."""
    first = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) - first.repeat_interleave(counts)
