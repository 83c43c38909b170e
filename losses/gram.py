"""Gram matrix loss (Gatys, Ecker & Bethge 2016), within a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.masked import Sums, flatten_positions, mask_like
from losses.terms import FeatureTerm


def gram_sums(features: Tensor, mask: Tensor | None = None) -> Sums:
    """``F diag(m) F^T`` with F the features as (C, h w); in single precision even under autocast.

    Args:
        features: (B, C, h, w).
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        value (B, C, C), weight (B,).

    Raises:
        ValueError: for wrong shapes.
    """
    weight = mask_like(features, mask).flatten(1)[..., None]
    with torch.autocast(features.device.type, enabled=False):
        rows = flatten_positions(features).to(weight.dtype)
        return Sums((rows * weight).transpose(1, 2) @ rows, weight.sum(dim=(1, 2)))


def gram_from_sums(sums: Sums) -> Tensor:
    """Gram matrices (B, C, C), ``F diag(m) F^T / (C sum(m))``, from `gram_sums`; without a mask the
    divisor is C h w."""
    return sums.mean() / sums.value.shape[1]


def gram_matrix(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Gram matrices (B, C, C) of features (B, C, h, w) within a mask (B, 1, H, W); zero if the mask
    is zero everywhere."""
    return gram_from_sums(gram_sums(features, mask))


def gram_distance(sums: Sums, style_gram: Tensor) -> Tensor:
    """Mean squared difference of Gram matrices, averaged over the batch.

    Args:
        sums: `gram_sums` of the render.
        style_gram: (1, C, C) or (B, C, C), `gram_matrix` of the style's features.

    Returns:
        Scalar.

    Raises:
        ValueError: for wrong shapes.
    """
    gram = gram_from_sums(sums)
    if style_gram.dim() != 3 or style_gram.shape[1:] != gram.shape[1:]:
        raise ValueError(
            f"style_gram {tuple(style_gram.shape)} does not fit the render's {tuple(gram.shape)}"
        )
    return ((gram - style_gram).square().mean(dim=(1, 2)) * sums.coverage()).mean()


def gram_loss(features: Tensor, style_gram: Tensor, mask: Tensor | None = None) -> Tensor:
    """Gram loss (scalar) of features (B, C, h, w) within a mask (B, 1, H, W)."""
    return gram_distance(gram_sums(features, mask), style_gram)


class GramTerm(FeatureTerm):
    """Distance of the Gram matrices of render and style."""

    default_layers = ("statistics",)

    def __init__(self) -> None:
        super().__init__()
        self.style_sums: Sums | None = None

    def add_style(self, features: Tensor) -> None:
        new = gram_sums(features)
        self.style_sums = new if self.style_sums is None else self.style_sums + new

    def finish_style(self) -> None:
        self.keep("style_gram", gram_from_sums(self.style_sums))
        self.style_sums = None

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        return gram_sums(features, mask)

    def value(self, sums: Sums) -> Tensor:
        return gram_distance(sums, self.style_gram)
