"""The toys of the demo scene: solids as exact signed distances, and their procedural paint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = -0.45  # height of the plinth's top

Shape = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """One solid in its own frame, whose origin is its centre.

    Attributes:
        shape: (3, M) local positions -> (M,) exact signed distances.
        half: half extents of a local box around it.
        paint: (3, M) local positions -> (3, M) linear albedo.
        centre: world position.
        gloss: strength of its mirror-like reflection in [0, 1].
        turn, tilt: rotations in radians: the tilt about local x first, then the turn about z.
        convex: it cannot shadow itself.
    """

    shape: Shape
    half: tuple[float, float, float]
    paint: Shape
    centre: tuple[float, float, float]
    gloss: float = 0.3
    turn: float = 0.0
    tilt: float = 0.0
    convex: bool = True

    def local(self, vectors: Tensor, shift: bool) -> Tensor:
        """World (3, M) points (``shift``) or directions -> local ones."""
        if shift:
            vectors = vectors - vectors.new_tensor(self.centre)[:, None]
        if self.turn == 0.0 and self.tilt == 0.0:
            return vectors
        c, s, k, m = *_turn(self.turn), *_turn(self.tilt)
        x, y, z = vectors
        x, y = c * x + s * y, c * y - s * x
        return torch.stack([x, k * y + m * z, k * z - m * y])

    def normals(self, points: Tensor) -> Tensor:
        """World unit normals (3, M) at world points of its surface: differences over a
        tetrahedron."""
        total = torch.zeros_like(points)
        for corner in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
            step = points.new_tensor(corner)[:, None]
            total += step * self.shape(self.local(points + 1e-3 * step, True))
        return total / length(*total)


def _turn(angle: float) -> tuple[float, float]:
    return math.cos(angle), math.sin(angle)


def length(*components: Tensor) -> Tensor:
    total = components[0] * components[0]
    for component in components[1:]:
        total = torch.addcmul(total, component, component)
    return total.sqrt()


def dot(a: Tensor, b: Tensor) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# ---- shapes: signed distances (Quilez, "Distance functions") -------------------------------------


def ball(radius: float) -> Shape:
    return lambda p: length(*p) - radius


def block(half: float, edge: float) -> Shape:
    """A cube with edges rounded by ``edge``."""

    def distance(p: Tensor) -> Tensor:
        q = p.abs() - (half - edge)
        return length(*q.clamp(min=0)) + q.amax(dim=0).clamp(max=0) - edge

    return distance


def drum(radius: float, half: float, edge: float) -> Shape:
    """An upright cylinder with rounded edges."""

    def distance(p: Tensor) -> Tensor:
        side, top = length(p[0], p[1]) - (radius - edge), p[2].abs() - (half - edge)
        inside = torch.maximum(side, top).clamp(max=0)
        return length(side.clamp(min=0), top.clamp(min=0)) + inside - edge

    return distance


def taper(bottom: float, top: float, height: float) -> Shape:
    """The hull of two balls whose centres lie ``height`` apart: a capsule or a blunt cone."""
    lean = (bottom - top) / height
    flat = math.sqrt(1 - lean * lean)

    def distance(p: Tensor) -> Tensor:
        r, z = length(p[0], p[1]), p[2] + height / 2
        along = flat * z - lean * r
        body = flat * r + lean * z - bottom
        cap = torch.where(along < 0, length(r, z) - bottom, length(r, z - height) - top)
        return torch.where((along < 0) | (along > flat * height), cap, body)

    return distance


def rings(*tori: tuple[float, float, float]) -> Shape:
    """Tori about local z, each (radius, thickness, height)."""

    def distance(p: Tensor) -> Tensor:
        r, z = length(p[0], p[1]), p[2]
        each = [length(r - major, z - height) - minor for major, minor, height in tori]
        nearest = each[0]
        for other in each[1:]:
            nearest = torch.minimum(nearest, other)
        return nearest

    return distance


# ---- paints: local positions -> linear albedo (3, M) --------------------------------------------


def colour(code: str, like: Tensor) -> Tensor:
    srgb = torch.tensor([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)], dtype=like.dtype)
    return (srgb**2.2)[:, None].to(like.device)


def mix(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return torch.lerp(a, b, weight.clamp(0, 1))


def bands(phase: Tensor, sharpness: float) -> Tensor:
    """A soft square wave in [0, 1], one period per unit of ``phase``."""
    return ((2 * math.pi * phase).sin() * sharpness + 0.5).clamp(0, 1)


def plain(code: str) -> Shape:
    return lambda p: colour(code, p).expand(3, p.shape[1])


def spiral(codes: tuple[str, ...], stripes: int, twist: float) -> Shape:
    """Stripes around local z that climb ``twist`` turns per unit of height."""

    def paint(p: Tensor) -> Tensor:
        phase = torch.atan2(p[1], p[0]) / (2 * math.pi) * stripes + twist * p[2]
        band = (phase % 1 * len(codes)).long().clamp(max=len(codes) - 1)
        return torch.cat([colour(code, p) for code in codes], dim=1)[:, band]

    return paint


def dots(ground: str, dot: str, pitch: float) -> Shape:
    """Polka dots on the faces of a block."""

    def paint(p: Tensor) -> Tensor:
        u, v = p.abs().sort(dim=0, descending=True).values[1:] / pitch
        distance = length(u - u.round(), v - v.round())
        return mix(colour(dot, p), colour(ground, p), (distance - 0.27) * 30)

    return paint


def wood(light: str, dark: str) -> Shape:
    """Growth rings about local z, with a little waviness."""

    def paint(p: Tensor) -> Tensor:
        wave = 0.02 * (7 * p[0] + 3 * p[2]).sin() + 0.016 * (9 * p[1] - 5 * p[2]).cos()
        ring = bands((length(p[0] - 0.03, p[1] + 0.02) + wave) * 24, 0.5)
        grain = 0.5 + 0.5 * (torch.atan2(p[1], p[0]) * 17 + 6 * (p[2] * 9).sin()).sin()
        return mix(colour(light, p), colour(dark, p), 0.75 * ring + 0.3 * grain)

    return paint


def candy(a: str, b: str, major: float, stripes: int) -> Shape:
    """Stripes that wind around the tube of a torus."""

    def paint(p: Tensor) -> Tensor:
        tube = torch.atan2(p[2], length(p[0], p[1]) - major)
        phase = (torch.atan2(p[1], p[0]) * stripes + tube) / (2 * math.pi)
        return mix(colour(a, p), colour(b, p), bands(phase, 6))

    return paint


def layers(codes: tuple[str, ...], heights: tuple[float, ...]) -> Shape:
    """One colour for each interval of local z."""

    def paint(p: Tensor) -> Tensor:
        index = torch.bucketize(p[2].contiguous(), p.new_tensor(heights))
        return torch.cat([colour(code, p) for code in codes], dim=1)[:, index]

    return paint


def medallion(p: Tensor) -> Tensor:
    """The plinth: a chequered disc of rings and wedges, a gilt border, a red side."""
    r, angle = length(p[0], p[1]), torch.atan2(p[1], p[0]) / (2 * math.pi)
    ring = (r / 0.165).floor()
    cell = ((angle * 24).floor() + ring) % 2
    star = bands(angle * 12, 4) * (r < 0.165 * 2)
    top = mix(colour("efe3c8", p), colour("1d5f74", p), torch.where(ring < 2, star, cell))
    rim = mix(colour("b9541f", p), colour("e0a233", p), bands(angle * 60, 4))
    top = torch.where(r > 0.99, rim, top)
    tooth = ((angle * 40 % 1 - 0.5).abs() * 0.26 - 0.065 - p[2]) * 60 + 0.5
    side = mix(colour("a5252f", p), colour("f0d9a8", p), tooth)
    side = mix(side, colour("d9982f", p), (p[2].abs() > 0.075).to(p))
    return torch.where((p[2] > 0.085) & (r < 1.085), top, side)


RING_SIZES = ((0.33, 0.14), (0.3, 0.125), (0.27, 0.11), (0.235, 0.1), (0.195, 0.09))


def _tower() -> list[Part]:
    """A stack of rings with a ball on top."""
    half = sum(minor for _, minor in RING_SIZES) * 0.97
    tori, seams, z = [], [], -half
    for major, minor in RING_SIZES:
        z += 0.97 * minor
        tori.append((major, minor, z))
        z += 0.97 * minor
        seams.append(z)
    codes = ("c8202f", "ee7b1c", "f2c21d", "3f9c46", "2166b8")
    where = (-0.36, 0.4, FLOOR + half)
    width = RING_SIZES[0][0] + RING_SIZES[0][1]
    stack = Part(
        rings(*tori), (width, width, half + 0.02), layers(codes, tuple(seams[:-1])), where, 0.5,
        convex=False,
    )  # fmt: skip
    peg = Part(drum(0.09, half, 0.02), (0.09, 0.09, half), wood("d9ab6c", "96602c"), where, 0.1)
    top = (*where[:2], FLOOR + 2 * half + 0.12)
    return [stack, peg, Part(ball(0.16), (0.16,) * 3, plain("b3214f"), top, 0.7)]


def _parts() -> list[Part]:
    return [
        Part(drum(1.12, 0.1, 0.025), (1.12, 1.12, 0.1), medallion, (0, 0, FLOOR - 0.1), 0.15),
        *_tower(),
        Part(ball(0.37), (0.37,) * 3, spiral(("f4ead6", "d8352a", "f4ead6", "1f54a5"), 4, 1.1),
             (0.42, -0.4, FLOOR + 0.37), 0.8, turn=0.5, tilt=0.5),
        Part(block(0.25, 0.035), (0.25,) * 3, dots("6b2f8a", "f6d34a", 0.16),
             (0.48, 0.44, FLOOR + 0.25), 0.35, turn=0.5),
        Part(taper(0.2, 0.03, 0.46), (0.2, 0.2, 0.43), spiral(("2f9e8f", "f3e6c4"), 3, 4.0),
             (0.48, 0.44, FLOOR + 0.5 + 0.23), 0.25),
        Part(drum(0.21, 0.17, 0.02), (0.21, 0.21, 0.17), wood("dcae70", "8a5527"),
             (-0.5, -0.36, FLOOR + 0.17), 0.1),
        Part(ball(0.17), (0.17,) * 3, plain("e5a21a"), (-0.5, -0.36, FLOOR + 0.51), 0.9),
        Part(rings((0.2, 0.065, 0.0)), (0.265, 0.265, 0.065), candy("f6efe2", "d3232e", 0.2, 8),
             (-0.3, -0.7, FLOOR + 0.235), 0.6, turn=0.4, tilt=1.1, convex=False),
        Part(taper(0.075, 0.075, 0.4), (0.075, 0.075, 0.275), spiral(("14a0b8", "f28c28"), 1, 6.0),
             (0.22, -0.88, FLOOR + 0.075), 0.5, turn=1.9, tilt=math.pi / 2),
        Part(ball(0.1), (0.1,) * 3, plain("2aa35a"), (0.02, -0.12, FLOOR + 0.1), 0.9),
        Part(ball(0.08), (0.08,) * 3, plain("2b63d9"), (-0.85, -0.05, FLOOR + 0.08), 0.9),
    ]  # fmt: skip


PARTS = _parts()


@dataclass(frozen=True)
class World:
    """What an embedded data set shows.

    Attributes:
        name: of the world, "" of the demo's own.
        parts: the first lies under all others.
        repaint: (3, M) linear albedo -> the same, in another style.
    """

    name: str
    parts: Sequence[Part]
    repaint: Callable[[Tensor], Tensor] = lambda albedo: albedo

    def union(self, p: Tensor) -> Tensor:
        """Signed distance (M,) of world positions (3, M) to the nearest of all parts."""
        distance = p.new_full((p.shape[1],), math.inf)
        for part in self.parts:
            distance = torch.minimum(distance, part.shape(part.local(p, True)))
        return distance


TOYS = World("", PARTS)
