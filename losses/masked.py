"""Masked statistics: masks at the resolution of features, and weighted sums over positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Sums:
    """Weighted sums over the positions of an image.  An image's sums are the total of its tiles'
    sums, so a loss that is a function of sums does not need the whole image in memory.

    Attributes:
        value: (B, ...) weighted sums, differentiable in the features.
        weight: (B,) total weight of the positions.
    """

    value: Tensor
    weight: Tensor

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.value + other.value, self.weight + other.weight)

    def detach(self) -> Sums:
        """A copy without a graph."""
        return Sums(self.value.detach(), self.weight)

    def mean(self) -> Tensor:
        """Weighted means (B, ...); zero where the weight is zero."""
        weight = self.weight.clamp_min(torch.finfo(self.weight.dtype).tiny)
        return self.value / weight.view(-1, *[1] * (self.value.dim() - 1))

    def coverage(self) -> Tensor:
        """(B,) the weight clamped to 1, the weight of one position wholly inside the mask.

        Distances are multiplied by it, so that they go to zero continuously as the mask vanishes.
        """
        return self.weight.clamp(max=1)


def check_image(image: Tensor, name: str = "image") -> None:
    """Raise ValueError unless ``image`` is (B, 3, H, W)."""
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"{name} must be (B, 3, H, W), got {tuple(image.shape)}")


def check_features(features: Tensor) -> Tensor:
    """The features; raises ValueError unless they are (B, C, H, W)."""
    if features.dim() != 4:
        raise ValueError(f"features must be (B, C, H, W), got {tuple(features.shape)}")
    return features


def mask_like(features: Tensor, mask: Tensor | None) -> Tensor:
    """The mask at the resolution of ``features``, halved as often as the network halves the image.

    The mask is detached: no gradient flows into it.

    Args:
        features: (B, C, h, w).
        mask: (B, 1, H, W) in [0, 1] with H // 2^k = h, W // 2^k = w, or None for everywhere.

    Returns:
        (B, 1, h, w), at least in single precision.

    Raises:
        ValueError: the mask cannot be halved to that shape.
    """
    batch, _, height, width = check_features(features).shape
    dtype = torch.promote_types(features.dtype, torch.float32)
    if mask is None:
        return torch.ones(batch, 1, height, width, dtype=dtype, device=features.device)
    pooled = mask.detach().to(features.device, dtype)
    if pooled.dim() == 4:
        while pooled.shape[2] > height and min(pooled.shape[2:]) > 1:
            pooled = functional.avg_pool2d(pooled, 2)
    if pooled.shape != (batch, 1, height, width):
        raise ValueError(
            f"mask {tuple(mask.shape)} does not fit features {tuple(features.shape)}; "
            "it must be (B, 1, H, W) of the same image"
        )
    return pooled


def masks_like(features: Mapping[str, Tensor], mask: Tensor | None) -> dict[str, Tensor | None]:
    """As `mask_like`, for the features of several layers: each is halved from the next finer one.
    None stays None."""
    masks = {}
    for layer in sorted(features, key=lambda name: -features[name].shape[2]):
        mask = None if mask is None else mask_like(features[layer], mask)
        masks[layer] = mask
    return masks


def masked_sums(values: Tensor, weight: Tensor) -> Sums:
    """Weighted sum over the positions.

    Args:
        values: (B, C, H, W).
        weight: (B, 1, H, W), not negative.

    Returns:
        value (B, C), weight (B,).
    """
    with torch.autocast(values.device.type, enabled=False):
        total = (weight.flatten(2) @ flatten_positions(values).to(weight.dtype))[:, 0]
    return Sums(total, weight.sum(dim=(1, 2, 3)))


def flatten_positions(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h w, C), a view where the features are stored channels last."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)
