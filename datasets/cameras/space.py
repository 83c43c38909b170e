"""The space that a scene lives in: the world as it is, NDC, or contracted.

A field has coordinates of its own.  `Space` converts between them and the world's, and knows how
rays run through them: nothing else has to ask which kind of space it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from datasets.cameras.march import ContractedMarch, March, StraightMarch
from datasets.cameras.poses import look_at

if TYPE_CHECKING:
    from datasets.cameras.rays import Rays
    from datasets.scene import View

NEAR_PLANE = -1.0  # z of the plane that NDC starts from, in the world
AHEAD = 1e-6  # least share of -z in the direction of a ray that NDC has
THICKNESS = 0.3  # of half the slab, in half widths of the training photos
# Distance that stands for infinity in contracted space, in half widths of the foreground: what is
# there moves by a ten-thousandth of a radian as a camera moves through the foreground.
ENDLESS = 1e4
DISTANT = 1e3  # distance of a viewpoint that stands for parallel rays, in units of NDC
# A viewer stays where photos show what there is to see:
ASIDE = 0.25  # distance beside the training cameras, in their spread
TARGET = -2.0  # z in the world of the slab's middle
INNER = 0.5  # share of the slab's middle that the middle of a picture lies in


class Space:
    """What all kinds of space can do; here as in the world itself, where there is nothing to do.

    Attributes:
        kind: its name in checkpoints.
        surrounds: whether every ray of a photo ends in something that belongs to the scene.
        forward_facing: whether all cameras look along -z, and the field's coordinates are
            left-handed in the world.
        extent: where the scene is, in words, for messages.
        infinity: distance along a ray that stands for an endless one, scene units; None: what no
            surface stops leaves the field's box.
        gradient_radius: distance from a camera within which its rays are so dense that gradients
            are to be scaled down (Philip and Deschaintre 2023), scene units; None: nowhere.

    >>> space, x = NDC(scale=[2.0, 3.0, 1.0]), torch.tensor([[0.3, -0.2, -4.0]])
    >>> space.from_world(x)
    tensor([[ 0.1500, -0.1500,  0.5000]])
    >>> space.to_world(space.from_world(x)).allclose(x)
    True
    """

    kind: ClassVar[str] = "world"
    surrounds: ClassVar[bool] = False
    forward_facing: ClassVar[bool] = False
    extent = "it fills its bounds"
    infinity: float | None = None
    gradient_radius: float | None = None

    def state(self) -> dict[str, Any]:
        """Plain values from which `space_from` makes the same space again."""
        return {"kind": self.kind}

    def to(self, like: Tensor | torch.device | str) -> Space:
        """The same space on a device, or on the device and in the precision of a tensor."""
        return self

    def ending(self) -> Space:
        """The same space, whose rays end at their far."""
        return self

    # -- positions ---------------------------------------------------------------------------

    def to_world(self, x: Tensor) -> Tensor:
        """World positions (..., 3) of the field's positions ``x (..., 3)``."""
        return x

    def from_world(self, x: Tensor) -> Tensor:
        """The field's positions (..., 3) of world positions ``x (..., 3)``."""
        return x

    def normals_to_world(self, x: Tensor, normals: Tensor) -> Tensor:
        """Unit normals in the world of a surface in the field: the transposed Jacobian of
        `from_world` times the field's normals.

        Args:
            x: (V, 3) points of the surface, the field's positions.
            normals: (V, 3) unit normals there.
        """
        with torch.enable_grad():
            world = self.to_world(x).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.from_world(world), world, normals)
        return functional.normalize(gradient, dim=1)

    def stretch(self, x: Tensor) -> Tensor:
        """Length in the field of a short step that leads away from the cameras' middle, for each
        unit of the world: a density per unit of the field times this is one per unit of the world.

        Args:
            x: (M, 3) world positions.

        Returns:
            (M,).
        """
        return torch.ones_like(x[:, 0])

    # -- boxes -------------------------------------------------------------------------------

    def box(self, bounds: Tensor) -> Tensor:
        """(2, 3) corners of the box that a field has to fill, of a scene with these ``bounds``."""
        return bounds

    def world_box(self, box: Tensor) -> Tensor:
        """(2, 3) corners in the world around what is in a ``box (2, 3)`` of the field."""
        world = self.to_world(corners(box))
        return torch.stack([world.amin(0), world.amax(0)])

    def box_from_world(self, box: Tensor, occupied: Tensor) -> Tensor:
        """What to export of a field where a box of the world is asked for.

        Args:
            box: (2, 3) corners in the world.
            occupied: (2, 3) corners of the field's box around all that is occupied.

        Returns:
            (2, 3) corners in the field; not ascending where it holds nothing.
        """
        return box

    def exportable_box(self, occupied: Tensor, depth: float | None) -> Tensor:
        """What to export of a field where nothing is asked for: what is ``occupied (2, 3)``, in a
        forward-facing scene down to the ``depth``, scene units."""
        return occupied

    # -- rays --------------------------------------------------------------------------------

    def warp_rays(self, rays: Rays) -> Rays:
        """The world's rays as they are sampled."""
        return rays

    def ray_to_field(self, x: Tensor) -> Tensor:
        """The field's positions (M, 3) of positions ``x (M, 3)`` on rays of `warp_rays`."""
        return x

    def march(self, rays: Rays) -> March:
        """The parametrisation along rays of `warp_rays` in which steps have equal lengths."""
        return StraightMarch(rays)

    def clip(self, rays: Rays, box: Tensor) -> Rays:
        """The part of the rays that is inside a ``box (2, 3)`` of the field (slab method)."""
        inverse = rays.directions.masked_fill(rays.directions == 0, 1e-12).reciprocal()
        a, b = (box[:, None] - rays.origins) * inverse
        near = torch.maximum(torch.minimum(a, b).amax(-1), rays.near)
        far = torch.minimum(torch.maximum(a, b).amin(-1), rays.far)
        return replace(rays, near=near, far=far)

    def clip_in_world(self, rays: Rays, box: Tensor) -> Rays:
        """The part of the rays of `warp_rays` that is inside a ``box (2, 3)`` of the world."""
        return Space.clip(self, rays, box)

    def viewpoints(self, c2w: Tensor, x: Tensor) -> Tensor:
        """(V, 3) points in the field from which cameras ``c2w (V, 3, 4)`` see the field's position
        ``x (3,)``."""
        return c2w[:, :, 3].to(x)

    def within_reach(self, c2w: Tensor, bounds: Tensor, cameras: Tensor) -> Tensor:
        """The camera (3, 4) nearest to a viewer's that sees something of a scene.

        Args:
            c2w: (3, 4) the viewer's.
            bounds: (2, 3) of the scene.
            cameras: (V, 3) positions of its training cameras in the world.
        """
        return c2w


