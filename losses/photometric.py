"""Losses and measures of rendered colours against those of the photo."""

from __future__ import annotations

from torch import Tensor


def photometric_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of colours.

    Args:
        rendered: (N, 3) in [0, 1].
        target: (N, 3) in [0, 1].

    Returns:
        Scalar.

    Raises:
        ValueError: where the shapes differ, which would broadcast silently.
    """
    if rendered.shape != target.shape:
        raise ValueError(
            f"rendered {tuple(rendered.shape)} and target {tuple(target.shape)} differ in shape"
        )
    return (rendered - target).square().mean()


def transparency_loss(opacity: Tensor) -> Tensor:
    """Makes rays end at a surface, for photos with transparent backgrounds.

    Over a background drawn uniformly from [0, 1] for each ray and channel, the expected squared
    error of a colour is its squared error over grey, plus the background's variance 1/12 times the
    squared transparency: this, added to the error over grey, is training on random
    backgrounds (instant-ngp) without their noise.

    Args:
        opacity: (N,) in [0, 1].

    Returns:
        Scalar.
    """
    return (1 - opacity).square().mean() / 12


def psnr_of(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, for colours in [0, 1]: -10 log10(mse); inf for mse = 0."""
    return -10 * mse.log10()
