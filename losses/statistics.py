"""Mean and standard deviation per channel, the statistics of AdaIN (Huang & Belongie 2017, eq. 13),
on the object only."""

from __future__ import annotations

from torch import Tensor

from losses.masked import check_features, mask_like, masked_mean, presence

# under the root, so that flat features have a gradient; far below the variance of any real feature
VARIANCE_FLOOR = 1e-8


def channel_statistics(features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the locations.

    Args:
        features: (B, C, h, w).
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        mean (B, C) and standard deviation (B, C).

    Raises:
        ValueError: for wrong shapes.
    """
    check_features(features)
    weight = mask_like(features, mask)
    mean = masked_mean(features, weight)
    variance = masked_mean((features - mean[:, :, None, None]).square(), weight)
    return mean, (variance + VARIANCE_FLOOR).sqrt()


def statistics_loss(
    features: Tensor, style_mean: Tensor, style_std: Tensor, mask: Tensor | None = None
) -> Tensor:
    """MSE of the means plus MSE of the standard deviations, averaged over the batch.

    Args:
        features: (B, C, h, w) of the render.
        style_mean, style_std: (1, C) or (B, C), `channel_statistics` of the style's features.
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        Scalar.

    Raises:
        ValueError: for wrong shapes.
    """
    mean, std = channel_statistics(features, mask)
    for name, target in (("style_mean", style_mean), ("style_std", style_std)):
        if target.dim() != 2 or target.shape[1] != mean.shape[1]:
            raise ValueError(
                f"{name} {tuple(target.shape)} does not fit features {tuple(features.shape)}"
            )
    per_channel = (mean - style_mean).square() + (std - style_std).square()
    return (per_channel.mean(dim=1) * presence(mask_like(features, mask))).mean()