class World(Space):
    """The world as it is: for objects with alpha or on a plain background."""

    def normals_to_world(self, x: Tensor, normals: Tensor) -> Tensor:
        return normals


WORLD = World()


class NDC(Space):
    """Normalised device coordinates of forward-facing scenes (Mildenhall et al. 2020, appendix C):
    the part of the world beyond the plane z = -1 becomes the slab -1 <= z <= 1, infinity its far
    side.

    A point (x, y, z) goes to (scale_x x / -z, scale_y y / -z, scale_z (1 + 2 / z)); straight lines
    stay straight.

    Args:
        scale: 2 fx / width and 2 fy / height of the training cameras, which the field keeps
            whatever lens it is looked at through; and half the slab's thickness, 1 in the paper.
            Photos taken from nearly one place resolve depth less finely than what lies across, and
            a grid's cells are cubes: `THICKNESS` gives them as much depth as they can use.
    """

    kind = "ndc"
    surrounds = True
    forward_facing = True
    extent = "it lies beyond z = -1, towards -z"

    def __init__(self, scale: tuple[float, float, float]) -> None:
        self.scale = scale

    @classmethod
    def of(cls, view: View) -> NDC:
        """The NDC of a training view."""
        return cls((2.0 * view.fx / view.width, 2.0 * view.fy / view.height, THICKNESS))

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "scale": list(self.scale)}

    def to_world(self, x: Tensor) -> Tensor:
        """The inverse of `from_world`: z = 2 / (z' / scale_z - 1), x = -x' z / scale_x,
        y = -y' z / scale_y; z' = scale_z, which is infinity, is taken for a position just before
        it."""
        depth = 2.0 / (1.0 - x[..., 2:] / self.scale[2]).clamp(min=1e-6)
        return torch.cat([x[..., :2] * depth / x.new_tensor(self.scale[:2]), -depth], -1)

    def from_world(self, x: Tensor) -> Tensor:
        """See the class; what is not in front of the origin, where NDC has no meaning, goes far
        before the near plane."""
        depth = (-x[..., 2:]).clamp(min=1e-6)
        scale = x.new_tensor(self.scale)
        return scale * torch.cat([x[..., :2] / depth, 1.0 - 2.0 / depth], -1)

    def stretch(self, x: Tensor) -> Tensor:
        return 2 * self.scale[2] / (-x[:, 2] * x.norm(dim=1)).clamp(min=1e-6)

    def box_from_world(self, box: Tensor, occupied: Tensor) -> Tensor:
        points = corners(box)
        points[:, 2].clamp_(max=NEAR_PLANE)
        warped = self.from_world(points)
        return intersection(torch.stack([warped.amin(0), warped.amax(0)]), occupied)

    def exportable_box(self, occupied: Tensor, depth: float | None) -> Tensor:
        box = occupied.clone()
        if depth is not None:
            end = self.from_world(box.new_tensor([0, 0, -depth]))[2]
            box[1, 2] = torch.minimum(box[1, 2], end)
        return box

    def warp_rays(self, rays: Rays) -> Rays:
        """Rays from the near plane at z = -1, or from the camera where that is beyond it, to
        infinity.

        Args:
            rays: in the world, looking along -z; their near and far are distances along the warped
                rays.

        Returns:
            As many warped rays, with the world's view directions; a ray that does not go towards
            -z is empty.
        """
        origins, rest = self._warp(rays.origins, rays.directions)
        length = rest.norm(dim=1)
        ahead = rays.directions[:, 2] < -AHEAD
        return replace(
            rays,
            origins=origins,
            directions=rest / length[:, None],
            far=torch.where(ahead, torch.minimum(rays.far, length), 0.0),
            space=self,
        )

    def _warp(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Where rays of the world start in NDC, and what is left of them to infinity: (N, 3)."""
        scale = origins.new_tensor(self.scale)
        depth = torch.where(directions[:, 2] < -AHEAD, -directions[:, 2], 1.0)
        to_plane = ((1.0 + origins[:, 2]) / depth).clamp(min=0.0)
        start = origins + to_plane[:, None] * directions
        # a camera that looks away from the scene may have no depth: any finite number does
        inverse = 1.0 / (-start[:, 2:]).clamp(min=1e-6)
        slope = directions[:, :2] / depth[:, None]
        # what is left to infinity is proportional to 1 / depth: no difference of large numbers
        rest = torch.cat([slope - start[:, :2] * inverse, 2.0 * inverse], dim=1)
        start = torch.cat([start[:, :2] * inverse, 1.0 - 2.0 * inverse], dim=1)
        return scale * start, scale * rest

    def clip_in_world(self, rays: Rays, box: Tensor) -> Rays:
        """A plane of the world is one in NDC: without the scale, x >= a is 2 x' - a (1 - z') >= 0,
        and z >= a is -2 - a (1 - z') >= 0."""
        scale = rays.origins.new_tensor(self.scale)
        origins, directions = rays.origins / scale, rays.directions / scale
        factor = rays.origins.new_tensor([2.0, 2.0, 0.0])
        constant = rays.origins.new_tensor([0.0, 0.0, -2.0])
        near, far = rays.near, rays.far
        for side, bound in ((1.0, box[0]), (-1.0, box[1])):
            value = side * (factor * origins + constant - bound * (1.0 - origins[:, 2:]))
            slope = side * (factor * directions + bound * directions[:, 2:])
            crossing = -value / torch.where(slope == 0, 1e-12, slope)
            near = torch.maximum(near, torch.where(slope > 0, crossing, -math.inf).amax(-1))
            far = torch.minimum(far, torch.where(slope < 0, crossing, math.inf).amin(-1))
            outside = ((slope == 0) & (value < 0)).any(-1)
            far = torch.where(outside, near, far)
        return replace(rays, near=near, far=far)

    def viewpoints(self, c2w: Tensor, x: Tensor) -> Tensor:
        """Distant points: in NDC the rays of one camera are parallel, or nearly."""
        c2w = c2w.to(x)
        _, rest = self._warp(c2w[:, :, 3], -c2w[:, :, 2])
        return x - DISTANT * functional.normalize(rest, dim=1)

    def within_reach(self, c2w: Tensor, bounds: Tensor, cameras: Tensor) -> Tensor:
        """The camera is hardly beside the training cameras, at most half way to the near plane and
        at most that plane's distance behind the origin; and it looks at the inner part of the
        slab's middle."""
        low, high = cameras.to(c2w).amin(0), cameras.to(c2w).amax(0)
        low, high = low - ASIDE * (high - low), high + ASIDE * (high - low)
        low[2], high[2] = NEAR_PLANE / 2, -NEAR_PLANE
        position = torch.minimum(torch.maximum(c2w[:, 3], low), high)
        low, high = (bounds.to(c2w)[:, :2] / c2w.new_tensor(self.scale[:2]) * -TARGET).unbind()
        middle, half = (low + high) / 2, INNER * (high - low) / 2
        ahead = -c2w[:, 2]
        slope = ahead[:2] / (-ahead[2]).clamp(min=AHEAD)
        found = position[:2] + (position[2] - TARGET) * slope
        inner = torch.minimum(torch.maximum(found, middle - half), middle + half)
        if bool(ahead[2] < 0) and torch.equal(inner, found):
            return torch.cat([c2w[:, :3], position[:, None]], dim=1)
        return look_at(position, torch.cat([inner, inner.new_full((1,), TARGET)]), c2w[:, 1])


class Contracted(Space):
    """Unbounded scenes: the foreground as it is, and all of the world around it in a shell of half
    the foreground's width (mip-NeRF 360, Barron et al. 2022, eq. 10, with the largest coordinate
    for a norm, which suits a grid).

    With u the position in half widths from the foreground's centre and m its largest coordinate:
    ``u -> (2 - 1 / m) u / m`` for m > 1.

    Args:
        foreground: (2, 3) corners of the box that stays as it is, scene units.
        endless: whether rays go on to the horizon, whatever their far is.
    """

    kind = "contracted"
    surrounds = True

    def __init__(self, foreground: Tensor, endless: bool = True) -> None:
        self.foreground, self.endless = foreground, endless
        self.centre, self.half = foreground.mean(0), (foreground[1] - foreground[0]) / 2

    @property
    def extent(self) -> str:
        return (
            f"its foreground is {' '.join(f'{x:.3g}' for x in self.foreground.flatten().tolist())}"
        )

    @cached_property
    def infinity(self) -> float | None:
        return ENDLESS * self.gradient_radius if self.endless else None

    @cached_property
    def gradient_radius(self) -> float:
        return float((self.foreground[1] - self.foreground[0]).max()) / 2

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "foreground": self.foreground.tolist()}

    def to(self, like: Tensor | torch.device | str) -> Contracted:
        moved = self.foreground.to(like)
        return self if moved is self.foreground else Contracted(moved, self.endless)

    def ending(self) -> Contracted:
        return Contracted(self.foreground, endless=False)

    def from_world(self, x: Tensor) -> Tensor:
        """See the class."""
        from_centre = x - self.centre
        m = (from_centre / self.half).abs().amax(-1, keepdim=True)
        inverse = m.clamp(min=1.0).reciprocal()
        return torch.addcmul(self.centre, from_centre, inverse * (2 - inverse))

    def to_world(self, x: Tensor) -> Tensor:
        u = (x - self.centre) / self.half
        m = u.abs().amax(-1, keepdim=True)
        beyond = m.clamp(min=1.0)
        return torch.where(m > 1, self.centre + self.half * u / (beyond * (2 - beyond)), x)

    def stretch(self, x: Tensor) -> Tensor:
        m = ((x - self.centre) / self.half).abs().amax(-1).clamp(min=1.0)
        return 1 / m.square()

    def box(self, bounds: Tensor) -> Tensor:
        return torch.stack([self.foreground[0] - self.half, self.foreground[1] + self.half])

    def box_from_world(self, box: Tensor, occupied: Tensor) -> Tensor:
        return self.exportable_box(box, None)

    def exportable_box(self, occupied: Tensor, depth: float | None) -> Tensor:
        """The foreground alone: beyond it cells grow without limit in the world."""
        return intersection(occupied, self.foreground.to(occupied))

    def warp_rays(self, rays: Rays) -> Rays:
        """The same rays, which stay straight lines in the world; their points are contracted."""
        return replace(rays, space=self.to(rays.origins))

    def ray_to_field(self, x: Tensor) -> Tensor:
        return self.from_world(x)

    def march(self, rays: Rays) -> March:
        return ContractedMarch(rays, self.centre, self.half, self.endless)

    def clip(self, rays: Rays, box: Tensor) -> Rays:
        """All of the rays: the field's box holds the whole world."""
        return rays

    def clip_in_world(self, rays: Rays, box: Tensor) -> Rays:
        cut = Space.clip(self, replace(rays, far=torch.full_like(rays.far, math.inf)), box)
        return replace(cut, space=self.ending())


