"""Directional loss: what an encoder sees changes from a photo to the render of the same view as it
does from photos to a prompt, or to a painting (StyleGAN-NADA, Gal et al. 2022, eq. 3;
NeRF-Art, Wang et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from features.semantic import SemanticEncoder
from losses.masked import check_image, mask_like
from losses.terms import PixelTerm

# a cut-out that shows less of the object, by its area, says nothing of it
LEAST_SEEN = 0.05
# added under the root of a difference's norm, so that there is a gradient where there is none yet
NORM_FLOOR = 1e-4


class Directional(PixelTerm):
    """1 - cosine between the way from photo to render and the way to the style, over cut-outs of a
    view: squares that cover it, and squares of half their side all over it.  Without the smaller
    ones an encoder is content with a pattern here and there.

    Args:
        encoder: of pictures, frozen.
        target: (C,) what it is to see.
        source: (C,) from where the way to the target is taken; None: from the photo.
    """

    needs_photo = True

    def __init__(
        self, encoder: SemanticEncoder, target: Tensor, source: Tensor | None = None
    ) -> None:
        super().__init__(target)
        self.encoder = encoder
        self.register_buffer("target", target, persistent=False)
        self.register_buffer("source", source, persistent=False)

    def forward(
        self, image: Tensor, mask: Tensor | None = None, photo: Tensor | None = None
    ) -> Tensor:
        """The term, a scalar; outside of the mask the encoder sees the photo.

        Args:
            image: (B, 3, H, W) in [0, 1].
            mask: (B, 1, H, W) in [0, 1], or None for everywhere.
            photo: (B, 3, H, W) in [0, 1] of the same view.

        Raises:
            ValueError: for wrong shapes.
        """
        check_image(image)
        squares = cut_outs(*image.shape[2:])
        mask = mask_like(image, mask)
        with torch.no_grad():
            before = embedded(self.encoder, photo, squares)
            seen = [mask[:, :, y : y + n, x : x + n].mean((1, 2, 3)) for y, x, n in squares]
            weight = torch.stack(seen)
            weight = weight * (weight >= LEAST_SEEN)
            wanted = self.target - (before if self.source is None else self.source)
            wanted = functional.normalize(wanted.to(before), dim=-1).expand_as(before)
        moved = embedded(self.encoder, photo + mask * (image - photo), squares) - before
        length = (moved.square().sum(-1) + NORM_FLOOR).sqrt()
        distance = 1 - (moved * wanted).sum(-1) / length
        return (weight * distance).sum() / weight.sum().clamp(min=LEAST_SEEN)


def cut_outs(height: int, width: int) -> list[tuple[int, int, int]]:
    """Squares (top, left, side) of an image: as few as cover it, and half as large ones, each half
    over the next.

    >>> [square for square in cut_outs(8, 8) if square[2] == 8]
    [(0, 0, 8)]
    >>> len(cut_outs(8, 12))
    14
    """
    whole = min(height, width)
    return [
        (top, left, side)
        for side, step in ((whole, whole), (max(1, whole // 2), max(1, whole // 4)))
        for top in _starts(height, side, step)
        for left in _starts(width, side, step)
    ]


def _starts(length: int, side: int, step: int) -> list[int]:
    """Where intervals begin that cover ``length``, at most ``step`` apart."""
    n = -(-(length - side) // step)
    return [round(i * (length - side) / n) for i in range(n + 1)] if n else [0]


def embedded(
    encoder: SemanticEncoder, image: Tensor, squares: Sequence[tuple[int, int, int]]
) -> Tensor:
    """Unit vectors (S, B, C) of squares (top, left, side) of ``image (B, 3, H, W)``."""
    return torch.stack([encoder(image[:, :, y : y + n, x : x + n]) for y, x, n in squares])


@torch.no_grad()
def mean_embedding(encoder: SemanticEncoder, image: Tensor) -> Tensor:
    """(C,) mean over the cut-outs of ``image (1, 3, H, W)``."""
    return embedded(encoder, image, cut_outs(*image.shape[2:])).mean((0, 1))
