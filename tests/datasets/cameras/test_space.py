"""The kinds of space: what they do to positions, and what a checkpoint keeps of them."""

import pytest
import torch

from datasets.cameras.rays import Cameras
from datasets.cameras.space import NDC, WORLD, Contracted, space_from
from datasets.scene import Scene, View

FOREGROUND = torch.tensor([[-1.0, 2, -3], [3, 4, 5]])


def points(n=500, spread=30.0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0)) * spread


def test_foreground_stays():
    unit = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    box = FOREGROUND + 0.1234
    x = box[0] + unit * (box[1] - box[0])
    torch.testing.assert_close(Contracted(box).from_world(x), x, atol=1e-6, rtol=0)
    assert torch.equal(Contracted(box).to_world(x), x)


def test_the_rest_comes_into_the_shell_and_back():
    x = points().double()
    box = FOREGROUND.double()
    y = Contracted(box).from_world(x)
    lower, upper = Contracted(box).box(box)
    assert ((y > lower) & (y < upper)).all()
    torch.testing.assert_close(Contracted(box).to_world(y), x, rtol=1e-9, atol=1e-9)


def test_known_places():
    box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    x = torch.tensor([[2.0, 0, 0], [4, -2, 0], [1, 1, 1], [1e30, 0, 0]])
    expected = torch.tensor([[1.5, 0, 0], [1.75, -0.875, 0], [1, 1, 1], [2, 0, 0]])
    torch.testing.assert_close(Contracted(box).from_world(x), expected)


def test_continuous_across_the_foreground_side():
    box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    eps = 1e-4
    x = torch.tensor([[1 - eps, 0.5, 0.2], [1 + eps, 0.5, 0.2]])
    inner, outer = Contracted(box).from_world(x)
    assert float((inner - outer).norm()) < 2.1 * eps


def test_rays_of_an_unbounded_scene_are_bent_beyond_the_foreground():
    pose = torch.eye(3, 4)
    image = torch.zeros(4, 4, 3, dtype=torch.uint8)
    view = View(image, None, pose, 2.0, 2.0, 2.0, 2.0, "a")
    bounds = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    scene = Scene("s", [view], [], [], 0.1, 3.0, bounds, space=Contracted(bounds))
    rays = Cameras.within(scene, [view]).view_rays(0)
    ray = torch.arange(16)
    inside = rays.points(ray, torch.full((16,), 0.5))
    torch.testing.assert_close(inside, rays.origins + 0.5 * rays.directions)
    far = rays.points(ray, torch.full((16,), 50.0))
    torch.testing.assert_close(far, scene.space.from_world(rays.origins + 50 * rays.directions))
    assert rays[ray[:2]].space is scene.space
    assert torch.equal(scene.box, 2 * bounds)


@pytest.mark.parametrize("space", [WORLD, NDC((1.7, 2.1, 0.4)), Contracted(FOREGROUND / 3)])
def test_a_space_comes_back_from_its_state(space):
    again = space_from(space.state())
    assert type(again) is type(space)
    assert again.state() == space.state()
    x = points(200, 3.0) - torch.tensor([0.0, 0, 12])
    assert torch.equal(again.from_world(x), space.from_world(x))


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"kind": "hyperbolic"},
        {"kind": "ndc", "scale": [1.0, 1.0]},
        {"kind": "ndc", "scale": [1.0, 1.0, float("nan")]},
        {"kind": "contracted", "foreground": [[0, 0, 0], [1, 1, 0]]},
        {"kind": "contracted", "foreground": "wide"},
    ],
)
def test_a_damaged_state_is_refused(state):
    with pytest.raises(ValueError, match="no space: "):
        space_from(state)


def test_normals_and_stretch_are_those_of_the_contraction():
    """A sphere far beyond the foreground: its normals by differences, steps along its radii."""
    space = Contracted(torch.tensor([[-1.0, -1, -1], [1, 1, 1]]).double())
    world = torch.nn.functional.normalize(points(50).double(), dim=1) * 7
    y = space.from_world(world).requires_grad_()
    space.to_world(y).norm(dim=1).sum().backward()
    normals = torch.nn.functional.normalize(y.grad, dim=1)
    found = space.normals_to_world(y.detach(), normals)
    torch.testing.assert_close(found, world / 7, rtol=0, atol=1e-9)
    step = 1e-6 * world / 7
    length = (space.from_world(world + step) - space.from_world(world)).norm(dim=1) / 1e-6
    torch.testing.assert_close(space.stretch(world), length, rtol=1e-4, atol=0)
