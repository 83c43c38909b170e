"""The coordinates that a field lives in, and the world's that its assets are written in."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from datasets.cameras.rays import Cameras, Rays, from_ndc, ndc_rays, to_ndc
from datasets.scene import Scene, View
from models.renderer import Renderer

NEAR_PLANE = -1.0  # z of the plane from which on NDC has the world
FAR_AWAY = 1e3  # of an eye, in units of warped space
LOOKS = 4096  # rays of each view that tell how far the scene reaches
REACHES = 0.99  # share of these that end within the scene
MARGIN = 1.1
PARALLAX = 4.0  # pixels; under it, between any two cameras, nothing is known of a depth


@dataclass(frozen=True)
class Space:
    """How a field's coordinates go with the world's.

    Attributes:
        scale: of the warp of forward-facing scenes (NDC), see `ndc_rays`; None where the field
            lives in the world itself.
        foreground: (2, 3) box beyond which space is contracted, see `contract`, and which no asset
            leaves; None where it is not.
    """

    scale: tuple[float, float] | None = None
    foreground: Tensor | None = None

    @classmethod
    def of(cls, scene: Scene | None) -> Space:
        """The space of a field of ``scene``; None: one that has no warp."""
        if scene is None or not scene.surrounds:
            return cls()
        if scene.unbounded:
            return cls(foreground=scene.bounds)
        return cls(Cameras.of(scene.train[:1], 0.0, 1.0).warp_scale())

    def to_world(self, x: Tensor) -> Tensor:
        """World positions (..., 3) of places ``x (..., 3)`` in the field."""
        return x if self.scale is None else from_ndc(x, *self.scale)

    def to_field(self, x: Tensor) -> Tensor:
        """Places (..., 3) in the field of world positions ``x (..., 3)``."""
        return x if self.scale is None else to_ndc(x, *self.scale)

    def rays(self, rays: Rays) -> Rays:
        """The world's rays as the field has them."""
        if self.foreground is not None:
            return replace(rays, foreground=self.foreground.to(rays.origins))
        return rays if self.scale is None else ndc_rays(rays, *self.scale)

    def normals_to_world(self, x: Tensor, normals: Tensor) -> Tensor:
        """Unit normals (V, 3) in the world of surfaces through ``x (V, 3)`` with the ``normals
        (V, 3)`` in the field: the warp's Jacobian, transposed, times them."""
        if self.scale is None:
            return normals
        world = from_ndc(x, *self.scale)
        depth = -world[:, 2:]
        slope = normals.new_tensor(self.scale) * normals[:, :2]
        along = (slope * world[:, :2]).sum(1, keepdim=True) - 2 * normals[:, 2:]
        return functional.normalize(torch.cat([slope / depth, along / depth.square()], 1), dim=1)

    def stretch(self, x: Tensor) -> Tensor:
        """(M,) how long a short way away from the origin is in the field, for each unit of the
        world, at the world positions ``x (M, 3)``: a density per unit of the field times this is
        one per unit of the world."""
        if self.scale is None:
            return torch.ones_like(x[:, 0])
        return 2 / (-x[:, 2] * x.norm(dim=1)).clamp(min=1e-6)

    def eyes(self, views: list[View], middle: Tensor) -> Tensor:
        """(V, 3) from where cameras see ``middle (3,)``, in the field's coordinates."""
        eyes = torch.stack([view.c2w[:, 3] for view in views]).to(middle)
        if self.scale is None:
            return eyes
        ahead = torch.stack([-view.c2w[:, 2] for view in views]).to(middle)
        rays = self.rays(Rays(eyes, ahead, torch.zeros_like(eyes[:, 0]), torch.ones(len(eyes))))
        # in NDC the rays of one eye are parallel, or nearly
        return middle - FAR_AWAY * rays.directions


def warped_box(space: Space, box: Tensor, within: Tensor) -> Tensor:
    """(2, 3) corners in the field's coordinates of what ``box (2, 3)`` of the world holds of
    ``within (2, 3)``, a box of the field; not ascending where it holds nothing."""
    corners = torch.stack([box[list(c), range(3)] for c in itertools.product((0, 1), repeat=3)])
    corners[:, 2].clamp_(max=NEAR_PLANE)
    warped = space.to_field(corners)
    return torch.stack(
        [torch.maximum(warped.amin(0), within[0]), torch.minimum(warped.amax(0), within[1])]
    )


def frustum_box(space: Space, box: Tensor) -> Tensor:
    """(2, 3) corners of the box in the world around what is in ``box (2, 3)`` of the field."""
    corners = torch.stack([box[list(c), range(3)] for c in itertools.product((0, 1), repeat=3)])
    world = space.to_world(corners)
    return torch.stack([world.amin(0), world.amax(0)])


@torch.no_grad()
def reach(renderer: Renderer, scene: Scene) -> float:
    """Depth (-z) up to which a forward-facing scene is worth exporting, scene units.

    It holds what all but a hundredth of the training cameras' rays end at, and ends where the
    parallax between the outermost cameras, ``f * baseline / depth``, is too small to tell a depth:
    what lies there (the sky) got its depth by chance.
    """
    cameras = Cameras.of(scene.train, scene.near, scene.far, ndc=True).to(renderer.bounds.device)
    eyes = cameras.c2w[:, :2, 3]
    baseline = float(torch.cdist(eyes, eyes).max())
    depths = []
    for view in range(len(cameras)):
        height, width = cameras.sizes[view].tolist()
        step = math.ceil(math.sqrt(height * width / LOOKS))
        row, column = torch.meshgrid(
            torch.arange(step // 2, height, step, device=eyes.device),
            torch.arange(step // 2, width, step, device=eyes.device),
            indexing="ij",
        )
        row, column = row.flatten(), column.flatten()
        rays = cameras.rays(torch.full_like(row, view), row, column)
        seen = renderer(rays)
        place = rays.origins + seen.depth[:, None] * rays.directions
        solid = (seen.opacity > 0.5) & (seen.depth > 0)
        depths.append(-from_ndc(place[solid], *cameras.warp_scale())[:, 2])
    parallax = float(cameras.intrinsics[:, 0].max()) * baseline / PARALLAX
    depth = torch.cat(depths)
    if len(depth) == 0:
        return parallax
    return min(parallax, MARGIN * float(depth.quantile(REACHES)))
