"""A boolean grid of where something may be, and the sampler that steps through it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.cameras import Rays
from models.samples import Samples, transmittance

HIDDEN = 1e-3  # transmittance from which on nothing behind can be seen
BLOCK = 8  # cells along a block of the coarse grid that the sampler looks at first


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
        """A block counts when it or a neighbour of it holds an occupied cell."""
        pooled = functional.max_pool3d(self.occupied[None, None].half(), BLOCK, ceil_mode=True)
        self.blocks = functional.max_pool3d(pooled, 3, stride=1, padding=1)[0, 0] > 0

    def set(self, occupied: Tensor) -> None:
        """Replaces the grid by ``occupied (R0, R1, R2) bool``, of any resolution."""
        self.occupied = occupied.to(self.bounds.device)
        self.lit = torch.zeros_like(self.occupied)
        self._pool()

    def contains(self, x: Tensor) -> Tensor:
        """(M,) bool: whether each position ``x (M, 3)`` lies in an occupied cell."""
        return _lookup(self.occupied, (x - self.bounds[0]) / self.cell)

    def near_block(self, x: Tensor) -> Tensor:
        """(M,) bool: False where nothing is occupied within a block's edge around ``x (M, 3)``."""
        position = (x - self.bounds[0]) / (self.cell * BLOCK)
        last = torch.tensor(self.blocks.shape, device=x.device) - 1e-3
        return _lookup(self.blocks, torch.minimum(position.clamp(min=0), last))

    def centres(self, cells: Tensor) -> Tensor:
        """(K, 3) centres of the cells given by integer coordinates ``cells (K, 3)``."""
        return self.bounds[0] + (cells + 0.5) * self.cell

    def mark(self, x: Tensor) -> None:
        """Remembers that light reaches the cells of ``x (M, 3)``."""
        index = torch.minimum(((x - self.bounds[0]) / self.cell).long(), self.resolution - 1)
        flat = (index[:, 0] * self.lit.shape[1] + index[:, 1]) * self.lit.shape[2] + index[:, 2]
        self.lit.view(-1)[flat] = True

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


def _lookup(grid: Tensor, position: Tensor) -> Tensor:
    """Value of ``grid`` at ``position (M, 3)`` in cells; False outside."""
    index = position.floor().long()
    size = torch.tensor(grid.shape, device=grid.device)
    inside = ((index >= 0) & (index < size)).all(-1)
    index = torch.minimum(index.clamp(min=0), size - 1)
    flat = (index[:, 0] * grid.shape[1] + index[:, 1]) * grid.shape[2] + index[:, 2]
    return grid.flatten()[flat] & inside


class OccupancySampler(nn.Module):
    """Equal steps along each ray, kept where the grid is occupied (Mueller et al. 2022).

    Args:
        grid: where to look.
        step: distance between samples, scene units.
    """

    def __init__(self, grid: OccupancyGrid, step: float) -> None:
        super().__init__()
        self.grid = grid
        self.step = step

    @torch.no_grad()
    def forward(self, field: nn.Module, rays: Rays, generator: torch.Generator | None) -> Samples:
        """Samples of ``rays``; one random shift per ray with ``generator``, mid-steps without."""
        grid, device = self.grid, rays.near.device
        block = float(grid.cell.min()) * BLOCK
        per_block = max(1, int(block / self.step))
        length = per_block * self.step
        shift = torch.full_like(rays.near, 0.5)
        if generator is not None:
            shift = torch.rand(shift.shape, generator=generator, device=device, dtype=shift.dtype)
        n_blocks = int(torch.ceil(((rays.far - rays.near).max() / length).clamp(min=0)))
        # first the blocks' middles: (N, B), most of them in empty space
        starts = rays.near[:, None] + length * torch.arange(n_blocks, device=device)
        ray, column = (starts < rays.far[:, None]).nonzero(as_tuple=True)
        start = starts[ray, column]
        hit = grid.near_block(rays.points(ray, start + length / 2))
        ray, start = ray[hit], start[hit]
        # then the steps inside the blocks that are left
        steps = (torch.arange(per_block, device=device) + shift[ray][:, None]) * self.step
        t = (start[:, None] + steps).flatten()
        ray = ray[:, None].expand(-1, per_block).flatten()
        keep = (t < rays.far[ray]) & grid.contains(rays.points(ray, t))
        ray, t = ray[keep], t[keep]
        samples = Samples(ray, t, torch.full_like(t, self.step), len(rays))
        if field is None:
            return samples
        x = rays.points(ray, t)
        density, _ = field.geometry(x)
        visible = transmittance(density, samples) > HIDDEN
        if self.training:
            grid.mark(x[visible])
        return samples[visible]
