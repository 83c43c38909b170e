"""How alike two images are: PSNR and SSIM."""

from __future__ import annotations

import math

import kornia.metrics
import torch
from torch import Tensor

SSIM_WINDOW = 11


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio, -10 log10(mean squared error), in dB.

    Args:
        a, b: (H, W, 3) images in [0, 1].

    Returns:
        dB; infinite for equal images.
    """
    _require_alike(a, b)
    error = (a.double() - b.double()).square().mean().item()
    return -10 * math.log10(error) if error != 0 else math.inf


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), mean over the channels and over the pixels whose
    whole Gaussian window (11 x 11, sigma 1.5) lies inside the image.

    Args:
        a, b: (H, W, 3) images in [0, 1]; for one smaller than the window, the largest odd window
            that fits is used.

    Returns:
        At most 1, which is for equal images.
    """
    _require_alike(a, b)
    shorter = min(a.shape[:2])
    window = min(SSIM_WINDOW, shorter - (shorter + 1) % 2)
    # float64: the variances are differences of nearly equal numbers
    a, b = (image.permute(2, 0, 1)[None].to(torch.float64) for image in (a, b))
    return kornia.metrics.ssim(a, b, window, eps=0.0, padding="valid").mean().item()


def _require_alike(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 3 or a.shape[2] != 3:
        raise ValueError(f"expected two (H, W, 3) images, got {tuple(a.shape)}, {tuple(b.shape)}")
