"""Staying recognisable: distance to the photo's features, and smoothness of the picture."""

from __future__ import annotations

from torch import Tensor

from losses.masked import check_image, mask_like, masked_mean, presence


def content_loss(features: Tensor, photo_features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference to the photo's features (Gatys, Ecker & Bethge 2016, eq. 1).

    Args:
        features: (B, C, h, w) of the render.
        photo_features: (B, C, h, w) of the photo of the same view.
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        Scalar, averaged over the batch.

    Raises:
        ValueError: for wrong shapes.
    """
    weight = mask_like(features, mask)
    if features.shape != photo_features.shape:
        raise ValueError(
            f"photo_features {tuple(photo_features.shape)} must have the shape of features "
            f"{tuple(features.shape)}"
        )
    per_image = masked_mean((features - photo_features).square(), weight).mean(dim=1)
    return (per_image * presence(weight)).mean()


def total_variation(image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of neighbouring pixels, each pair weighted by both its opacities, so
    that the object's outline costs nothing.

    Args:
        image: (B, 3, H, W).
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.

    Returns:
        Scalar, averaged over the batch: vertical pairs plus horizontal pairs.

    Raises:
        ValueError: for wrong shapes.
    """
    check_image(image)
    weight = mask_like(image, mask)
    total = image.new_zeros(image.shape[0])
    for dim in (2, 3):
        pairs = image.shape[dim] - 1
        difference = image.narrow(dim, 1, pairs) - image.narrow(dim, 0, pairs)
        both = weight.narrow(dim, 1, pairs) * weight.narrow(dim, 0, pairs)
        total = total + masked_mean(difference.square(), both).mean(dim=1) * presence(both)
    return total.mean()
