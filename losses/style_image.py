"""Resizes the style image to the size of a render."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def prepare_style(image: Tensor, size: int) -> Tensor:
    """The style image for a render, its shorter side ``size`` pixels long.

    Args:
        image: (H, W, 3) uint8, or floating point in [0, 1].
        size: the shorter side of the render, pixels.

    Returns:
        (1, 3, h, w) float32 in [0, 1], the proportions kept.

    Raises:
        ValueError: for a wrong shape or size.
    """
    if image.dim() != 3 or image.shape[2] != 3:
        raise ValueError(f"style image must be (H, W, 3), got {tuple(image.shape)}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    scale = 1 if image.is_floating_point() else 1 / 255
    planes = image.permute(2, 0, 1)[None].to(torch.float32) * scale
    height, width = planes.shape[2:]
    shorter = min(height, width)
    target = (round(height * size / shorter), round(width * size / shorter))
    # a painting is many times larger than a render: without antialiasing it would alias
    resized = functional.interpolate(planes, target, mode="bicubic", antialias=True)
    return resized.clamp(0, 1)
