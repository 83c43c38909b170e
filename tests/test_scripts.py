"""Every script can be imported: what it takes from elsewhere is there."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "name", ["pipeline", "eval", "export", "prepare", "analyse", "view", "demo", "demo_joint"]
)
def test_every_script_has_what_it_imports(name):
    assert callable(import_module(name).main)


@pytest.mark.parametrize("name", ["demo", "demo_joint"])
def test_a_demo_that_is_asked_for_help_does_not_begin(name):
    script = Path(__file__).resolve().parents[1] / f"{name}.py"
    words = [sys.executable, str(script), "--help"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "without any download" in " ".join(said.split())
    assert "usage" in said
