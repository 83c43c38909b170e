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
PRODUCTS = 1 << 24  # of a content's cells with a painting's, at once


def nearest_patches(content: Tensor, style: Tensor, where: Tensor) -> Tensor:
    """Which patch of the style resembles each patch of the content most, by cosine.

    The product of two patches is a sum of products of their cells, and neighbouring patches share
    cells: every pair of cells is multiplied once, not `PATCH`^2 times.

    Args:
        content: (1, C, h, w) features.
        style: (1, C, H, W) features of the same means and deviations.
        where: (h, w) bool, cells around which a patch is looked for.

    Returns:
        (h, w) int32 row-major number of the cell in the style's middle; -1 outside of ``where``.
    """
    found = torch.full(where.shape, -1, dtype=torch.int32, device=where.device)
    if not where.any():
        return found
    width = style.shape[3]
    rows, columns = _spread(style.shape[2:])
    numbers = torch.tensor(rows, device=style.device)[:, None] * width
    numbers = (numbers + torch.tensor(columns, device=style.device)).flatten().to(torch.int32)
    cells = _padded(style)
    squares = _over_patches(cells.square().sum(0)[None, None], 1, 1, rows, columns)
    scale = squares.flatten().clamp(min=1e-24).rsqrt()
    top, bottom = _extent(where.any(1))
    left, right = _extent(where.any(0))
    own = _padded(content)[:, top : bottom + PATCH - 1, left : right + PATCH - 1]
    w = right - left
    pairs = own.shape[2] * cells.shape[1] * cells.shape[2]  # in a row of the content
    at_once = max(PATCH, PRODUCTS // pairs - PATCH + 1)
    for start in range(0, bottom - top, at_once):
        h = min(at_once, bottom - top - start)
        part = own[:, start : start + h + PATCH - 1]
        products = (part.flatten(1).T @ cells.flatten(1)).view(*part.shape[1:], *cells.shape[1:])
        cosines = _over_patches(products, h, w, rows, columns).view(h * w, -1)
        best = numbers[cosines.mul_(scale).argmax(1)].view(h, w)
        found[top + start : top + start + h, left:right] = best
    return found.masked_fill_(~where, -1)


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
    >>> torch.allclose(swapped(torch.zeros(1, 2, 4, 5), style, same), style)
    True
    """
    height, width = style.shape[2:]
    reach = PATCH // 2
    h, w = nearest.shape
    none = height * width  # the number of a row that counts for nothing
    around = functional.pad(nearest.long(), (reach, reach, reach, reach), value=-1)
    numbers = []
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            # the patch around the cell up and left of this one has it down and right of its middle
            middle = around[reach - down :, reach - right :][:h, :w].flatten()
            row, column = middle // width + down, middle % width + right
            number = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            numbers.append(torch.where(middle >= 0, number, none))
    numbers = torch.stack(numbers, 1)
    rows = functional.pad(style[0].flatten(1).T, (0, 0, 0, 1))
    mean = functional.embedding_bag(numbers, rows, mode="mean", padding_idx=none)
    there = (numbers < none).any(1)
    return torch.where(there, mean.T.to(content), content[0].flatten(1)).view_as(content)


def _over_patches(values: Tensor, h: int, w: int, rows: range, columns: range) -> Tensor:
    """Sums over the cells of two patches, in their order, of values of pairs of padded cells.

    Args:
        values: (h', w', H + 2, W + 2) of the pairs; where h' or w' is 1, the same for all.
        h, w: patches of the content along each side.
        rows, columns: of the style's patches.

    Returns:
        (h, w, len(rows), len(columns)).
    """

    def along(x: Tensor, axis: int, n: int, every: range) -> Tensor:
        parts = []
        for k in range(PATCH):
            own = x if x.shape[axis] == 1 else x.narrow(axis, k, n)
            at = [slice(None)] * x.ndim
            at[axis + 2] = slice(every.start + k, every.stop + k, every.step)
            parts.append(own[tuple(at)])
        total = parts[0] + parts[1]
        for part in parts[2:]:
            total += part
        return total

    return along(along(values, 1, w, columns), 0, h, rows)


def _padded(features: Tensor) -> Tensor:
    """(C, h + 2, w + 2): beyond the borders as at them."""
    reach = PATCH // 2
    return functional.pad(features, (reach, reach, reach, reach), mode="replicate")[0]


def _extent(there: Tensor) -> tuple[int, int]:
    """The range of the places that are ``True``."""
    places = there.nonzero()
    return int(places[0]), int(places[-1]) + 1


def _spread(size: tuple[int, int]) -> tuple[range, range]:
    """Rows and columns of all cells, or of at most `MOST_PATCHES` evenly spread ones."""
    height, width = size
    apart = 1
    while -(-height // apart) * -(-width // apart) > MOST_PATCHES:
        apart += 1
    return range(apart // 2, height, apart), range(apart // 2, width, apart)
