"""A painted field that needs no training, and somebody who looks at it."""

import dataclasses

import pytest
import torch
from torch import nn

from datasets.formats.blender import load_blender
from datasets.load import LoadOptions
from datasets.portable import scene_state
from models.checkpoint import Checkpoint, FieldRecord
from opt import parse_view
from tests.conftest import write_sphere_scene
from tests.renderers import voxel_renderer
from utils.machine import mixed_precision
from viewer.exhibits import Trained
from viewer.look import Look, Pose

RADIUS = 0.7


@pytest.fixture(scope="session")
def scene_dir(tmp_path_factory):
    return write_sphere_scene(tmp_path_factory.mktemp("data") / "sphere")


@pytest.fixture(scope="session")
def scene(scene_dir):
    return load_blender(scene_dir, LoadOptions())


def ball_in(scene, bounds=None):
    """A voxel field with a solid ball in the middle of a scene's box."""
    bounds = scene.box if bounds is None else bounds
    torch.manual_seed(0)
    renderer = voxel_renderer(bounds, torch.ones(24, 24, 24, dtype=torch.bool))
    geometry = renderer.field.geometry
    x = (geometry.lattice.vertices() - bounds.mean(0)) / (bounds[1] - bounds[0]).max() * 2
    with torch.no_grad():
        geometry.raw[:, 0] = ((RADIUS - x.norm(dim=-1)) * 400).clamp(-20, 200)
        for parameter in renderer.field.style.parameters():
            nn.init.normal_(parameter, std=0.3)
    return renderer


@pytest.fixture(scope="session")
def checkpoint(scene, scene_dir):
    """A ball with photographic colours and the paintings "a" and "b"."""
    renderer = ball_in(scene)
    options = {"root_dir": str(scene_dir), "dataset_name": "blender", "scene_name": "sphere"}
    options["stage"] = "style"
    field = FieldRecord.of(renderer)
    found = Checkpoint("geometry", {"scene": field}, {"scene": scene_state(scene)}, options=options)
    styles = {}
    for name in "ab":
        style = renderer.field.style.clone()
        for parameter in style.parameters():
            nn.init.normal_(parameter, std=0.3)
        styles[name] = style, options
    return found.with_styles(styles, renderer, options, scene_state(scene))


@pytest.fixture
def networks():
    return mixed_precision("32", "cpu")


@pytest.fixture
def trained(checkpoint):
    """``trained(*words)``: the checkpoint as an exhibit, by view.py's options."""

    def make(*words):
        options = parse_view(["--ckpt_path", "x.ckpt", *words])
        return Trained(checkpoint, options, torch.device("cpu"))

    return make


@pytest.fixture
def look(scene):
    """``look(**changes)``: the first training view, in the exhibit's first colours."""
    view = scene.train[0]
    lens = 2 * torch.atan(torch.tensor(view.height / 2 / view.fy, dtype=torch.float64))
    pose = Pose(tuple(view.c2w.flatten().tolist()), float(lens))

    def make(**changes):
        return dataclasses.replace(Look(pose), **changes)

    return make
