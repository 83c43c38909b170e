"""One step of stage 1, on 1024 rays of the demo scene."""

from __future__ import annotations

import torch

from benchmarks.inputs import RENDERERS, learning_scene, options_for
from benchmarks.measure import Contest, ratio
from benchmarks.plain import PlainGeometry, PlainScene
from benchmarks.settings import Settings
from benchmarks.table import Row
from benchmarks.work import Pieces, Turns, Work, WorkCounter, floor_of, geometry_system, train
from datasets.cameras.rays import Cameras, Rays
from datasets.scene import Scene
from utils.machine import product_type

RAYS = 1024
ENDLESS = "1000000"  # steps of a run that is stopped when enough has been seen


def run_case(settings: Settings) -> list[Row]:
    """A row per field; the field has its geometry already, as in most of a training."""
    return [_row(settings, field) for field in settings.fields]


def _row(settings: Settings, field: str) -> Row:
    root, scene = learning_scene(settings)
    batch = settings.share if settings.quick else RAYS
    more = ["--batch_size", str(batch), "--max_steps", ENDLESS]
    options = options_for(settings, "geometry", field, root, *more)
    renderer = RENDERERS[field](settings)
    system = geometry_system(options, scene, renderer)
    contest = Contest(settings.device, settings.turns, settings.budget)
    counter = WorkCounter(renderer)

    def others() -> Pieces:
        return {"plain": plain_step(scene, settings.device, batch)} if settings.plain else {}

    train(system, settings, Turns(contest, others, counter))
    dtype = product_type("auto", settings.device)
    row = Row("geometry_step", f"{field}, {batch} rays", contest.median("ours"))
    row.floor = floor_of(counter, settings, dtype, training=True)
    row.memory = contest.bytes["ours"]
    row.note = counter.note(batch, "ray", dtype, training=True)
    if settings.plain:
        row.plain = contest.median("plain")
        row.ratio = ratio(contest.seconds["plain"], contest.seconds["ours"])
        row.plain_memory = contest.bytes["plain"]
    row.details = {"seconds": contest.seconds, "flops": counter.flops}
    return row


def plain_step(scene: Scene, device: str, batch: int) -> Work:
    """A step of the plain twin on random pixels, whose rays are all in memory, as there."""
    cameras = Cameras.within(scene, scene.train).to(device)
    views = [cameras.view_rays(index) for index in range(len(cameras))]
    names = ("origins", "directions", "near", "far")
    rays = Rays(*(torch.cat([getattr(view, name) for view in views]) for name in names))
    colours = torch.cat([view.image.reshape(-1, 3) for view in scene.train]).to(device) / 255
    plain = PlainGeometry(PlainScene().to(device))

    def step() -> None:
        index = torch.randint(len(rays), (batch,), device=device)
        plain.step(rays[index], colours[index])

    return step
