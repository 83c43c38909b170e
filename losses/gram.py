"""Gram matrices: which features occur together (Gatys, Ecker & Bethge 2016), on the object only."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.masked import check_features, mask_like, presence


def gram_matrix(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """G = F diag(m) F^T / (C sum(m)), features F as (C, H W); m = 1 gives 1 / (C H W).

    Args:
        features: (B, C, h, w).
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        (B, C, C); zero where the mask is zero everywhere.

    Raises:
        ValueError: for wrong shapes.
    """
    check_features(features)
    flat = features.flatten(2)
    channels, locations = flat.shape[1:]
    if mask is None:
        return flat @ flat.transpose(1, 2) / (channels * locations)
    weight = mask_like(features, mask).flatten(2)
    total = weight.sum(dim=2, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    # dividing the weights and not the product keeps a vanishing mask from overflowing
    return (flat * (weight / total)) @ flat.transpose(1, 2) / channels


def gram_loss(features: Tensor, style_gram: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of Gram matrices, averaged over the batch.

    Args:
        features: (B, C, h, w) of the render.
        style_gram: (1, C, C) or (B, C, C), `gram_matrix` of the style's features.
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        Scalar.

    Raises:
        ValueError: for wrong shapes.
    """
    gram = gram_matrix(features, mask)
    if style_gram.dim() != 3 or style_gram.shape[1:] != gram.shape[1:]:
        raise ValueError(
            f"style_gram {tuple(style_gram.shape)} does not fit the render's {tuple(gram.shape)}"
        )
    per_image = (gram - style_gram).square().mean(dim=(1, 2))
    return (per_image * presence(mask_like(features, mask))).mean()
