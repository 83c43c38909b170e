"""Systems of tasks: who moves what, and what is recorded."""

import types
from contextlib import nullcontext

import pytest
import torch

from opt import parse_train
from systems.system import Plan, System, Task
from utils.team import Team


class Pull(Task):
    """Pulls a number towards a goal, in some moves a step; silent in odd steps if asked."""

    def __init__(self, options, name, goal, parameter=None, moves=1, rests=False):
        super().__init__(options)
        self.name, self.goal, self.moves, self.rests = name, goal, moves, rests
        self.x = torch.nn.Parameter(torch.zeros(())) if parameter is None else parameter

    def parameter_groups(self):
        return [{"params": [self.x], "lr": 0.1}]

    def start(self):
        return Plan(f"pull to {self.goal}", 0.0)

    def gradients(self, step):
        if self.rests and step % 2:
            return
        for _ in range(self.moves):
            terms = {"distance": (self.x - self.goal).square()}
            self.descend(terms, step)
            yield self.totals(terms)


class Engine:
    device = torch.device("cpu")

    def __init__(self, team):
        self.team, self.recorded = team, []
        self.autocast = nullcontext

    def scaled(self, x):
        return x

    def record(self, step, scalars):
        self.recorded.append({name: float(x) for name, x in scalars.items()})


@pytest.fixture
def options(tmp_path):
    words = f"--stage geometry --root_dir {tmp_path} --optimizer sgd"
    return parse_train(words.split())


def run(options, tasks, steps=1, team=None):
    system = System(options, tasks, steps, lambda: None)
    engine = Engine(team or Team())
    system.start(engine)
    optimizer = system.make_optimizer()
    for step in range(steps):
        system.step(step, optimizer, optimizer.step)
    return engine.recorded


def test_tasks_that_share_a_parameter_move_it_together(options):
    first = Pull(options, "a", 1.0)
    second = Pull(options, "b", 3.0, parameter=first.x)
    recorded = run(options, [first, second])
    assert float(first.x) == pytest.approx(0.1 * 2 * (1 + 3))
    assert recorded[0] == {"loss": 10.0, "a/distance": 1.0, "b/distance": 9.0}


def test_memory_of_the_optimiser(options, monkeypatch):
    """Two moments of each number, and the gradients that a step has at once."""
    tasks = [Pull(options, "a", 1.0), Pull(options, "b", 3.0)]
    system = System(options, tasks, 1, lambda: None)
    assert system.optimizer_bytes() == 3 * 2 * 4
    monkeypatch.setattr(tasks[0], "gradient_bytes", lambda: 100)
    assert system.optimizer_bytes() == 2 * 2 * 4 + 100 + 4


def test_a_task_alone_has_its_own_names_and_the_mean_of_its_moves(options):
    task = Pull(options, "a", 1.0, moves=2)
    recorded = run(options, [task])
    assert recorded[0] == pytest.approx({"loss": (1 + 0.8**2) / 2, "distance": (1 + 0.8**2) / 2})


@pytest.mark.parametrize("size", [1, 2])
def test_what_gets_no_gradient_does_not_move(options, size, monkeypatch):
    """Not even by the optimiser's momentum, in one process or in several."""
    monkeypatch.setattr(Team, "add", lambda *_: None)
    moves, rests = Pull(options, "a", 1.0), Pull(options, "b", 1.0, rests=True)
    seen = []
    rests.after_step = types.MethodType(lambda task, step: seen.append(float(task.x)), rests)
    run(options, [moves, rests], steps=3, team=Team(0, size))
    assert seen[0] == seen[1] != seen[2]
