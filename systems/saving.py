"""Writes the checkpoints of an unfinished run while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytorch_lightning as pl

from models.checkpoint import Checkpoint, Progress, plain_state
from systems.base import TrainingSystem
from systems.run import Run


class Checkpointing(pl.Callback):
    """Writes a checkpoint of the whole run every so many steps.

    Args:
        run: whose checkpoints they are.
        snapshot: the fields and styles as they are now.
    """

    def __init__(self, run: Run, snapshot: Callable[[], Checkpoint]) -> None:
        self.run = run
        self.snapshot = snapshot

    def on_train_batch_end(self, trainer: pl.Trainer, system: TrainingSystem, *_: object) -> None:
        if system.done % self.run.options.checkpoint_every or system.done == system.n_steps:
            return
        system.require_finite_weights()
        system.gather_state()
        if not trainer.is_global_zero:
            return
        optimizers = [plain_state(each.state_dict()) for each in trainer.optimizers]
        task = system.unfinished_state()
        progress = Progress(system.done, system.n_steps, optimizers, task)
        self.run.save(replace(self.snapshot(), progress=progress))
