"""Contracted space: the foreground as it is, everything else in a shell around it."""

import torch

from datasets.cameras.contraction import contract, contracted_box, uncontract
from datasets.cameras.rays import Cameras
from datasets.scene import Scene, View

FOREGROUND = torch.tensor([[-1.0, 2, -3], [3, 4, 5]])


def points(n=500, spread=30.0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0)) * spread


def test_foreground_stays_to_the_bit():
    unit = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    x = FOREGROUND[0] + unit * (FOREGROUND[1] - FOREGROUND[0])
    assert torch.equal(contract(x, FOREGROUND), x)
    assert torch.equal(uncontract(x, FOREGROUND), x)


def test_the_rest_comes_into_the_shell_and_back():
    x = points().double()
    box = FOREGROUND.double()
    y = contract(x, box)
    lower, upper = contracted_box(box)
    assert ((y > lower) & (y < upper)).all()
    torch.testing.assert_close(uncontract(y, box), x, rtol=1e-9, atol=1e-9)


def test_known_places():
    box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    x = torch.tensor([[2.0, 0, 0], [4, -2, 0], [1, 1, 1], [1e30, 0, 0]])
    expected = torch.tensor([[1.5, 0, 0], [1.75, -0.875, 0], [1, 1, 1], [2, 0, 0]])
    torch.testing.assert_close(contract(x, box), expected)


def test_continuous_across_the_foreground_side():
    box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    eps = 1e-4
    x = torch.tensor([[1 - eps, 0.5, 0.2], [1 + eps, 0.5, 0.2]])
    inner, outer = contract(x, box)
    assert float((inner - outer).norm()) < 2.1 * eps


def test_rays_of_an_unbounded_scene_are_bent_beyond_the_foreground():
    pose = torch.eye(3, 4)
    image = torch.zeros(4, 4, 3, dtype=torch.uint8)
    view = View(image, None, pose, 2.0, 2.0, 2.0, 2.0, "a")
    bounds = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    scene = Scene("s", [view], [], [], 0.1, 3.0, bounds, unbounded=True)
    rays = Cameras.within(scene, [view]).view_rays(0)
    ray = torch.arange(16)
    inside = rays.points(ray, torch.full((16,), 0.5))
    torch.testing.assert_close(inside, rays.origins + 0.5 * rays.directions)
    far = rays.points(ray, torch.full((16,), 50.0))
    torch.testing.assert_close(far, contract(rays.origins + 50 * rays.directions, bounds))
    assert rays[ray[:2]].foreground is bounds
    assert torch.equal(scene.box, contracted_box(bounds))
