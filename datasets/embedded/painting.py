"""The demo painting: a swirling sky over hills and a field, laid down stroke by stroke in oil."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.errors import UserError
from utils.files import replacing

Array = NDArray[np.float64]

OVERSAMPLING = 2  # the canvas is painted this much larger, then averaged
PATH_STEPS = 24
GROUND = "7a4a26"  # the toned canvas, seen where the brush ran dry
SKY = ("0d1a4f", "14308a", "1f55b5", "2f83c9", "5fb0cf", "a9d6d2", "f3ead0", "f8d85a", "f6b32c")
HILLS = ("101a3f", "1c2f6b", "2a4a7f", "1f6a6b", "4f8f6a", "8a6fa0")
FIELD = ("4a2a1a", "8a4a1c", "c07a22", "dba12c", "f2c230", "f8e39a")
ACCENTS = ("d8341f", "e8591c", "b3202c")

# width (of the shorter side), length (in widths), coverage, share of accents in the field
LAYERS = (
    (0.085, 5.0, 3.2, 0.0),
    (0.050, 6.0, 2.2, 0.05),
    (0.030, 7.0, 1.7, 0.1),
    (0.018, 7.0, 1.2, 0.15),
    (0.011, 7.0, 0.5, 0.2),
    (0.016, 1.6, 0.16, 0.7),
)


# centre (of the width, of the height), size (of the shorter side), strength; the first is the sun
WHIRLS = (
    (0.74, 0.27, 0.14, 3.2),
    (0.27, 0.31, 0.16, 1.7),
    (0.50, 0.10, 0.10, -1.3),
    (0.05, 0.09, 0.10, -1.2),
    (0.50, 0.44, 0.08, -1.4),
    (0.95, 0.05, 0.08, 1.7),
    (0.95, 0.48, 0.07, -1.8),
)


@dataclass(frozen=True)
class Composition:
    """What is to be painted, per canvas pixel.

    Attributes:
        flow: (H, W, 2) unit direction (x, y) of the brush.
        tone: (H, W) position on the palette of its region, in [0, 1].
        region: (H, W) 0 sky, 1 hills, 2 field.
    """

    flow: Array
    tone: Array
    region: NDArray[np.int64]


def write_demo_painting(path: Path, size: tuple[int, int] = (512, 384), seed: int = 0) -> None:
    """Paint the demo painting and write it as a PNG, whole or not at all.

    Args:
        path: the file to write.
        size: (width, height) in pixels.
        seed: another seed, another painting of the same motif.

    Raises:
        UserError: the size is not positive, or the file cannot be written.
    """
    if min(size) < 1:
        raise UserError(f"demo painting: size {size} is below 1; use a positive width and height")
    image = Image.fromarray(paint(size, seed))
    with replacing(path) as partial:
        image.save(partial, format="PNG")


def paint(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """The demo painting as (H, W, 3) uint8 sRGB; ``size`` is (width, height) in pixels."""
    rng = np.random.default_rng(seed)
    shape = (size[1] * OVERSAMPLING, size[0] * OVERSAMPLING)
    motif = _compose(rng, shape)
    canvas = np.tile(_colours((GROUND,))[0], (*shape, 1))
    relief = np.zeros(shape)
    for layer in LAYERS:
        _lay(rng, motif, canvas, relief, *layer)
    canvas = _light(canvas, relief)
    k = OVERSAMPLING
    canvas = canvas.reshape(size[1], k, size[0], k, 3).mean(axis=(1, 3))
    return (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _colours(codes: tuple[str, ...]) -> Array:
    return np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in codes])


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Array:
    """Smooth noise (H, W) around 0; ``cell`` is the size of its blobs, of the shorter side."""
    rows, columns = (max(2, round(n / (cell * min(shape)))) + 1 for n in shape)
    grid = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
    return np.asarray(grid.resize(shape[::-1], Image.Resampling.BICUBIC), dtype=np.float64)


# ---- the motif ----------------------------------------------------------------------------------


def _compose(rng: np.random.Generator, shape: tuple[int, int]) -> Composition:
    """Sky, hills and field: where they are, how the brush moves, how light they are."""
    height, width = shape
    unit = min(shape)
    y, x = np.mgrid[:height, :width] / unit
    right, bottom = width / unit, height / unit
    crest = bottom * (0.60 + 0.05 * np.sin(2.2 * x + 0.6) + 0.02 * np.sin(7 * x))
    brow = bottom * (0.76 - 0.05 * np.sin(1.9 * x + 0.2) + 0.012 * np.sin(9 * x + 1))
    region = (y > crest).astype(np.int64) + (y > brow)

    stream = 0.9 * y + 0.10 * np.sin(3.1 * x + 2 * y) + 0.05 * _noise(rng, shape, 0.3)
    glow = np.zeros(shape)
    for fx, fy, size, sense in WHIRLS:
        r = np.hypot(x - fx * right, y - fy * bottom) / size
        stream += sense * size * np.exp(-0.5 * r * r)
        glow += 0.07 * np.exp(-0.5 * (r / 0.6) ** 2)
    distance = np.hypot(x - WHIRLS[0][0] * right, y - WHIRLS[0][1] * bottom)
    glow += 0.55 * np.exp(-((distance / 0.17) ** 2)) + 0.5 * (distance < 0.075)

    furrows = y + 0.35 * (y - bottom) * np.sin(2.5 * x - 0.7) + 0.02 * _noise(rng, shape, 0.2)
    hills = y - 0.8 * (crest - bottom * 0.6) + 0.05 * _noise(rng, shape, 0.25)
    stream = np.choose(region, [stream, hills, furrows])
    flow = np.stack([np.gradient(stream, axis=0), -np.gradient(stream, axis=1)], axis=-1)
    flow /= np.linalg.norm(flow, axis=-1, keepdims=True) + 1e-9

    fine = 0.5 * _noise(rng, shape, 0.12) + 0.5 * _noise(rng, shape, 0.05)
    glow += 0.5 * np.exp(-(((y - crest) / 0.13) ** 2))
    sky = 0.26 + 0.17 * np.sin(42 * stream) + 0.05 * fine + glow
    slope = 0.42 + 0.22 * np.sin(48 * stream) + 0.10 * fine
    grain = 0.56 + 0.2 * np.sin(60 * stream) + 0.1 * fine - 0.25 * (y - brow)
    tone = np.choose(region, [sky, slope, grain]).clip(0, 1)
    return Composition(flow, tone, region)


def _pigments(
    rng: np.random.Generator, region: NDArray[np.int64], tone: Array, accents: float
) -> Array:
    """A colour (N, 3) for each stroke: near its place on the palette, never quite on it."""
    tone = (tone + rng.normal(0, 0.055, tone.shape)).clip(0, 1)
    colour = np.empty((len(tone), 3))
    for i, codes in enumerate((SKY, HILLS, FIELD)):
        palette = _colours(codes)
        place = tone * (len(palette) - 1)
        ramp = [np.interp(place, np.arange(len(palette)), channel) for channel in palette.T]
        colour[region == i] = np.stack(ramp, axis=-1)[region == i]
    chosen = (region == 2) & (rng.random(len(tone)) < accents)
    colour[chosen] = _colours(ACCENTS)[rng.integers(len(ACCENTS), size=chosen.sum())]
    return colour + rng.normal(0, 0.02, colour.shape)


# ---- the brush ----------------------------------------------------------------------------------


def _lay(
    rng: np.random.Generator,
    motif: Composition,
    canvas: Array,
    relief: Array,
    width: float,
    length: float,
    coverage: float,
    accents: float,
) -> None:
    """One layer of strokes of one brush, in place."""
    shape = relief.shape
    width = max(width * min(shape), 2.0)
    length *= width
    count = max(1, round(coverage * shape[0] * shape[1] / (width * length)))
    middle = rng.random((count, 2)) * (shape[1], shape[0])
    paths = _paths(motif.flow, middle, length * rng.uniform(0.6, 1.3, count))
    pixel = _inside(middle, shape)
    region, tone = motif.region[pixel], motif.tone[pixel]
    first = _pigments(rng, region, tone, accents)
    second = _pigments(rng, region, (tone + rng.normal(0.05, 0.12, count)).clip(0, 1), 0.0)
    widths = width * rng.uniform(0.7, 1.2, count)
    for i in range(count):
        _stroke(rng, canvas, relief, paths[i], widths[i], first[i], second[i])


def _inside(points: Array, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels nearest to points (..., 2) of (x, y)."""
    column = points[..., 0].astype(np.int64).clip(0, shape[1] - 1)
    return points[..., 1].astype(np.int64).clip(0, shape[0] - 1), column


