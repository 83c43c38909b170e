"""A small NeRF of ours, as the plain twin is measured against, and a folder for inputs."""

import pytest
import torch

from benchmarks import settings
from models import nerf
from models.renderer import Renderer


@pytest.fixture
def make_nerf():
    """``make_nerf(bounds, n_samples)``: a renderer of a NeRF drawn with seed 0 in its ``bounds``
    (2, 3), with ``n_samples`` even samples on a ray, over white."""

    def build(bounds, n_samples):
        torch.manual_seed(0)
        style = {"kind": "nerf"}
        sampler = {"kind": "hierarchical", "n_coarse": n_samples, "n_fine": 0, "style": style}
        spec = {"field": {"kind": "nerf", "n_frequencies": 10}, "style": style, "sampler": sampler}
        everywhere = torch.ones(4, 4, 4, dtype=torch.bool)
        return Renderer.build(spec, bounds, torch.ones(3), everywhere)

    return build


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Inputs go to a folder of these tests, which make them once, on coarse grids."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "DATA", tmp_path_factory.mktemp("bench"))
        patch.setattr(nerf, "GRID", 32)
        yield
