"""Mean and standard deviation per channel, the statistics of AdaIN (Huang & Belongie 2017, eq. 13),
on the object only."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.masked import Sums, check_features, mask_like, masked_sums

# under the root, so that flat features have a gradient; far below the variance of any real feature
VARIANCE_FLOOR = 1e-8


def moment_sums(features: Tensor, centre: Tensor, mask: Tensor | None = None) -> Sums:
    """Sums of the first two powers of features, less a centre that keeps them small.

    Args:
        features: (B, C, h, w).
        centre: (1, C) or (B, C), anywhere near the mean.
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        value (B, 2, C), weight (B,).

    Raises:
        ValueError: for wrong shapes.
    """
    weight = mask_like(features, mask)
    if centre.dim() != 2 or centre.shape[1] != features.shape[1]:
        raise ValueError(
            f"mean {tuple(centre.shape)} does not fit features {tuple(features.shape)}"
        )
    centred = features - centre[:, :, None, None]
    first, total = masked_sums(centred, weight)
    return Sums(torch.stack([first, masked_sums(centred.square(), weight).value], 1), total)


def statistics_of(sums: Sums, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, C) each, of `moment_sums` around ``centre``."""
    first, second = sums.mean().unbind(1)
    variance = (second - first.square()).clamp_min(0)
    return first + centre, (variance + VARIANCE_FLOOR).sqrt()


def channel_statistics(features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the places.

    Args:
        features: (B, C, h, w).
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        mean (B, C) and standard deviation (B, C).

    Raises:
        ValueError: for wrong shapes.
    """
    centre = masked_sums(check_features(features).detach(), mask_like(features, mask)).mean()
    return statistics_of(moment_sums(features, centre, mask), centre)


def statistics_distance(sums: Sums, style_mean: Tensor, style_std: Tensor) -> Tensor:
    """MSE of the means plus MSE of the standard deviations, averaged over the batch.

    Args:
        sums: `moment_sums` of the render around ``style_mean``.
        style_mean, style_std: (1, C) or (B, C), `channel_statistics` of the style's features.

    Returns:
        Scalar.
    """
    mean, std = statistics_of(sums, style_mean)
    per_channel = (mean - style_mean).square() + (std - style_std).square()
    return (per_channel.mean(dim=1) * sums.presence()).mean()


def statistics_loss(
    features: Tensor, style_mean: Tensor, style_std: Tensor, mask: Tensor | None = None
) -> Tensor:
    """`statistics_distance` of the features (B, C, h, w) where the mask (B, 1, H, W) is."""
    return statistics_distance(moment_sums(features, style_mean, mask), style_mean, style_std)
