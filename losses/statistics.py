"""Loss on mean and standard deviation per channel (Huang & Belongie 2017, AdaIN, eq. 13), within a
mask, relative to the magnitude of the style's features, which differs from network to network by a
factor of a hundred."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from losses.masked import Sums, check_features, flatten_positions, mask_like, masked_sums
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
    return Sums(_Moments.apply(features, centre, weight), weight.sum(dim=(1, 2, 3)))


class _Moments(torch.autograd.Function):
    """The value of `moment_sums`, differentiable in the features alone: its gradient takes two
    operations, and the squares are not kept for it."""

    @staticmethod
    def forward(ctx, features: Tensor, centre: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN001
        with torch.autocast(features.device.type, enabled=False):
            centred = (features - centre[:, :, None, None]).to(weight.dtype)
            ctx.save_for_backward(centred, weight)
            ctx.dtype = features.dtype
            row = weight.flatten(2)  # (B, 1, h w)
            powers = [row @ flatten_positions(power) for power in (centred, centred.square())]
            return torch.cat(powers, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN001
        centred, weight = ctx.saved_tensors
        first, second = grad[..., None, None].unbind(1)
        found = torch.addcmul(first, centred, second, value=2).mul_(weight)
        return found.to(ctx.dtype), None, None


def statistics_from_sums(sums: Sums, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C) and standard deviation (B, C) from `moment_sums` around ``centre`` (1, C) or
    (B, C)."""
    first, std = _statistics(*sums.mean().unbind(1))
    return first + centre, std


def _statistics(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C), from the centre, and standard deviation (B, C), from the means of the first two
    powers."""
    variance = (second - first.square()).clamp_min(0)
    return first, (variance + VARIANCE_FLOOR).sqrt()


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


def channel_shares(style_mean: Tensor, style_std: Tensor) -> Tensor:
    """What a channel's squared error is multiplied by, (1, C) or (B, C): the mean over the channels
    as a multiple of the style's mean squared feature.

    Args:
        style_mean, style_std: (1, C) or (B, C), `channel_statistics` of the style's features.
    """
    square = style_mean.square() + style_std.square()
    share = 1 / square.mean(dim=1, keepdim=True).clamp_min(VARIANCE_FLOOR) / square.shape[1]
    return share.expand_as(square)


def statistics_distance(
    sums: Sequence[Sums], style_stds: Sequence[Tensor], shares: Sequence[Tensor]
) -> Tensor:
    """Mean squared error of the means plus that of the standard deviations, as a multiple of the
    style's mean squared feature; averaged over the batch, summed over layers.

    The channels of all layers lie side by side, so that several layers take no more operations than
    one.

    Args:
        sums: of each layer, `moment_sums` of the render around the style's mean.
        style_stds: of each layer (1, C) or (B, C), see `channel_statistics`.
        shares: of each layer (1, C) or (B, C), see `channel_shares`.

    Returns:
        Scalar.
    """
    channels = [layer.value.shape[2] for layer in sums]
    weight = torch.cat(
        [s.weight[:, None].expand(-1, n) for s, n in zip(sums, channels, strict=True)], 1
    )
    moments = torch.cat([layer.value for layer in sums], 2)
    means = moments / weight.clamp_min(torch.finfo(weight.dtype).tiny)[:, None]
    mean, std = _statistics(*means.unbind(1))  # the mean counted from the style's
    per_channel = mean.square() + (std - torch.cat(list(style_stds), 1)).square()
    shares = torch.cat(list(shares), 1) * weight.clamp(max=1)
    return (per_channel * shares).sum(dim=1).mean()


def statistics_loss(
    features: Tensor, style_mean: Tensor, style_std: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Statistics loss (scalar) of features (B, C, h, w) within a mask (B, 1, H, W); for the other
    arguments see `statistics_distance`."""
    sums = moment_sums(features, style_mean, mask)
    return statistics_distance([sums], [style_std], [channel_shares(style_mean, style_std)])


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
        self.keep("shares", channel_shares(mean, std))

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        return moment_sums(features, self.style_mean, mask)

    def value(self, sums: Sums) -> Tensor:
        return self.total([self], [sums])

    @staticmethod
    def total(terms: Sequence[StatisticsTerm], sums: Sequence[Sums]) -> Tensor:
        stds, shares = zip(*((term.style_std, term.shares) for term in terms), strict=True)
        return statistics_distance(sums, stds, shares)
