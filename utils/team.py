"""The processes that work on one step together; usually there is only one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Team:
    """Which of how many processes this one is.

    Every process draws the same random numbers and does its share of the work; what they add up
    is the same in all of them afterwards.
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
        """The items that are this process's."""
        return items[self.rank :: self.size]

    def part(self, n: int) -> slice:
        """The stretch of ``range(n)`` that is this process's."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add(self, *tensors: Tensor) -> None:
        """Adds up each tensor over all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def gather(self, item: object) -> list:
        """The item of every process, in their order; whoever gets them knows that all have come
        so far."""
        items: list = [item]
        if self.size > 1:
            items = [None] * self.size
            distributed.all_gather_object(items, item)
        return items

    def logical_or(self, flags: Tensor) -> None:
        """In place: True where it is in any process."""
        if self.size > 1:
            counts = flags.to(torch.uint8)
            distributed.all_reduce(counts, distributed.ReduceOp.MAX)
            flags.copy_(counts > 0)


ALONE = Team()
