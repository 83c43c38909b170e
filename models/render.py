"""Volume rendering: a pure function of (field, rays, samples)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datasets.cameras.rays import Rays
from models.samples import Rendering, Samples, compositing_weights, segment_sum

TINY = 1e-6  # opacity that counts as none


def composite(
    rgb: Tensor, weights: Tensor, samples: Samples, keep: Tensor | None = None
) -> Rendering:
    """Sums samples along their rays, over black.

    Args:
        rgb: (K, 3) colours of the samples.
        weights: (M,) from `compositing_weights`.
        keep: (K,) the samples that have a colour, ascending; they take over what the others weigh.
            None for all.
    """
    n, ray = samples.n_rays, samples.ray_index
    opacity = segment_sum(weights, ray, n)
    depth = segment_sum(weights * samples.t, ray, n) / opacity.clamp(min=TINY)
    if keep is None:
        return Rendering(segment_sum(weights[:, None] * rgb, ray, n), depth, opacity, weights)
    kept, ray = weights.index_select(0, keep), ray.index_select(0, keep)
    share = opacity / segment_sum(kept, ray, n).clamp(min=TINY)
    colour = segment_sum(kept[:, None] * rgb, ray, n) * share[:, None]
    return Rendering(colour, depth, opacity, weights)


def geometry_of(field: nn.Module, x: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
    """Density and feature at the places ``x (M, 3)`` of the samples: as the sampler has found them
    where no gradient is needed."""
    if samples.geometry is not None and not torch.is_grad_enabled():
        return samples.geometry
    return field.geometry(x)


class _ScaledGradient(torch.autograd.Function):
    """The identity, with a gradient multiplied row by row."""

    @staticmethod
    def forward(ctx, values: Tensor, scale: Tensor) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(scale)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        (scale,) = ctx.saved_tensors
        return grad * (scale if grad.ndim == 1 else scale[:, None]), None


def render(
    field: nn.Module,
    rays: Rays,
    samples: Samples,
    threshold: float = 0.0,
    arm: float | None = None,
) -> Rendering:
    """Renders ``samples`` of ``rays`` through ``field``, over black.

    Args:
        threshold: colours of samples that contribute no more than this are not computed.
        arm: distance from the eye within which gradients are multiplied by (t / arm)^2: what is
            close gets rays as densely as the inverse of that, learns so much faster, and fills the
            air before the cameras (Philip and Deschaintre 2023).  None: true gradients.

    Returns:
        N rays' rendering, its weights aligned with ``samples``.
    """
    x = rays.points(samples.ray_index, samples.t)
    density, feature = geometry_of(field, x, samples)
    scale = None if arm is None else (samples.t / arm).clamp(max=1.0).square()
    if scale is not None:
        density = _ScaledGradient.apply(density, scale)
    weights = compositing_weights(density, samples)
    keep = (weights > threshold).nonzero()[:, 0] if threshold > 0 else None
    ray = samples.ray_index
    if keep is not None:
        feature, x, ray = (values.index_select(0, keep) for values in (feature, x, ray))
    directions = rays.view_directions.index_select(0, ray)
    rgb = field.style(feature, x, directions)
    if scale is not None:
        rgb = _ScaledGradient.apply(rgb, scale if keep is None else scale.index_select(0, keep))
    return composite(rgb, weights, samples, keep)


def over(rendering: Rendering, background: Tensor) -> Tensor:
    """The rendering's colour (N, 3) over ``background (3,)``."""
    return rendering.rgb + (1 - rendering.opacity)[:, None] * background
