"""The pixels of all training views as one flat table, to draw random batches from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.scene import View


@dataclass
class TrainingPixels:
    """All pixels of a list of views, row-major, view after view: 3 bytes a pixel.

    Attributes:
        rgb: (P, 3) uint8.
        sizes: (V, 2) int64 height, width of each view; they may differ.
        offsets: (V + 1,) int64, the flat index of each view's first pixel, and P.
        candidates: (K,) int32 or int64 flat indices that `draw` is limited to (for example the
            pixels whose rays meet anything), or None for all pixels.
    """

    rgb: Tensor
    sizes: Tensor
    offsets: Tensor
    candidates: Tensor | None = None

    @classmethod
    def of(cls, views: list[View]) -> TrainingPixels:
        """The pixels of a list of views, whose images become parts of the table: there is one copy
        of each photo."""
        sizes = torch.tensor([[v.height, v.width] for v in views], dtype=torch.int64)
        offsets = _starts(sizes.prod(dim=1))
        rgb = torch.empty(int(offsets[-1]), 3, dtype=torch.uint8)
        for view, part in zip(views, rgb.split(sizes.prod(dim=1).tolist()), strict=True):
            part.copy_(view.image.reshape(-1, 3))
            view.image = part.view(view.height, view.width, 3)
        return cls(rgb, sizes, offsets)

    def __len__(self) -> int:
        return self.rgb.shape[0]

    @property
    def n_candidates(self) -> int:
        """Pixels that `draw` chooses from."""
        return len(self) if self.candidates is None else len(self.candidates)

    def to(self, device: torch.device | str) -> TrainingPixels:
        candidates = None if self.candidates is None else self.candidates.to(device)
        return TrainingPixels(
            self.rgb.to(device), self.sizes.to(device), self.offsets.to(device), candidates
        )

    def locate(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """View, row and column of pixels.

        Args:
            flat: (N,) int64 flat indices.

        Returns:
            view, row, column: (N,) int64 each.
        """
        view = torch.searchsorted(self.offsets, flat, right=True) - 1
        local = flat - self.offsets[view]
        width = self.sizes[view, 1]
        return view, local // width, local % width

    def colors(self, flat: Tensor) -> Tensor:
        """Colours (N, 3) in [0, 1], float32, of the flat indices ``flat (N,)``."""
        return self.rgb[flat].float() / 255.0

    def draw(self, n: int, generator: torch.Generator, crop: float = 1.0) -> Tensor:
        """Draw pixels uniformly, with replacement.

        Args:
            n: how many.
            generator: the only source of randomness; it may live on another device.
            crop: fraction of the height and the width of each view, around its centre, to draw
                from.  Below 1 it takes the place of `candidates`.

        Returns:
            (n,) int64 flat indices on the table's device.
        """
        if crop < 1.0:
            return self._draw_cropped(n, generator, crop)
        if self.candidates is None:
            return self._uniform(n, len(self), generator)
        return self.candidates[self._uniform(n, len(self.candidates), generator)].long()

    def _uniform(self, n: int, high: int, generator: torch.Generator) -> Tensor:
        index = torch.randint(high, (n,), generator=generator, device=generator.device)
        return index.to(self.rgb.device)

    def _draw_cropped(self, n: int, generator: torch.Generator, crop: float) -> Tensor:
        kept = (self.sizes * crop).round().long().clamp(min=1)
        starts = _starts(kept.prod(dim=1))
        index = self._uniform(n, int(starts[-1]), generator)
        view = torch.searchsorted(starts, index, right=True) - 1
        local = index - starts[view]
        margin = (self.sizes - kept) // 2
        row = local // kept[view, 1] + margin[view, 0]
        column = local % kept[view, 1] + margin[view, 1]
        return self.offsets[view] + row * self.sizes[view, 1] + column


def _starts(counts: Tensor) -> Tensor:
    """Exclusive running sum (V + 1,) of counts (V,)."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])
