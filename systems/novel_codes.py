"""The codes in which views are rendered that no painting was learned on: never another painting's,
and nothing that jumps from view to view."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datasets.cameras.rays import Cameras
from datasets.scene import Scene
from models.style import BlendedColours

NEAREST = 3  # training cameras, between whose codes is interpolated
SHARPNESS = 2.0  # power of the inverse distance


def codes_of(
    style: nn.Module, cameras: Cameras, scene: Scene, sigma_scale: float
) -> list[Tensor | None]:
    """The code of each camera, see `Latents.between` (of blended colours those of all conditioned
    styles, one after another); None where the style's own mean is meant.

    Args:
        style: in which is rendered.
        cameras: that render.
        scene: with the training views, as they were when the style was learned.
        sigma_scale: 0: every camera takes the painting's mean.
    """
    styles = style.styles if isinstance(style, BlendedColours) else [style]
    latents = [own.latents for own in styles if hasattr(own, "latents")]
    known = all(len(own.codes) == len(scene.train) for own in latents)
    if not latents or sigma_scale == 0 or not known:
        return [None] * len(cameras)
    trained = Cameras.within(scene, scene.train).to(cameras.c2w.device).c2w[:, :, 3]
    codes: list[Tensor | None] = []
    with torch.no_grad():
        for eye in cameras.c2w[:, :, 3]:
            views, weights = neighbours(trained, eye)
            own = [part.between(views, weights, sigma_scale) for part in latents]
            codes.append(torch.cat(own))
    return codes


def neighbours(trained: Tensor, eye: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (V,) of the training cameras nearest to a position, and their weights (V,), sum 1.

    The farthest of them has weight 0, so that nothing jumps where another one takes its place.

    Args:
        trained: (F, 3) positions.
        eye: (3,).
    """
    distance = (trained - eye).norm(dim=1)
    near = distance.topk(min(NEAREST + 1, len(trained)), largest=False)
    limit = near.values[-1].clamp(min=1e-9)
    weight = (1 / near.values.clamp(min=1e-6 * limit) - 1 / limit).pow(SHARPNESS)
    if not bool(weight.sum() > 0):  # one camera, or all as far away
        weight = torch.ones_like(weight)
    return near.indices, weight / weight.sum()
