"""A viewer's camera stays where a forward-facing scene can be seen from."""

import math
from itertools import pairwise

import pytest
import torch

from datasets.cameras.poses import look_at
from datasets.cameras.space import NDC, WORLD
from datasets.scene import GREY, Scene, View
from viewer.look import Pose

UP = torch.tensor([0.0, 1.0, 0.0])
BOUNDS = torch.tensor([[-1.2, -1.1, -0.3], [1.2, 1.1, 0.3]])


def scene_in(space):
    """Five cameras side by side, and above each other."""
    photo = torch.zeros(4, 4, 3, dtype=torch.uint8)
    places = [(0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (-0.2, 0.0, 0.1), (0.0, 0.1, 0.0), (0.0, -0.1, 0.0)]
    train = [
        View(
            photo, None, torch.cat([torch.eye(3), torch.tensor([p]).T], 1), 4.0, 5.0, 2.0, 2.0, "v"
        )
        for p in places
    ]
    return Scene("s", train, [], [], 0.0, 2.0, BOUNDS, torch.tensor(GREY), space)


@pytest.fixture
def scene():
    return scene_in(NDC((2.0, 2.5, 0.3)))


def pose(eye, target):
    c2w = look_at(torch.tensor(eye), torch.tensor(target), UP)
    return Pose(tuple(c2w.flatten().tolist()), 0.9)


def seen(scene, pose, size=16):
    """The share of a picture's rays that run through the scene's box, and whether the middle's
    do."""
    camera = pose.camera(scene, size, size)
    pixel = torch.arange(size * size)
    rays = camera.rays(torch.zeros_like(pixel), pixel // size, pixel % size)
    rays = scene.space.clip(rays, scene.bounds)
    hit = (rays.far > rays.near).view(size, size)
    return float(hit.float().mean()), bool(hit[size // 2 - 1 : size // 2 + 1].any())


@pytest.mark.parametrize(
    "eye, target",
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, -4.0)),
        ((0.2, -0.1, 0.1), (0.5, 0.3, -4.0)),
        ((0.1, 0.1, -0.4), (0.0, 0.0, -9.0)),
    ],
)
def test_where_there_is_something_to_see_nothing_changes(scene, eye, target):
    start = pose(eye, target)
    assert start.within_reach(scene) is start


@pytest.mark.parametrize(
    "eye, target",
    [
        ((0.0, 0.0, 0.0), (9.0, 0.0, -4.0)),  # turned too far
        ((0.0, 0.0, 0.0), (0.0, -30.0, -1.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 4.0)),  # turned round
        ((0.0, 0.0, -8.0), (0.0, 0.0, -4.0)),  # orbited to the far side
        ((9.0, 0.0, -2.0), (0.0, 0.0, -4.0)),  # and beside it
        ((0.0, 0.0, 50.0), (0.0, 0.0, -4.0)),  # far behind
        ((0.0, 0.0, -900.0), (0.0, 0.0, -1000.0)),  # far inside
        ((0.0, 700.0, 3.0), (0.0, 0.0, -4.0)),
    ],
)
def test_a_long_drag_ends_where_the_scene_can_still_be_seen(scene, eye, target):
    far_off = pose(eye, target)
    reached = far_off.within_reach(scene)
    assert reached != far_off
    share, middle = seen(scene, reached)
    assert middle
    assert share > 0.5
    assert reached.within_reach(scene) is reached  # it stays there
    c2w = torch.tensor(reached.c2w).view(3, 4)
    assert torch.allclose(c2w[:, :3].T @ c2w[:, :3], torch.eye(3), atol=1e-5)
    assert float(torch.linalg.det(c2w[:, :3])) > 0
    assert -0.5 <= float(c2w[2, 3]) <= 1


def test_along_a_drag_the_camera_does_not_jump(scene):
    """Two degrees at a time around a point of the scene, a whole round."""
    steps = []
    for degrees in range(0, 360, 2):
        angle = math.radians(degrees)
        eye = (4 * math.sin(angle), 0.0, -4 + 4 * math.cos(angle))
        reached = pose(eye, (0.0, 0.0, -4.0)).within_reach(scene)
        assert seen(scene, reached)[1]
        steps.append(torch.tensor(reached.c2w).view(3, 4)[:, 3])
    assert max(float((a - b).norm()) for a, b in pairwise(steps)) < 0.3


def test_around_an_object_the_camera_goes_anywhere():
    start = pose((0.0, 700.0, 3.0), (9.0, 0.0, -4.0))
    assert start.within_reach(scene_in(WORLD)) is start
