"""Tables that name classes instead of importing them."""

import subprocess
import sys

import pytest

from features.registry import ENCODERS, NETWORKS
from losses.registry import OVERLAPS
from models import FIELDS, SAMPLERS, STYLES
from systems import STAGES
from utils.registry import Registry


def test_names_are_listed_without_importing():
    registry = Registry("thing", {"a": "no.such.module:A", "b": "math:sqrt"})
    assert list(registry) == ["a", "b"]
    assert len(registry) == 2
    assert list(registry.keys()) == ["a", "b"]
    assert registry["b"](9.0) == 3.0
    with pytest.raises(ModuleNotFoundError):
        registry["a"]


def test_whether_there_is_a_name_is_told_without_importing():
    registry = Registry("thing", {"a": "no.such.module:A"})
    assert "c" not in registry
    assert "a" in registry


def test_an_unknown_name_is_answered_with_those_that_there_are():
    registry = Registry("shape", {"cube": "math:sqrt", "ball": "math:cos"})
    with pytest.raises(KeyError) as raised:
        registry["cone"]
    assert raised.value.args == ("no shape 'cone'; there are cube, ball",)
    assert registry.get("cone") is None


@pytest.mark.parametrize("registry", [STAGES, NETWORKS, ENCODERS, OVERLAPS])
def test_every_entry_can_be_imported(registry):
    assert all(callable(found) for found in registry.values())


@pytest.mark.parametrize("registry", [FIELDS, STYLES, SAMPLERS])
def test_every_entry_exists_and_is_called_what_it_calls_itself(registry):
    for name, found in registry.items():
        assert isinstance(found, type)
        assert getattr(found, "kind", name) == name


def test_choices_are_known_without_pytorch():
    code = (
        "import sys, models; "
        "print(*models.FIELDS, *models.STYLES, *models.SAMPLERS, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == [*FIELDS, *STYLES, *SAMPLERS, "False"]
