"""The processes that share the work of a training step; usually there is only one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Team:
    """Rank of this process and number of processes.

    Every process draws the same random numbers and does its share of the work; sums over the
    processes are then equal in all of them.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Team:
        """The team of `torch.distributed`, or a team of one."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    def share(self, items: Sequence) -> Sequence:
        """This process's share of a sequence: every ``size``-th item."""
        return items[self.rank :: self.size]

    def part(self, n: int) -> slice:
        """This process's contiguous part of ``range(n)``; empty where n < size."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add(self, *tensors: Tensor) -> None:
        """Sums each tensor, of any shape, over all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def gather(self, item: object) -> list:
        """The items of all processes, ordered by rank; also a barrier."""
        items: list = [item]
        if self.size > 1:
            items = [None] * self.size
            distributed.all_gather_object(items, item)
        return items

    def logical_or(self, flags: Tensor) -> None:
        """Logical or of a bool tensor, of any shape, over all processes, in place."""
        if self.size > 1:
            counts = flags.to(torch.uint8)
            distributed.all_reduce(counts, distributed.ReduceOp.MAX)
            flags.copy_(counts > 0)


ALONE = Team()
