"""Volume rendering: a pure function of (field, rays, samples)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datasets.cameras import Rays
from models.samples import Rendering, Samples, compositing_weights, segment_sum


def composite(rgb: Tensor, weights: Tensor, samples: Samples) -> Rendering:
    """Sums samples along their rays, over black.

    Args:
        rgb: (M, 3) colours of the samples.
        weights: (M,) from `compositing_weights`.
    """
    n, ray = samples.n_rays, samples.ray_index
    opacity = segment_sum(weights, ray, n)
    depth = segment_sum(weights * samples.t, ray, n) / opacity.clamp(min=1e-6)
    return Rendering(segment_sum(weights[:, None] * rgb, ray, n), depth, opacity, weights)


def render(field: nn.Module, rays: Rays, samples: Samples, threshold: float = 0.0) -> Rendering:
    """Renders ``samples`` of ``rays`` through ``field``, over black.

    Args:
        threshold: colours of samples that contribute no more than this are not computed.

    Returns:
        N rays' rendering, its weights aligned with ``samples``.
    """
    x = rays.points(samples.ray_index, samples.t)
    density, feature = field.geometry(x)
    weights = compositing_weights(density, samples)
    if threshold > 0:
        keep = (weights > threshold).nonzero()[:, 0]
        ray = samples.ray_index[keep]
        rgb = field.style(feature[keep], x[keep], rays.view_directions[ray])
        colour = segment_sum(weights[keep, None] * rgb, ray, samples.n_rays)
        sums = composite(torch.zeros_like(x), weights, samples)
        return Rendering(colour, sums.depth, sums.opacity, weights)
    rgb = field.style(feature, x, rays.view_directions[samples.ray_index])
    return composite(rgb, weights, samples)


def over(rendering: Rendering, background: Tensor) -> Tensor:
    """The rendering's colour (N, 3) over ``background (3,)``."""
    return rendering.rgb + (1 - rendering.opacity)[:, None] * background
