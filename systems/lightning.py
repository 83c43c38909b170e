"""Everything that reaches into Lightning, tested with 2.4 to 2.6: its steps, processes, progress,
logs and exits."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from opt import TrainOptions
from systems.launch import world
from systems.run import Run
from systems.system import System
from utils.machine import trainer_precision
from utils.team import Team

LOG_EVERY = 20
SAVE_AFTER = 120.0  # seconds without a checkpoint, at most


class LightningEngine:
    """What a system's tasks see of Lightning: see `Engine`."""

    def __init__(self, module: pl.LightningModule) -> None:
        self.module = module

    @property
    def device(self) -> torch.device:
        return self.module.device

    @property
    def team(self) -> Team:
        return Team.current()

    def autocast(self) -> AbstractContextManager:
        return self.module.trainer.precision_plugin.forward_context()

    def scaled(self, x: Tensor) -> Tensor:
        scaler = getattr(self.module.trainer.precision_plugin, "scaler", None)
        return x if scaler is None else scaler.scale(x)

    def record(self, step: int, scalars: Mapping[str, Tensor | float]) -> None:
        if step % LOG_EVERY == 0:
            for name, value in scalars.items():
                self.record_value(step, name, value.item() if isinstance(value, Tensor) else value)

    def record_value(self, step: int, name: str, value: float) -> None:
        if self.module.logger is not None:
            self.module.logger.experiment.add_scalar(name, value, step)

    def record_image(self, step: int, name: str, image: Tensor) -> None:
        if self.module.logger is not None:
            board = self.module.logger.experiment
            board.add_image(name, image.clamp(0, 1).cpu(), step, dataformats="HWC")

    def show(self, name: str, value: Tensor | float) -> None:
        self.module.shown[name] = value


class LightningSystem(pl.LightningModule):
    """A system as Lightning trains it: the batches are step numbers.

    Args:
        system: to be trained.
        run: where its checkpoints go.
        after_step: called after every step; it must leave the system as it is.
    """

    def __init__(
        self, system: System, run: Run, after_step: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.system = system
        self.run = run
        self.after_step = after_step
        self._saved_at = time.monotonic()
        self.shown: dict[str, Tensor | float] = {}  # on the progress bar, by name

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.system.make_optimizer()

    def train_dataloader(self) -> Iterable[int]:
        return DataLoader(range(self.system.done, self.system.n_steps), batch_size=None)

    def on_fit_start(self) -> None:
        self.system.start(LightningEngine(self))

    def training_step(self, step: int, _: int) -> None:
        if self.system.before_step(step):
            self.trainer.strategy.optimizers = [self.configure_optimizers()]
        optimizer = self.optimizers()
        self.system.step(step, optimizer.optimizer, optimizer.step)

    def on_train_batch_end(self, *_: object) -> None:
        if self.after_step is not None:
            self.after_step()
        if self.system.done == self.system.n_steps or not self._due():
            return
        self.system.gather()
        self._saved_at = time.monotonic()
        if self.trainer.is_global_zero:
            self.run.save(self.system.unfinished(self.trainer.optimizers[0]))

    def _due(self) -> bool:
        """Whether it is time to save: after so many steps, and where steps are slow, and no other
        process has to do it at the same step, after so many seconds."""
        late = time.monotonic() - self._saved_at > SAVE_AFTER
        alone = self.trainer.world_size == 1
        return self.system.done % self.system.options.checkpoint_every == 0 or (late and alone)

    def on_train_end(self) -> None:
        if self.system.done == self.system.n_steps:
            self.system.finish()


class ProgressBar(TQDMProgressBar):
    """A bar for each phase of a system; a resumed run's begins where it goes on.  Asks for the
    numbers that it shows when it shows them: a GPU has to finish for them."""

    phase = ""  # whose bar is there

    @property
    def train_description(self) -> str:
        return self.phase

    def on_train_start(self, *_: Any) -> None:
        """The first step says whose bar it is."""

    def on_train_epoch_start(self, *_: Any) -> None:
        """As above."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: LightningSystem, step: int, _: int
    ) -> None:
        phase, at, total = module.system.phase(step)
        if phase == self.phase:
            return
        if self.phase:
            self.train_progress_bar.close()
        self.phase = phase
        bar = self.train_progress_bar = self.init_train_tqdm()
        bar.total, bar.initial, bar.n = total, at, at
        bar.refresh()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: LightningSystem, outputs: Any, step: int, _: int
    ) -> None:
        _, at, total = module.system.phase(step)
        if self.is_enabled and ((at + 1) % self.refresh_rate == 0 or at + 1 == total):
            self.train_progress_bar.n = at + 1
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, module))

    def get_metrics(self, trainer: pl.Trainer, module: LightningSystem) -> dict[str, Any]:
        numbers = {name: float(value) for name, value in module.shown.items()}
        return super().get_metrics(trainer, module) | numbers


class TeamStrategy(DDPStrategy):
    """Processes whose training steps add up their gradients themselves (`utils/team.py`).

    DistributedDataParallel would do it in hooks on each parameter; ours come and go as a field
    grows, are sums over a step's chunks, and have to be the same as one process's.
    """

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return model

    def _register_ddp_hooks(self) -> None:
        pass


def processes(num_gpus: int, num_nodes: int) -> dict[str, Any]:
    """Arguments of Lightning's trainer for the options --num_gpus and --num_nodes."""
    devices, nodes = world(num_gpus, num_nodes)
    strategy = TeamStrategy() if devices * nodes > 1 else "auto"
    return {"devices": devices, "num_nodes": nodes, "strategy": strategy}


def fit(
    system: System,
    run: Run,
    options: TrainOptions,
    device: str,
    after_step: Callable[[], None] | None = None,
) -> bool:
    """Trains ``system`` to its end.

    Args:
        device: "cuda" or "cpu".
        after_step: see `LightningSystem`.

    Returns:
        Whether this is the process that writes results.

    Raises:
        UserError, NumericalError: as the system does; what was trained so far is in ``run``.
    """
    _quiet()
    trainer = pl.Trainer(
        accelerator=device,
        **processes(options.num_gpus, options.num_nodes),
        use_distributed_sampler=False,
        precision=trainer_precision(options.precision, device),
        max_epochs=1,
        logger=TensorBoardLogger(options.log_dir, name=run.directory.name, version=""),
        log_every_n_steps=10,
        callbacks=[ProgressBar(refresh_rate=10)],
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(LightningSystem(system, run, after_step))
    system.gather()
    return trainer.is_global_zero


def _quiet() -> None:
    """Leaves Lightning's progress bar, without its advice."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # the "data loader" yields step numbers: workers would not help
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*treespec.*")