def _paths(flow: Array, middle: Array, length: Array) -> Array:
    """Streamlines (N, PATH_STEPS + 1, 2) around ``middle (N, 2)``, pixels."""
    halves = []
    for sense in (-1, 1):
        points = [middle]
        for _ in range(PATH_STEPS // 2):
            step = sense * (length / PATH_STEPS)[:, None]
            points.append(points[-1] + step * flow[_inside(points[-1], flow.shape)])
        halves.append(points)
    return np.stack(halves[0][:0:-1] + halves[1], axis=1)


def _stroke(
    rng: np.random.Generator,
    canvas: Array,
    relief: Array,
    path: Array,
    width: float,
    first: Array,
    second: Array,
) -> None:
    """Draw one stroke in place: bristles, two half-mixed pigments, dry at the end."""
    along = max(4, int(1.9 * np.linalg.norm(np.diff(path, axis=0), axis=1).sum()))
    across = max(3, int(1.4 * width))
    t = np.linspace(0, 1, along)
    x, y = (np.interp(t * PATH_STEPS, np.arange(PATH_STEPS + 1), path[:, i]) for i in (0, 1))
    dx, dy = np.gradient(x), np.gradient(y)
    norm = np.hypot(dx, dy) + 1e-9
    v = np.linspace(-1, 1, across)
    half = 0.5 * width * np.sqrt(np.minimum(1, t / 0.06)) * (1 - 0.45 * t**3)
    column = np.rint(x[:, None] - (dy / norm * half)[:, None] * v).astype(np.int64)
    row = np.rint(y[:, None] + (dx / norm * half)[:, None] * v).astype(np.int64)

    bristle = np.interp(v, np.linspace(-1, 1, across // 3 + 2), rng.random(across // 3 + 2))
    load = bristle * 0.7 + 0.5 - 0.75 * t[:, None] ** 2 * (1 + 0.5 * np.abs(v))
    wet = load + rng.uniform(-0.12, 0.12, load.shape) > 0.12
    wet &= (row >= 0) & (row < relief.shape[0]) & (column >= 0) & (column < relief.shape[1])
    blend = np.interp(v, np.linspace(-1, 1, 5), rng.random(5)) ** 2
    streak = first + (second - first) * blend[:, None] + 0.13 * (bristle[:, None] - 0.5)
    ridge = 0.5 * bristle + 0.35 * np.abs(v) ** 4
    thickness = (0.35 + ridge) * (0.7 + 0.3 * t[:, None]) * min(width, 0.018 * min(relief.shape))
    row, column = row[wet], column[wet]
    canvas[row, column] = np.broadcast_to(streak, (*load.shape, 3))[wet]
    relief[row, column] = 0.35 * relief[row, column] + np.broadcast_to(thickness, load.shape)[wet]


def _light(canvas: Array, relief: Array) -> Array:
    """Raking light from the upper left over the thickness of the paint."""
    soft = sum(np.roll(relief, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    gy, gx = np.gradient(soft)
    slope = np.tanh(0.35 * (gx + 1.2 * gy))
    shaded = canvas * (1 + 0.28 * slope[..., None])
    return shaded + 0.10 * np.maximum(slope - 0.45, 0)[..., None]
