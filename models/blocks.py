"""Networks by blocks of rows: on a CPU the layers' outputs stay in the cache, and their memory is
used again before it is given back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_blocks(network: Callable[..., Tensor], rows: int, *inputs: Tensor) -> Tensor:
    """``network`` of ``inputs``, which share their first dimension, ``rows`` at a time on a CPU.

    The network treats each row for itself, so the result is that of all rows at once.
    """
    if inputs[0].is_cuda or len(inputs[0]) <= rows:
        return network(*inputs)
    parts = zip(*(x.split(rows) for x in inputs), strict=True)
    return torch.cat([network(*part) for part in parts])
