"""Tasks, and the systems made of them: what is learned from what, and when.

A `Task` knows its scene, its renderer and its loss terms; it adds up gradients.  A `System` is a
list of tasks with an optimiser and a schedule; it takes the steps.  Neither knows who runs it: that
is an `Engine` (`systems/lightning.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from datasets.scene import Scene
from models.checkpoint import Checkpoint, Progress, plain_state, restore_optimizers
from models.render import ColourFunction
from models.renderer import Renderer
from models.style import ParameterGroups
from opt import TrainOptions
from systems.deferred import add_gradient
from systems.optimisation import each_once, make_optimizer, rate_factor
from utils.errors import NumericalError, UserError
from utils.machine import memory_in_use, release_memory
from utils.sums import total_of
from utils.team import Team

Terms = dict[str, Tensor]  # named loss terms, scalars
# by name: scene, renderer, and the colours to render it in
Subjects = dict[str, tuple[Scene, Renderer, ColourFunction]]
KEPT_FREE = 7e8  # bytes, measured: the C library's (see `keep_memory`), and oneDNN's own


class Engine(Protocol):
    """What runs a system: device, processes, arithmetic, and where numbers and pictures go."""

    device: torch.device

    @property
    def team(self) -> Team:
        """The processes that train together."""

    def autocast(self) -> AbstractContextManager:
        """Arithmetic of the networks outside of a step, as it is inside."""

    def scaled(self, x: Tensor) -> Tensor:
        """A loss, or its gradient, multiplied by the factor of the gradient scaler (float16),
        which the optimiser's step divides out again."""

    def record(self, step: int, scalars: Mapping[str, Tensor | float]) -> None:
        """Writes scalars where training is watched, every so many steps."""

    def record_value(self, step: int, name: str, value: float) -> None:
        """Writes one number there, whichever step it is."""

    def record_image(self, step: int, name: str, image: Tensor) -> None:
        """Writes an image (H, W, 3) in [0, 1] there."""

    def show(self, name: str, value: Tensor | float) -> None:
        """Puts a number on the progress bar."""


@dataclass(frozen=True)
class Plan:
    """What a task is about to do: in words, and the bytes that its largest step will need beside
    what is held already."""

    words: str
    working_bytes: float


class Task(nn.Module):
    """One thing that is learned from something.

    Everything random in a step comes from `generator`, a function of (seed, step, stream): a
    resumed run continues as if it had never been interrupted.

    Args:
        options: of the run.

    Attributes:
        name: what its terms are recorded under, beside those of other tasks.
    """

    engine: Engine
    name = "task"

    def __init__(self, options: TrainOptions) -> None:
        super().__init__()
        self.options = options

    def parameter_groups(self) -> ParameterGroups:
        """What is learned, with learning rates."""
        raise NotImplementedError

    def gradient_bytes(self) -> int:
        """Memory of the gradients of a step."""
        return bytes_of(self.parameter_groups())

    def start(self) -> Plan:
        """Moves what it works with to the engine's device, and says what it is about to do."""
        raise NotImplementedError

    def prepare(self) -> None:
        """What takes a while and has to be done before the first step; the plan is printed."""

    def rate(self, step: int, n_steps: int) -> float:
        """What the learning rates of its parameters are multiplied by in a step of ``n_steps``."""
        return rate_factor(self.options, step, n_steps)

    def before_step(self, step: int) -> bool:
        """What has to be done before a step; whether the parameters are new ones after it."""
        return False

    def gradients(self, step: int) -> Iterator[Terms]:
        """Adds the step's gradient to that of the parameters, and yields the terms that it is of.

        The optimiser takes a step after each yield; most tasks yield once.
        """
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """What follows a step."""

    def finish(self) -> None:
        """What follows the last step."""

    def gather(self) -> None:
        """Synchronises what each process knows a part of, before it is saved."""

    def subjects(self) -> Subjects:
        """What there is to see of it between two steps; nothing of it is to be changed."""
        return {}

    def state(self) -> dict[str, Any]:
        """What has to be saved of an unfinished run beside the renderer; plain containers."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`.

        Raises:
            UserError: it is of a task with other options.
        """

    def generator(self, step: int, stream: int = 0, device: str = "cpu") -> torch.Generator:
        """Random numbers of one step; different ``stream`` numbers are independent."""
        key = (self.options.seed * 1_000_003 + step) * 7 + stream
        return torch.Generator(device).manual_seed(key % (1 << 63))

    def descend(self, terms: Mapping[str, Tensor], step: int) -> None:
        """Adds the gradient of the sum of ``terms``, this process's share of the loss."""
        require_finite(self, terms, step)
        parameters = [p for group in self.parameter_groups() for p in group["params"]]
        add_gradient(self.engine.scaled(total_of(terms.values())), parameters)

    def totals(self, shares: Mapping[str, Tensor]) -> Terms:
        """The terms of all processes together, of each process's share of them."""
        totals = {name: value.detach() for name, value in shares.items()}
        if self.engine.team.size > 1:
            totals = {name: value.clone() for name, value in totals.items()}
            self.engine.team.add(*totals.values())
        return totals


