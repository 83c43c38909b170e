"""Work split into chunks, and into smaller ones after running out of GPU memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
log = logging.getLogger(__name__)


class Chunks:
    """Splits a range into consecutive chunks.

    Results must not depend on the chunk boundaries: when a GPU runs out of memory, the current
    chunk is retried in smaller ones, and all later chunks are as small.

    Args:
        size: initial size of a chunk.
        uncut: a range of at most this length is initially one chunk; 0: ``size``.

    >>> Chunks(4).over(10, lambda part: part.stop - part.start)
    [4, 4, 2]
    """

    def __init__(self, size: float, uncut: float = 0) -> None:
        self.size = max(1, int(size))
        self.uncut = max(self.size, int(uncut))

    def fit(self, n: int) -> bool:
        """Whether a range of length ``n`` is one chunk."""
        return n <= self.uncut

    def over(self, whole: slice | int, work: Callable[[slice], T]) -> list[T]:
        """Calls ``work`` on every chunk of a slice, or of ``range(n)``, in order.

        Returns:
            The results, one per chunk.
        """
        whole = slice(0, whole) if isinstance(whole, int) else whole
        n = whole.stop - whole.start
        results, start = [], whole.start
        while start < whole.stop:
            part = slice(start, min(start + (n if self.fit(n) else self.size), whole.stop))
            try:
                results.append(work(part))
                start = part.stop
                continue
            except torch.OutOfMemoryError:
                if part.stop - part.start == 1:
                    raise
            self.shrink(part.stop - part.start)
        return results

    def side_by_side(self, n: int, work: Callable[[slice], T]) -> list[T]:
        """As `over`, of ``range(n)``, on a CPU and without a graph: each of PyTorch's threads works
        on chunks of its own.  Many operations on a chunk are too short for several threads, or know
        only one."""
        threads = torch.get_num_threads()
        if threads == 1:
            return self.over(n, work)
        size = min(self.size, -(-n // threads))
        dtype, mixed = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

        def alone(start: int) -> T:
            with torch.no_grad(), torch.autocast("cpu", dtype, enabled=mixed):  # a thread's own
                return work(slice(start, min(start + size, n)))

        try:
            with ThreadPoolExecutor(threads, None, torch.set_num_threads, (1,)) as pool:
                return list(pool.map(alone, range(0, n, size)))
        finally:
            torch.set_num_threads(threads)  # or all threads that are started later would have one

    def shrink(self, n: int) -> None:
        """Reduces the size after a chunk of ``n`` ran out of memory.  Must be called outside the
        exception handler, which keeps that memory alive."""
        self.size = self.uncut = min(self.size, n // 2)
        torch.cuda.empty_cache()
        log.warning("out of GPU memory: retrying in chunks of %d", self.size)
