"""Procedural textures, the training data of the built-in feature network: maps of palette positions
and heights, coloured with random palettes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

T = TypeVar("T")


@dataclass
class TextureBank:
    """Textures without colours.

    structure: (N, 2, S, S) uint8; channel 0 is a position in a palette, channel 1 a height.
    kind: (N,) long, the class; textures of one class share all parameters but the random numbers.
    """

    structure: Tensor
    kind: Tensor


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _choice(options: tuple[T, ...], generator: torch.Generator) -> T:
    return options[int(torch.randint(len(options), (), generator=generator))]


def _equalise(x: Tensor) -> Tensor:
    """Give every map of (N, S, S) a flat histogram over [0, 1]."""
    flat = x.flatten(1)
    ranks = flat.argsort(1).argsort(1).to(x.dtype)
    return (ranks / (flat.shape[1] - 1)).view_as(x)


def _grid(size: int) -> tuple[Tensor, Tensor]:
    axis = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def filtered_noise(
    count: int,
    size: int,
    wavelength: float,
    bandwidth: float,
    angle: float,
    anisotropy: float,
    generator: torch.Generator,
) -> Tensor:
    """White noise through an oriented log-Gaussian band-pass, (count, size, size), mean 0, std 1.

    Args:
        wavelength: pixels per period at the centre of the band.
        bandwidth: standard deviation of the band, octaves.
        angle: direction of the streaks, radians.
        anisotropy: 1 for none; length over width of the streaks.
    """
    fy = torch.fft.fftfreq(size)[:, None]
    fx = torch.fft.rfftfreq(size)[None]
    along = fx * math.cos(angle) + fy * math.sin(angle)
    across = -fx * math.sin(angle) + fy * math.cos(angle)
    frequency = ((along * anisotropy) ** 2 + across**2).sqrt().clamp(min=1e-6)
    band = torch.exp(-0.5 * ((frequency * wavelength).log2() / bandwidth) ** 2)
    band[0, 0] = 0
    noise = torch.randn((count, size, size), generator=generator)
    x = torch.fft.irfft2(torch.fft.rfft2(noise) * band, s=(size, size))
    return x / x.std((1, 2), keepdim=True).clamp(min=1e-6)


def _warp(x: Tensor, strength: float, wavelength: float, generator: torch.Generator) -> Tensor:
    """Displace (N, S, S) by smooth noise of `strength` pixels."""
    count, size, _ = x.shape
    shift = filtered_noise(2 * count, size, wavelength, 0.6, 0.0, 1.0, generator)
    shift = shift.view(count, 2, size, size).movedim(1, -1) * strength
    grid = torch.stack(_grid(size), -1) + shift
    grid = grid * (2 / (size - 1)) - 1
    return functional.grid_sample(
        x[:, None], grid, padding_mode="reflection", align_corners=True, mode="bilinear"
    )[:, 0]


def _noise(count: int, size: int, shape: torch.Generator, generator: torch.Generator) -> Tensor:
    wavelength = 2 ** _uniform(1.3, 5.0, shape)
    anisotropy = _choice((1.0, 1.0, 2.5, 6.0), shape)
    angle, bandwidth = _uniform(0, math.pi, shape), _uniform(0.2, 1.2, shape)
    x = filtered_noise(count, size, wavelength, bandwidth, angle, anisotropy, generator)
    sharpness = _choice((0.0, 0.0, 3.0, 20.0), shape)
    return torch.stack([torch.sigmoid(sharpness * x) if sharpness else _equalise(x), x * 0.3], 1)


def _turbulence(
    count: int, size: int, shape: torch.Generator, generator: torch.Generator
) -> Tensor:
    """Marble: a wave whose phase is bent by noise of several octaves (Perlin 1985)."""
    wavelength, angle = _uniform(5, 24, shape), _uniform(0, math.pi, shape)
    roughness, bend = _uniform(0.3, 0.8, shape), _uniform(0.3, 2.5, shape)
    ridged = _choice((False, True), shape)
    x, y = _grid(size)
    phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / wavelength)
    bent = torch.zeros(count, size, size)
    for octave in range(4):
        layer = filtered_noise(count, size, 40 / 2**octave, 0.4, 0.0, 1.0, generator)
        bent = bent + roughness**octave * (layer.abs() if ridged else layer)
    wave = torch.sin(phase + bend * bent)
    wave = 1 - wave.abs() if ridged else 0.5 + 0.5 * wave
    return torch.stack([wave, wave], 1)


def _periodic(count: int, size: int, shape: torch.Generator, generator: torch.Generator) -> Tensor:
    """Stripes, checkers, dots, cross-hatching and waves, bent a little."""
    pattern = _choice(("stripes", "checkers", "dots", "hatching", "rings", "bricks"), shape)
    period, angle = 2 ** _uniform(1.8, 4.2, shape), _uniform(0, math.pi, shape)
    duty, skew = _uniform(-0.6, 0.6, shape), _uniform(0.6, 1.6, shape)
    bend = _choice((0.0, 0.3, 1.0), shape) * period * 0.4
    offset = torch.rand((2, count, 1, 1), generator=generator) * period
    x, y = _grid(size)
    u = (x * math.cos(angle) + y * math.sin(angle) + offset[0]) * (2 * math.pi / period)
    v = (y * math.cos(angle) - x * math.sin(angle) + offset[1]) * (2 * math.pi / period * skew)
    value = {
        "stripes": lambda: u.sin(),
        "checkers": lambda: u.sin() * v.sin() * 3,
        "dots": lambda: u.sin() + v.sin() - 0.6,
        "hatching": lambda: torch.maximum(u.sin(), v.sin()) - 0.5,
        "rings": lambda: (u + v.sin() * 2.5).sin(),
        "bricks": lambda: torch.minimum(
            v.sin() + 0.8, (u / 2 + math.pi / 2 * v.sin().sign()).sin().abs() * 3 - 0.5
        ),
    }[pattern]()
    value = torch.sigmoid((value - duty) * _choice((2.0, 6.0, 20.0), shape))
    if bend:
        value = _warp(value, bend, period * 3 + 8, generator)
    return torch.stack([value, value], 1)


def _cells(count: int, size: int, shape: torch.Generator, generator: torch.Generator) -> Tensor:
    """Worley (1996) cells: flat, outlined, or by distance to the nearest points."""
    variant = _choice(("flat", "outlined", "distance", "edges"), shape)
    cells = int(2 ** _uniform(3.5, 8.3, shape))
    stretch, angle = _choice((1.0, 1.0, 2.0, 4.0), shape), _uniform(0, math.pi, shape)
    x, y = _grid(size)
    turn = torch.tensor(
        [
            [math.cos(angle), math.sin(angle)],
            [-stretch * math.sin(angle), stretch * math.cos(angle)],
        ]
    )
    pixels = torch.stack([x.flatten(), y.flatten()], 1)
    points = torch.rand((count, cells, 2), generator=generator) * (size * 1.3) - 0.15 * size
    shade = torch.rand((count, cells), generator=generator)
    distance = torch.cdist((pixels @ turn.T).expand(count, -1, -1), points @ turn.T)
    (first, second), nearest = (part.movedim(-1, 0) for part in distance.topk(2, largest=False))
    spacing = size / math.sqrt(cells)
    flat = shade.gather(1, nearest[0])
    edge = ((second - first) / (0.25 * spacing)).clamp(max=1)
    round_ = (first / (spacing * stretch**0.5)).clamp(max=1)
    value = {
        "flat": lambda: flat,
        "outlined": lambda: flat * edge,
        "distance": lambda: 1 - round_,
        "edges": lambda: edge,
    }[variant]()
    return torch.stack([value, edge - 0.5 * round_], 1).view(count, 2, size, size)


def _strokes(count: int, size: int, shape: torch.Generator, generator: torch.Generator) -> Tensor:
    """Brush strokes of one width and length laid over one another along a flow field."""
    width, length = 2 ** _uniform(0.4, 2.6, shape), 2 ** _uniform(2.5, 5.0, shape)
    swirl, scatter = _choice((0.0, 0.5, 1.2, 2.5), shape), _choice((0.0, 0.15, 0.5), shape)
    angle, coherent = _uniform(0, math.pi, shape), _choice((0.0, 0.6, 0.9), shape)
    bristle = _choice((0.0, 0.25, 0.6), shape)
    steps = max(4, round(length / 1.5))
    flow = angle + swirl * filtered_noise(count, size, 40.0, 0.4, 0.0, 1.0, generator)
    ground = filtered_noise(count, size, 36.0, 0.5, 0.0, 1.0, generator) * 0.25 + 0.5
    strokes = max(24, round(1.7 * size**2 / (2 * width * length)))
    position = torch.rand((count, strokes, 2), generator=generator) * (size - 1)
    turn = scatter * torch.randn((count, strokes), generator=generator)
    each = torch.rand((count, strokes), generator=generator)
    index = torch.arange(count)[:, None]

    def look_up(field: Tensor, at: Tensor) -> Tensor:
        cell = at.round().long().clamp(0, size - 1)
        return field[index, cell[..., 1], cell[..., 0]]

    value = coherent * look_up(ground, position) + (1 - coherent) * each
    path = [position]
    for _ in range(steps - 1):
        direction = look_up(flow, path[-1]) + turn
        path.append(path[-1] + 1.5 * torch.stack([direction.cos(), direction.sin()], -1))
    return _draw(torch.stack(path, 2), value, width, bristle, size)


def _draw(path: Tensor, value: Tensor, width: float, bristle: float, size: int) -> Tensor:
    """Paint paths (N, strokes, steps, 2) as (N, 2, S, S); later strokes cover earlier ones."""
    count, strokes = path.shape[:2]
    reach = math.ceil(width)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float32)
    offset = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(-1, 2)
    offset = offset[offset.norm(dim=1) <= max(width, 0.5)]
    tangent = functional.normalize(path.diff(dim=2), dim=-1)
    tangent = torch.cat([tangent, tangent[:, :, -1:]], 2)
    normal = torch.stack([-tangent[..., 1], tangent[..., 0]], -1)
    pixel = (path[..., None, :] + offset).round().long()
    side = ((pixel - path[..., None, :]) * normal[..., None, :]).sum(-1)
    inside = ((pixel >= 0) & (pixel < size)).all(-1)
    order = torch.arange(strokes)[None, :, None, None].expand(pixel.shape[:-1])
    # the winner of a pixel is the last stroke; of its dabs, any: `side` is nearly the same for all
    key = (order * 64 + ((side / (width + 1) * 31).round().long() + 32).clamp(0, 63)) * inside
    target = (pixel[..., 1] * size + pixel[..., 0]).clamp(0, size * size - 1)
    canvas = torch.zeros(count, size * size, dtype=torch.long)
    canvas.scatter_reduce_(1, target.flatten(1), key.flatten(1), "amax")
    colour = value.gather(1, canvas // 64)
    across = (canvas % 64 - 32) / 31 * (width + 1)
    colour = colour + bristle * 0.3 * torch.sin(across * 2.1 + colour * 40)
    height = (1 - (across / (width + 1)) ** 2) * 0.6 + 0.4 * torch.sin(across * 2.1) * bristle
    return torch.stack([colour, height], 1).view(count, 2, size, size)


def _blobs(count: int, size: int, shape: torch.Generator, generator: torch.Generator) -> Tensor:
    """Noise quantised to a few levels: patches of flat colour, with or without grain."""
    wavelength, levels = 2 ** _uniform(2.5, 5.2, shape), _choice((2, 3, 4, 6), shape)
    anisotropy, angle = _choice((1.0, 1.0, 3.0), shape), _uniform(0, math.pi, shape)
    grain, bend = _choice((0.0, 0.1, 0.25), shape), _choice((0.0, 0.0, 4.0), shape)
    x = filtered_noise(count, size, wavelength, 0.5, angle, anisotropy, generator)
    if bend:
        x = _warp(x, bend, 20.0, generator)
    x = (_equalise(x) * levels).floor().clamp(max=levels - 1) / max(1, levels - 1)
    fine = filtered_noise(count, size, 3.0, 0.5, angle, 2.0, generator)
    return torch.stack([x * 0.8 + 0.1 + grain * 0.5 * fine, x + 0.3 * grain * fine], 1)


# strokes three times: they matter most in paintings
FAMILIES: tuple[Callable[..., Tensor], ...] = (
    _strokes, _noise, _strokes, _cells, _turbulence, _strokes, _periodic, _blobs,
)  # fmt: skip


def make_bank(kinds: int, per_kind: int, size: int = 96, seed: int = 0) -> TextureBank:
    """Generate `kinds` classes of texture, `per_kind` instances each, the same for the same seed.

    Args:
        kinds: number of classes; families alternate.
        per_kind: instances of each class.
        size: side, pixels.
        seed: classes and instances follow from it.

    Returns:
        kinds * per_kind textures, in the order of their classes.
    """
    shape, generator = (torch.Generator().manual_seed(seed + offset) for offset in (0, 10**6))
    maps = [
        FAMILIES[kind % len(FAMILIES)](per_kind, size, shape, generator) for kind in range(kinds)
    ]
    structure = (torch.cat(maps).clamp(0, 1) * 255).round().to(torch.uint8)
    return TextureBank(structure, torch.arange(kinds).repeat_interleave(per_kind))


def random_palettes(count: int, generator: torch.Generator, colours: int = 5) -> Tensor:
    """Palettes (count, colours, 3) in [0, 1]: a base colour, its variations, some contrasts."""
    base = torch.rand((count, 1, 3), generator=generator)
    free = torch.rand((count, colours, 3), generator=generator)
    spread = torch.rand((count, 1, 1), generator=generator)
    return torch.lerp(base.expand_as(free), free, 0.15 + 0.85 * spread)


def colourise(structure: Tensor, palettes: Tensor, relief: Tensor) -> Tensor:
    """Colour structures: channel 0 from the palette, light from the upper left on the relief.

    Args:
        structure: (B, 2, h, w) uint8 or float in [0, 255].
        palettes: (B, K, 3), interpolated linearly.
        relief: (B,) strength of the light, 0 for none.

    Returns:
        (B, 3, h, w) in [0, 1].
    """
    value, height = (structure.float() / 255).unbind(1)
    last = palettes.shape[1] - 1
    position = value.flatten(1) * last
    low = position.floor().long().clamp(0, last - 1)

    def look_up(index: Tensor) -> Tensor:
        return palettes.gather(1, index[..., None].expand(-1, -1, 3))

    colour = torch.lerp(look_up(low), look_up(low + 1), (position - low)[..., None])
    slope = torch.zeros_like(height)
    slope[:, 1:, 1:] = height[:, 1:, 1:] - height[:, :-1, :-1]
    light = 1 + relief[:, None] * slope.flatten(1)
    return (colour * light[..., None]).clamp(0, 1).movedim(2, 1).view(-1, 3, *value.shape[1:])
