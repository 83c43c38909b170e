"""The size of the style image, by that of a render."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from utils.errors import UserError

SMALLEST = 8  # pixels: filters are 5 wide, and networks look at a quarter or an eighth of the size


def painting_size(size: int, stroke_scale: float = 1.0) -> int:
    """The shorter side of a painting for renders with a shorter side of ``size`` pixels.

    Raises:
        UserError: renders or strokes are too small for a loss to look at.
    """
    if round(size * min(1.0, stroke_scale)) < SMALLEST:
        raise UserError(
            f"--img_wh: pictures of {size} pixels are too small to paint on; the shorter side, and "
            f"that side times --stroke_scale, has to be at least {SMALLEST}"
        )
    return round(size * stroke_scale)


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
