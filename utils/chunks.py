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
    is done again in halves, and all later ones are as small.

    Args:
        size: of a chunk, at first.
    """

    def __init__(self, size: float) -> None:
        self.size = max(1, int(size))

    def over(self, whole: slice | int, work: Callable[[slice], T]) -> list[T]:
        """``work`` on every chunk of a stretch, or of ``range(n)``, in order."""
        whole = slice(0, whole) if isinstance(whole, int) else whole
        results, start = [], whole.start
        while start < whole.stop:
            part = slice(start, min(start + self.size, whole.stop))
            try:
                results.append(work(part))
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
                self.size = max(1, min(self.size, part.stop - part.start) // 2)
                torch.cuda.empty_cache()
                log.warning("out of GPU memory: going on with %d rays at once", self.size)
                continue
            start = part.stop
        return results
