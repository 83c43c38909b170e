"""How rays run through a field's space, and where equal steps along them lead.

A step is a length in the field's space.  Where that is space itself, or space warped such that
lines stay straight (NDC), the path parameter s is the distance t along the ray.  In contracted
space rays are bent, and t grows ever faster with s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.cameras.rays import Rays

# Distance from the foreground's centre, in half widths of it, at which bent rays end; what is
# farther lies in the last half hundredth of the shell around the foreground.
HORIZON = 200.0


class StraightMarch:
    """Rays that are straight in the field's space: s is t."""

    def __init__(self, rays: Rays) -> None:
        self.rays = rays
        self.near, self.far = rays.near, rays.far

    def distance(self, ray: Tensor, s: Tensor) -> Tensor:
        """Distance along the rays ``ray (K,)`` at path parameters ``s (K, ...)``."""
        return s

    def length(self, ray: Tensor, s: Tensor, step: float) -> Tensor:
        """Lengths (K,) in the field's space of steps around ``s (K,)``."""
        return torch.full_like(s, step)

    def lengths(self, ray: Tensor, edges: Tensor) -> Tensor:
        """Lengths (K, S) in the field's space between ascending path parameters (K, S + 1)."""
        return edges.diff(dim=-1)

    def places(self, ray: Tensor, s: Tensor, origin: Tensor, unit: Tensor) -> list[Tensor]:
        """Positions along the rays ``ray (K,)``, a tensor shaped as ``s (K,) or (K, S)`` for each
        axis, counted from ``origin (3,)`` in units of ``unit (3,)``."""
        start = (self.rays.origins - origin) / unit
        way = self.rays.directions / unit
        return [
            torch.addcmul(_along(start[:, k], ray, s), _along(way[:, k], ray, s), s)
            for k in range(3)
        ]


class BentMarch:
    """Rays through contracted space: even steps up to the far side of the foreground, from there
    steps that grow with the square of the distance, which contraction makes about even again.

    A ray is followed along the axis on which it moves fastest.  Where m, its position there in half
    widths of the foreground, passes 1 it leaves; from then on ``m = m0 + v e`` with its speed v and
    the way e since it left, and ``ds / de = k (m0 / m)^2`` has the closed form
    ``s = k (m0 / v) (1 - m0 / m)``: even steps in inverse distance.  What is to the side of a ray's
    centre passes it twice as fast as what is ahead recedes, so k is twice the distance at which the
    ray passes the centre, or 1.
    """

    def __init__(self, rays: Rays) -> None:
        self.rays = rays
        lower, upper = rays.foreground
        self.centre, self.half = (lower + upper) / 2, (upper - lower) / 2
        self.start = (rays.origins - self.centre) / self.half
        self.way = rays.directions / self.half
        axis = self.way.abs().argmax(-1, keepdim=True)
        speed = self.way.gather(-1, axis)[:, 0]
        m = (self.start.gather(-1, axis)[:, 0] * speed.sign()) + speed.abs() * rays.near
        speed = speed.abs()
        self.leave = rays.near + (1 - m).clamp(min=0.0) / speed
        m = m.clamp(min=1.0)
        square, along = self.way.square().sum(-1), (self.start * self.way).sum(-1)
        aside = (self.start.square().sum(-1) - along.square() / square).clamp(min=0.0).sqrt()
        self.slowness = (2 * aside).clamp(min=1.0)
        self.reach = self.slowness * m / speed
        self.near = rays.near
        self.far = self.leave + self.reach * (1 - m / HORIZON).clamp(min=0.0)

    def distance(self, ray: Tensor, s: Tensor) -> Tensor:
        """Distance along the rays ``ray (K,)`` at path parameters ``s (K, ...)``."""
        leave, reach, slowness = (
            _along(values, ray, s) for values in (self.leave, self.reach, self.slowness)
        )
        beyond = (s - leave).clamp(min=0.0)
        # half a step beyond the last sample there is nothing left but infinity
        left = (1 - beyond / reach).clamp(min=0.5 / HORIZON)
        return torch.minimum(s, leave) + beyond / (slowness * left)

    def length(self, ray: Tensor, s: Tensor, step: float) -> Tensor:
        """Lengths (K,) in the field's space of steps around ``s (K,)``."""
        return self.lengths(ray, torch.stack([s - step / 2, s + step / 2], -1))[:, 0]

    def lengths(self, ray: Tensor, edges: Tensor) -> Tensor:
        """Lengths (K, S) in the field's space between ascending path parameters (K, S + 1)."""
        n = edges.shape[1]
        x = self.rays.points(ray.repeat_interleave(n), self.distance(ray, edges).flatten())
        return x.view(-1, n, 3).diff(dim=1).norm(dim=-1)

    def places(self, ray: Tensor, s: Tensor, origin: Tensor, unit: Tensor) -> list[Tensor]:
        """Positions along the rays ``ray (K,)``, a tensor shaped as ``s (K,) or (K, S)`` for each
        axis, counted from ``origin (3,)`` in units of ``unit (3,)``."""
        t = self.distance(ray, s)
        x = [
            torch.addcmul(_along(self.start[:, k], ray, s), _along(self.way[:, k], ray, s), t)
            for k in range(3)
        ]
        m = torch.maximum(torch.maximum(x[0].abs(), x[1].abs()), x[2].abs()).clamp_(min=1.0)
        scale = (2 - 1 / m) / m
        shift, stretch = ((self.centre - origin) / unit).tolist(), (self.half / unit).tolist()
        return [x[k].mul_(scale).mul_(stretch[k]).add_(shift[k]) for k in range(3)]


March = StraightMarch | BentMarch


def march(rays: Rays) -> March:
    """The way of the rays through their field's space."""
    return StraightMarch(rays) if rays.foreground is None else BentMarch(rays)


def _along(values: Tensor, ray: Tensor, s: Tensor) -> Tensor:
    """``values (N,)`` of the rays ``ray (K,)``, to go with ``s (K,) or (K, S)``."""
    picked = values.contiguous().index_select(0, ray)
    return picked if s.ndim == 1 else picked[:, None]
