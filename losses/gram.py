"""Gram matrices: which features occur together (Gatys, Ecker & Bethge 2016), on the object only."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.masked import Sums, mask_like, places_of


def gram_sums(features: Tensor, mask: Tensor | None = None) -> Sums:
    """F diag(m) F^T, features F as (C, H W), in single precision also under autocast.

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
        places = places_of(features).to(weight.dtype)
        return Sums((places * weight).transpose(1, 2) @ places, weight.sum(dim=(1, 2)))


def gram_of(sums: Sums) -> Tensor:
    """Gram matrix (B, C, C) = F diag(m) F^T / (C sum(m)); m = 1 gives 1 / (C H W)."""
    return sums.mean() / sums.value.shape[1]


def gram_matrix(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """`gram_of` the features (B, C, h, w): (B, C, C), zero where the mask is zero everywhere."""
    return gram_of(gram_sums(features, mask))


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
    gram = gram_of(sums)
    if style_gram.dim() != 3 or style_gram.shape[1:] != gram.shape[1:]:
        raise ValueError(
            f"style_gram {tuple(style_gram.shape)} does not fit the render's {tuple(gram.shape)}"
        )
    return ((gram - style_gram).square().mean(dim=(1, 2)) * sums.presence()).mean()


def gram_loss(features: Tensor, style_gram: Tensor, mask: Tensor | None = None) -> Tensor:
    """`gram_distance` of the features (B, C, h, w) where the mask (B, 1, H, W) is."""
    return gram_distance(gram_sums(features, mask), style_gram)
