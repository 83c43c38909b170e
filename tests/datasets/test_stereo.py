"""Plane-sweep stereo, against walls whose place is known."""

import pytest
import torch

from datasets.cameras.rays import Cameras
from datasets.cameras.space import NDC, Contracted
from datasets.scene import Scene, View
from datasets.stereo import stereo_density

SIZE, FOCAL = 48, 48.0
FOREGROUND = torch.tensor([[-2.0, -2, -2], [2, 2, 2]])
NEAR_BOX, FAR = torch.tensor([[-1.2, -1.2, -0.3], [1.2, 1.2, 0.3]]), 10.0


def wall_colour(x):
    """A texture without repetition, of positions (..., 2)."""
    u, v = x.unbind(-1)
    waves = [torch.sin(7 * u + 3 * v), torch.sin(5 * v - 4 * u + 1), torch.sin(9 * u * v + 2)]
    return ((0.5 + 0.4 * torch.stack(waves, -1)) * 255).round().to(torch.uint8)


def photo(eye, wall):
    """A camera at ``eye`` that looks along -z at the wall z = ``wall``."""
    c2w = torch.eye(3, 4)
    c2w[:, 3] = torch.tensor(eye)
    camera = Cameras(
        c2w[None], torch.tensor([[FOCAL, FOCAL, 24, 24]]), torch.tensor([[48, 48]]), 0, 9
    )
    rays = camera.view_rays(0)
    distance = (wall - rays.origins[:, 2]) / rays.directions[:, 2]
    hit = rays.origins + distance[:, None] * rays.directions
    image = wall_colour(hit[:, :2]).view(SIZE, SIZE, 3)
    return View(image, None, c2w, FOCAL, FOCAL, 24.0, 24.0, str(eye))


def forward(eyes, wall):
    views = [photo((x, y, 0.0), wall) for x, y in eyes]
    space = NDC.of(views[0])
    return Scene("s", views, views, [], 0.0, FAR, NEAR_BOX, space=space)


def surroundings(eyes, wall):
    views = [photo((x, y, 1.8), wall) for x, y in eyes]
    return Scene("s", views, views, [], 0.1, FAR, FOREGROUND, space=Contracted(FOREGROUND))


EYES = [(-0.25, 0.0), (0.0, 0.1), (0.25, 0.0)]


def stopped_at(scene, density):
    """(33, 33) how far along z, in cells, half of the light gets that comes from the cameras."""
    thickness = float(scene.box[1, 2] - scene.box[0, 2]) / (density.shape[2] - 1)
    ahead = density if scene.space.forward_facing else density.flip(2)
    stopped = (-thickness * ahead.cumsum(2)).exp() < 0.5
    at = stopped.float().argmax(2)
    return at if scene.space.forward_facing else density.shape[2] - 1 - at


@pytest.mark.parametrize(("scene_of", "wall"), [(forward, -3.0), (surroundings, -1.0)])
def test_light_stops_where_the_wall_is(scene_of, wall):
    scene, shape = scene_of(EYES, wall), (33, 33, 25)
    found = stopped_at(scene, stereo_density(scene, shape))[13:20, 13:20]  # what all photos show
    place = scene.space.from_world(torch.tensor([0.0, 0.0, wall]))[2]
    wanted = float((place - scene.box[0, 2]) / (scene.box[1, 2] - scene.box[0, 2])) * 24
    assert (found - wanted).abs().max() <= 1


def test_a_single_photo_says_nothing():
    assert not stereo_density(forward(EYES[:1], -3.0), (9, 9, 9)).any()


def with_passer_by(eyes, known):
    """Photos of a wall, in one of which somebody stands in the middle."""
    scene = forward(eyes, -3.0)
    view = scene.train[1]
    view.image[18:30, 18:30] = 255
    if known:
        view.valid = torch.ones(SIZE, SIZE, dtype=torch.bool)
        view.valid[18:30, 18:30] = False
    return scene


@pytest.mark.parametrize("known", [True, False])
def test_what_two_other_photos_show_is_enough(known):
    scenes = forward(EYES, -3.0), with_passer_by(EYES, known)
    found = [stopped_at(scene, stereo_density(scene, (33, 33, 25))) for scene in scenes]
    assert (found[0] - found[1])[12:21, 12:21].abs().max() <= 1


@pytest.mark.parametrize("known", [True, False])
def test_pixels_that_say_nothing_are_not_compared(known):
    density = stereo_density(with_passer_by(EYES[:2], known), (33, 33, 25))
    assert bool((density[16, 16:18, 8:] == 0).all()) == known
