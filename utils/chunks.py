"""Work cut into chunks, and into smaller ones once the memory has run out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
log = logging.getLogger(__name__)


class Chunks:
    """Cuts a range into consecutive chunks.

    Results must not depend on where the cuts are: when a GPU runs out of memory, the chunk in hand
    is done again in smaller ones, and all later ones are as small.

    Args:
        size: of a chunk, at first.
        uncut: what is at most this long is one chunk, at first; 0: as ``size``.
    """

    def __init__(self, size: float, uncut: float = 0) -> None:
        self.size = max(1, int(size))
        self.uncut = max(self.size, int(uncut))

    def fit(self, n: int) -> bool:
        """Whether a stretch of ``n`` is one chunk."""
        return n <= self.uncut

    def over(self, whole: slice | int, work: Callable[[slice], T]) -> list[T]:
        """``work`` on every chunk of a stretch, or of ``range(n)``, in order."""
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

    def shrink(self, n: int) -> None:
        """To be called after ``n`` at once ran out of memory, outside the handler of the error,
        which holds that memory."""
        self.size = self.uncut = min(self.size, n // 2)
        torch.cuda.empty_cache()
        log.warning("out of GPU memory: going on with %d rays at once", self.size)
