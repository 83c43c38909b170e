"""Losses and metrics of rendered colours against the photo's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def photometric_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of colours.

    Args:
        rendered: (N, 3) in [0, 1].
        target: (N, 3) in [0, 1].

    Returns:
        Scalar.

    Raises:
        ValueError: the shapes differ, which would broadcast silently.
    """
    if rendered.shape != target.shape:
        raise ValueError(
            f"rendered {tuple(rendered.shape)} and target {tuple(target.shape)} differ in shape"
        )
    return functional.mse_loss(rendered, target)


def robust_loss(rendered: Tensor, target: Tensor, scale: float) -> Tensor:
    """Mean squared error of colours in which a pixel counts less the farther it is off, as one does
    that shows a passer-by: with r the root of a pixel's mean squared error, the mean of
    ``r^2 / (1 + (r / scale)^2)`` (Geman and McClure, Bayesian image analysis, 1985).

    Args:
        rendered: (N, 3) in [0, 1].
        target: (N, 3) in [0, 1].
        scale: > 0, colour error at which a pixel counts a quarter.

    Returns:
        Scalar; what it is to `photometric_loss` where errors are small, and below ``scale^2``.
    """
    error = (rendered - target).square().mean(-1)
    return (error / (1 + error / scale**2)).mean()


def transparency_loss(opacity: Tensor) -> Tensor:
    """Penalises transparent rays, for photos without alpha whose every pixel shows a surface (NDC
    and contracted scenes).

    Added to the squared error over a grey background, it equals training on random backgrounds
    (instant-ngp) in expectation, without their noise: over a background drawn uniformly from [0, 1]
    for each ray and channel, the expected squared error is the one over grey plus the background's
    variance, 1/12, times the squared transparency.

    Args:
        opacity: (N,) in [0, 1].

    Returns:
        Scalar.
    """
    return (1 - opacity).square().mean() / 12


def silhouette_loss(opacity: Tensor, alpha: Tensor) -> Tensor:
    """Penalises transparent rays within the object's mask and opaque ones outside: without it what
    is as white as the background may be fog, and what is thin may shine through.

    Args:
        opacity: (N,) in [0, 1].
        alpha: (N,) uint8 of the photos' pixels; what is neither 0 nor 255 may be either.

    Returns:
        Scalar.
    """
    known = (alpha == 0) | (alpha == 255)
    return ((opacity - (alpha == 255).to(opacity)).square() * known).mean()


def psnr_of(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for colours in [0, 1], -10 log10(mse), of any shape;
    infinite for mse = 0."""
    return -10 * mse.log10()
