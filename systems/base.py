"""What both stages share: steps, seeded randomness, guarded descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from models.checkpoint import Progress, restore_optimizers
from models.renderer import Renderer
from opt import TrainOptions
from systems.gradients import add_gradient
from systems.schedule import make_optimizer, rate_factor
from utils.errors import NumericalError
from utils.machine import memory_in_use, release_memory
from utils.team import Team

LOG_EVERY = 20
KEPT_FREE = 7e8  # bytes, measured: the C library's (see `keep_memory`), and oneDNN's own


class TrainingSystem(pl.LightningModule):
    """A LightningModule whose batches are step numbers.

    Everything random in a step is drawn from generators that are a function of (seed, step), and
    the learning rate is a function of the step: a resumed run continues as if never interrupted.

    Args:
        options: of the run.
        renderer: what is trained.
        n_steps: length of the run.
    """

    def __init__(self, options: TrainOptions, renderer: Renderer, n_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.options = options
        self.renderer = renderer
        self.n_steps = n_steps
        self.first_step = 0
        self.done = 0  # steps whose effect is in the weights
        self._optimizer_states: list[dict[str, Any]] | None = None

    @property
    def team(self) -> Team:
        """The processes that train together."""
        return Team.current()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters and learning rates."""
        raise NotImplementedError

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = make_optimizer(self.options.optimizer, self.parameter_groups())
        if self._optimizer_states is not None:
            restore_optimizers([optimizer], self._optimizer_states)
            self._optimizer_states = None
        return optimizer

    def train_dataloader(self) -> Iterable[int]:
        return DataLoader(range(self.first_step, self.n_steps), batch_size=None)

    def restore(self, progress: Progress) -> None:
        """Continues an unfinished run; the renderer holds its weights already."""
        self.first_step = self.done = progress.step
        self._optimizer_states = progress.optimizers

    def unfinished_state(self) -> dict[str, Any]:
        """What `restore` needs beside the renderer, the optimiser and the step."""
        return {}

    def generator(self, step: int, stream: int = 0, device: str = "cpu") -> torch.Generator:
        """Random numbers of one step; different ``stream`` numbers are independent."""
        key = (self.options.seed * 1_000_003 + step) * 7 + stream
        return torch.Generator(device).manual_seed(key % (1 << 63))

    def descend(self, terms: Mapping[str, Tensor], step: int) -> None:
        """One step of the optimiser on the sum of ``terms``, this process's share of the loss."""
        self.optimizers().zero_grad()
        self.add_gradients(terms, step)
        self.apply_gradients(step)

    def add_gradients(self, terms: Mapping[str, Tensor], step: int) -> None:
        """Adds the gradient of the sum of ``terms`` to that of the weights."""
        self.require_finite(terms, step)
        groups = self.optimizers().param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        add_gradient(self.scaled(sum(terms.values())), parameters)

    def scaled(self, x: Tensor) -> Tensor:
        """A loss, or its gradient, in float16 so large that what is made of it does not vanish;
        the optimiser's step divides by as much."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return x if scaler is None else scaler.scale(x)

    def apply_gradients(self, step: int) -> None:
        """One step of the optimiser with the gradients that are there, summed over the team."""
        optimizer = self.optimizers()
        factor = rate_factor(self.options, step, self.n_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
            if self.team.size > 1:
                for parameter in group["params"]:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    self.team.add(parameter.grad)
        optimizer.step()

    def state_bytes(self) -> int:
        """Memory of the gradients and the optimiser's two moments."""
        groups = self.parameter_groups()
        return sum(3 * p.numel() * p.element_size() for g in groups for p in g["params"])

    def announce(self, plan: str, working: float) -> None:
        """Prints what is about to be done.

        Args:
            plan: in words.
            working: bytes that the largest step will need beside what is held already.
        """
        release_memory()
        if self.trainer.is_global_zero:
            kept = KEPT_FREE if self.device.type == "cpu" else 0
            peak = (memory_in_use(self.device) + self.state_bytes() + working + kept) / 1e9
            where = "GPU" if self.device.type == "cuda" else "process"
            print(f"plan: {plan}; expected peak memory of the {where} {peak:.1f} GB")

    def gather_state(self) -> None:
        """Makes the same in all processes what each of them knows a part of; before it is saved."""

    def totals(self, shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The team's terms, of each process's share of them."""
        totals = {name: value.detach().clone() for name, value in shares.items()}
        self.team.add(*totals.values())
        return totals

    def require_finite(self, terms: Mapping[str, Tensor], step: int) -> None:
        """Stops where a loss is not a finite number, naming step, term and tensor."""
        for name, value in terms.items():
            if not torch.isfinite(value).all():
                tensor = first_bad_tensor(self) or "the loss itself; weights are finite"
                raise NumericalError(
                    f"step {step}: the term '{name}' is {float(value.detach())}; first bad "
                    f"tensor: {tensor}; lower --lr, or resume from the last checkpoint"
                )

    def require_finite_weights(self) -> None:
        """Stops before a damaged weight could reach a checkpoint."""
        # not gradients: in float16 some are infinite, and make no step, until their scale is found
        tensor = first_bad_tensor(self, gradients=False)
        if tensor is not None:
            raise NumericalError(
                f"step {self.done}: the term 'gradient' spoiled a weight; first bad tensor: "
                f"{tensor}; lower --lr, or resume from the last checkpoint"
            )

    def record(self, step: int, scalars: Mapping[str, Tensor | float]) -> None:
        """Writes scalars to TensorBoard, at the run's own step."""
        if step % LOG_EVERY == 0 and self.logger is not None:
            for name, value in scalars.items():
                number = value.item() if isinstance(value, Tensor) else value
                self.logger.experiment.add_scalar(name, number, step)

    def record_image(self, name: str, image: Tensor, step: int) -> None:
        """Writes an image (H, W, 3) in [0, 1] to TensorBoard."""
        if self.logger is not None:
            self.logger.experiment.add_image(name, image.clamp(0, 1).cpu(), step, dataformats="HWC")


def first_bad_tensor(module: nn.Module, gradients: bool = True) -> str | None:
    """Name of the first parameter or gradient with a NaN or infinity, or None."""
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            return name
        if gradients and parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"gradient of {name}"
    return None
