"""Every script decides how threads wait before PyTorch reads it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITNESS = """
import os, sys
class Witness:
    def find_spec(self, name, *_):
        if name == "torch":
            sys.exit(os.environ.get("GOMP_SPINCOUNT", "none"))
sys.meta_path.insert(0, Witness())
import {script}
"""


def spin_count_of(script, environment):
    command = [sys.executable, "-c", WITNESS.format(script=script)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    ).stderr.strip()


@pytest.mark.parametrize("script", ["pipeline", "eval", "export", "demo", "benchmarks.__main__"])
def test_threads_wait_briefly_in_every_script(script):
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    assert spin_count_of(script, environment) == "30000"


def test_the_users_own_setting_stays():
    assert spin_count_of("pipeline", {**os.environ, "GOMP_SPINCOUNT": "7"}) == "7"
