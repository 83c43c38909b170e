"""Random cameras that no photo was taken from, near the distribution of those that there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.cameras.poses import look_at, look_at_ball, perpendicular, up_axis
from datasets.cameras.rays import Cameras
from datasets.scene import Scene

MARGIN = 0.1  # radians of elevation beyond the training cameras'
ZOOM = 0.1  # share of the radius beyond theirs


@dataclass(frozen=True)
class UnseenCameras:
    """Random poses, each a function of the generator that it is drawn with.

    Of an object: azimuth all around; elevation and radius in the range of the training cameras and
    a little beyond.  The three are drawn one by one (in DietNeRF's own code they were one number).
    Of a scene that surrounds its cameras, or that they face: between two training cameras.

    Attributes:
        c2w: (V, 3, 4) of the training cameras.
        around: whether the scene is an object.
        lens: fx, fy, cx, cy in pixels, height and width of the first training view.
    """

    c2w: Tensor
    around: bool
    lens: tuple[float, float, float, float]
    size: tuple[int, int]
    scene: Scene

    @classmethod
    def of(cls, scene: Scene) -> UnseenCameras:
        """Cameras around the training cameras of a scene."""
        first = scene.train[0]
        c2w = torch.stack([view.c2w for view in scene.train])
        around = not scene.surrounds and not scene.space.forward_facing
        lens = (first.fx, first.fy, first.cx, first.cy)
        return cls(c2w, around, lens, (first.height, first.width), scene)

    def pose(self, generator: torch.Generator) -> Tensor:
        """A random pose (3, 4), OpenGL axes."""
        u = torch.rand(3, generator=generator, device=generator.device).cpu()
        return self._around(u) if self.around else self._between(u)

    def _around(self, u: Tensor) -> Tensor:
        _, elevation, radius = self.spherical(self.c2w)
        centre, up, start, aside = self._axes()
        angle = 2 * math.pi * float(u[0])
        low, high = float(elevation.min()) - MARGIN, float(elevation.max()) + MARGIN
        height = min(max(low + (high - low) * float(u[1]), -1.5), 1.5)
        low, high = float(radius.min()) * (1 - ZOOM), float(radius.max()) * (1 + ZOOM)
        distance = low + (high - low) * float(u[2])
        level = math.cos(angle) * start + math.sin(angle) * aside
        eye = centre + distance * (math.cos(height) * level + math.sin(height) * up)
        return look_at(eye, centre, up)

    def _between(self, u: Tensor) -> Tensor:
        """Part of the way from one training camera to another; they may be the same."""
        n = len(self.c2w)
        first, second = (min(int(float(x) * n), n - 1) for x in u[:2])
        mixed = torch.lerp(self.c2w[first], self.c2w[second], float(u[2]))
        eye, backward = mixed[:, 3], mixed[:, 2]
        if float(backward.norm()) < 1e-3:  # they look into each other: there is nothing between
            return self.c2w[first]
        return look_at(eye, eye - backward, mixed[:, 1])

    def _axes(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centre, up, the level direction to the first camera, and the one to its left."""
        centre, _ = look_at_ball(self.c2w)
        up = up_axis(self.c2w)
        start = perpendicular(self.c2w[0, :, 3] - centre, up)
        return centre, up, start, torch.linalg.cross(up, start)

    def spherical(self, c2w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Azimuth from the first training camera, elevation and radius (V,) of cameras ``c2w (V, 3,
        4)`` about the point that the training cameras look at; radians and scene units."""
        centre, up, start, aside = self._axes()
        offset = c2w[:, :, 3] - centre
        radius = offset.norm(dim=1)
        azimuth = torch.atan2(offset @ aside, offset @ start)
        return azimuth, torch.asin((offset @ up / radius).clamp(-1, 1)), radius

    def window(self, generator: torch.Generator, side: int, share: tuple[float, float]) -> Cameras:
        """One camera with a square image of ``side`` pixels: a window of the training views' image,
        whatever its size and shape, of a random size and at a random place in it.

        Args:
            generator: for pose and window.
            side: pixels.
            share: least and largest side of the window, as shares of the image's shorter side.
        """
        pose = self.pose(generator)
        u = torch.rand(3, generator=generator, device=generator.device).tolist()
        (fx, fy, cx, cy), (height, width) = self.lens, self.size
        window = (share[0] + (share[1] - share[0]) * u[0]) * min(height, width)
        left, top = u[1] * (width - window), u[2] * (height - window)
        k = side / window
        lens = torch.tensor([[fx * k, fy * k, (cx - left) * k, (cy - top) * k]])
        near, far, space = self.scene.near, self.scene.far, self.scene.space
        return Cameras(pose[None], lens, torch.tensor([[side, side]]), near, far, space)
