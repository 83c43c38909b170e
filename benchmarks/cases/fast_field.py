"""How soon the voxel field is how good, on views that it has not seen; and how good the plain twin
is after the same time."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.inputs import demo_directory
from benchmarks.measure import clock
from benchmarks.plain import PlainGeometry, PlainScene
from benchmarks.settings import ROOT, Settings
from benchmarks.table import Row
from benchmarks.work import geometry_system, train
from datasets.cameras.rays import Cameras, Rays
from datasets.load import load_scene
from datasets.pixels import TrainingPixels
from datasets.scene import Scene, View
from models.renderer import Renderer
from opt import parse_train
from systems.geometry import new_renderer
from systems.system import System

TARGETS = (20.0, 25.0, 28.0, 30.0, 32.0)  # dB
DEMO_SIZE = 128  # as in `make demo`
LEGO_STEPS = 2000  # as the README's figure
JUDGED = 4096  # pixels of the test views that a quality is measured on
JUDGED_PLAIN = 1024
GROWTH = 1.5  # from one look at the quality to the next, in steps
NEVER = "1000000"


def run_case(settings: Settings) -> list[Row]:
    """Rows of the demo scene, and of lego where it was given."""
    size = 24 if settings.quick else DEMO_SIZE
    steps = ["--max_steps", "20", "--voxel_resolution", "24"] if settings.quick else []
    rows = _rows(settings, "demo", demo_directory(settings, size), "demo", steps)
    if settings.lego is not None:
        steps = steps or ["--max_steps", str(LEGO_STEPS)]
        rows += _rows(settings, "lego", settings.lego, "lego_fast", steps)
    return rows


class Curve(pl.Callback):
    """Quality against the seconds of training, looking left out.

    Args:
        system: that is trained.
        renderer: its renderer.
        rays: N rays on the device.
        truth: (N, 3) their colours.

    Attributes:
        points: (step, seconds, dB).
    """

    def __init__(
        self, system: System, renderer: Renderer, rays: Rays, truth: Tensor, device: str
    ) -> None:
        self.system, self.renderer = system, renderer
        self.rays, self.truth, self.device = rays, truth, device
        self.points: list[tuple[int, float, float]] = []
        self.next = 10

    def on_train_start(self, *_: object) -> None:
        self.begun = clock(self.device)

    def on_train_batch_end(self, *_: object) -> None:
        done = self.system.done
        if done < self.next and done != self.system.n_steps:
            return
        self.next = math.ceil(done * GROWTH)
        now = clock(self.device)
        with torch.no_grad():
            seen = torch.cat([self.renderer(self.rays[part]).rgb for part in _parts(self.rays)])
        self.points.append((done, now - self.begun, decibels(seen, self.truth)))
        self.begun += clock(self.device) - now

    def seconds_to(self, quality: float) -> float | None:
        """Training time until ``quality`` dB, or None."""
        return next((s for _, s, q in self.points if q >= quality), None)


def _parts(rays: Rays) -> list[slice]:
    return [slice(i, i + 1024) for i in range(0, len(rays), 1024)]


def decibels(seen: Tensor, truth: Tensor) -> float:
    """PSNR of colours (N, 3)."""
    return -10 * float((seen - truth).square().mean().log10())


def _pixels(views: list[View], scene: Scene, n: int, device: str) -> tuple[Rays, Tensor]:
    """``n`` pixels, the same every time: their rays and colours."""
    pixels, _ = TrainingPixels.of(views)
    flat = pixels.draw(n, torch.Generator().manual_seed(1))
    cameras = Cameras.within(scene, views).to(device)
    rays = cameras.rays(*(part.to(device) for part in pixels.locate(flat)))
    return rays, pixels.colours(flat).to(device)


def _rows(settings: Settings, name: str, root: Path, config: str, steps: list[str]) -> list[Row]:
    device = settings.device
    words = ["--stage", "geometry", "--root_dir", str(root), "--device", device]
    words += ["--config", str(ROOT / "configs" / f"{config}.yaml"), "--val_every", NEVER]
    options = parse_train([*words, *steps])
    scene = load_scene(options)
    renderer = new_renderer(options, scene)
    system = geometry_system(options, scene, renderer)
    curve = Curve(system, renderer, *_pixels(scene.test, scene, JUDGED, device), device)
    train(system, settings, curve)
    step, seconds, quality = curve.points[-1]
    details = {"curve": curve.points}
    rows = []
    for target in TARGETS:
        reached = curve.seconds_to(target)
        if reached is not None:
            rows.append(Row("fast_field", f"{name}, to {target:g} dB", reached))
    end = Row("fast_field", f"{name}, whole run", seconds, details=details)
    end.note = f"{step} steps, {quality:.2f} dB on held-out pixels"
    if settings.plain:
        steps_done, plain_quality = _plain_for(seconds, settings, scene)
        ours = curve.seconds_to(plain_quality)
        end.plain, end.ratio = seconds, None if ours is None else seconds / ours
        end.note += (
            f"; plain NeRF after the same time: {steps_done} steps, {plain_quality:.2f} dB, which "
            f"ours has after {'–' if ours is None else f'{ours:.2g} s'}: the ratio"
        )
        details |= {"plain_steps": steps_done, "plain_db": plain_quality}
    return [*rows, end]


def _plain_for(seconds: float, settings: Settings, scene: Scene) -> tuple[int, float]:
    """Trains the plain twin for ``seconds``; its steps and quality."""
    device, batch = settings.device, 16 if settings.quick else 1024
    torch.manual_seed(0)
    plain = PlainGeometry(PlainScene().to(device))
    pixels = TrainingPixels.of(scene.train)[0].to(device)
    cameras = Cameras.within(scene, scene.train).to(device)
    generator, steps, begun = torch.Generator().manual_seed(0), 0, time.perf_counter()
    while clock(device) - begun < seconds:
        flat = pixels.draw(batch, generator)
        plain.step(cameras.rays(*pixels.locate(flat)), pixels.colours(flat))
        steps += 1
    rays, truth = _pixels(
        scene.test, scene, settings.share if settings.quick else JUDGED_PLAIN, device
    )
    return steps, decibels(plain.scene.view(rays), truth)
