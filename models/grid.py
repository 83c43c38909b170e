"""Numbers of the cells of a grid, in raster order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_number(place: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Number (...) int32 of the cell of a grid of ``shape`` that each place lies in.

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
