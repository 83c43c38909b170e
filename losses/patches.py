"""How alike the patches of images of different objects are: a pattern is a distribution of patches,
wherever they lie."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from losses.overlap import sliced_wasserstein

SIDE = 7  # pixels of a patch
SCALES = 2  # each half as large as the one before
DIRECTIONS = 64
COVERED = 0.98  # share of a patch that has to be object


def patches_of(image: Tensor, mask: Tensor) -> list[Tensor]:
    """All patches that lie on an object, at each scale.

    Args:
        image: (H, W, 3) in [0, 1].
        mask: (H, W) in [0, 1], where the object is.

    Returns:
        For each scale (K, 3 * SIDE^2); K may be 0.
    """
    found = []
    rgb, cover = image.permute(2, 0, 1)[None], mask[None, None].to(image)
    for scale in range(SCALES):
        if scale:
            rgb, cover = functional.avg_pool2d(rgb, 2), functional.avg_pool2d(cover, 2)
        if min(rgb.shape[2:]) < SIDE:
            found.append(rgb.new_zeros(0, 3 * SIDE**2))
            continue
        inside = functional.avg_pool2d(cover, SIDE, stride=1).flatten() >= COVERED
        found.append(functional.unfold(rgb, SIDE)[0].T[inside])
    return found


def patch_distance(
    images: list[tuple[Tensor, Tensor]],
    references: list[tuple[Tensor, Tensor]],
    generator: torch.Generator,
    n_patches: int = 1024,
) -> Tensor:
    """Squared sliced 2-Wasserstein distance of the patches of two sets of images, mean over scales
    and per channel of a pixel.

    Args:
        images, references: (image (H, W, 3) in [0, 1], mask (H, W)) each.
        generator: on the CPU: of the choice of patches and of the directions.
        n_patches: of each set and scale, at most.

    Returns:
        Scalar; 0 where either has no whole patch.
    """
    sets = [[patches_of(*pair) for pair in some] for some in (images, references)]
    terms = []
    for scale in range(SCALES):
        a, b = (torch.cat([patches[scale] for patches in some]) for some in sets)
        n = min(len(a), len(b), n_patches)
        if n:
            a, b = (x[torch.randperm(len(x), generator=generator)[:n].to(x.device)] for x in (a, b))
            terms.append(sliced_wasserstein(a, b, generator, DIRECTIONS))
    if not terms:
        return images[0][0].sum() * 0
    return sum(terms) / len(terms)
