"""The examples in the docstrings that a newcomer reads first run and give what they show."""

import doctest
from importlib import import_module

import pytest
import torch

MODULES = [
    "datasets.cameras.rays",
    "datasets.cameras.space",
    "features.registry",
    "losses.colour_transfer",
    "losses.objective",
    "models.checkpoint",
    "models.mlp",
    "models.render",
    "models.renderer",
    "utils.chunks",
    "utils.metrics",
    "utils.registry",
    "utils.schedule",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    torch.manual_seed(0)
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
