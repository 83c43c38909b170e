"""The corruptions of training views of NeRF in the Wild (Martin-Brualla et al. 2021, section 4.2):
colours that change and occluders that come and go from view to view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from datasets.scene import View
from utils.errors import UserError
from utils.images import to_uint8

KINDS = ("color", "occ")
STRIPES = 10


def perturb_views(views: list[View], kinds: Sequence[str], background: Tensor) -> list[View]:
    """Corrupt all views but the first, each by its own index, so that every run sees the same.

    Args:
        views: training views; they are not changed.
        kinds: out of `KINDS`.
        background: (3,) in [0, 1], the colour that the images with alpha were laid over.

    Returns:
        As many views; with no kinds, the same ones.

    Raises:
        UserError: a kind is unknown.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"--data_perturb: {kind!r} is unknown; use {' or '.join(KINDS)}")
    perturbed = list(views)
    for index in range(1, len(views)):
        if "color" in kinds:
            perturbed[index] = shift_colours(perturbed[index], index, background)
        if "occ" in kinds:
            perturbed[index] = occlude(perturbed[index], index)
    return perturbed


def shift_colours(view: View, seed: int, background: Tensor) -> View:
    """A random affine change of each channel, ``clip(s c + b)``, s in [0.8, 1.2], b in [-0.2, 0.2].

    Only the object changes: of a pixel with alpha a, ``p = a c + (1 - a) background``, it is c.
    """
    rng = np.random.default_rng([seed, 0])
    scale = torch.from_numpy(rng.uniform(0.8, 1.2, 3)).float()
    shift = torch.from_numpy(rng.uniform(-0.2, 0.2, 3)).float()
    image = view.image.float() / 255.0
    if view.alpha is None:
        return replace(view, image=to_uint8(scale * image + shift))
    alpha = view.alpha.float()[..., None] / 255.0
    image = scale * image + shift * alpha + (1.0 - scale) * (1.0 - alpha) * background
    return replace(view, image=to_uint8(image))


def occlude(view: View, seed: int) -> View:
    """An opaque square of ten coloured vertical stripes, a quarter of the shorter side wide, at a
    random place in the middle half of the image."""
    rng = np.random.default_rng([seed, 1])
    side = max(1, min(view.height, view.width) // 4)
    top, left = (
        rng.integers(length // 4, max(length // 4 + 1, 3 * length // 4 - side + 1))
        for length in (view.height, view.width)
    )
    colours = rng.integers(0, 256, (STRIPES, 3), dtype=np.uint8)
    stripes = torch.from_numpy(colours[np.arange(side) * STRIPES // side])
    square = (slice(top, top + side), slice(left, left + side))
    image = view.image.clone()
    image[square] = stripes
    if view.alpha is None:
        return replace(view, image=image)
    alpha = view.alpha.clone()
    alpha[square] = 255
    return replace(view, image=image, alpha=alpha)
