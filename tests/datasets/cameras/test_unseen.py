"""Random poses near the training cameras: independent, in range, a function of the generator."""

import math
from dataclasses import replace

import pytest
import torch

from datasets.cameras.poses import look_at_ball
from datasets.cameras.space import NDC
from datasets.cameras.unseen import MARGIN, ZOOM, UnseenCameras
from datasets.scene import Scene, View
from tests.conftest import orbit_pose


def scene_of(count=8, size=(20, 24), spread=0.0):
    views = []
    for i in range(count):
        c2w = torch.from_numpy(orbit_pose(i, count)[:3]).float()
        c2w[:, 3] += spread * i * c2w[:, 2]
        image = torch.full((*size, 3), 255, dtype=torch.uint8)
        views.append(View(image, None, c2w, 30.0, 31.0, size[1] / 2, size[0] / 2, str(i)))
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    return Scene("s", views, views, views, 1.0, 6.0, bounds)


def draw(unseen, count):
    poses = [unseen.pose(torch.Generator().manual_seed(i)) for i in range(count)]
    return torch.stack(poses)


def test_azimuth_elevation_and_radius_are_independent():
    unseen = UnseenCameras.of(scene_of(spread=0.1))
    found = torch.stack(unseen.spherical(draw(unseen, 600)))
    correlation = torch.corrcoef(found)
    assert (correlation - torch.eye(3)).abs().max() < 0.15
    azimuth, elevation, radius = found
    _, low_high, near_far = unseen.spherical(unseen.c2w)
    assert azimuth.min() < -0.95 * math.pi and azimuth.max() > 0.95 * math.pi
    for drawn, given, (below, above) in (
        (elevation, low_high, (low_high.min() - MARGIN, low_high.max() + MARGIN)),
        (radius, near_far, (near_far.min() * (1 - ZOOM), near_far.max() * (1 + ZOOM))),
    ):
        assert drawn.min() >= below - 1e-4 and drawn.max() <= above + 1e-4
        assert drawn.max() - drawn.min() > given.max() - given.min()


def test_they_look_at_what_the_training_cameras_look_at():
    unseen = UnseenCameras.of(scene_of())
    centre, _ = look_at_ball(unseen.c2w)
    for pose in draw(unseen, 20):
        towards = centre - pose[:, 3]
        assert torch.allclose(-pose[:, 2], towards / towards.norm(), atol=1e-5)


def test_one_generator_one_pose():
    unseen = UnseenCameras.of(scene_of())
    same = [unseen.pose(torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], unseen.pose(torch.Generator().manual_seed(6)))


def test_between_the_cameras_of_a_scene_that_they_face():
    scene = scene_of(3)
    for i, view in enumerate(scene.train):
        view.c2w = torch.eye(3, 4)
        view.c2w[:, 3] = torch.tensor([0.2 * i, 0.1 * i * i, 0.0])
    scene = replace(scene, space=NDC.of(scene.train[0]))
    unseen = UnseenCameras.of(scene)
    poses = draw(unseen, 50)
    positions = torch.stack([view.c2w[:, 3] for view in scene.train])
    assert (poses[:, :, 3] >= positions.amin(0) - 1e-6).all()
    assert (poses[:, :, 3] <= positions.amax(0) + 1e-6).all()
    assert (poses[:, 2, 2] > 0.999).all()
    assert len({tuple(p.flatten().tolist()) for p in poses}) > 30


@pytest.mark.parametrize("size", [(37, 53), (60, 20), (24, 24)])
def test_a_window_lies_in_the_image_of_any_shape(size):
    """Its corners are pixels that a training view has."""
    unseen = UnseenCameras.of(scene_of(size=size))
    for seed in range(20):
        window = unseen.window(torch.Generator().manual_seed(seed), 16, (0.5, 1.0))
        assert window.sizes.tolist() == [[16, 16]]
        fx, fy, cx, cy = window.intrinsics[0].tolist()
        k = fx / 30.0
        assert fy / 31.0 == pytest.approx(k)
        left, top = size[1] / 2 - cx / k, size[0] / 2 - cy / k
        side = 16 / k
        assert -1e-4 <= left <= size[1] - side + 1e-4
        assert -1e-4 <= top <= size[0] - side + 1e-4
        assert 0.5 * min(size) - 1e-4 <= side <= min(size) + 1e-4
