"""What a ray meets gathered in one place: mip-NeRF 360's distortion loss, of packed samples."""

from __future__ import annotations

import torch
from torch import Tensor


def distortion_loss(
    weights: Tensor,
    x: Tensor,
    delta: Tensor,
    ray: Tensor,
    n_rays: int,
    end: Tensor | None = None,
) -> Tensor:
    """How far apart the weights of a ray lie, ``sum_ij w_i w_j |s_i - s_j| + sum_i w_i^2 delta_i /
    3`` (Barron et al., Mip-NeRF 360, 2022, eq. 15).

    It costs one pass along the samples: within a ray ``s`` ascends, so that the sum over the pairs
    is one over running sums (Sun et al., DVGO v2, 2022).

    Args:
        weights: (M,) of the samples, in [0, 1].
        x: (M, 3) positions of the samples in the field's space.
        delta: (M,) length of the interval that each represents, units of that space.
        ray: (M,) int64, ascending: the ray of each.
        n_rays: number of rays; a ray may have no sample.
        end: (n_rays, 3) where each ray meets what its samples have left of it; None: nowhere.

    Returns:
        Scalar, the mean of the rays, units of the field's space.

    >>> ray, t = torch.tensor([0, 0, 1]), torch.tensor([1.0, 3.0, 1.0])
    >>> x = t[:, None] * torch.tensor([0.0, 0.0, 1.0])
    >>> weights = torch.tensor([0.5, 0.5, 1.0])
    >>> distortion_loss(weights, x, torch.zeros(3), ray, n_rays=2)  # (2 * 0.5 * 0.5 * 2 + 0) / 2
    tensor(0.5000)
    """
    if len(weights) == 0:
        return weights.sum()
    first = torch.searchsorted(ray, torch.arange(n_rays, device=ray.device)).index_select(0, ray)
    s = x.new_zeros(len(x)).double()
    # by columns, in which positions along rays lie: a norm of rows takes 20 times as long
    s[1:] = x.T.diff(dim=1).square().sum(0).sqrt().double().cumsum(0)
    s = s - s.index_select(0, first)
    # one running sum over all rays: in double, or the later rays would lose their digits
    w = weights.double()
    pairs = 2 * w * (s * _before(w, first) - _before(w * s, first))
    own = w.square() * delta / 3
    total = (pairs + own).sum()
    if end is not None:
        left = 1 - w.new_zeros(n_rays).index_add(0, ray, w)
        away = (end.index_select(0, ray) - x).T.square().sum(0).sqrt()
        total = total + (2 * w * left.index_select(0, ray) * away).sum()
    return (total / n_rays).to(weights.dtype)


def _before(values: Tensor, first: Tensor) -> Tensor:
    """(M,) the sum of the ``values (M,)`` of a ray in front of each, whose ray begins at
    ``first (M,)``."""
    before = values.cumsum(0) - values
    return before - before.index_select(0, first)
