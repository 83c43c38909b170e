"""Steps of our systems in turns with others, and how much work there is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from math import prod

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Contest, bandwidth, clock, matrix_rate
from benchmarks.settings import Settings
from datasets.scene import Scene
from models.checkpoint import Checkpoint
from models.field import Field
from models.mlp import fused_exists
from models.renderer import Renderer
from opt import TrainOptions
from systems.geometry import length_of, training_pixels
from systems.growth import final_resolution
from systems.lightning import LightningSystem
from systems.photometric_task import PhotometricTask
from systems.run import Run
from systems.system import System, Task
from utils.machine import trainer_precision

Work = Callable[[], object]  # a piece of it that can be timed
Pieces = Mapping[str, Work]
SINGLE = 4  # bytes of a number
CORNERS = 8  # of a voxel


class WorkCounter:
    """What a piece of work has to compute and to fetch, counted the first time it is done.

    Attributes:
        flops: of matrix products and convolutions, backward passes included.
        positions, colours: samples whose density, and whose colour, were asked for.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.flops = self.positions = self.colours = 0
        self._counted = False

    @contextmanager
    def once(self) -> Iterator[None]:
        """Counts what happens inside, the first time; later ones are left alone."""
        if self._counted:
            yield
            return
        self._counted = True
        with ExitStack() as stack:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)  # operations of other threads are not counted
            for module in self.renderer.modules():
                if isinstance(module, Field):
                    for part in (module.geometry, module.style):
                        stack.callback(part.register_forward_pre_hook(self._see).remove)
            counter = stack.enter_context(FlopCounterMode(display=False, custom_mapping=_fused()))
            yield
            self.flops = counter.get_total_flops()

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs) == 1:
            self.positions += len(inputs[0])
        else:
            self.colours += len(inputs[0])

    def table_bytes(self, training: bool) -> int:
        """Bytes that have to move of tables on a grid's vertices, where the field has any: eight
        corners of each sample, thrice when training (read; read and written by the gradient), and
        then Adam over all of them."""
        field = self.renderer.field
        groups = [group for group in field.parameter_groups(None) if group.get("sparse")]
        tables = {id(p) for group in groups for p in group["params"]}
        if not tables:
            return 0
        of_geometry, of_style = (
            sum(p.shape[1] for p in part.parameters() if id(p) in tables)
            for part in (field.geometry, field.style)
        )
        numbers = CORNERS * (self.positions * of_geometry + self.colours * of_style)
        if not training:
            return SINGLE * numbers
        # Adam reads and writes the parameter and two moments, reads the gradient that was zeroed
        return SINGLE * (3 * numbers + 8 * sum(p.numel() for p in field.parameters()))

    def note(self, n: int, unit: str, dtype: torch.dtype, training: bool) -> str:
        """What there was to do for each of ``n`` rays or pixels, and what the floor stands for."""
        samples = f"{self.positions / n:.3g} densities and {self.colours / n:.3g} colours a {unit}"
        work = f"{self.flops / 1e9:.3g} GFLOP in {short(dtype)}"
        if tables := self.table_bytes(training):
            work += f" and {tables / 1e6:.3g} MB of tables"
        return f"{samples}, plain 192; floor: {work}"


def short(dtype: torch.dtype) -> str:
    """A type's name."""
    return str(dtype).removeprefix("torch.")


def _fused() -> dict[object, Callable[..., int]]:
    """Operations of a linear layer in one with its ReLU, which the counter does not know."""
    if not fused_exists(torch.float32):
        return {}
    return {torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * x[0] * prod(weight)}


@cache
def best_rates(device: str, dtype: torch.dtype, quick: bool) -> tuple[float, float]:
    """Operations and bytes a second that this machine is good for, measured now."""
    return matrix_rate(device, dtype, quick), bandwidth(device, quick)


def floor_of(counter: WorkCounter, settings: Settings, dtype: torch.dtype, training: bool) -> float:
    """Seconds that the counted work takes at the machine's best."""
    rate, width = best_rates(settings.device, dtype, settings.quick)
    return counter.flops / rate + counter.table_bytes(training) / width


class Turns(pl.Callback):
    """Times the steps of a system, and lets others take their turns between them.

    Every second step is timed: after another one, as in training, and not after something else that
    has given its memory back to the system.

    Args:
        contest: where the times go.
        others: called once the system is ready; what is to be done after every step.
        counter: of the work in a step, or None.
    """

    def __init__(
        self,
        contest: Contest,
        others: Callable[[], Pieces],
        counter: WorkCounter | None = None,
    ) -> None:
        self.contest = contest
        self.make_others = others
        self.counter = counter
        self.preparation = 0.0  # seconds from the start of fit to the first step
        self._counting = ExitStack()
        self._timed = False

    def on_fit_start(self, *_: object) -> None:
        self.preparation = -clock(self.contest.device)

    def on_train_start(self, *_: object) -> None:
        self.preparation += clock(self.contest.device)
        self.others = self.make_others()

    def on_train_batch_start(self, *_: object) -> None:
        if self.counter is not None:
            self._counting.enter_context(self.counter.once())
        if self._timed:
            self.contest.begin("ours")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self._counting.close()
        self._timed = not self._timed
        if self._timed:
            return
        self.contest.end("ours")
        for name, piece in self.others.items():
            with self.contest.turn(name):
                piece()
        trainer.should_stop = self.contest.over()


def system_of(options: TrainOptions, task: Task) -> System:
    """A system of one task; nothing of it is saved."""

    def checkpoint() -> Checkpoint:
        raise NotImplementedError("a benchmark saves nothing")

    options = replace(options, checkpoint_every=task.n_steps)
    return System(options, [task], task.n_steps, checkpoint)


def geometry_system(options: TrainOptions, scene: Scene, renderer: Renderer) -> System:
    """The system of stage 1."""
    scene, pixels = training_pixels(scene)
    n_steps = length_of(options, pixels)
    resolution = final_resolution(options, scene)
    return system_of(
        options, PhotometricTask(options, scene, renderer, pixels, n_steps, resolution)
    )


def train(
    system: System, settings: Settings, *callbacks: pl.Callback, precision: str = "auto"
) -> None:
    """Trains ``system`` as `pipeline.py` does, until a callback has seen enough."""
    trainer = pl.Trainer(
        accelerator=settings.device,
        devices=1,
        precision=trainer_precision(precision, settings.device),
        max_epochs=1,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(LightningSystem(system, Run(system.options)))
