"""How alike a 2D network paints a surface in different views, and how sharp pictures are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from models.field import Field
from models.warp import LEAST_COVERAGE, eroded, masked_rmse
from systems.photo_views import PhotoViews
from systems.styled_features import StyledFeatures
from utils.images import LUMA, sample_bilinear
from utils.octaves import normalised_error

# a view's picture (H, W, 3) in [0, 1]
Painter = Callable[[int], Tensor]


def painter(
    decode: Callable[..., Tensor],
    styled: StyledFeatures,
    painting: int,
    guide: Field | None = None,
) -> Painter:
    """What a 2D network makes of a view in one style.

    Args:
        decode: features and size of an image -> the image, see `Stylizer.decode`.
        styled: what it decodes.
        painting: in whose manner.
        guide: see `StyledFeatures.of`.
    """

    @torch.no_grad()
    def paint(index: int) -> Tensor:
        size = tuple(styled.views.rgb[index].shape[:2])
        picture = decode(styled.of(index, painting, guide), size).float()
        return picture[0].permute(1, 2, 0).clamp(0, 1)

    return paint


class CrossView(NamedTuple):
    """How differently two views show a surface, see docs/measures.md: ``rmse``, and ``normalised``
    by the pictures' own contrast, without which blur would pass for consistency."""

    rmse: float
    normalised: float


@torch.no_grad()
def cross_view_error(
    paint: Painter, views: PhotoViews, pairs: Iterable[tuple[int, int]]
) -> CrossView | None:
    """The difference of views and others warped to them by the frozen geometry, over the pixels
    that both show (`models.warp.correspondence`); mean over the pairs that share at least
    `LEAST_COVERAGE` of their pixels, None where there are none."""
    pictures: dict[int, Tensor] = {}
    errors, normalised = [], []
    for target, source in pairs:
        pixel, valid = views.same_surface(target, source)
        opaque = views.frame(target).surface.opaque
        if not valid.any() or valid.sum() < LEAST_COVERAGE * opaque.sum():
            continue
        for index in (target, source):
            if index not in pictures:
                pictures[index] = paint(index)
        warped = sample_bilinear(pictures[source], pixel)
        errors.append(masked_rmse(pictures[target], warped, valid))
        normalised.append(normalised_error(pictures[target], warped, valid))
    if not errors:
        return None
    return CrossView(fmean(errors), fmean(normalised))


def laplacian_energy(image: Tensor, mask: Tensor) -> float:
    """Mean square of the Laplacian of luminance, by which blur shows.

    Args:
        image: (H, W, 3) in [0, 1].
        mask: (H, W) bool; pixels at its border do not count.
    """
    grey = (image.float() @ image.new_tensor(LUMA))[None, None]
    kernel = grey.new_tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    energy = functional.conv2d(functional.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel)
    inside = eroded(mask)
    return float(energy[0, 0][inside].double().square().mean()) if inside.any() else 0.0
