"""Strokes by patches of features: each patch of a content's features is replaced by the most
similar one of a painting's (Chen & Schmidt 2016, section 3.1), after both were brought to the same
means and deviations (Sheng et al. 2018, section 3.2).

Statistics alone only recolour at depths that a small decoder can invert; a painting's own patches
bring its strokes along.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

PATCH = 3  # cells of a side
MOST_PATCHES = 4096  # of a painting that are compared, evenly spread
ROWS = 2048  # patches of the content compared at once


def nearest_patches(content: Tensor, style: Tensor, where: Tensor) -> Tensor:
    """Which patch of the style resembles each patch of the content most, by cosine.

    Args:
        content: (1, C, h, w) features.
        style: (1, C, H, W) features of the same means and deviations.
        where: (h, w) bool, cells around which a patch is looked for.

    Returns:
        (h, w) int32 row-major number of the cell in the style's middle; -1 outside of ``where``.
    """
    numbers = _spread(style.shape[2:], style.device)
    patches = functional.normalize(_patches(style, numbers), dim=1).T.contiguous()
    cells = where.flatten().nonzero()[:, 0]
    found = torch.full_like(where.flatten(), -1, dtype=torch.int32)
    for part in cells.split(ROWS):
        best = (_patches(content, part) @ patches).argmax(1)
        found[part] = numbers[best].to(torch.int32)
    return found.view(where.shape)


def swapped(content: Tensor, style: Tensor, nearest: Tensor) -> Tensor:
    """The features made of the style's patches, the mean of them where they overlap; the content's
    own ones where there is none.

    Args:
        content: (1, C, h, w).
        style: (1, C, H, W).
        nearest: (h, w), see `nearest_patches`.

    Returns:
        (1, C, h, w).

    >>> style = torch.rand(1, 2, 4, 5)
    >>> same = torch.arange(20, dtype=torch.int32).view(4, 5)
    >>> torch.equal(swapped(torch.zeros(1, 2, 4, 5), style, same), style)
    True
    """
    height, width = style.shape[2:]
    rows, reach = style[0].flatten(1), PATCH // 2
    h, w = nearest.shape
    around = functional.pad(nearest.long(), (reach, reach, reach, reach), value=-1)
    total = content.new_zeros(content.shape[1], h * w)
    count = content.new_zeros(h * w)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            # the patch around the cell up and left of this one has it down and right of its middle
            middle = around[reach - down :, reach - right :][:h, :w].flatten()
            cell = (middle >= 0).nonzero()[:, 0]
            middle = middle[cell]
            row, column = middle // width + down, middle % width + right
            number = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            total[:, cell] += rows[:, number].to(total)
            count[cell] += 1
    mean = torch.where(count > 0, total / count.clamp(min=1), content[0].flatten(1))
    return mean.view_as(content)


def _spread(size: torch.Size, device: torch.device) -> Tensor:
    """(N,) int64 numbers of all cells, or of at most `MOST_PATCHES` evenly spread ones."""
    height, width = size
    apart = 1
    while -(-height // apart) * -(-width // apart) > MOST_PATCHES:
        apart += 1
    rows, columns = (torch.arange(apart // 2, n, apart, device=device) for n in size)
    return (rows[:, None] * width + columns).flatten()


def _patches(features: Tensor, cells: Tensor) -> Tensor:
    """(N, C PATCH^2) patches around cells, beyond the borders as at them."""
    reach = PATCH // 2
    padded = functional.pad(features, (reach, reach, reach, reach), mode="replicate")[0]
    width = features.shape[3]
    row, column = cells // width, cells % width
    each = torch.arange(PATCH, device=cells.device)
    row, column = row[:, None, None] + each[:, None], column[:, None, None] + each
    return padded[:, row, column].permute(1, 0, 2, 3).flatten(1)
