"""What is likely of any scene, where no photo says what is there: priors without a
network."""

from __future__ import annotations

from torch import Tensor


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
