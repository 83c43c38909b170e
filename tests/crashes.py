"""Runs that end before their time: what remains has to be continued as if nothing had happened."""

import pytest

from systems.system import System


class Crash(Exception):
    """What a run of `run_until` ends with."""


def run_until(step, run, look=lambda system: None):
    """Runs, and stops it as a crash would in ``step``: its gradients are there, and nothing has
    moved.  ``look`` sees the system then."""
    move = System._move

    def move_or_crash(system, at_step, *more):
        if at_step == step:
            look(system)
            raise Crash
        move(system, at_step, *more)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr(System, "_move", move_or_crash)
        run()