SPACES: dict[str, type[Space]] = {space.kind: space for space in (World, NDC, Contracted)}


def space_from(state: Mapping[str, Any]) -> Space:
    """The space of a `Space.state`.

    Raises:
        ValueError: it is no such state.
    """
    try:
        kind = state["kind"]
        if kind == NDC.kind:
            x, y, z = (float(value) for value in state["scale"])
            if not all(0 < value < math.inf for value in (x, y, z)):
                raise ValueError(f"scale {x} {y} {z}")
            return NDC((x, y, z))
        if kind == Contracted.kind:
            foreground = torch.tensor(state["foreground"], dtype=torch.float32).view(2, 3)
            if not bool((foreground[0] < foreground[1]).all() & foreground.isfinite().all()):
                raise ValueError("foreground without a volume")
            return Contracted(foreground)
        return SPACES[kind]()
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"no space: {error}") from None


def corners(box: Tensor) -> Tensor:
    """(8, 3) the corners of a ``box (2, 3)``."""
    upper = torch.tensor(list(itertools.product((False, True), repeat=3)), device=box.device)
    return torch.where(upper, box[1], box[0])


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """(2, 3) the box in both boxes (2, 3); not ascending where they do not meet."""
    return torch.stack([torch.maximum(a[0], b[0]), torch.minimum(a[1], b[1])])
