"""The pixels of all training views as one flat table, to draw random batches from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from datasets.scene import View
from utils.errors import UserError


@dataclass
class TrainingPixels:
    """All pixels of a list of views, row-major, view after view: 3 bytes a pixel.

    Attributes:
        rgb: (P, 3) uint8.
        sizes: (V, 2) int64 height, width of each view; they may differ.
        offsets: (V + 1,) int64, the flat index of each view's first pixel, and P.
        candidates: (K,) int32 or int64 flat indices that `draw` is limited to (for example the
            pixels whose rays meet anything), or None for all pixels.
        valid: (P,) bool, False for pixels that `draw` never gives, see `View`; None: all True.
    """

    rgb: Tensor
    sizes: Tensor
    offsets: Tensor
    candidates: Tensor | None = None
    valid: Tensor | None = None

    @classmethod
    def of(cls, views: list[View]) -> tuple[TrainingPixels, list[View]]:
        """The pixels of a list of views.

        Returns:
            The table, and the same views with images that are parts of it: used in place of
            ``views`` they leave one copy of each photo in memory.

        Raises:
            UserError: the masks leave no pixel.
        """
        sizes = torch.tensor([[v.height, v.width] for v in views], dtype=torch.int64)
        offsets = _starts(sizes.prod(dim=1))
        rgb = torch.empty(int(offsets[-1]), 3, dtype=torch.uint8)
        shared = []
        for view, part in zip(views, rgb.split(sizes.prod(dim=1).tolist()), strict=True):
            part.copy_(view.image.reshape(-1, 3))
            shared.append(replace(view, image=part.view(view.height, view.width, 3)))
        pixels = cls(rgb, sizes, offsets)
        if any(view.valid is not None for view in views):
            masks = [v.image[..., 0] >= 0 if v.valid is None else v.valid for v in views]
            pixels.valid = torch.cat([mask.flatten() for mask in masks])
            if not bool(pixels.valid.any()):
                raise UserError(
                    "the masks of the training views leave no pixel; see their mask_path"
                )
            pixels.candidates = pixels._valid_index
        return pixels, shared

    def __len__(self) -> int:
        return self.rgb.shape[0]

    @property
    def n_candidates(self) -> int:
        """Pixels that `draw` chooses from."""
        return len(self) if self.candidates is None else len(self.candidates)

    def to(self, device: torch.device | str) -> TrainingPixels:
        tensors = (self.rgb, self.sizes, self.offsets, self.candidates, self.valid)
        return TrainingPixels(*(None if x is None else x.to(device) for x in tensors))

    def locate(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """View, row and column of pixels.

        Args:
            flat: (N,) int64 flat indices.

        Returns:
            view, row, column: (N,) int64 each.
        """
        view = torch.searchsorted(self.offsets[1:], flat, right=True)
        local = flat - self.offsets[view]
        width = self.sizes[view, 1]
        return view, local // width, local % width

    def colours(self, flat: Tensor) -> Tensor:
        """Colours (N, 3) in [0, 1], float32, of the flat indices ``flat (N,)``."""
        return self.rgb[flat] / 255.0

    def draw(self, n: int, generator: torch.Generator, crop: float = 1.0) -> Tensor:
        """Draw pixels uniformly, with replacement.

        Args:
            n: how many.
            generator: the only source of randomness; it may live on another device.
            crop: fraction of the height and the width of each view, around its centre, to draw
                from.  Below 1 it replaces `candidates`.

        Returns:
            (n,) int64 flat indices on the table's device.
        """
        if crop < 1.0:
            drawn = self._draw_cropped(n, generator, crop)
        elif self.candidates is None:
            drawn = self._uniform(n, len(self), generator)
        else:
            drawn = self.candidates[self._uniform(n, len(self.candidates), generator)].long()
        return drawn if self.valid is None else self._replaced(drawn, generator)

    def _replaced(self, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """The pixels ``drawn (n,)``, with random valid ones in place of those that are not: among
        the centres, or the candidates, there may be none."""
        wrong = (~self.valid[drawn]).nonzero()[:, 0]
        if len(wrong):
            index = self._uniform(len(wrong), len(self._valid_index), generator)
            drawn[wrong] = self._valid_index[index].long()
        return drawn

    @cached_property
    def _valid_index(self) -> Tensor:
        """Flat indices (K,) of the valid pixels."""
        return self.valid.nonzero()[:, 0].to(torch.int32)

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
