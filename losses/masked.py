"""Statistics where there is an object: masks at the resolution of features, and weighted sums."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# conv3_1 looks 10 pixels past its own 4x4 cell; multiples of 16 keep the cells of both poolings
_BOX_STEP = 16


def check_image(image: Tensor, name: str = "image") -> None:
    """Raise ValueError unless ``image`` is (B, 3, H, W)."""
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"{name} must be (B, 3, H, W), got {tuple(image.shape)}")


def check_features(features: Tensor) -> None:
    """Raise ValueError unless ``features`` is (B, C, H, W)."""
    if features.dim() != 4:
        raise ValueError(f"features must be (B, C, H, W), got {tuple(features.shape)}")


def mask_like(features: Tensor, mask: Tensor | None) -> Tensor:
    """The mask at the resolution of ``features``, halved as often as the network halves the image.

    The mask chooses where to look; no gradient goes into it.

    Args:
        features: (B, C, h, w).
        mask: (B, 1, H, W) in [0, 1] with H // 2^k = h, W // 2^k = w, or None for everywhere.

    Returns:
        (B, 1, h, w).

    Raises:
        ValueError: where the mask cannot be halved to that shape.
    """
    check_features(features)
    batch, _, height, width = features.shape
    if mask is None:
        return features.new_ones(batch, 1, height, width)
    pooled = mask.detach().to(features)
    if pooled.dim() == 4:
        while pooled.shape[2] > height and min(pooled.shape[2:]) > 1:
            pooled = functional.avg_pool2d(pooled, 2)
    if pooled.shape != (batch, 1, height, width):
        raise ValueError(
            f"mask {tuple(mask.shape)} does not fit features {tuple(features.shape)}; "
            "it must be (B, 1, H, W) of the same image"
        )
    return pooled


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over the locations, weighted; zero where there is nothing to weigh.

    Args:
        values: (B, C, H, W).
        weight: (B, 1, H, W), not negative.

    Returns:
        (B, C).
    """
    total = weight.sum(dim=(2, 3))
    return (values * weight).sum(dim=(2, 3)) / total.clamp_min(torch.finfo(total.dtype).tiny)


def presence(weight: Tensor) -> Tensor:
    """How much of an object there is: 1 from one whole location on, less below, 0 for none.

    Terms are multiplied by it, so that an empty patch costs nothing and the cost has no jump.

    Args:
        weight: (B, 1, H, W), not negative.

    Returns:
        (B,) in [0, 1].
    """
    return weight.sum(dim=(1, 2, 3)).clamp(max=1)


def object_box(mask: Tensor) -> tuple[slice, slice] | None:
    """The smallest part of an image on which every masked feature statistic is the same as on the
    whole: the box around mask > 0, wider by what the deepest feature sees.

    Args:
        mask: (B, 1, H, W).

    Returns:
        Slices of rows and columns, common to the batch; None where the mask is zero everywhere.
    """
    occupied = (mask > 0).any(dim=0)[0]
    if not occupied.any():
        return None
    return _widened(occupied.any(dim=1)), _widened(occupied.any(dim=0))


def _widened(occupied: Tensor) -> slice:
    indices = occupied.nonzero()
    first, last = int(indices[0]), int(indices[-1])
    start = (first // _BOX_STEP - 1) * _BOX_STEP
    stop = (last // _BOX_STEP + 2) * _BOX_STEP
    return slice(max(start, 0), min(stop, occupied.shape[0]))
