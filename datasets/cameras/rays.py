"""Cameras as tensors, and rays made from them where and when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from datasets.cameras.contraction import contract
from datasets.scene import Scene, View


@dataclass
class Rays:
    """Half-lines with a range.

    Attributes:
        origins: (N, 3) scene units.
        directions: (N, 3) unit length, along which samples are taken.
        near, far: (N,) range of distances along the ray, scene units; far <= near means "empty".
        view_directions: (N, 3) unit length in world space, which colour may depend on: other than
            `directions` where the rays are warped (NDC).
        foreground: (2, 3) box beyond which space is contracted, see `contract`; None where space
            is as it is.
    """

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    view_directions: Tensor = None  # always a tensor: `directions` where none are given
    foreground: Tensor | None = None

    def __post_init__(self) -> None:
        if self.view_directions is None:
            self.view_directions = self.directions

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Rays:
        return Rays(
            self.origins[index],
            self.directions[index],
            self.near[index],
            self.far[index],
            self.view_directions[index],
            self.foreground,
        )

    def points(self, ray_index: Tensor, t: Tensor) -> Tensor:
        """Positions (M, 3), as a field sees them, at distance ``t (M,)`` along the rays
        ``ray_index (M,)``."""
        x = torch.addcmul(
            self.origins.index_select(0, ray_index),
            self.directions.index_select(0, ray_index),
            t[:, None].to(self.origins.dtype),
        )
        return x if self.foreground is None else contract(x, self.foreground)


@dataclass
class Cameras:
    """A batch of pinhole cameras.

    Attributes:
        c2w: (V, 3, 4) camera-to-world, OpenGL axes.
        intrinsics: (V, 4) fx, fy, cx, cy in pixels.
        sizes: (V, 2) int64 height, width in pixels.
        near, far: range of the rays, scene units; under NDC of the warped rays.
        ndc: warp the rays to normalised device coordinates, see `ndc_rays`; all cameras have to
            look along -z.
        ndc_scale: what the warp multiplies x and y by; None: what suits the first camera.  A field
            is in the warp of its training cameras, whatever lens it is looked at through.
        foreground: (2, 3) box beyond which space is contracted, or None.
    """

    c2w: Tensor
    intrinsics: Tensor
    sizes: Tensor
    near: float
    far: float
    ndc: bool = False
    ndc_scale: tuple[float, float] | None = None
    foreground: Tensor | None = None

    @classmethod
    def of(cls, views: list[View], near: float, far: float, ndc: bool = False) -> Cameras:
        """Cameras of a list of views."""
        return cls(
            torch.stack([v.c2w for v in views]),
            torch.tensor([[v.fx, v.fy, v.cx, v.cy] for v in views], dtype=torch.float32),
            torch.tensor([[v.height, v.width] for v in views], dtype=torch.int64),
            near,
            far,
            ndc,
        )

    @classmethod
    def within(cls, scene: Scene, views: list[View]) -> Cameras:
        """Cameras of some views in the space of a scene, warped or contracted as it is there."""
        return cls.of(views, scene.near, scene.far, scene.ndc).moved_into(scene)

    def moved_into(self, scene: Scene) -> Cameras:
        """The same cameras in the space of a scene."""
        trained = Cameras.of(scene.train[:1], scene.near, scene.far)
        return replace(
            self,
            near=scene.near,
            far=scene.far,
            ndc=scene.ndc,
            ndc_scale=trained.warp_scale() if scene.ndc else None,
            foreground=scene.bounds if scene.unbounded else None,
        )

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def to(self, device: torch.device | str) -> Cameras:
        return replace(
            self,
            c2w=self.c2w.to(device),
            intrinsics=self.intrinsics.to(device),
            sizes=self.sizes.to(device),
            foreground=None if self.foreground is None else self.foreground.to(device),
        )

    def resized(self, width: int, height: int) -> Cameras:
        """The same cameras with images of another size that show all that these show; where there
        are upright and wide ones, each keeps its kind, as in the loaders."""
        asked = torch.tensor([height, width], device=self.sizes.device)
        upright = self.sizes[:, 0] > self.sizes[:, 1]
        turned = (upright != (height > width)) & (upright != upright[0]).any()
        sizes = torch.where(turned[:, None], asked.flip(0), asked)
        ratio = (sizes / self.sizes).flip(1).repeat(1, 2)
        return replace(self, intrinsics=self.intrinsics * ratio, sizes=sizes)

    def warp_scale(self) -> tuple[float, float]:
        """2 fx / width and 2 fy / height by which `ndc_rays` scales x and y."""
        if self.ndc_scale is not None:
            return self.ndc_scale
        height, width = self.sizes[0].tolist()
        fx, fy = self.intrinsics[0, :2].tolist()
        return 2.0 * fx / width, 2.0 * fy / height

    def rays(self, view: Tensor, row: Tensor, column: Tensor) -> Rays:
        """Rays through pixel centres.

        Args:
            view, row, column: (N,) integer tensors on the cameras' device.

        Returns:
            N rays in scene units, or warped to NDC; view directions in world space.
        """
        fx, fy, cx, cy = self.intrinsics[view].unbind(-1)
        local = torch.stack(
            [(column + 0.5 - cx) / fx, (cy - row - 0.5) / fy, -torch.ones_like(fx)], dim=-1
        )
        c2w = self.c2w[view]
        # not a matrix product, which autocast would round to half precision: pixels off
        directions = (c2w[:, :, :3] * local[:, None]).sum(-1)
        directions = directions / directions.norm(dim=-1, keepdim=True)
        near, far = torch.full_like(fx, self.near), torch.full_like(fx, self.far)
        rays = Rays(c2w[:, :, 3], directions, near, far, foreground=self.foreground)
        if not self.ndc:
            return rays
        return ndc_rays(rays, *self.warp_scale())

    def view_rays(self, view: int, start: int = 0, stop: int | None = None) -> Rays:
        """Rays of the pixels ``start:stop`` (row-major) of one whole view."""
        height, width = self.sizes[view].tolist()
        pixel = torch.arange(
            start, height * width if stop is None else stop, device=self.c2w.device
        )
        return self.rays(torch.full_like(pixel, view), pixel // width, pixel % width)


def ndc_rays(rays: Rays, scale_x: float, scale_y: float) -> Rays:
    """Rays warped to normalised device coordinates (Mildenhall et al. 2020, appendix C): the part
    of space beyond the plane z = -1 becomes the slab -1 <= z <= 1, infinity its far side.

    A point (x, y, z) goes to (scale_x x / -z, scale_y y / -z, 1 + 2 / z); straight lines stay
    straight.  The warped ray starts at that plane (the near plane, at 1 scene unit), or at the eye
    where that is beyond it, and ends at infinity.

    Args:
        rays: in world space, looking along -z; their near and far are distances along the warped
            rays.
        scale_x, scale_y: 2 fx / width and 2 fy / height of the cameras.

    Returns:
        As many rays in warped space, with the world's view directions; a ray that does not go
        towards -z is empty.
    """
    scale = rays.origins.new_tensor([scale_x, scale_y])
    ahead = rays.directions[:, 2] < -1e-6
    depth = torch.where(ahead, -rays.directions[:, 2], 1.0)
    to_plane = ((1.0 + rays.origins[:, 2]) / depth).clamp(min=0.0)
    start = rays.origins + to_plane[:, None] * rays.directions
    # of an eye that looks away from the scene there may be no depth: any finite number does
    inverse = 1.0 / (-start[:, 2:]).clamp(min=1e-6)
    origins = torch.cat([scale * start[:, :2] * inverse, 1.0 - 2.0 * inverse], dim=1)
    slope = rays.directions[:, :2] / depth[:, None]
    # what is left to infinity is proportional to 1 / depth: no difference of large numbers
    way = torch.cat([scale * (slope - start[:, :2] * inverse), 2.0 * inverse], dim=1)
    length = way.norm(dim=1)
    far = torch.where(ahead, torch.minimum(rays.far, length), 0.0)
    return Rays(origins, way / length[:, None], rays.near, far, rays.view_directions)


def to_ndc(x: Tensor, scale_x: float, scale_y: float) -> Tensor:
    """Where `ndc_rays` takes the points ``x (..., 3)`` of the world.

    What is not in front of the origin, where the warp has no meaning, goes far before the near
    plane.
    """
    depth = (-x[..., 2:]).clamp(min=1e-6)
    scale = x.new_tensor([scale_x, scale_y])
    return torch.cat([scale * x[..., :2] / depth, 1.0 - 2.0 / depth], -1)


def from_ndc(x: Tensor, scale_x: float, scale_y: float) -> Tensor:
    """The inverse of `to_ndc`: z = 2 / (z' - 1), x = -x' z / scale_x, y = -y' z / scale_y.

    Args:
        x: (..., 3) warped; z' = 1 is infinity, and is taken for just before it.
    """
    depth = 2.0 / (1.0 - x[..., 2:]).clamp(min=1e-6)
    scale = x.new_tensor([scale_x, scale_y])
    return torch.cat([x[..., :2] * depth / scale, -depth], -1)
