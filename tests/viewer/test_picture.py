"""What a picture shows is what the renderer renders."""

import dataclasses

import numpy as np
import pytest
import torch

from datasets.cameras.space import NDC, WORLD, Contracted
from models.mixing import Mixture
from models.renderer import render_view
from tests.viewer.conftest import ball_in
from utils.depth import depth_to_colour
from utils.images import to_uint8
from viewer.exhibits import Choices, Subject
from viewer.look import Colours
from viewer.picture import make_picture

WIDTH, HEIGHT = 24, 20


def made(*arguments, **more):
    making = make_picture(*arguments, **more)
    chunks = 0
    while True:
        try:
            next(making)
            chunks += 1
        except StopIteration as end:
            return end.value, chunks


@pytest.fixture
def rendered(checkpoint, scene, look):
    """``rendered(style)``: the same picture by `render_view`."""

    def make(style):
        renderer = Mixture.asked(checkpoint, [style]).renderer(checkpoint)
        return render_view(renderer, look().pose.camera(scene, WIDTH, HEIGHT), 0)

    return make


def test_channels_are_those_of_render_view(trained, look, rendered, scene, networks):
    exhibit, picture = trained(), rendered("b")
    wanted = {
        "colour": to_uint8(picture.rgb).numpy(),
        "depth": depth_to_colour(picture.depth, picture.opacity, scene.near, scene.far),
        "opacity": to_uint8(picture.opacity[..., None].expand(-1, -1, 3)).numpy(),
    }
    for channel, expected in wanted.items():
        asked = look(colours=exhibit.first, channel=channel)
        found, chunks = made(exhibit, asked, WIDTH, HEIGHT, networks, chunk=100)
        assert chunks == 5  # of 480 rays: between them others get their turn
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - expected).max() <= 1  # chunks round sums differently
        assert expected.std() > 20


def test_the_split_has_the_photograph_on_the_left(trained, look, rendered, networks):
    photo, painted = (to_uint8(rendered(style).rgb).numpy() for style in ("photo", "a"))
    asked = look(colours=Colours("a"), split=0.5)
    found, _ = made(trained(), asked, WIDTH, HEIGHT, networks)
    assert np.abs(found[:, :12].astype(int) - photo[:, :12]).max() <= 1
    assert np.abs(found[:, 12:].astype(int) - painted[:, 12:]).max() <= 1
    assert np.abs(photo.astype(int) - painted).max() > 20


def test_the_background_is_behind_the_ball_and_not_on_it(trained, look, networks):
    exhibit = trained()
    white, _ = made(exhibit, look(colours=exhibit.first), WIDTH, HEIGHT, networks)
    asked = look(colours=exhibit.first, background=(0.0, 0.0, 1.0))
    blue, _ = made(exhibit, asked, WIDTH, HEIGHT, networks)
    assert (white[0, 0] == 255).all()
    assert blue[0, 0].tolist() == [0, 0, 255]
    assert np.abs(blue[10, 12].astype(int) - white[10, 12]).max() <= 2


class Exhibit:
    """One field in its own colours."""

    choices = Choices(["it"])

    def __init__(self, scene, renderer):
        self.place, self.renderer = scene, renderer

    def subject(self, colours):
        return Subject(self.renderer, self.renderer.field.style)

    def scene(self, colours):
        return self.place


def test_endless_rays_have_another_background_in_a_crop_box_alone(scene, look, networks):
    place = dataclasses.replace(scene, space=Contracted(scene.bounds))
    exhibit = Exhibit(place, ball_in(place, place.box))
    asked = look(background=(0.0, 0.0, 1.0))
    plain, _ = made(exhibit, look(), WIDTH, HEIGHT, networks)
    same, _ = made(exhibit, asked, WIDTH, HEIGHT, networks)
    assert np.array_equal(same, plain)
    assert (plain[0, 0] != 255).any()  # the sky, not the scene's white
    crop = tuple(scene.bounds.flatten().tolist())
    blue, _ = made(exhibit, dataclasses.replace(asked, crop=crop), WIDTH, HEIGHT, networks)
    assert blue[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("kind", ["world", "contracted", "ndc"])
def test_the_crop_box_shows_what_is_inside_of_it_alone(scene, look, networks, kind):
    """A cut ball: what is seen through every pixel lies within the box, and the cut lets one see
    what was hidden before."""
    if kind == "ndc":
        space, bounds = NDC((1.2, 1.4, 0.5)), torch.tensor([[-1.0, -1, -0.5], [1, 1, 0.5]])
        eye = (1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0.0)
        pose = dataclasses.replace(look().pose, c2w=eye)
        near, far = 0.0, 10.0
        # in NDC the ball is around z = -2 of the world: a slab of it
        crop = torch.tensor([[-9.0, -9.0, -2.5], [9.0, 0.1, -2.0]])
    else:
        bounds, pose, near, far = scene.bounds, look().pose, scene.near, scene.far
        space = Contracted(bounds) if kind == "contracted" else WORLD
        middle = bounds.mean(0)
        crop = torch.stack([bounds[0], torch.cat([middle[:2], bounds[1, 2:]])])
    place = dataclasses.replace(scene, space=space, bounds=bounds, near=near, far=far)
    exhibit = Exhibit(place, ball_in(place, place.box))
    camera = pose.camera(place, WIDTH, HEIGHT)
    rays = camera.view_rays(0)
    cut = rays.space.clip_in_world(rays, crop)
    renderer = exhibit.renderer
    samples = renderer.sample(renderer.clip(cut))
    world = space.to_world(cut.points(samples.ray_index, samples.t))
    slack = 0.02 * (crop[1] - crop[0])
    assert len(samples) > 50
    assert bool(((world > crop[0] - slack) & (world < crop[1] + slack)).all())
    asked = look(pose=pose, channel="opacity")
    whole, _ = made(exhibit, asked, WIDTH, HEIGHT, networks)
    crop = tuple(crop.flatten().tolist())
    part, _ = made(exhibit, dataclasses.replace(asked, crop=crop), WIDTH, HEIGHT, networks)
    assert 0 < (part > 128).sum() < (whole > 128).sum()
    everything = (-50.0, -50.0, -50.0, 50.0, 50.0, 50.0)
    same, _ = made(exhibit, dataclasses.replace(asked, crop=everything), WIDTH, HEIGHT, networks)
    assert np.abs(same.astype(int) - whole).max() <= 1
