"""Every script can be imported: what it takes from elsewhere is there."""

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "name", ["pipeline", "eval", "export", "prepare", "analyse", "view", "demo", "demo_joint"]
)
def test_every_script_has_what_it_imports(name):
    assert callable(import_module(name).main)