class System(nn.Module):
    """A list of tasks, their optimiser and its schedule.

    A parameter that no task gave a gradient in a step does not move in it: tasks with parameters of
    their own are optimised apart, those that share them together.

    Args:
        options: of the run.
        tasks: in the order in which they add gradients.
        n_steps: length of the run.
        checkpoint: what is to be saved, as it is now.
        beginning: what the first steps are for, where that is something else, and how many.
    """

    engine: Engine

    def __init__(
        self,
        options: TrainOptions,
        tasks: Iterable[Task],
        n_steps: int,
        checkpoint: Callable[[], Checkpoint],
        beginning: tuple[str, int] = ("", 0),
    ) -> None:
        super().__init__()
        self.options = options
        self.tasks = nn.ModuleList(tasks)
        self.n_steps = n_steps
        self.checkpoint = checkpoint
        self.beginning = beginning
        self.done = 0  # steps whose effect is in the weights
        self._saved_optimizer: Mapping[str, Any] | None = None

    def phase(self, step: int) -> tuple[str, int, int]:
        """What a step is for, its number from 0 among the steps that are for it, and how many these
        are."""
        name, first = self.beginning
        if step < first:
            return name, step, first
        return self.options.stage, step - first, self.n_steps - first

    @property
    def length(self) -> str:
        """How many steps it takes, in words."""
        name, first = self.beginning
        return f"{self.n_steps - first} steps" + (f" after {first} of {name}" if first else "")

    def parameter_groups(self) -> ParameterGroups:
        """All tasks' groups; what several tasks learn is in the first one's."""
        return each_once(group for task in self.tasks for group in task.parameter_groups())

    def make_optimizer(self) -> torch.optim.Optimizer:
        """A new optimiser; of a resumed run with what it had learned."""
        optimizer = make_optimizer(self.options.optimizer, self.parameter_groups())
        if self._saved_optimizer is not None:
            restore_optimizers([optimizer], [self._saved_optimizer])
            self._saved_optimizer = None
        return optimizer

    def start(self, engine: Engine) -> None:
        """Prepares the tasks, and prints what is about to be done."""
        self.engine = engine
        for task in self.tasks:
            task.engine = engine
        plans = [task.start() for task in self.tasks]
        release_memory()
        if engine.team.rank == 0:
            device = engine.device
            kept = KEPT_FREE if device.type == "cpu" else 0
            working = max(plan.working_bytes for plan in plans)
            peak = memory_in_use(device) + self.optimizer_bytes() + working + kept
            where = "GPU" if device.type == "cuda" else "process"
            words = "; ".join(plan.words for plan in plans)
            print(f"plan: {words}; expected peak memory of the {where} {peak / 1e9:.1f} GB")
        for task in self.tasks:
            task.prepare()
        release_memory()

    def optimizer_bytes(self) -> int:
        """Memory of a step's gradients and the optimiser's two moments."""
        moments = 2 * bytes_of(self.parameter_groups())
        return moments + sum(task.gradient_bytes() for task in self.tasks)

    def step(self, step: int, optimizer: torch.optim.Optimizer, move: Callable[[], None]) -> None:
        """One step.

        Args:
            optimizer: whose parameters are the tasks'.
            move: makes it move, with whatever the engine's arithmetic needs.
        """
        turns = [task.gradients(step) for task in self.tasks]
        found: list[Terms] = []
        while True:
            optimizer.zero_grad()
            new = [next(turn, None) for turn in turns]
            if all(part is None for part in new):
                break
            found.append(self._joined(new))
            self._move(step, optimizer, move)
        self.done = step + 1
        if terms := _mean(found):
            self.engine.record(step, {"loss": total_of(terms.values()), **terms})
        for task in self.tasks:
            task.after_step(step)

    def _joined(self, parts: Sequence[Terms | None]) -> Terms:
        """The terms of all tasks; where there are several tasks, by task and name."""
        if len(parts) == 1:
            return parts[0]
        named = zip(self.tasks, parts, strict=True)
        return {f"{t.name}/{n}": x for t, part in named for n, x in (part or {}).items()}

    def before_step(self, step: int) -> bool:
        """Whether any task has new parameters before this step, which takes a new optimiser."""
        return any([task.before_step(step) for task in self.tasks])  # noqa: C419 - all are asked

    def _move(self, step: int, optimizer: torch.optim.Optimizer, move: Callable[[], None]) -> None:
        """Moves the parameters along the gradients that are there, at the step's rates."""
        rates = self._rates(step)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * rates[id(group["params"][0])]
        self._share_gradients(optimizer)
        move()

    def _rates(self, step: int) -> dict[int, float]:
        """What the rate of each parameter, by its identity, is multiplied by: as the first task
        that learns it says."""
        rates: dict[int, float] = {}
        for task in reversed(self.tasks):
            rate = task.rate(step, self.n_steps)
            rates |= {id(p): rate for group in task.parameter_groups() for p in group["params"]}
        return rates

    def _share_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Sums the gradients over the processes."""
        team = self.engine.team
        if team.size == 1:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        device = self.engine.device
        there = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
        team.add(there)
        for parameter, count in zip(parameters, there.tolist(), strict=True):
            if count == 0:  # in no process: it is not to move
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            team.add(parameter.grad)

    def finish(self) -> None:
        """What follows the last step."""
        for task in self.tasks:
            task.finish()

    def gather(self) -> None:
        """See `Task.gather`; stops before a damaged weight could reach a checkpoint."""
        # not gradients: in float16 some are infinite, and make no step, until their scale is found
        tensor = first_bad_tensor(self, gradients=False)
        if tensor is not None:
            raise NumericalError(
                f"step {self.done}: a weight is not finite any more: {tensor}; "
                "lower --lr, or resume from the last checkpoint"
            )
        for task in self.tasks:
            task.gather()

    def subjects(self) -> Subjects:
        """What there is to see of all tasks, see `Task.subjects`."""
        return {name: found for task in self.tasks for name, found in task.subjects().items()}

    def unfinished(self, optimizer: torch.optim.Optimizer) -> Checkpoint:
        """The checkpoint of the run as it is now."""
        states = {str(i): plain_state(task.state()) for i, task in enumerate(self.tasks)}
        moments = plain_state(optimizer.state_dict())
        progress = Progress(self.done, self.n_steps, [moments], states)
        return replace(self.checkpoint(), progress=progress)

    def resume(self, path: Path, checkpoint: Checkpoint) -> None:
        """Continues the run of an unfinished ``checkpoint``, read from ``path``; its weights are in
        the tasks' renderers already.

        Raises:
            UserError: it is of a run of another length, or a task of it had other options.
        """
        progress = checkpoint.progress
        if progress.n_steps != self.n_steps:
            raise UserError(
                f"{path}: belongs to a run of {progress.n_steps} steps, this one has "
                f"{self.n_steps}; give the same data, or start again without --resume"
            )
        print(f"resuming {path} at step {progress.step} of {progress.n_steps}")
        self.done = progress.step
        (self._saved_optimizer,) = progress.optimizers
        for i, task in enumerate(self.tasks):
            task.load_state(progress.task.get(str(i), {}))


def bytes_of(groups: ParameterGroups) -> int:
    """Memory of the parameters of groups."""
    return sum(p.nbytes for group in groups for p in group["params"])


def _mean(found: Sequence[Terms]) -> Terms:
    """The terms of a step: of several moves the mean."""
    if len(found) == 1:
        return found[0]
    names = dict.fromkeys(name for terms in found for name in terms)
    return {name: sum(t.get(name, 0) for t in found) / len(found) for name in names}


def require_finite(module: nn.Module, terms: Mapping[str, Tensor], step: int) -> None:
    """Stops where a loss term is not a finite number.

    Raises:
        NumericalError: names step, term and the first tensor of ``module`` that is not finite.
    """
    # all of them at once: for each number a GPU has to finish
    values = torch.stack([value.detach() for value in terms.values()]).tolist() if terms else []
    for name, value in zip(terms, values, strict=True):
        if not math.isfinite(value):
            tensor = first_bad_tensor(module) or "the loss itself; weights are finite"
            raise NumericalError(
                f"step {step}: the term '{name}' is {value}; first bad tensor: {tensor}; "
                "lower --lr, or resume from the last checkpoint"
            )


def first_bad_tensor(module: nn.Module, gradients: bool = True) -> str | None:
    """Name of the first parameter or gradient with a NaN or infinity, or None."""
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            return name
        if gradients and parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"gradient of {name}"
    return None
