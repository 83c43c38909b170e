"""Staying recognisable: distance to the photo's features, and smoothness of the picture."""

from __future__ import annotations

from torch import Tensor

from losses.masked import Sums, check_image, mask_like, masked_sums


def content_sums(features: Tensor, photo_features: Tensor, mask: Tensor | None = None) -> Sums:
    """Squared differences to the photo's features, summed over the places.

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


def per_image(sums: Sums) -> Tensor:
    """Mean over places and channels (B,); less where there is hardly any object."""
    return sums.mean().mean(dim=1) * sums.presence()


def content_distance(sums: Sums) -> Tensor:
    """Mean squared difference (Gatys, Ecker & Bethge 2016, eq. 1), averaged over the batch."""
    return per_image(sums).mean()


def content_loss(features: Tensor, photo_features: Tensor, mask: Tensor | None = None) -> Tensor:
    """`content_distance` of the features (B, C, h, w) where the mask (B, 1, H, W) is."""
    return content_distance(content_sums(features, photo_features, mask))


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
        total = total + per_image(masked_sums(difference.square(), both))
    return total.mean()
