"""Networks by blocks of rows: on a CPU the layers' outputs stay in the cache, and their memory is
used again before it is given back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Tensors = tuple[Tensor, ...]


def in_blocks(network: Callable[..., Tensors], rows: int, *inputs: Tensor) -> Tensors:
    """``network`` of ``inputs``, which share their first dimension, ``rows`` at a time on a CPU.

    The network treats each row for itself, so the results are those of all rows at once.  The last
    block is filled up with zeros: a matrix product of a size never seen before costs more.
    """
    n = len(inputs[0])
    if inputs[0].is_cuda or n <= rows:
        return network(*inputs)
    blocks = zip(*(_filled(x, rows) for x in inputs), strict=True)
    if torch.is_grad_enabled():
        parts = [network(*block) for block in blocks]
        return tuple(torch.cat(own)[:n] for own in zip(*parts, strict=True))
    results: Tensors = ()
    for start, block in zip(range(0, n, rows), blocks, strict=True):
        parts = network(*block)
        if not results:
            results = tuple(part.new_empty(n, *part.shape[1:]) for part in parts)
        for whole, part in zip(results, parts, strict=True):
            whole[start : start + rows] = part[: n - start]
    return results


def _filled(x: Tensor, rows: int) -> list[Tensor]:
    """Blocks of ``rows`` rows of ``x``, the last filled up with zeros."""
    *whole, last = x.split(rows)
    return [*whole, functional.pad(last, (0, 0, 0, rows - len(last)))]
