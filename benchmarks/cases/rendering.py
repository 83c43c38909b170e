"""A whole view, as `eval.py` renders it."""

from __future__ import annotations

from benchmarks.inputs import RENDERERS, one_view
from benchmarks.measure import Contest, ratio
from benchmarks.plain import PlainScene
from benchmarks.settings import SIZES, Settings
from benchmarks.table import Row
from benchmarks.work import WorkCounter, floor_of
from datasets.cameras.rays import Cameras
from models.renderer import render_view
from utils.machine import mixed_precision, product_type

# what a laptop's CPU does in minutes; the rest with --full
USUAL = {"voxels": (100, 200, 400), "nerf": (100, 200), "nerf_occupancy": (100, 200)}
QUICK_SIZE = 24


def run_case(settings: Settings) -> list[Row]:
    """A row per field and size."""
    return [_row(settings, f, size) for f in settings.fields for size in _sizes(settings, f)]


def _sizes(settings: Settings, field: str) -> tuple[int, ...]:
    if settings.sizes:
        return settings.sizes
    if settings.quick:
        return (QUICK_SIZE,)
    return SIZES if settings.full else USUAL[field]


def _row(settings: Settings, field: str, size: int) -> Row:
    device = settings.device
    scene = one_view(settings, size)
    cameras = Cameras.within(scene, scene.train).to(device)
    renderer = RENDERERS[field](settings).to(device)
    plain = PlainScene().to(device)
    rays = cameras.view_rays(0)
    n_pixels = len(rays)
    rays = rays[:: max(1, n_pixels // settings.share)][: settings.share]
    counter = WorkCounter(renderer)

    def ours() -> None:
        with counter.once(), mixed_precision("auto", device):
            render_view(renderer, cameras, 0)

    contest = Contest(device, settings.turns, settings.budget)
    contest.take_turns(ours=ours, **({"plain": lambda: plain.view(rays)} if settings.plain else {}))
    row = Row("rendering", f"{field}, {size} x {size}", contest.median("ours"))
    dtype = product_type("auto", device)
    row.floor = floor_of(counter, settings, dtype, training=False)
    row.memory = contest.bytes["ours"]
    row.note = counter.note(n_pixels, "pixel", dtype, training=False)
    if settings.plain:
        times = n_pixels / len(rays)
        whole = contest.sums({"plain": times})
        row.plain = times * contest.median("plain")
        row.ratio = ratio(whole, contest.seconds["ours"])
        row.plain_memory = contest.bytes["plain"]
        if times > 1:
            row.note += f"; plain: scaled from 1/{times:.0f} of the rays"
    row.details = {"seconds": contest.seconds, "flops": counter.flops}
    return row
