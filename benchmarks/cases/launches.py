"""What a GPU is asked to do in a step, and how often the processor waits for it, without a GPU."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import pytorch_lightning as pl

from benchmarks.inputs import RENDERERS, learning_scene, one_view, options_for, painting
from benchmarks.pretended import CUDA, Counts, pretended_gpu
from benchmarks.settings import Settings
from benchmarks.table import Row
from benchmarks.work import geometry_system, system_of, train
from datasets.cameras.rays import Cameras
from models.renderer import render_view
from systems.style import make_objective, network_of, term_weights
from systems.style_task import StyleTask
from systems.system import System

RAYS = 256  # of a step; how many there are changes no count
SIDE = 400  # pixels of a frame
STEPS = 4  # that are counted, after as many that are not
ENDLESS = "1000000"
NAMED = 3  # places that a row names


@dataclass
class Launches:
    """Operations and waits of a step or a frame, each with its place; see `Counts`."""

    operations: Counter[tuple[str, str]]
    waits: Counter[tuple[str, str]]
    times: int = 1

    @classmethod
    def since(cls, counts: Counts, times: int = 1) -> Launches:
        """What was counted since the last reset, in so many steps."""
        return cls(Counter(counts.operations), Counter(counts.waits), times)

    def each(self) -> tuple[float, float]:
        """Operations and waits a step."""
        return self.operations.total() / self.times, self.waits.total() / self.times


def run_case(settings: Settings) -> list[Row]:
    """Two rows, operations and waits, for a step of each stage and a frame."""
    rows = [
        ("geometry step", field, geometry_launches(settings, field)) for field in settings.fields
    ]
    for field in settings.fields:
        rows += [
            ("style step", f"{field}, {m}", style_launches(settings, field, m))
            for m in settings.modes
        ]
    rows.append(("frame", "voxels", frame_launches(settings)))
    return [row for what, name, launches in rows for row in _rows(f"{what}, {name}", launches)]


def _rows(what: str, launches: Launches) -> list[Row]:
    operations, waits = launches.each()
    places = Counter()
    for (_, place), n in launches.operations.items():
        places[place.rpartition(":")[0]] += n
    most = (f"{place} {n / launches.times:.0f}" for place, n in places.most_common(NAMED))
    asked = (
        f"{name} in {place} {n / launches.times:g}"
        for (name, place), n in launches.waits.most_common()
    )
    return [
        Row("launches", f"{what}: operations", operations, unit="operations", note=", ".join(most)),
        Row("launches", f"{what}: waits", waits, unit="waits", note=", ".join(asked)),
    ]


class _Steps(pl.Callback):
    """Counts some steps, once the first of them are over."""

    def __init__(self, counts: Counts) -> None:
        self.counts, self.n = counts, 0
        self.launches: Launches | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.n += 1
        if self.n == STEPS:
            self.counts.reset()
        if self.n == 2 * STEPS:
            self.launches = Launches.since(self.counts, STEPS)
            trainer.should_stop = True


def launches_of(system: System) -> Launches:
    """Those of the steps of a system."""
    with pretended_gpu() as counts:
        steps = _Steps(counts)
        train(system, Settings(device="cuda"), steps, precision="32")
    return steps.launches


def geometry_launches(settings: Settings, field: str) -> Launches:
    """A step of stage 1."""
    root, scene = learning_scene(settings)
    more = ["--batch_size", str(RAYS), "--max_steps", ENDLESS, "--precision", "32"]
    options = options_for(replace(settings, device="cpu"), "geometry", field, root, *more)
    return launches_of(geometry_system(options, scene, RENDERERS[field](settings)))


def style_launches(settings: Settings, field: str, mode: str) -> Launches:
    """A step of stage 2 on kept geometry: our own encoder, NNFM and statistics."""
    size = 32 if settings.quick else 64
    words = [
        *("--style_dir", "the-embedded-painting", "--ckpt_path", "written-by-the-benchmark"),
        *("--style_mode", mode, "--small_size", str(size), "--patch_size", str(size)),
        *("--style_init", "random", "--objective", "nnfm", "--features", "own"),
        *("--coarse_share", "0", "--max_steps", ENDLESS, "--precision", "32"),
    ]
    options = options_for(replace(settings, device="cpu"), "style", field, settings.data, *words)
    image, weights = painting(), term_weights(options)
    objective_of = partial(make_objective, options, weights, network_of(options), image)
    renderer = RENDERERS[field](settings)
    scene = one_view(settings, size)
    return launches_of(
        system_of(options, StyleTask(options, scene, renderer, image, objective_of, weights))
    )


def frame_launches(settings: Settings) -> Launches:
    """The second frame of the voxels; the first one copies what stays on the GPU."""
    scene, renderer = one_view(settings, SIDE), RENDERERS["voxels"](settings)
    with pretended_gpu() as counts:
        cameras = Cameras.within(scene, scene.train).to(CUDA)
        renderer.to(CUDA)
        render_view(renderer, cameras, 0)
        counts.reset()
        render_view(renderer, cameras, 0)
        return Launches.since(counts)
