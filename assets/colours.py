"""Colours of a mesh's vertices: what the field shows along the normal, or what the photos show."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from assets.density import chunks
from datasets.cameras import Cameras, Rays
from datasets.scene import View
from models.render import render
from models.renderer import Renderer
from models.samples import Samples, compositing_weights, segment_sum

STEPS = 16  # samples along a normal
PER_RAY = 64  # samples that a ray to a camera has, or fewer
GRAZING = 0.1  # cosine between normal and view under which a photo shows too little
SEEN = 0.5  # share of the light that has to arrive


@torch.no_grad()
def field_colours(renderer: Renderer, vertices: Tensor, normals: Tensor, reach: float) -> Tensor:
    """What a short ray against the normal, from outside in, sees of the field alone.

    Args:
        vertices, normals: (V, 3) scene units; unit length.
        reach: the ray starts so far outside of the vertex and ends so far inside, scene units.

    Returns:
        (V, 3) in [0, 1]; nothing of the background is in them.
    """
    parts = []
    step = 2 * reach / STEPS
    for part in chunks(renderer, len(vertices), STEPS):
        v, n = vertices[part], normals[part]
        start = torch.zeros_like(v[:, 0])
        rays = Rays(v + reach * n, -n, start, start + 2 * reach)
        ray = torch.arange(len(v), device=v.device).repeat_interleave(STEPS)
        t = ((torch.arange(STEPS, device=v.device) + 0.5) * step).repeat(len(v))
        samples = Samples(ray, t, torch.full_like(t, step), len(v))
        samples = samples[renderer.sampler.grid.contains(rays.points(ray, t))]
        seen = render(renderer.field, rays, samples)
        rgb = seen.rgb / seen.opacity.clamp(min=1e-6)[:, None]
        _, feature = renderer.field.geometry(v)
        here = renderer.field.style(feature, v, -n)
        parts.append(torch.where((seen.opacity > 1e-3)[:, None], rgb, here))
    return torch.cat(parts).clamp(0, 1)


@torch.no_grad()
def light_between(renderer: Renderer, start: Tensor, end: Tensor) -> Tensor:
    """Share (N,) of the light that gets from ``end (N, 3)`` to ``start (N, 3)`` through the field.

    Distances are along the unit ray between the two, the same for both ends.
    """
    offset = end - start
    distance = offset.norm(dim=-1)
    directions = offset / distance.clamp(min=1e-12)[:, None]
    rays = renderer.clip(Rays(start, directions, torch.zeros_like(distance), distance))
    samples = renderer.samples(rays)
    density, _ = renderer.field.geometry(rays.points(samples.ray_index, samples.t))
    weights = compositing_weights(density, samples)
    return 1 - segment_sum(weights, samples.ray_index, len(start))


@torch.no_grad()
def photo_colours(
    renderer: Renderer,
    views: list[View],
    vertices: Tensor,
    normals: Tensor,
    clearance: float,
) -> tuple[Tensor, Tensor]:
    """Mean of what the photos show of each vertex.

    A photo counts where the vertex is in front of its camera, within its frame, turned to it, and
    where light gets from just above the vertex to the camera; it counts for more the closer and the
    more upright it sees the vertex.  Where photos have alpha their colour is freed from the
    background, and counts by its alpha.

    Args:
        vertices, normals: (V, 3) scene units; unit length.
        clearance: how far above the vertex light has to get through, scene units.

    Returns:
        Colours (V, 3) in [0, 1], and weight (V,): 0 where no photo shows the vertex.
    """
    total = torch.zeros_like(vertices)
    weight = torch.zeros_like(vertices[:, 0])
    cameras = Cameras.of(views, 0.0, 1.0).to(vertices.device)
    above = vertices + clearance * normals
    for i, view in enumerate(tqdm(views, desc="photos", unit="view")):
        eye = cameras.c2w[i, :, 3]
        place, inside = project(cameras, i, vertices)
        toward = eye - vertices
        distance = toward.norm(dim=-1)
        cosine = (toward * normals).sum(-1) / distance.clamp(min=1e-12)
        index = (inside & (cosine > GRAZING)).nonzero()[:, 0]
        layer = premultiplied(view, renderer.background).to(vertices.device)
        for part in chunks(renderer, len(index), PER_RAY):
            own = index[part]
            light = light_between(renderer, eye.expand(len(own), 3), above[own])
            share = ((light - SEEN) / (1 - SEEN)).clamp(0, 1)
            share = share * cosine[own] / distance[own] ** 2
            seen = share[:, None] * sample_image(layer, place[own])
            total[own] += seen[:, :3]
            weight[own] += seen[:, 3]
    return (total / weight.clamp(min=1e-12)[:, None]).clamp(0, 1), weight


def project(cameras: Cameras, view: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Where a camera sees points.

    Args:
        x: (N, 3) world positions.

    Returns:
        Pixel coordinates (N, 2), column and row, pixel centres at halves; and (N,) bool, whether
        the point is in front of the camera and within its frame.
    """
    c2w = cameras.c2w[view]
    right, up, back = ((x - c2w[:, 3]) @ c2w[:, :3]).unbind(-1)
    fx, fy, cx, cy = cameras.intrinsics[view]
    height, width = cameras.sizes[view]
    front = back < 0
    depth = torch.where(front, -back, 1.0)
    column, row = cx + fx * right / depth, cy - fy * up / depth
    inside = front & (column >= 0) & (column <= width) & (row >= 0) & (row <= height)
    return torch.stack([column, row], -1), inside


def premultiplied(view: View, background: Tensor) -> Tensor:
    """A view's colour times its alpha, and its alpha: (H, W, 4) in [0, 1]."""
    rgb = view.image.float() / 255
    if view.alpha is None:
        return torch.cat([rgb, torch.ones_like(rgb[..., :1])], -1)
    alpha = view.alpha.float()[..., None] / 255
    return torch.cat([(rgb - (1 - alpha) * background.to(rgb)).clamp(min=0), alpha], -1)


def sample_image(image: Tensor, place: Tensor) -> Tensor:
    """Bilinear values (N, C) of ``image (H, W, C)`` at pixel coordinates ``place (N, 2)``."""
    size = torch.tensor([image.shape[1], image.shape[0]], device=image.device)
    grid = (place / size * 2 - 1)[None, None]
    planes = image.permute(2, 0, 1)[None]
    values = functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return values[0, :, 0].T
