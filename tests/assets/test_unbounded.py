"""Assets of unbounded scenes: of the foreground, where a field's space is the world."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from assets.space import Space
from datasets.cameras.contraction import contract, contracted_box
from datasets.cameras.rays import Rays
from datasets.scene import Scene, View
from export import field_box
from models.renderer import Renderer
from utils.errors import UserError

FOREGROUND = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


@pytest.fixture
def scene():
    view = View(torch.zeros(4, 4, 3, dtype=torch.uint8), None, torch.eye(3, 4), 4, 4, 2, 2, "a")
    return Scene("s", [view], [], [], 0.1, 3.0, FOREGROUND, unbounded=True)


def job_of(bounds=None):
    """An export of a field that is occupied up to beyond the foreground on one side."""
    occupied = torch.zeros(8, 8, 8, dtype=torch.bool)
    occupied[3:8, 3:5, 3:5] = True
    grey = torch.full((3,), 0.5)
    renderer = Renderer.voxels(contracted_box(FOREGROUND), grey, occupied, occupied)
    return SimpleNamespace(renderer=renderer, options=SimpleNamespace(bounds=bounds))


def test_the_box_is_what_is_occupied_of_the_foreground(scene):
    box = field_box(job_of(), Space.of(scene), None)
    torch.testing.assert_close(box, torch.tensor([[-0.5, -0.5, -0.5], [1, 0.5, 0.5]]))


def test_bounds_are_cut_to_the_foreground(scene):
    box = field_box(job_of((0.0, -9.0, -0.5, 9.0, 0.5, 0.5)), Space.of(scene), None)
    torch.testing.assert_close(box, torch.tensor([[0, -1, -0.5], [1, 0.5, 0.5]]))


def test_bounds_beyond_the_foreground_are_refused(scene):
    with pytest.raises(UserError, match="--bounds: hold nothing of the scene's foreground"):
        field_box(job_of((2.0, 2.0, 2.0, 3.0, 3.0, 3.0)), Space.of(scene), None)


def test_rays_from_beyond_the_foreground_run_through_contracted_space(scene):
    one = torch.ones(1)
    rays = Rays(torch.tensor([[4.0, 0, 0]]), torch.tensor([[-1.0, 0, 0]]), 0 * one, 9 * one)
    inside = Space.of(scene).rays(rays)
    x = inside.points(torch.zeros(2).long(), torch.tensor([1.0, 4.0]))
    torch.testing.assert_close(x, contract(torch.tensor([[3.0, 0, 0], [0, 0, 0]]), FOREGROUND))
    assert Space.of(replace(scene, unbounded=False)).rays(rays) is rays
