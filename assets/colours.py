"""Colours of a mesh's vertices: what the field shows along the normal, or what the photos show."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from assets.density import chunks
from assets.space import Space
from datasets.cameras.rays import Cameras, Rays
from datasets.scene import View
from models.field import colours_at
from models.render import render
from models.renderer import Renderer
from models.samples import Samples, compositing_weights, segment_sum

STEPS = 16  # samples along a normal
PER_RAY = 64  # samples that a ray to a camera has, or fewer
GRAZING = 0.1  # cosine between normal and view under which a photo shows too little
SEEN = 0.5  # share of the light that has to arrive
WORLD = Space()


@torch.no_grad()
def field_colours(
    renderer: Renderer,
    vertices: Tensor,
    normals: Tensor,
    reach: float,
    directions: Tensor | None = None,
) -> Tensor:
    """What a short ray against the normal, from outside in, sees of the field alone.

    Args:
        vertices, normals: (V, 3) in the field's coordinates; unit length.
        reach: the ray starts so far outside of the vertex and ends so far inside.
        directions: (V, 3) unit length, the world's directions of view that colour may depend on;
            None: against the normals.

    Returns:
        (V, 3) in [0, 1]; nothing of the background is in them.
    """
    step = 2 * reach / STEPS
    directions = -normals if directions is None else directions

    def colours(part: slice) -> Tensor:
        v, n, d = vertices[part], normals[part], directions[part]
        start = torch.zeros_like(v[:, 0])
        rays = Rays(v + reach * n, -n, start, start + 2 * reach, d)
        ray = torch.arange(len(v), device=v.device).repeat_interleave(STEPS)
        t = ((torch.arange(STEPS, device=v.device) + 0.5) * step).repeat(len(v))
        samples = Samples(ray, t, torch.full_like(t, step), len(v))
        samples = samples.take(renderer.sampler.grid.contains(rays.points(ray, t)).nonzero()[:, 0])
        seen = render(renderer.field, rays, samples)
        rgb = seen.rgb / seen.opacity.clamp(min=1e-6)[:, None]
        here = colours_at(renderer.field, v, d)
        return torch.where((seen.opacity > 1e-3)[:, None], rgb, here)

    return torch.cat(chunks(renderer, STEPS).over(len(vertices), colours)).clamp(0, 1)


@torch.no_grad()
def light_between(renderer: Renderer, eyes: Tensor, places: Tensor, space: Space = WORLD) -> Tensor:
    """Share (N,) of the light that gets from places in the field to eyes.

    Distances are along the unit ray between the two, the same for both ends.

    Args:
        eyes: (N, 3) in the world.
        places: (N, 3) in the field's coordinates.
        space: how the two go together.
    """
    directions = functional.normalize(space.to_world(places) - eyes, dim=-1)
    start = torch.zeros_like(eyes[:, 0])
    rays = space.rays(Rays(eyes, directions, start, start + torch.inf))
    distance = (places - rays.origins).norm(dim=-1)
    rays = renderer.clip(replace(rays, far=torch.minimum(rays.far, distance)))
    samples = renderer.samples(rays)
    density, _ = renderer.field.geometry(rays.points(samples.ray_index, samples.t))
    weights = compositing_weights(density, samples)
    return 1 - segment_sum(weights, samples.ray_index, len(eyes))


class Surface:
    """Places on a surface, which camera sees them, and in which colour its photo shows them.

    A camera sees a place in front of it, within its frame and turned to it, if light gets to the
    camera from just above the place.

    Args:
        renderer: whose density hides what is behind it.
        views: the cameras, with their photos.
        vertices, normals: (V, 3) in the field's coordinates; unit length.
        clearance: how far above the place light has to get through, in the same.
        space: how they go with the world, where the cameras are.
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

    def look(self, view: int, among: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What one camera sees.

        Args:
            view: number of the camera.
            among: (V,) bool, the places that are asked for; None: all.

        Returns:
            Numbers (K,) of the places, where they are in the image (K, 2), see `project`, and how
            well they are seen (K,): the more the closer and the more upright, 0 if not at all.
        """
        eye = self.cameras.c2w[view, :, 3]
        place, inside = project(self.cameras, view, self.world)
        toward = eye - self.world
        distance = toward.norm(dim=-1)
        cosine = (toward * self.normals).sum(-1) / distance.clamp(min=1e-12)
        wanted = inside & (cosine > GRAZING)
        index = (wanted if among is None else wanted & among).nonzero()[:, 0]

        def light(part: slice) -> Tensor:
            above = self.above[index[part]]
            return light_between(self.renderer, eye.expand_as(above), above, self.space)

        arriving = chunks(self.renderer, PER_RAY).over(len(index), light)
        share = torch.cat([eye[:0], *arriving]).sub(SEEN).div(1 - SEEN).clamp(0, 1)
        return index, place[index], share * cosine[index] / distance[index] ** 2

    def seen(self) -> Tensor:
        """(V,) bool: whether any camera sees the place."""
        seen = torch.zeros(len(self.world), dtype=torch.bool, device=self.world.device)
        for view in tqdm(range(len(self.cameras)), desc="seen", unit="view"):
            index, _, well = self.look(view, ~seen)
            seen[index[well > 0]] = True
        return seen

    @torch.no_grad()
    def photo_colours(self) -> tuple[Tensor, Tensor]:
        """Mean of what the photos show of each place, by how well they show it.

        Where photos have alpha their colour is freed from the background, and counts by its alpha.

        Returns:
            Colours (V, 3) in [0, 1], and weight (V,): 0 where no photo shows the place.
        """
        total = torch.zeros_like(self.world)
        weight = torch.zeros_like(self.world[:, 0])
        for i, view in enumerate(tqdm(self.views, desc="photos", unit="view")):
            index, place, well = self.look(i)
            layer = premultiplied(view, self.renderer.background).to(self.world.device)
            if view.valid is not None:
                layer = layer * view.valid.to(layer)[..., None]
            shown = well[:, None] * sample_image(layer, place)
            total[index] += shown[:, :3]
            weight[index] += shown[:, 3]
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
