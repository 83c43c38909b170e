"""Cameras as tensors, and rays made from them where and when they are needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.scene import View


@dataclass
class Rays:
    """Half-lines with a range.

    Attributes:
        origins: (N, 3) scene units.
        directions: (N, 3) unit length.
        near, far: (N,) range of distances along the ray, scene units; far <= near means "empty".
    """

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Rays:
        return Rays(self.origins[index], self.directions[index], self.near[index], self.far[index])

    def points(self, ray_index: Tensor, t: Tensor) -> Tensor:
        """Positions (M, 3) at distance ``t (M,)`` along the rays ``ray_index (M,)``."""
        return torch.addcmul(
            self.origins[ray_index], self.directions[ray_index], t[:, None].to(self.origins.dtype)
        )


@dataclass
class Cameras:
    """A batch of pinhole cameras.

    Attributes:
        c2w: (V, 3, 4) camera-to-world, OpenGL axes.
        intrinsics: (V, 4) fx, fy, cx, cy in pixels.
        sizes: (V, 2) int64 height, width in pixels.
        near, far: range of the rays, scene units.
    """

    c2w: Tensor
    intrinsics: Tensor
    sizes: Tensor
    near: float
    far: float

    @classmethod
    def of(cls, views: list[View], near: float, far: float) -> Cameras:
        """Cameras of a list of views."""
        return cls(
            torch.stack([v.c2w for v in views]),
            torch.tensor([[v.fx, v.fy, v.cx, v.cy] for v in views], dtype=torch.float32),
            torch.tensor([[v.height, v.width] for v in views], dtype=torch.int64),
            near,
            far,
        )

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(
            self.c2w.to(device),
            self.intrinsics.to(device),
            self.sizes.to(device),
            self.near,
            self.far,
        )

    def rays(self, view: Tensor, row: Tensor, column: Tensor) -> Rays:
        """Rays through pixel centres.

        Args:
            view, row, column: (N,) integer tensors on the cameras' device.

        Returns:
            N rays with unit directions in world space.
        """
        fx, fy, cx, cy = self.intrinsics[view].unbind(-1)
        local = torch.stack(
            [(column + 0.5 - cx) / fx, (cy - row - 0.5) / fy, -torch.ones_like(fx)], dim=-1
        )
        c2w = self.c2w[view]
        # not a matrix product, which autocast would round to half precision: pixels off
        directions = (c2w[:, :, :3] * local[:, None]).sum(-1)
        directions = directions / directions.norm(dim=-1, keepdim=True)
        near = torch.full_like(fx, self.near)
        return Rays(c2w[:, :, 3], directions, near, torch.full_like(fx, self.far))

    def view_rays(self, view: int, start: int = 0, stop: int | None = None) -> Rays:
        """Rays of the pixels ``start:stop`` (row-major) of one whole view."""
        height, width = self.sizes[view].tolist()
        pixel = torch.arange(
            start, height * width if stop is None else stop, device=self.c2w.device
        )
        return self.rays(torch.full_like(pixel, view), pixel // width, pixel % width)
