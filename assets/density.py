"""The density of a trained field, and the box around what is occupied."""

from __future__ import annotations

import torch
from torch import Tensor

from models.renderer import Renderer
from utils.chunks import Chunks


def chunks(renderer: Renderer, each: int = 1) -> Chunks:
    """Chunks of things with ``each`` positions, as many as fit into memory at once."""
    return Chunks(renderer.field.cost.points / each)


@torch.no_grad()
def density_of(renderer: Renderer, x: Tensor) -> Tensor:
    """Density (M,) per scene unit at ``x (M, 3)`` as rays meet it: 0 in the grid's empty cells."""
    density = x.new_zeros(len(x))

    def fill(part: slice) -> None:
        index = renderer.sampler.grid.contains(x[part]).nonzero()[:, 0] + part.start
        if len(index):
            density[index] = renderer.field.geometry(x[index])[0].to(density.dtype)

    chunks(renderer).over(len(x), fill)
    return density


def occupied_box(renderer: Renderer) -> Tensor:
    """(2, 3) corners of the box around the occupied cells, scene units."""
    grid = renderer.sampler.grid
    cells = grid.occupied.nonzero()
    if len(cells) == 0:
        return grid.bounds.clone()
    ends = torch.stack([cells.amin(0), cells.amax(0) + 1])
    return grid.bounds[0] + ends * grid.cell
