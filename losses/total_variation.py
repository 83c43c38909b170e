"""Total variation: smoothness of the image."""

from __future__ import annotations

from torch import Tensor

from losses.masked import check_image, mask_like, masked_sums
from losses.terms import PixelTerm


def total_variation(image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of neighbouring pixels, each pair weighted by the product of its mask
    values, so that the object's silhouette is not penalised.

    Args:
        image: (B, 3, H, W) in [0, 1].
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
        sums = masked_sums(difference.square(), both)
        total = total + sums.mean().mean(dim=1) * sums.coverage()
    return total.mean()


class TotalVariation(PixelTerm):
    """`total_variation` of the render."""

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        return total_variation(image, mask)
