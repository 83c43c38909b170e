"""Losses of the 2D stylisation network: content, style, and consistency of two views (Huang &
Belongie 2017; StylizedNeRF, Huang et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from losses.masked import mask_like
from losses.statistics import channel_statistics


def content_term(
    features: Tensor, wanted: Tensor, mask: Tensor | None = None, std: Tensor | None = None
) -> Tensor:
    """Mean squared difference of features from those that were decoded, in a unit that makes it the
    same for networks of any scale.

    Args:
        features: (B, C, h, w).
        wanted: (B, C, h, w).
        mask: (B, 1, H, W), or None for everywhere.
        std: (C,) unit of each channel; None: the mean variance of ``wanted`` is the unit of all.
    """
    weight = mask_like(features, mask)
    error = features.float() - wanted.float()
    if std is not None:
        error = error / std[:, None, None]
    error = (error.square().mean(1, keepdim=True) * weight).sum() / weight.sum().clamp(min=1e-6)
    return error if std is not None else error / wanted.float().var((2, 3)).mean().clamp(min=1e-8)


def style_term(
    features: Mapping[str, Tensor],
    style: Mapping[str, tuple[Tensor, Tensor]],
    mask: Tensor | None = None,
) -> Tensor:
    """Squared differences of mean and deviation from those of the painting, mean over channels and
    images, sum over layers, in units of the painting's variance.

    Args:
        features: layer -> (B, C, h, w).
        style: layer -> mean and deviation (1, C) of the painting.
        mask: (B, 1, H, W), or None for everywhere.
    """
    total = torch.zeros((), device=next(iter(features.values())).device)
    for layer, (mean, std) in style.items():
        own_mean, own_std = channel_statistics(features[layer], mask)
        error = (own_mean - mean).square().mean() + (own_std - std).square().mean()
        total = total + error / std.square().mean().clamp(min=1e-8)
    return total


def style_statistics(
    features: Mapping[str, Tensor], layers: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """What `style_term` compares with: layer -> mean and deviation (1, C)."""
    return {layer: channel_statistics(features[layer]) for layer in layers}


def consistency_term(picture: Tensor, warped: Tensor, valid: Tensor) -> Tensor:
    """Mean squared difference of colours over the pixels that both views show, and over nothing
    else; 0 where there are none.

    Args:
        picture: (H, W, 3) of one view.
        warped: (H, W, 3), another view's, seen from the first.
        valid: (H, W) bool.
    """
    error = (picture - warped).square().mean(-1)
    # not indexed by the mask: the gradient of a constant shape is quicker
    return (error * valid).sum() / valid.sum().clamp(min=1)
