"""Tiles of an image whose features are those of the whole: memory need not grow with the image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

# conv3_1 looks 10 pixels past its own 4x4 cell; multiples of 16 keep the cells of both poolings
STEP = 16


@dataclass(frozen=True)
class Tile:
    """A part of an image, and the wider part that its features depend on.

    Attributes:
        rows, columns: the part; its bounds are multiples of `STEP` or the image's end.
        outer_rows, outer_columns: with a halo of `STEP` pixels, within the image.
    """

    rows: slice
    columns: slice
    outer_rows: slice
    outer_columns: slice

    def cut(self, image: Tensor) -> Tensor:
        """What the network has to see of ``image (..., H, W)``."""
        return image[..., self.outer_rows, self.outer_columns]

    def inner(self, image: Tensor) -> Tensor:
        """The tile of ``image (..., H, W)`` itself."""
        return image[..., self.rows, self.columns]

    def own(self, features: Tensor, layer: str) -> Tensor:
        """Of the features ``(..., h, w)`` of `cut`, those that belong to the tile."""
        stride = 2 ** (int(layer[len("conv")]) - 1)
        columns = _halo(self.columns, self.outer_columns, stride, features.shape[-1])
        rows = _halo(self.rows, self.outer_rows, stride, features.shape[-2])
        # not a slice, whose gradient would lose the layout of the features
        return functional.pad(features, (*columns, *rows))


def tiles_of(size: tuple[int, int], box: tuple[slice, slice] | None, side: int) -> list[Tile]:
    """Tiles that cover the box of an image.

    Args:
        size: height, width of the image.
        box: rows and columns that matter, see `object_box`; None for the whole image.
        side: largest height and width of a tile, pixels; about.
    """
    rows, columns = box or (slice(0, size[0]), slice(0, size[1]))
    return [
        Tile(r, c, _widened(r, size[0]), _widened(c, size[1]))
        for r in _parts(rows, side)
        for c in _parts(columns, side)
    ]


def object_box(mask: Tensor) -> tuple[slice, slice] | None:
    """The part of an image where the mask is, in whole steps.

    Args:
        mask: (B, 1, H, W).

    Returns:
        Slices of rows and columns, common to the batch; None where the mask is zero everywhere.
    """
    occupied = (mask > 0).any(dim=0)[0]
    if not occupied.any():
        return None
    return _extent(occupied.any(dim=1)), _extent(occupied.any(dim=0))


def _extent(occupied: Tensor) -> slice:
    indices = occupied.nonzero()
    first, last = int(indices[0]), int(indices[-1])
    return slice(first // STEP * STEP, min((last // STEP + 1) * STEP, occupied.shape[0]))


def _parts(whole: slice, side: int) -> Iterator[slice]:
    """Nearly equal parts of at most about ``side``, cut at multiples of `STEP`."""
    length = whole.stop - whole.start
    n = max(1, -(-length // max(side, 2 * STEP)))
    ends = [whole.start + round(length * k / n / STEP) * STEP for k in range(n)] + [whole.stop]
    return (slice(start, stop) for start, stop in itertools.pairwise(ends))


def _widened(part: slice, size: int) -> slice:
    return slice(max(part.start - STEP, 0), min(part.stop + STEP, size))


def _halo(part: slice, outer: slice, stride: int, length: int) -> tuple[int, int]:
    """Minus the places of the halo before and behind the part, of ``length`` with the halo."""
    start = (part.start - outer.start) // stride
    return -start, start + part.stop // stride - part.start // stride - length
