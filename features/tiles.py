"""Tiles of an image whose features equal those of the whole image, in bounded memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from features.network import Layer


@dataclass(frozen=True)
class Tile:
    """A part of an image, with the halo of pixels around it that its features depend on.

    Attributes:
        rows, columns: the tile; its bounds are multiples of the step, or the image's end.
        halo_rows, halo_columns: the tile with its halo, within the image.
    """

    rows: slice
    columns: slice
    halo_rows: slice
    halo_columns: slice

    def crop(self, image: Tensor) -> Tensor:
        """The tile of ``image (..., H, W)``, without its halo."""
        return image[..., self.rows, self.columns]

    def crop_with_halo(self, image: Tensor) -> Tensor:
        """The tile of ``image (..., H, W)`` with its halo, the network's input."""
        return image[..., self.halo_rows, self.halo_columns]

    def without_halo(self, features: Tensor, stride: int) -> Tensor:
        """The tile's own features, from the features ``(..., h, w)`` of `crop_with_halo`."""
        columns = _padding(self.columns, self.halo_columns, stride, features.shape[-1])
        rows = _padding(self.rows, self.halo_rows, stride, features.shape[-2])
        if not any((*columns, *rows)):
            return features
        # negative padding instead of a slice, whose gradient would lose the features' memory layout
        return functional.pad(features, (*columns, *rows))


def step_and_halo(layers: Collection[Layer]) -> tuple[int, int]:
    """Step of the tiles' bounds and width of their halo, pixels.

    Bounds at multiples of all strides keep the pooling cells of the whole image; a halo of whole
    steps keeps them where the crop starts at the halo.

    Args:
        layers: the layers whose features are needed.
    """
    step = math.lcm(*(layer.stride for layer in layers))
    return step, math.ceil(max((layer.halo for layer in layers), default=0) / step) * step


def tiles_of(
    size: tuple[int, int], layers: Collection[Layer], side: int, mask: Tensor | None = None
) -> list[Tile]:
    """Tiles that cover an image, or the object in it.

    Args:
        size: height, width of the image, each at least the step.
        layers: the layers whose features are needed.
        side: approximate largest height and width of a tile without its halo, pixels; at least two
            steps.
        mask: (B, 1, H, W), zero outside the object; None: the whole image.

    Returns:
        The tiles; an empty list if the mask is zero everywhere.
    """
    step, halo = step_and_halo(layers)
    # a GPU has to finish for each question about the mask, so it is fetched once
    mask = None if mask is None else (mask > 0).cpu()
    box = (slice(0, size[0]), slice(0, size[1])) if mask is None else object_box(mask, step)
    if box is None:
        return []
    tiles = [
        Tile(rows, columns, _widened(rows, halo, size[0]), _widened(columns, halo, size[1]))
        for rows in _parts(box[0], side, step)
        for columns in _parts(box[1], side, step)
    ]
    return [tile for tile in tiles if mask is None or tile.crop(mask).any()]


def object_box(mask: Tensor, step: int) -> tuple[slice, slice] | None:
    """Bounding box of an object, rounded outwards to whole steps.

    Args:
        mask: (B, 1, H, W), zero outside the object.
        step: pixels.

    Returns:
        Rows and columns of a box around the objects of the whole batch; None if the mask is zero
        everywhere.
    """
    occupied = (mask > 0).any(dim=0)[0]
    if not occupied.any():
        return None
    return _extent(occupied.any(dim=1), step), _extent(occupied.any(dim=0), step)


def _extent(occupied: Tensor, step: int) -> slice:
    indices = occupied.nonzero()
    stop = min((int(indices[-1]) // step + 1) * step, len(occupied))
    start = int(indices[0]) // step * step
    # less than a step may be left at the image's end, where the deepest layer has no position
    return slice(start if stop - start >= step else max(start - step, 0), stop)


def _parts(whole: slice, side: int, step: int) -> Iterator[slice]:
    """Nearly equal parts of at most about ``side``, cut at multiples of ``step``."""
    length = whole.stop - whole.start
    n = max(1, -(-length // max(side, 2 * step)))
    ends = [whole.start + round(length * k / n / step) * step for k in range(n)] + [whole.stop]
    return (slice(start, stop) for start, stop in itertools.pairwise(ends))


def _widened(part: slice, halo: int, size: int) -> slice:
    return slice(max(part.start - halo, 0), min(part.stop + halo, size))


def _padding(part: slice, outer: slice, stride: int, length: int) -> tuple[int, int]:
    """Negative padding that removes the halo's positions before and after the part.

    Args:
        part, outer: range of pixels without and with the halo.
        stride: pixels per feature position.
        length: feature positions of ``outer``.
    """
    start = (part.start - outer.start) // stride
    return -start, start + part.stop // stride - part.start // stride - length
