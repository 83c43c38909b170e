"""Assets of unbounded scenes: of the foreground, where a field's space is the world."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from assets.job import Job
from assets.mesh_export import colours_of, surface_of
from assets.volume import volume_of
from datasets.cameras.rays import Rays
from datasets.cameras.space import Contracted
from datasets.scene import Scene, View
from opt import parse_export
from tests.assets.conftest import voxels
from tests.renderers import voxel_renderer
from utils.errors import UserError

FOREGROUND = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


@pytest.fixture
def scene():
    view = View(torch.zeros(4, 4, 3, dtype=torch.uint8), None, torch.eye(3, 4), 4, 4, 2, 2, "a")
    return Scene("s", [view], [], [], 0.1, 3.0, FOREGROUND, space=Contracted(FOREGROUND))


def job_of(scene, bounds=None):
    """An export of a field that is occupied up to beyond the foreground on one side."""
    occupied = torch.zeros(8, 8, 8, dtype=torch.bool)
    occupied[3:8, 3:5, 3:5] = True
    grey = torch.full((3,), 0.5)
    renderer = voxel_renderer(scene.box, occupied, background=grey)
    job = Job(SimpleNamespace(bounds=bounds), None, "", "", renderer, None)
    job.scene = scene
    return job


def test_the_box_is_what_is_occupied_of_the_foreground(scene):
    expected = torch.tensor([[-0.5, -0.5, -0.5], [1, 0.5, 0.5]])
    torch.testing.assert_close(job_of(scene).box(), expected)


def test_bounds_are_cut_to_the_foreground(scene):
    box = job_of(scene, (0.0, -9.0, -0.5, 9.0, 0.5, 0.5)).box()
    torch.testing.assert_close(box, torch.tensor([[0, -1, -0.5], [1, 0.5, 0.5]]))


def test_bounds_beyond_the_foreground_are_refused(scene):
    words = "--bounds: hold nothing of the scene; its foreground is -1 -1 -1 1 1 1"
    with pytest.raises(UserError, match=words):
        job_of(scene, (2.0, 2.0, 2.0, 3.0, 3.0, 3.0)).box()


def test_rays_from_beyond_the_foreground_run_through_contracted_space(scene):
    one = torch.ones(1)
    rays = Rays(torch.tensor([[4.0, 0, 0]]), torch.tensor([[-1.0, 0, 0]]), 0 * one, 9 * one)
    inside = scene.space.warp_rays(rays)
    x = inside.points(torch.zeros(2).long(), torch.tensor([1.0, 4.0]))
    expected = scene.space.from_world(torch.tensor([[3.0, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(x, expected)


def test_a_volume_beyond_the_foreground_is_that_of_the_world(scene):
    """A wall at 1.5 half widths in contracted space stands at 2 in the world, and stays opaque."""
    wall = voxels(lambda x: (x[:, 0] - 1.625).abs() - 0.125, (32, 32, 32), scene.box)
    volume = volume_of(wall, torch.tensor([[0.0, -2, -2], [4, 2, 2]]), 32, scene.space)
    x = volume.bounds[0, 0] + (volume.index[:, 0] + 0.5) / 8
    solid = volume.rgba[:, 3] > 50
    assert 1.9 < x[solid].min() < 2.3
    assert x[solid].max() == pytest.approx(4.0, abs=0.2)


@pytest.fixture
def ground():
    """``run(words)`` gives vertices and colours of a mesh of ground that reaches up to z = -0.2 and
    was seen from above, in a red photo."""

    def run(words):
        pose = torch.eye(3, 4)
        pose[2, 3] = 1.8
        red = torch.zeros(64, 64, 3, dtype=torch.uint8)
        red[..., 0] = 255
        views = [View(red, None, pose, 40, 40, 32, 32, "a")]
        scene = Scene("s", views, [], [], 0.1, 3.0, FOREGROUND, space=Contracted(FOREGROUND))
        renderer = voxels(lambda x: (x[:, 2] + 0.2).clamp(-1, 1), (32, 32, 32), scene.box)
        options = parse_export(f"mesh --ckpt_path x.ckpt --resolution 48 {words}".split())
        job = Job(options, None, "", "", renderer, None)
        job.scene = scene
        mesh, facts = surface_of(job)
        return mesh.vertices, colours_of(job, mesh, facts["cell"])

    return run


@pytest.mark.parametrize("fill_hidden", [True, False])
def test_a_mesh_has_no_surface_that_no_camera_sees(ground, fill_hidden):
    """Of the ground, which is as deep as the foreground, the top."""
    vertices, _ = ground("--fill_hidden" if fill_hidden else "--no-fill_hidden")
    assert (np.abs(vertices[:, 2] + 0.2) < 0.1).sum() > 500
    below = (vertices[:, 2] < -0.4).mean()
    assert below < 0.02 if fill_hidden else below > 0.3


def test_a_mesh_of_a_place_takes_the_colours_of_its_photos(ground):
    vertices, colours = ground("--colour photos")
    inner = (np.abs(vertices[:, :2]) < 0.7).all(1)
    assert inner.sum() > 500 and np.abs(colours[inner] - [1, 0, 0]).max() < 1e-3
