"""Colours of a mesh's vertices: what the field shows along the normal, or what photos show."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from assets.density import chunks
from datasets.cameras.rays import Cameras, Rays
from datasets.cameras.space import WORLD, Space
from datasets.scene import View
from models.render import Samples, compositing_weights, render, segment_sum
from models.renderer import Renderer
from utils.images import sample_bilinear

STEPS = 16  # samples along a normal
RAY_SAMPLES = 64  # of a ray to a camera, or fewer
GRAZING = 0.1  # cosine between normal and view under which a photo shows too little
VISIBLE = 0.5  # transmittance below which a point is hidden


@torch.no_grad()
def field_colours(
    renderer: Renderer,
    vertices: Tensor,
    normals: Tensor,
    offset: float,
    directions: Tensor | None = None,
) -> Tensor:
    """What a short ray against the normal, from outside in, shows of the field alone.

    Args:
        vertices, normals: (V, 3) in the field's coordinates; unit length.
        offset: the ray starts this far outside of the vertex and ends as far inside.
        directions: (V, 3) unit length, viewing directions in the world that colour may depend on;
            None: against the normals.

    Returns:
        (V, 3) in [0, 1]; without the background.
    """
    step = 2 * offset / STEPS
    directions = -normals if directions is None else directions

    def colours(part: slice) -> Tensor:
        v, n, d = vertices[part], normals[part], directions[part]
        start = torch.zeros_like(v[:, 0])
        rays = Rays(v + offset * n, -n, start, start + 2 * offset, d)
        ray = torch.arange(len(v), device=v.device).repeat_interleave(STEPS)
        t = ((torch.arange(STEPS, device=v.device) + 0.5) * step).repeat(len(v))
        samples = Samples(ray, t, torch.full_like(t, step), len(v))
        samples = samples.take(renderer.sampler.grid.contains(rays.points(ray, t)).nonzero()[:, 0])
        seen = render(renderer.field, rays, samples)
        rgb = seen.rgb / seen.opacity.clamp(min=1e-6)[:, None]
        here = renderer.field.colours(v, d)
        return torch.where((seen.opacity > 1e-3)[:, None], rgb, here)

    return torch.cat(chunks(renderer, STEPS).over(len(vertices), colours)).clamp(0, 1)


@torch.no_grad()
def transmittance_between(
    renderer: Renderer, cameras: Tensor, points: Tensor, space: Space = WORLD
) -> Tensor:
    """Share (N,) of the light that gets from points in the field to cameras.

    Distances are along the unit ray between the two, the same for both ends.

    Args:
        cameras: (N, 3) world positions.
        points: (N, 3) in the field's coordinates.
        space: of the field.
    """
    directions = functional.normalize(space.to_world(points) - cameras, dim=-1)
    start = torch.zeros_like(cameras[:, 0])
    rays = space.ending().warp_rays(Rays(cameras, directions, start, start + torch.inf))
    distance = (points - rays.origins).norm(dim=-1)
    rays = renderer.clip(replace(rays, far=torch.minimum(rays.far, distance)))
    samples = renderer.sample(rays)
    density, _ = renderer.geometry(rays, samples)
    weights = compositing_weights(density, samples)
    return 1 - segment_sum(weights, samples.ray_index, len(cameras))


class Surface:
    """Points on a surface, which camera sees them, and in which colour its photo shows them.

    A camera sees a point that is in front of it, within its image and turned to it, if light gets
    to the camera from just above the point.

    Args:
        renderer: whose density hides what is behind it.
        views: the cameras, with their photos.
        vertices, normals: (V, 3) in the field's coordinates; unit length.
        clearance: how far above the point light has to get through, in the field's coordinates.
        space: of the field.
    """

    def __init__(
        self,
        renderer: Renderer,
        views: list[View],
        vertices: Tensor,
        normals: Tensor,
        clearance: float,
        space: Space = WORLD,
    ) -> None:
        self.renderer, self.views, self.space = renderer, views, space
        self.cameras = Cameras.of(views, 0.0, 1.0).to(vertices.device)
        self.above = vertices + clearance * normals
        self.world = space.to_world(vertices)
        self.normals = space.normals_to_world(vertices, normals)

    def seen_by(self, view: int, among: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What one camera sees.

        Args:
            view: number of the camera.
            among: (V,) bool, the points that are asked for; None: all.

        Returns:
            index: (K,) numbers of points.
            pixel: (K, 2) where they are in the image, see `Cameras.project`.
            weight: (K,) how well they are seen: the more the closer and the more frontal, 0 if not
                at all.
        """
        position = self.cameras.c2w[view, :, 3]
        pixel, _, inside = self.cameras.project(view, self.world)
        toward = position - self.world
        distance = toward.norm(dim=-1)
        cosine = (toward * self.normals).sum(-1) / distance.clamp(min=1e-12)
        wanted = inside & (cosine > GRAZING)
        index = (wanted if among is None else wanted & among).nonzero()[:, 0]

        def light(part: slice) -> Tensor:
            above = self.above[index[part]]
            return transmittance_between(
                self.renderer, position.expand_as(above), above, self.space
            )

        arriving = chunks(self.renderer, RAY_SAMPLES).over(len(index), light)
        share = torch.cat([position[:0], *arriving]).sub(VISIBLE).div(1 - VISIBLE).clamp(0, 1)
        return index, pixel[index], share * cosine[index] / distance[index] ** 2

    def seen(self) -> Tensor:
        """(V,) bool: whether any camera sees the point."""
        seen = torch.zeros(len(self.world), dtype=torch.bool, device=self.world.device)
        for view in tqdm(range(len(self.cameras)), desc="visibility", unit="view"):
            index, _, weight = self.seen_by(view, ~seen)
            seen[index[weight > 0]] = True
        return seen

    @torch.no_grad()
    def photo_colours(self) -> tuple[Tensor, Tensor]:
        """Mean of what the photos show of each point, weighted by how well they show it.

        Where photos have alpha their colour is freed from the background, and counts by its alpha.

        Returns:
            colours: (V, 3) in [0, 1].
            weight: (V,), 0 where no photo shows the point.
        """
        total = torch.zeros_like(self.world)
        weight = torch.zeros_like(self.world[:, 0])
        for i, view in enumerate(tqdm(self.views, desc="photos", unit="view")):
            index, pixel, seen = self.seen_by(i)
            layer = premultiplied(view, self.renderer.background).to(self.world.device)
            if view.valid is not None:
                layer = layer * view.valid.to(layer)[..., None]
            shown = seen[:, None] * sample_bilinear(layer, pixel)
            total[index] += shown[:, :3]
            weight[index] += shown[:, 3]
        return (total / weight.clamp(min=1e-12)[:, None]).clamp(0, 1), weight


def premultiplied(view: View, background: Tensor) -> Tensor:
    """A view's colour times its alpha, and its alpha: (H, W, 4) in [0, 1]."""
    rgb = view.image.float() / 255
    if view.alpha is None:
        return torch.cat([rgb, torch.ones_like(rgb[..., :1])], -1)
    alpha = view.alpha.float()[..., None] / 255
    return torch.cat([(rgb - (1 - alpha) * background.to(rgb)).clamp(min=0), alpha], -1)
