import numpy as np
import pytest
import torch

from datasets.cameras.poses import look_at
from datasets.cameras.spline import CameraSpline

UP = torch.tensor([0.0, 0.0, 1.0])
EYES = torch.tensor([[3.0, 0, 1], [2.5, 2, 0.5], [0, 3, 0], [-2, 1, 1], [0, -2.5, 2]])
C2W = torch.stack([look_at(eye, torch.zeros(3), UP) for eye in EYES])
LENS = torch.stack([torch.arange(4.0) + 10 * i for i in range(5)])
KNOTS = np.array([0.0, 1.0, 2.5, 3.0, 4.2])
CLOSED = np.append(KNOTS, 5.0)


@pytest.mark.parametrize("knots", [KNOTS, CLOSED])
def test_goes_through_every_camera(knots):
    poses, lens = CameraSpline(C2W, LENS, knots).at(KNOTS)
    torch.testing.assert_close(poses, C2W, atol=1e-5, rtol=0)
    torch.testing.assert_close(lens, LENS)


@pytest.mark.parametrize("knots", [KNOTS, CLOSED])
def test_rotations_are_rotations_and_nothing_jumps(knots):
    spline = CameraSpline(C2W, LENS, knots)
    poses, _ = spline.at(np.linspace(knots[0], knots[-1], 1001))
    axes = poses[:, :, :3]
    eye = torch.eye(3).expand(1001, 3, 3)
    torch.testing.assert_close(axes.mT @ axes, eye, atol=1e-5, rtol=0)
    assert (torch.linalg.det(axes) > 0).all()
    assert (poses[1:] - poses[:-1]).abs().max() < 0.03


def test_a_round_is_as_smooth_at_its_joint_as_elsewhere():
    spline = CameraSpline(C2W, LENS, CLOSED)
    h = 1e-3
    for end in (0.0, 5.0):
        before, at, after = spline.at(np.array([end - h, end, end + h]) % 5.0)[0].double()
        assert ((after - at) - (at - before)).abs().max() < 1e-4 * 5
    torch.testing.assert_close(*spline.at(np.array([0.0, 5.0]))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("knots", [KNOTS, CLOSED])
def test_even_speed(knots):
    spline = CameraSpline(C2W, LENS, knots)
    t = spline.evenly(400, radius=0.0)
    eyes = spline.at(t)[0][:, :, 3]
    steps = (eyes[1:] - eyes[:-1]).norm(dim=1)
    torch.testing.assert_close(steps, steps.mean().expand(399), rtol=0.01, atol=0)
    assert t[0] == 0.0
    last = t[-1]
    assert last < knots[-1] if spline.closed else last == pytest.approx(knots[-1])


def test_a_turn_on_the_spot_takes_time():
    c2w = torch.stack([look_at(torch.zeros(3), aim, UP) for aim in EYES[:3]])
    spline = CameraSpline(c2w, LENS[:3], np.arange(3.0))
    axes = spline.at(spline.evenly(50, radius=1.0))[0][:, :, 2]
    angles = (axes[1:] * axes[:-1]).sum(dim=1).clamp(max=1.0).acos()
    assert angles.max() < 1.5 * angles.mean()


def test_two_cameras_are_a_straight_line():
    spline = CameraSpline(C2W[:2], LENS[:2], np.arange(2.0))
    poses, lens = spline.at(np.array([0.0, 0.25, 1.0]))
    torch.testing.assert_close(poses[1, :, 3], 0.75 * EYES[0] + 0.25 * EYES[1])
    torch.testing.assert_close(lens[1], 0.75 * LENS[0] + 0.25 * LENS[1])
