"""Our style step against the number of pixels: does its time grow with them, and its memory?"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from benchmarks.measure import MEGA, run_outside
from benchmarks.settings import SIZES, Settings
from benchmarks.table import Row, read

CASE = "style_step"


def run_case(settings: Settings) -> list[Row]:
    """A row per size, each from a process of its own, and how time and memory grow."""
    sizes = settings.sizes or ((24, 48) if settings.quick else SIZES)
    rows = []
    for field in settings.fields if settings.full else settings.fields[:1]:
        measured = [_row(settings, field, size) for size in sizes]
        rows += measured
        if len(measured) > 1:
            rows.append(_growth(field, sizes, measured))
    return rows


def _row(settings: Settings, field: str, size: int) -> Row:
    words = ["--sizes", str(size), "--modes", "memory_saving", "--fields", field, "--no-plain"]
    words += ["--device", settings.device, "--rounds", str(settings.turns)]
    if settings.vgg_weights is not None:
        words += ["--vgg_weights", str(settings.vgg_weights.resolve())]
    with tempfile.TemporaryDirectory() as directory:
        words += ["--quick"] * settings.quick
        _, peak, _ = run_outside("-m", "benchmarks", CASE, *words, "--out", directory)
        (inner,), _ = read(Path(directory) / f"{CASE}.json")
    row = Row("pixels", f"{field}, {size} x {size}", inner.ours, floor=inner.floor)
    cache = inner.details["cache"]
    row.memory = peak if settings.device == "cpu" else inner.memory + cache
    row.note = (
        f"{1e6 * inner.ours / size**2:.2g} µs and {row.memory / size**2 / 1e3:.2g} kB a pixel; "
        f"memory of the whole process, {cache / MEGA:.3g} MB of it frozen geometry"
    )
    row.details = {**inner.details, "peak": peak}
    return row


def _growth(field: str, sizes: tuple[int, ...], rows: list[Row]) -> Row:
    span = math.log((sizes[-1] / sizes[0]) ** 2)
    time = math.log(rows[-1].ours / rows[0].ours) / span
    last = math.log(rows[-1].ours / rows[-2].ours) / math.log((sizes[-1] / sizes[-2]) ** 2)
    per_pixel = (rows[-1].memory - rows[0].memory) / (sizes[-1] ** 2 - sizes[0] ** 2)
    note = (
        f"time grows with pixels to the power of {time:.2f} over all sizes, {last:.2f} at the end "
        f"(1: linear); {per_pixel / 1e3:.2g} kB of memory for each further pixel"
    )
    details = {"exponent": time, "last_exponent": last, "bytes_per_pixel": per_pixel}
    return Row("pixels", f"{field}, growth", None, note=note, details=details)
