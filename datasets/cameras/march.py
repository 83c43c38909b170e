"""The parametrisation along rays: where steps of equal length in a field's space lead.

Where that is the world, or NDC, in which straight lines stay straight, the path parameter s is the
distance t along the ray.  In contracted space a ray is bent, and t grows ever faster with s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from datasets.cameras.rays import Rays

# Distance from the foreground's centre, in half widths of it, at which contracted rays end; what is
# farther lies in the last half hundredth of the shell around the foreground.
HORIZON = 200.0
Positions = Callable[[Tensor, Tensor], Tensor]  # see `StraightMarch.counted_in`


class StraightMarch:
    """Rays that are straight in the field's space: s is t.

    Attributes:
        near, far: (N,) range of the path parameter.
    """

    def __init__(self, rays: Rays) -> None:
        self.rays = rays
        self.near, self.far = rays.near, rays.far

    def distance(self, ray: Tensor, s: Tensor) -> Tensor:
        """Distance along the rays ``ray (K,)`` at path parameters ``s (K, ...)``."""
        return s

    def steps(
        self, counted: Positions, unit: Tensor, ray: Tensor, s: Tensor, step: float
    ) -> tuple[Tensor, Tensor]:
        """Even steps on the rays ``ray (K,)``.

        Args:
            counted: of `counted_in`, with ``unit (3,)``.
            s: (K, S) path parameters of the steps' middles.
            step: from one to the next.

        Returns:
            Positions (3, K, S), counted, and lengths (K, S) in the field's space.
        """
        return counted(ray, s), torch.full_like(s, step)

    def lengths(self, ray: Tensor, edges: Tensor) -> Tensor:
        """Lengths (K, S) in the field's space between ascending path parameters (K, S + 1)."""
        return edges.diff(dim=-1)

    def counted_in(self, origin: Tensor, unit: Tensor) -> Positions:
        """The field's positions (3, K) or (3, K, S) on the rays ``ray (K,)`` at path parameters
        ``s (K,) or (K, S)``, counted from ``origin (3,)`` in units of ``unit (3,)``."""
        start = ((self.rays.origins - origin) / unit).T.contiguous()
        step = (self.rays.directions / unit).T.contiguous()
        return lambda ray, s: torch.addcmul(_along(start, ray, s), _along(step, ray, s), s)


class ContractedMarch:
    """Rays through contracted space: even steps up to the far side of the foreground, from there
    steps that grow with the square of the distance, which contraction makes about even again.

    A ray is followed along the axis on which it moves fastest.  Where m, its position there in half
    widths of the foreground, passes 1 it leaves; from then on ``m = m0 + v e`` with its speed v and
    the distance e since it left, and ``ds / de = k (m0 / m)^2`` has the closed form
    ``s = k (m0 / v) (1 - m0 / m)``: even steps in inverse distance.  What is to the side of a ray's
    centre passes it twice as fast as what is ahead recedes, so k is twice the distance at which the
    ray passes the centre, or 1.

    Args:
        rays: straight in the world.
        centre, half: (3,) centre and half widths of the foreground.
        endless: whether rays end at the horizon, not at their far.

    Attributes:
        near, far: (N,) range of the path parameter.
    """

    def __init__(self, rays: Rays, centre: Tensor, half: Tensor, endless: bool = True) -> None:
        self.rays, self.centre, self.half = rays, centre, half
        self.start = (rays.origins - centre) / half
        self.velocity = rays.directions / half
        axis = self.velocity.abs().argmax(-1, keepdim=True)
        speed = self.velocity.gather(-1, axis)[:, 0]
        m = (self.start.gather(-1, axis)[:, 0] * speed.sign()) + speed.abs() * rays.near
        speed = speed.abs()
        self.exit = rays.near + (1 - m).clamp(min=0.0) / speed
        m = m.clamp(min=1.0)
        square = self.velocity.square().sum(-1)
        along = (self.start * self.velocity).sum(-1)
        aside = (self.start.square().sum(-1) - along.square() / square).clamp(min=0.0).sqrt()
        self.rate = (2 * aside).clamp(min=1.0)  # k
        self.to_infinity = self.rate * m / speed  # what is left of s where the ray leaves
        self.near = rays.near
        self.far = self.exit + self.to_infinity * (1 - m / HORIZON).clamp(min=0.0)
        if not endless:  # the inverse of `distance`
            beyond = self.rate * (rays.far - self.exit).clamp(min=0.0)
            beyond = beyond / (1 + beyond / self.to_infinity)
            self.far = torch.minimum(self.far, torch.minimum(rays.far, self.exit) + beyond)

    def distance(self, ray: Tensor, s: Tensor) -> Tensor:
        """Distance along the rays ``ray (K,)`` at path parameters ``s (K, ...)``."""
        leave, to_infinity, rate = (
            _along(values, ray, s) for values in (self.exit, self.to_infinity, self.rate)
        )
        beyond = (s - leave).clamp(min=0.0)
        # half a step beyond the last sample there is nothing left but infinity
        left = (1 - beyond / to_infinity).clamp(min=0.5 / HORIZON)
        return torch.minimum(s, leave) + beyond / (rate * left)

    def steps(
        self, counted: Positions, unit: Tensor, ray: Tensor, s: Tensor, step: float
    ) -> tuple[Tensor, Tensor]:
        """As `StraightMarch.steps`, on the chord of all of them, which are few cells long; beyond
        far, where the path ends, on its continuation."""
        first = s[:, 0] - step / 2
        last = torch.minimum(s[:, -1] + step / 2, self.far.index_select(0, ray))
        begin, end = counted(ray, torch.stack([first, last], -1)).unbind(-1)
        chord = (end - begin) * (step / (last - first))
        share = torch.arange(s.shape[1], device=s.device) + 0.5
        length = (chord * unit[:, None]).square_().sum(0).sqrt_()  # norm is ten times as slow
        return torch.addcmul(begin[..., None], chord[..., None], share), length[:, None].expand_as(
            s
        )

    def lengths(self, ray: Tensor, edges: Tensor) -> Tensor:
        """Lengths (K, S) in the field's space between ascending path parameters (K, S + 1)."""
        n = edges.shape[1]
        x = self.rays.points(ray.repeat_interleave(n), self.distance(ray, edges).flatten())
        return x.T.view(3, -1, n).diff(dim=-1).square_().sum(0).sqrt_()

    def counted_in(self, origin: Tensor, unit: Tensor) -> Positions:
        """As `StraightMarch.counted_in`."""
        start, velocity = self.start.T.contiguous(), self.velocity.T.contiguous()
        shift, stretch = (self.centre - origin) / unit, self.half / unit

        def positions(ray: Tensor, s: Tensor) -> Tensor:
            x = torch.addcmul(
                _along(start, ray, s), _along(velocity, ray, s), self.distance(ray, s)
            )
            inverse = x.abs().amax(0).clamp_(min=1.0).reciprocal_()
            axes = (3,) + (1,) * s.ndim
            x.mul_((2 - inverse).mul_(inverse))
            return torch.addcmul(shift.view(axes), x, stretch.view(axes))

        return positions


March = StraightMarch | ContractedMarch


def _along(values: Tensor, ray: Tensor, s: Tensor) -> Tensor:
    """``values (..., N)`` of the rays ``ray (K,)``, to go with ``s (K,) or (K, S)``."""
    picked = values.index_select(-1, ray)
    return picked if s.ndim == 1 else picked[..., None]
