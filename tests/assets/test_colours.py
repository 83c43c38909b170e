"""Colours of vertices: from the field, and from photos with a right test of what hides what."""

import math

import pytest
import torch

from assets.colours import (
    Surface,
    field_colours,
    premultiplied,
    transmittance_between,
)
from datasets.cameras.poses import look_at
from datasets.cameras.rays import Cameras
from datasets.scene import View
from tests.assets.conftest import CENTRE, RADIUS, position_colour, voxels
from utils.images import sample_bilinear

UP = torch.tensor([0.0, 0, 1])
GREEN = torch.tensor([51, 204, 102], dtype=torch.uint8)


def view_from(eye, colour=GREEN, size=(40, 48), alpha=None, focal=40.0):
    image = colour.expand(*size, 3).clone()
    pose = look_at(torch.tensor(eye, dtype=torch.float32), CENTRE, UP)
    return View(image, alpha, pose, focal, focal, size[1] / 2, size[0] / 2, "view")


def ball_points(n=400):
    normals = torch.randn(n, 3, generator=torch.Generator().manual_seed(1))
    normals = normals / normals.norm(dim=1, keepdim=True)
    return CENTRE + RADIUS * normals, normals


def test_the_field_is_seen_along_the_normal_without_the_background(ball):
    vertices, normals = ball_points()
    rgb = field_colours(ball, vertices, normals, 0.1)
    assert (rgb - position_colour(None, vertices, None)).abs().max() < 0.03


def test_a_vertex_in_the_void_gets_the_colour_of_its_place(ball):
    x = torch.tensor([[1.1, 0.9, 1.0]])
    rgb = field_colours(ball, x, torch.tensor([[0.0, 0, 1]]), 0.05)
    assert torch.allclose(rgb, position_colour(None, x, None))


def test_projection_is_the_inverse_of_the_rays():
    cameras = Cameras.of([view_from([3.0, 1, 1])], 0.0, 9.0)
    row, column = torch.tensor([0, 7, 39]), torch.tensor([5, 47, 0])
    rays = cameras.rays(torch.zeros(3, dtype=torch.long), row, column)
    x = rays.origins + 2.5 * rays.directions
    place, depth, inside = cameras.project(0, x)
    assert inside.all()
    ahead = -cameras.c2w[0, :, 2]
    assert torch.allclose(depth, (x - cameras.c2w[0, :, 3]) @ ahead)
    each = cameras.project(torch.zeros(3, dtype=torch.long), x)
    assert torch.equal(each[0], place)
    assert torch.allclose(place, torch.stack([column, row], 1) + 0.5, atol=1e-3)
    behind = rays.origins - 2.5 * rays.directions
    assert not cameras.project(0, behind)[2].any()
    aside = rays.origins + cameras.c2w[0, :, 0] * 50 - cameras.c2w[0, :, 2]
    assert not cameras.project(0, aside)[2].any()


def test_light_is_measured_along_the_ray_also_far_off_the_axis(ball):
    """nerf_pl compared a z-depth with a distance: off the axis every vertex seemed visible."""
    eye = torch.tensor([2.5, -0.15, 0.2])
    vertices, normals = ball_points(2000)
    light = transmittance_between(ball, eye.expand_as(vertices), vertices + 0.1 * normals)
    facing = ((eye - vertices) * normals).sum(1) / (eye - vertices).norm(dim=1)
    assert light[facing > 0.15].min() > 0.9
    assert light[facing < -0.7].max() < 0.1


def test_only_those_who_see_a_vertex_colour_it(ball):
    red, blue = (torch.tensor(c, dtype=torch.uint8) for c in ([255, 0, 0], [0, 0, 255]))
    views = [view_from([3.0, -0.15, 0.2], red), view_from([-3.0, -0.15, 0.2], blue)]
    vertices, normals = ball_points()
    rgb, weight = Surface(ball, views, vertices, normals, 0.1).photo_colours()
    right, left = normals[:, 0] > 0.5, normals[:, 0] < -0.5
    assert torch.allclose(rgb[right], torch.tensor([1.0, 0, 0]).expand_as(rgb[right]))
    assert torch.allclose(rgb[left], torch.tensor([0.0, 0, 1]).expand_as(rgb[left]))
    assert (weight[normals[:, 0].abs() < 0.1] == 0).all()


def test_what_stands_before_a_vertex_hides_it():
    """A wall between camera and ball; the camera's far side of the ball is hidden anyway."""
    balls = lambda x: (x - CENTRE).norm(dim=-1) - 0.4  # noqa: E731
    wall = lambda x: ((x - torch.tensor([0.9, -0.15, 0.2])).abs() / 2).amax(1) - 0.06  # noqa: E731
    renderer = voxels(lambda x: torch.minimum(balls(x), wall(x)))
    view = view_from([3.0, -0.15, 0.2])
    normal = torch.tensor([[1.0, 0, 0], [math.cos(1.0), math.sin(1.0), 0]])
    _, weight = Surface(renderer, [view], CENTRE + 0.4 * normal, normal, 0.1).photo_colours()
    assert weight[0] == 0
    assert weight[1] > 0


def test_a_transparent_background_does_not_darken_rims(ball):
    """Green at every alpha, over a white background; alpha falls from 255 to 0 across the image."""
    alpha = torch.linspace(255, 0, 48).round().to(torch.uint8).expand(40, 48)
    view = view_from([3.0, -0.15, 0.2], alpha=alpha)
    cover = alpha[..., None].float() / 255
    view.image = (GREEN * cover + 255 * (1 - cover)).round().to(torch.uint8)
    vertices, normals = ball_points()
    rgb, weight = Surface(ball, [view], vertices, normals, 0.1).photo_colours()
    assert (rgb[weight > 1e-2] - GREEN / 255).abs().max() < 0.02
    layer = premultiplied(view, torch.ones(3))
    assert layer[..., 3].max() == 1


def test_bilinear_values_at_pixel_centres_and_between():
    image = torch.arange(12.0).view(3, 4, 1)
    place = torch.tensor([[0.5, 0.5], [3.5, 2.5], [1.0, 0.5], [0.0, 0.0]])
    assert sample_bilinear(image, place)[:, 0].tolist() == pytest.approx([0, 11, 0.5, 0], abs=1e-5)
