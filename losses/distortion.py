"""How far apart along their rays the samples lie that make a pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def distortion_loss(weights: Tensor, s: Tensor, ray_index: Tensor, n_rays: int) -> Tensor:
    """Mean over the rays of ``sum_ij w_i w_j |s_i - s_j|``, the samples counted as points (mip-NeRF
    360, Barron et al. 2022, eq. 15): it draws what a ray sees together to one place, and takes what
    hangs in the air before the cameras away.

    In time proportional to the samples: ``s`` ascends along a ray, so that the sum is
    ``2 sum_i w_i (s_i sum_{j<i} w_j - sum_{j<i} w_j s_j)``.

    Args:
        weights: (M,) contributions of the samples.
        s: (M,) places along the rays, ascending within each.
        ray_index: (M,) ascending ray of each sample.
        n_rays: rays, also those without a sample.

    Returns:
        Scalar.
    """
    # running sums over all rays at once: in double, or the later rays would lose their digits
    w, s = weights.double(), s.double()
    counts = torch.bincount(ray_index, minlength=n_rays)
    first = (counts.cumsum(0) - counts)[ray_index]

    def before(values: Tensor) -> Tensor:
        total = values.cumsum(0) - values
        return total - total[first]

    return 2 * (w * (s * before(w) - before(w * s))).sum().to(weights.dtype) / n_rays
