"""Content loss: distance to the features of the photo (Gatys, Ecker & Bethge 2016)."""

from __future__ import annotations

from torch import Tensor

from losses.masked import Sums, mask_like, masked_sums
from losses.terms import FeatureTerm


def content_sums(features: Tensor, photo_features: Tensor, mask: Tensor | None = None) -> Sums:
    """Squared differences from the photo's features, summed over the positions.

    Args:
        features: (B, C, h, w) of the render.
        photo_features: (B, C, h, w) of the photo of the same view.
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        value (B, C), weight (B,).

    Raises:
        ValueError: for wrong shapes.
    """
    weight = mask_like(features, mask)
    if features.shape != photo_features.shape:
        raise ValueError(
            f"photo_features {tuple(photo_features.shape)} must have the shape of features "
            f"{tuple(features.shape)}"
        )
    return masked_sums((features - photo_features).square(), weight)


def content_distance(sums: Sums) -> Tensor:
    """Mean squared difference (Gatys, Ecker & Bethge 2016, eq. 1), averaged over the batch.

    Args:
        sums: from `content_sums`.

    Returns:
        Scalar.
    """
    return (sums.mean().mean(dim=1) * sums.coverage()).mean()


def content_loss(features: Tensor, photo_features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Content loss (scalar) of features and photo_features (B, C, h, w) within a mask
    (B, 1, H, W)."""
    return content_distance(content_sums(features, photo_features, mask))


class ContentTerm(FeatureTerm):
    """Distance to the photo's features; independent of the style."""

    default_layers = ("content",)
    needs_photo = True

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        return content_sums(features, photo, mask)

    def value(self, sums: Sums) -> Tensor:
        return content_distance(sums)
