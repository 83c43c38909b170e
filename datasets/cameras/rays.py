"""Cameras as tensors: rays made from them where and when they are needed, and points projected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from datasets.cameras.march import March
from datasets.cameras.space import WORLD, Space
from datasets.scene import Scene, View


@dataclass
class Rays:
    """Half-lines with a range.

    Attributes:
        origins: (N, 3) scene units; in NDC warped.
        directions: (N, 3) unit length, along which samples are taken.
        near, far: (N,) range of distances along the ray, scene units; far <= near means "empty".
        view_directions: (N, 3) unit length in world space, which colour may depend on: other than
            `directions` where the rays are warped (NDC).
        space: that they run through.
    """

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    view_directions: Tensor = None  # always a tensor: `directions` where none are given
    space: Space = WORLD

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
            self.space,
        )

    def points(self, ray_index: Tensor, t: Tensor) -> Tensor:
        """Positions (M, 3), as a field sees them, at distance ``t (M,)`` along the rays
        ``ray_index (M,)``; the transpose of a contiguous (3, M), which is computed, and read by a
        field, several times faster."""
        x = torch.addcmul(
            *self._lines.index_select(1, ray_index).split(3), t.to(self.origins.dtype)
        )
        return self.space.ray_to_field(x.T)

    @cached_property
    def _lines(self) -> Tensor:
        """(6, N) origins and directions."""
        return torch.cat([self.origins.T, self.directions.T])

    def march(self) -> March:
        """The parametrisation in which steps along the rays have equal lengths in the field."""
        return self.space.march(self)

    def clip(self, box: Tensor) -> Rays:
        """The part of the rays that is inside a ``box (2, 3)`` of the field."""
        return self.space.clip(self, box)


@dataclass
class Cameras:
    """A batch of pinhole cameras.

    Attributes:
        c2w: (V, 3, 4) camera-to-world, OpenGL axes.
        intrinsics: (V, 4) fx, fy, cx, cy in pixels.
        sizes: (V, 2) int64 height, width in pixels.
        near, far: range of the rays, scene units; in NDC of the warped rays.
        space: that their rays run through; in NDC all cameras have to look along -z.
    """

    c2w: Tensor
    intrinsics: Tensor
    sizes: Tensor
    near: float
    far: float
    space: Space = WORLD

    @classmethod
    def of(cls, views: list[View], near: float, far: float, space: Space = WORLD) -> Cameras:
        """Cameras of a list of views."""
        return cls(
            torch.stack([v.c2w for v in views]),
            torch.tensor([[v.fx, v.fy, v.cx, v.cy] for v in views], dtype=torch.float32),
            torch.tensor([[v.height, v.width] for v in views], dtype=torch.int64),
            near,
            far,
            space,
        )

    @classmethod
    def within(cls, scene: Scene, views: list[View]) -> Cameras:
        """Cameras of some views with the range and in the space of a scene."""
        return cls.of(views, scene.near, scene.far, scene.space)

    def __len__(self) -> int:
        return self.c2w.shape[0]

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of each camera's image, as numbers that no GPU has to be asked for."""
        return [(height, width) for height, width in self.sizes.tolist()]

    def to(self, device: torch.device | str) -> Cameras:
        return replace(
            self,
            c2w=self.c2w.to(device),
            intrinsics=self.intrinsics.to(device),
            sizes=self.sizes.to(device),
            space=self.space.to(device),
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

    @cached_property
    def _pixel_rays(self) -> Tensor:
        """(V, 4, 3) of each camera: the direction through the pixel (0, 0), not of unit length, and
        what a row and a column add to it; the camera's position."""
        fx, fy, cx, cy = self.intrinsics.double().T[..., None]
        right, up, back, position = self.c2w.double().unbind(-1)
        first = right * (0.5 - cx) / fx + up * (cy - 0.5) / fy - back
        return torch.stack([first, -up / fy, right / fx, position], 1).to(self.c2w)

    @cached_property
    def _range(self) -> Tensor:
        """(2, 1) near and far."""
        return self.c2w.new_tensor([[self.near], [self.far]])

    def rays(self, view: int | Tensor, row: Tensor, column: Tensor) -> Rays:
        """Rays through pixel centres.

        Args:
            view: number of the camera, or (N,) one for each pixel.
            row, column: (N,) integer tensors on the cameras' device.

        Returns:
            N rays in scene units, or warped to NDC; view directions in world space.

        >>> c2w, lens = torch.eye(3, 4)[None], torch.tensor([[20.0, 20.0, 8.0, 6.0]])
        >>> cameras = Cameras(c2w, lens, torch.tensor([[12, 16]]), near=2.0, far=6.0)
        >>> zero = torch.zeros(1, dtype=torch.int64)
        >>> rays = cameras.rays(view=zero, row=zero + 6, column=zero + 8)  # right of the centre
        >>> rays.origins.tolist(), (rays.directions * 100).round().tolist()
        ([[0.0, 0.0, 0.0]], [[2.0, -2.0, -100.0]])
        """
        first, down, right, position = self._pixel_rays[view].unbind(-2)
        # not a matrix product, which autocast would round to half precision: pixels off
        directions = torch.addcmul(first, row[:, None], down)
        directions = torch.addcmul(directions, column[:, None], right)
        directions = directions / directions.norm(dim=-1, keepdim=True)
        near, far = self._range.expand(2, len(row))
        return self.space.warp_rays(Rays(position.expand_as(directions), directions, near, far))

    def view_rays(self, view: int, start: int = 0, stop: int | None = None) -> Rays:
        """Rays of the pixels ``start:stop`` (row-major) of one whole view."""
        height, width = self.shapes[view]
        pixel = torch.arange(
            start, height * width if stop is None else stop, device=self.c2w.device
        )
        return self.rays(view, pixel // width, pixel % width)

    def project(self, view: int | Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where cameras see points: the inverse of `rays`.

        Args:
            view: number of the camera, or (N,) one for each point.
            x: (N, 3) world positions, scene units.

        Returns:
            pixel: (N, 2) column and row, pixel centres at halves; meaningless behind the camera.
            depth: (N,) along the optical axis, scene units; negative behind the camera.
            inside: (N,) bool, whether the point is in front of the camera and within its image.
        """
        c2w, (fx, fy, cx, cy) = self.c2w[view], self.intrinsics[view].unbind(-1)
        height, width = self.sizes[view].unbind(-1)
        # not a matrix product, see `rays`
        right, up, back = ((x - c2w[..., 3])[..., None] * c2w[..., :3]).sum(-2).unbind(-1)
        front = back < 0
        divisor = torch.where(front, -back, 1.0)
        column, row = cx + fx * right / divisor, cy - fy * up / divisor
        inside = front & (column >= 0) & (column <= width) & (row >= 0) & (row <= height)
        return torch.stack([column, row], -1), -back, inside
