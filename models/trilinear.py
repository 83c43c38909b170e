"""Trilinear interpolation from a table of lattice vertices, with a backward pass fast on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# corner k of a cell is offset (k >> 2 & 1, k >> 1 & 1, k & 1)
CORNERS = torch.tensor([[k >> 2 & 1, k >> 1 & 1, k & 1] for k in range(8)], device="cpu")
FEW = 4  # channels, each of which is summed by itself: numbers add up ten times as fast as rows
SHARED = 3  # with this many samples per cell on average, gradients are summed by cell first


def trilinear_weights(fraction: Tensor) -> Tensor:
    """Weights (M, 8) of the eight corners for positions ``fraction (3, M)`` in [0, 1] in a cell."""
    sides = torch.stack([1 - fraction[:2], fraction[:2]])
    in_plane = (sides[:, None, 0] * sides[None, :, 1]).flatten(0, 1)
    weights = fraction.new_empty(fraction.shape[1], 8)
    above = torch.mul(in_plane, fraction[2], out=weights[:, 1::2].T)
    torch.sub(in_plane, above, out=weights[:, ::2].T)
    return weights


class _TrilinearGather(torch.autograd.Function):
    """``out_m = sum_k weights_mk table[row[corners[cell_m, k]]]``.

    The forward pass is an `embedding_bag`.  Its stock backward pass is serial and walks over row
    pairs; here the gradient is computed by other `embedding_bag`s, which gather the incoming
    gradients of each row: about 7 times faster on two cores.
    """

    @staticmethod
    def forward(
        ctx,  # noqa: ANN001
        table: Tensor,
        corners: Tensor,
        row: Tensor | None,
        cell: Tensor,
        weights: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(corners, row, cell, weights)
        ctx.n_rows = table.shape[0]
        rows = _rows(corners, row, cell)
        return functional.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN001
        corners, row, cell, weights = ctx.saved_tensors
        out = grad.new_zeros((ctx.n_rows, grad.shape[1]))
        if cell.numel() == 0:
            return out, None, None, None, None
        if grad.shape[1] <= FEW and not grad.is_cuda:
            flat = _rows(corners, row, cell).flatten()
            for channel in range(grad.shape[1]):
                own = grad[:, channel : channel + 1] * weights
                out[:, channel].index_add_(0, flat, own.flatten())
        elif grad.is_cuda:
            flat = _rows(corners, row, cell).flatten()
            out.index_add_(0, flat, (grad[:, None] * weights[..., None]).flatten(0, 1))
        else:
            rows, sums = _row_sums(corners, row, cell, grad.contiguous(), weights)
            out[rows.long()] = sums
        return out, None, None, None, None


def _rows(corners: Tensor, row: Tensor | None, cell: Tensor) -> Tensor:
    """Rows (M, 8) of the table at the corners of cells."""
    vertices = corners.index_select(0, cell)
    return vertices if row is None else row.index_select(0, vertices.flatten()).view_as(vertices)


def _row_sums(
    corners: Tensor, row: Tensor | None, cell: Tensor, grad: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows (R,) of the table that the samples use, and the gradients (R, F) of these rows."""
    ordered, order = cell.sort(stable=True)
    cells, counts = ordered.unique_consecutive(return_counts=True)
    if len(cell) < SHARED * len(cells):
        ordered, order = _rows(corners, row, cell).flatten().sort(stable=True)
        return _bags(ordered, order >> 3, grad, weights.flatten()[order])
    # a view's samples lie in few cells: summing by cell first leaves far fewer keys to sort by row
    first, weights = counts.cumsum(0) - counts, weights.index_select(0, order)
    sums = [_bag(order, grad, first, weights[:, k].contiguous()) for k in range(8)]
    ordered, order = _rows(corners, row, cells).flatten().sort(stable=True)
    return _bags(ordered, order, torch.stack(sums, 1).flatten(0, 1))


def _bags(
    ordered: Tensor, index: Tensor, values: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The distinct keys (R,) of ``ordered (K,)``, and for each the weighted sum (R, F) of the rows
    of ``values`` that ``index (K,)`` lists for it."""
    keys, counts = ordered.unique_consecutive(return_counts=True)
    return keys, _bag(index, values, counts.cumsum(0) - counts, weights)


def _bag(index: Tensor, values: Tensor, first: Tensor, weights: Tensor | None) -> Tensor:
    return functional.embedding_bag(index, values, first, mode="sum", per_sample_weights=weights)


def trilinear_gather(
    table: Tensor, corners: Tensor, cell: Tensor, weights: Tensor, row: Tensor | None = None
) -> Tensor:
    """Weighted sum of eight table rows per sample; differentiable in the table only.

    Args:
        table: (R, F).
        corners: (C, 8) integer vertices of each cell.
        cell: (M,) integer.
        weights: (M, 8) from `trilinear_weights`.
        row: (V,) integer, each vertex's row of the table; None: they have the same numbers.

    Returns:
        (M, F).
    """
    return _TrilinearGather.apply(table, corners, row, cell, weights)
