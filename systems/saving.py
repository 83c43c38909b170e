"""Writes the checkpoints of an unfinished run while it trains."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl
from torch import Tensor

from datasets.scene import Scene
from opt import TrainOptions
from systems.base import TrainingSystem
from systems.checkpoints import field_payload, run_directory
from utils.checkpoint import rotate, save_checkpoint, step_path

KEPT = 2  # the newest, and the one before it in case the newest is damaged


class Checkpointing(pl.Callback):
    """Writes a checkpoint of the whole run every so many steps, and keeps the newest two."""

    def __init__(self, options: TrainOptions, scene: Scene) -> None:
        self.options = options
        self.scene = scene

    def on_train_batch_end(self, trainer: pl.Trainer, system: TrainingSystem, *_: object) -> None:
        if system.done % self.options.checkpoint_every or system.done == system.n_steps:
            return
        system.require_finite_weights()
        system.gather_state()
        if not trainer.is_global_zero:
            return
        directory = run_directory(self.options)
        payload = field_payload(self.options, self.scene, system.renderer)
        payload |= {"step": system.done, "optimizer": plain(trainer.optimizers[0].state_dict())}
        payload |= {"n_steps": system.n_steps, **system.unfinished_state()}
        save_checkpoint(step_path(directory, system.done), payload)
        rotate(directory, KEPT)


def plain(value: object) -> object:
    """A copy of an optimiser's state in plain containers, its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
