"""A boolean grid of where something may be, and the sampler that steps through it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.cameras import Rays
from models.grid import cell_number, locate
from models.samples import Samples, segment_sum, transmittance

HIDDEN = 1e-3  # transmittance from which on nothing behind can be seen
BLOCK = 4  # cells along a block of the coarse grid that the sampler looks at first
STRETCH = 2 * BLOCK - 0.5  # cells that a look at the coarse grid answers for
# Stretches of a ray, front to back, that are looked at together: most rays end at the first surface
WAVES = (3, 6, 1 << 30)


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
        self._pool()

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: object) -> None:
        self.set(state[prefix + "occupied"])
        super()._load_from_state_dict(state, prefix, *args)
        self._pool()

    @property
    def resolution(self) -> Tensor:
        return torch.tensor(self.occupied.shape, device=self.bounds.device)

    @property
    def cell(self) -> Tensor:
        """(3,) edge lengths of a cell, scene units."""
        return (self.bounds[1] - self.bounds[0]) / self.resolution

    def _pool(self) -> None:
        """A block counts when it or a neighbour of it holds an occupied cell: what is within
        `BLOCK` cells, half a stretch, of any place in it is found by a look at that place."""
        pooled = functional.max_pool3d(self.occupied[None, None].half(), BLOCK, ceil_mode=True)
        self.blocks = functional.max_pool3d(pooled, 3, stride=1, padding=1)[0, 0] > 0

    def set(self, occupied: Tensor) -> None:
        """Replaces the grid by ``occupied (R0, R1, R2) bool``, of any resolution."""
        self.occupied = occupied.to(self.bounds.device)
        self.lit = torch.zeros_like(self.occupied)
        self._pool()

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
    def prune(
        self, density: Callable[[Tensor], Tensor], threshold: float, chunk: int, lit_only: bool
    ) -> None:
        """Empties what is thin; a cell beside one that stays, stays.

        Args:
            density: (K, 3) positions -> (K,) density per scene unit.
            threshold: density at a cell's centre under which the cell counts as thin.
            chunk: positions per call.
            lit_only: empty what no light has reached since the last time, too.
        """
        cells = (self.occupied & self.lit if lit_only else self.occupied).nonzero()
        alive = [density(self.centres(part)) > threshold for part in cells.split(chunk)]
        grid = torch.zeros_like(self.occupied)
        grid[tuple(cells[torch.cat(alive)].T)] = True
        self.set(dilate(grid) & self.occupied)


def dilate(grid: Tensor) -> Tensor:
    """The boolean grid (R0, R1, R2) grown by one cell in all 26 directions."""
    return functional.max_pool3d(grid[None, None].half(), 3, stride=1, padding=1)[0, 0] > 0


class OccupancySampler(nn.Module):
    """Equal steps along each ray, kept where the grid is occupied (Mueller et al. 2022) and light
    still comes.

    Args:
        grid: where to look.
        step: distance between samples, scene units.
    """

    def __init__(self, grid: OccupancyGrid, step: float) -> None:
        super().__init__()
        self.grid = grid
        self.step = step

    @torch.no_grad()
    def forward(
        self, field: nn.Module | None, rays: Rays, generator: torch.Generator | None
    ) -> Samples:
        """Samples of ``rays``, which end within the grid's bounds.

        Args:
            field: whose density ends the rays; None for all samples in occupied cells.
            generator: for one random shift per ray; None for the middles of the steps.
        """
        n = len(rays)
        shift = torch.full_like(rays.near, 0.5)
        if generator is not None:
            shift = torch.rand(n, generator=generator, device=shift.device, dtype=shift.dtype)
        stretches = self._stretches(rays)
        if field is None:
            ray, t = self._steps(rays, shift, *stretches[:2])
            return Samples(ray, t, torch.full_like(t, self.step), n)
        waves, passed = [], torch.zeros(n, dtype=torch.float64, device=shift.device)
        begin = 0
        for end in WAVES:
            ray, start, rank = stretches
            now = (rank >= begin) & (rank < end) & (passed[ray] < -math.log(HIDDEN))
            if not now.any():
                break
            ray, t = self._steps(rays, shift, ray[now], start[now])
            waves.append(self._visible(field, rays, ray, t, passed))
            begin = end
        return self._merged(waves, rays)

    def _stretches(self, rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
        """Stretches of the rays with something near: ray (K,) ascending, start (K,) along it, and
        which of its ray's stretches it is, from the front."""
        length = self._n_steps() * self.step
        live = (rays.far > rays.near).nonzero()[:, 0]
        near, far = rays.near[live], rays.far[live]
        counts = torch.ceil((far - near) / length).long()
        ray = torch.repeat_interleave(live, counts)
        start = near.repeat_interleave(counts) + length * _numbers(counts)
        blocks = self.grid.blocks
        origin, direction = self._in_cells(rays, BLOCK)
        place = [
            torch.addcmul(origin[axis][ray], direction[axis][ray], start + length / 2)
            for axis in range(3)
        ]
        near_something = blocks.flatten()[cell_number(place, blocks.shape)]
        hit = near_something.nonzero()[:, 0]
        ray, start = ray[hit], start[hit]
        return ray, start, _numbers(torch.bincount(ray, minlength=len(rays)))

    def _n_steps(self) -> int:
        """Steps in a stretch."""
        return max(1, int(STRETCH * float(self.grid.cell.min()) / self.step))

    def _in_cells(self, rays: Rays, size: int) -> tuple[list[Tensor], list[Tensor]]:
        """Origins and directions, an axis at a time, in units of ``size`` cells."""
        unit = self.grid.cell * size
        origin = (rays.origins - self.grid.bounds[0]) / unit
        direction = rays.directions / unit
        return [o.contiguous() for o in origin.T], [d.contiguous() for d in direction.T]

    def _steps(
        self, rays: Rays, shift: Tensor, ray: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Ray and distance of the steps in some stretches that lie in occupied cells."""
        steps = torch.arange(self._n_steps(), device=ray.device) * self.step
        t = (start + shift[ray] * self.step)[:, None] + steps
        origin, direction = self._in_cells(rays, 1)
        place = [
            torch.addcmul(origin[axis][ray][:, None], direction[axis][ray][:, None], t)
            for axis in range(3)
        ]
        occupied = self.grid.occupied
        keep = occupied.flatten()[cell_number(place, occupied.shape)] & (t < rays.far[ray][:, None])
        index = keep.flatten().nonzero()[:, 0]
        return ray[index // len(steps)], t.flatten()[index]

    def _visible(
        self, field: nn.Module, rays: Rays, ray: Tensor, t: Tensor, passed: Tensor
    ) -> tuple[Tensor, ...]:
        """Of a wave's samples those that light reaches: ray, t, density and feature.

        ``passed (N,)``, the optical depth of what is in front of the wave, goes on behind it.
        """
        x = rays.points(ray, t)
        density, feature = field.geometry(x)
        samples = Samples(ray, t, torch.full_like(t, self.step), len(rays))
        light = transmittance(density, samples) * torch.exp(-passed[ray]).to(density.dtype)
        passed += segment_sum((density * self.step).double(), ray, len(rays))
        visible = (light > HIDDEN).nonzero()[:, 0]
        if self.training:
            self.grid.mark(x[visible])
        return ray[visible], t[visible], density[visible], feature[visible]

    def _merged(self, waves: list[tuple[Tensor, ...]], rays: Rays) -> Samples:
        """The waves' samples in the order of their rays."""
        if not waves:
            empty = rays.near[:0]
            return Samples(empty.long(), empty, empty, len(rays))
        counts = [torch.bincount(ray, minlength=len(rays)) for ray, *_ in waves]
        total = sum(counts)
        first = total.cumsum(0) - total
        m = int(total.sum())
        merged = [torch.empty(m, *part.shape[1:]).to(part) for part in waves[0]]
        for own, parts in zip(counts, waves, strict=True):
            place = first.repeat_interleave(own) + _numbers(own)
            for whole, part in zip(merged, parts, strict=True):
                whole[place] = part
            first = first + own
        ray, t, density, feature = merged
        return Samples(
            ray, t, torch.full_like(t, self.step), len(rays), geometry=(density, feature)
        )


def _numbers(counts: Tensor) -> Tensor:
    """``0 .. c - 1`` for every count c of ``counts (N,)``, one after the other."""
    first = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) - first.repeat_interleave(counts)
