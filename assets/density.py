"""Where a trained field holds something: its density, and the box around it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from models.renderer import Renderer

POINTS = {"nerf": 1 << 15, "voxels": 1 << 16}  # positions at once that fit into memory easily


def chunks(renderer: Renderer, n: int, each: int = 1) -> Iterator[slice]:
    """Slices of ``range(n)`` whose positions, ``each`` for every one, fit into memory at once."""
    size = max(1, POINTS[renderer.spec["field"]] // each)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


@torch.no_grad()
def density_of(renderer: Renderer, x: Tensor) -> Tensor:
    """What rays meet: density (M,) per scene unit at ``x (M, 3)``, 0 in the grid's empty cells."""
    density = x.new_zeros(len(x))
    for part in chunks(renderer, len(x)):
        index = renderer.sampler.grid.contains(x[part]).nonzero()[:, 0] + part.start
        if len(index):
            density[index] = renderer.field.geometry(x[index])[0].to(density.dtype)
    return density


def occupied_box(renderer: Renderer) -> Tensor:
    """(2, 3) corners of the box around the occupied cells, scene units."""
    grid = renderer.sampler.grid
    cells = grid.occupied.nonzero()
    if len(cells) == 0:
        return grid.bounds.clone()
    ends = torch.stack([cells.amin(0), cells.amax(0) + 1])
    return grid.bounds[0] + ends * grid.cell
