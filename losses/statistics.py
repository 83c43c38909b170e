"""Loss on mean and standard deviation per channel (Huang & Belongie 2017, AdaIN, eq. 13), within a
mask, relative to the magnitude of the style's features, which differs from network to network by a
factor of a hundred."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.masked import Sums, check_features, mask_like, masked_sums, masked_totals
from losses.terms import FeatureTerm

# added under the root, so that constant features have a gradient; far below any real variance
VARIANCE_FLOOR = 1e-8


def moment_sums(features: Tensor, centre: Tensor, mask: Tensor | None = None) -> Sums:
    """Sums of the first two powers of (features - centre).

    A centre near the mean avoids computing the variance as a difference of large numbers.

    Args:
        features: (B, C, h, w).
        centre: (1, C) or (B, C), near the mean.
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        value (B, 2, C), weight (B,).

    Raises:
        ValueError: for wrong shapes.
    """
    weight = mask_like(features, mask)
    if centre.dim() != 2 or centre.shape[1] != features.shape[1]:
        raise ValueError(
            f"centre {tuple(centre.shape)} does not fit features {tuple(features.shape)}"
        )
    centred = features - centre[:, :, None, None]
    powers = [masked_totals(power, weight) for power in (centred, centred.square())]
    return Sums(torch.stack(powers, 1), weight.sum(dim=(1, 2, 3)))


def statistics_from_sums(sums: Sums, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C) and standard deviation (B, C) from `moment_sums` around ``centre`` (1, C) or
    (B, C)."""
    first, second = sums.mean().unbind(1)
    variance = (second - first.square()).clamp_min(0)
    return first + centre, (variance + VARIANCE_FLOOR).sqrt()


def channel_statistics(features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the positions.

    Args:
        features: (B, C, h, w).
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        mean (B, C) and standard deviation (B, C).

    Raises:
        ValueError: for wrong shapes.
    """
    centre = masked_sums(check_features(features).detach(), mask_like(features, mask)).mean()
    return statistics_from_sums(moment_sums(features, centre, mask), centre)


def statistics_distance(sums: Sums, style_mean: Tensor, style_std: Tensor) -> Tensor:
    """Mean squared error of the means plus that of the standard deviations, as a multiple of the
    style's mean squared feature; averaged over the batch.

    Args:
        sums: `moment_sums` of the render around ``style_mean``.
        style_mean, style_std: (1, C) or (B, C), `channel_statistics` of the style's features.

    Returns:
        Scalar.
    """
    mean, std = statistics_from_sums(sums, style_mean)
    per_channel = (mean - style_mean).square() + (std - style_std).square()
    scale = (style_mean.square() + style_std.square()).mean(dim=1).clamp_min(VARIANCE_FLOOR)
    return (per_channel.mean(dim=1) / scale * sums.coverage()).mean()


def statistics_loss(
    features: Tensor, style_mean: Tensor, style_std: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Statistics loss (scalar) of features (B, C, h, w) within a mask (B, 1, H, W); for the other
    arguments see `statistics_distance`."""
    return statistics_distance(moment_sums(features, style_mean, mask), style_mean, style_std)


class StatisticsTerm(FeatureTerm):
    """Distance of the channels' means and standard deviations."""

    default_layers = ("statistics",)

    def __init__(self) -> None:
        super().__init__()
        self.centre: Tensor | None = None
        self.style_sums: Sums | None = None

    def add_style(self, features: Tensor) -> None:
        if self.style_sums is None:
            self.centre = features.mean(dim=(2, 3))
            self.style_sums = moment_sums(features, self.centre)
        else:
            self.style_sums += moment_sums(features, self.centre)

    def finish_style(self) -> None:
        mean, std = statistics_from_sums(self.style_sums, self.centre)
        self.centre = self.style_sums = None
        self.keep("style_mean", mean)
        self.keep("style_std", std)

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        return moment_sums(features, self.style_mean, mask)

    def value(self, sums: Sums) -> Tensor:
        return statistics_distance(sums, self.style_mean, self.style_std)
