"""What is likely of any scene, where no photo says what is there: few-view priors without a
network."""

from __future__ import annotations

import torch
from torch import Tensor

SEEN = 0.1  # opacity from which a ray counts as one that meets something
TINY = 1e-8


def ray_entropy(weights: Tensor, ray: Tensor, opacity: Tensor) -> Tensor:
    """Entropy of where a ray ends, of the rays that meet something (InfoNeRF, Kim et al. 2022, eq.
    8): low for a surface, high for fog.

    Args:
        weights: (M,) contribution of each sample to its ray.
        ray: (M,) the ray of each.
        opacity: (N,) of the rays.

    Returns:
        Scalar, in units of the entropy of even weights, averaged over all N rays.
    """
    share = weights / opacity.clamp(min=TINY).index_select(0, ray)
    surprise = -share * (share + TINY).log()
    entropy = torch.zeros_like(opacity).index_add(0, ray, surprise)
    count = torch.bincount(ray, minlength=len(opacity)).clamp(min=2)
    return (entropy / count.to(entropy).log() * (opacity > SEEN)).mean()


def depth_smoothness(depth: Tensor, opacity: Tensor, scale: float) -> Tensor:
    """Squared differences of the depth of neighbouring pixels (RegNeRF, Niemeyer et al. 2022, eq.
    6), both weighted by their opacity without its gradient.

    Args:
        depth: (P, k, k) of patches, scene units.
        opacity: (P, k, k).
        scale: what counts as one unit of depth, scene units.

    Returns:
        Scalar.
    """
    total = depth.new_zeros(())
    for dim in (1, 2):
        n = depth.shape[dim] - 1
        difference = (depth.narrow(dim, 1, n) - depth.narrow(dim, 0, n)) / scale
        both = (opacity.narrow(dim, 1, n) * opacity.narrow(dim, 0, n)).detach()
        total = total + (difference.square() * both).mean()
    return total


def cell_roughness(corners: Tensor) -> Tensor:
    """Total variation of a lattice over single cells: the squared differences along their edges.

    Args:
        corners: (K, 8, F) values at the corners of K cells, in the order of
            `models.trilinear.CORNERS`.

    Returns:
        Scalar, averaged over cells and channels.
    """
    cube = corners.view(len(corners), 2, 2, 2, -1)
    return sum((cube.select(dim, 1) - cube.select(dim, 0)).square().mean() for dim in (1, 2, 3))
