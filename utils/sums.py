"""Sums of tensors in as few operations as there are plus signs."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce

from torch import Tensor


def total_of(values: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor; `sum` would begin by adding the first to a 0, which a GPU has
    to be asked for."""
    return reduce(operator.add, values)
