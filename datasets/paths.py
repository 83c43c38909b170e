"""Camera paths to render along: a circle around what the training cameras look at, or a spiral."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from datasets.cameras import Cameras
from datasets.hull import look_at_ball
from datasets.scene import Scene

TURNS = 2  # of the spiral, in which it moves once forwards and back
FOCUS = 4.0  # depth that the spiral's cameras look at, in distances of the near plane
REACH = 0.9  # share of the training cameras within the spiral's width


def circle_path(scene: Scene, n_frames: int) -> Cameras:
    """A closed circle around the look-at point, at the training cameras' mean distance and mean
    elevation, starting on the side of the first training view.

    Forward-facing scenes (NDC) have no other side: they get `spiral_path`.

    Args:
        scene: its training cameras give the circle; the first gives intrinsics and image size.
        n_frames: frames in one turn; the first is not repeated at the end.

    Returns:
        ``n_frames`` cameras with the scene's near and far.
    """
    if scene.ndc:
        return spiral_path(scene, n_frames)
    c2w = torch.stack([view.c2w for view in scene.train])
    centre, _ = look_at_ball(c2w)
    up = up_axis(c2w)
    arms = c2w[:, :, 3] - centre
    distances = arms.norm(dim=1)
    elevation = float(torch.asin(((arms @ up) / distances).clamp(-1.0, 1.0)).mean())
    start = _perpendicular(arms[0], up)
    aside = torch.linalg.cross(up, start)
    angle = torch.arange(n_frames) * (2.0 * math.pi / n_frames)
    level = angle.cos()[:, None] * start + angle.sin()[:, None] * aside
    arms = math.cos(elevation) * level + math.sin(elevation) * up
    poses = [look_at(eye, centre, up) for eye in centre + distances.mean() * arms]
    return _cameras(scene, poses)


def spiral_path(scene: Scene, n_frames: int) -> Cameras:
    """A closed spiral through the training cameras of a forward-facing scene, which look along -z
    from around the origin, all towards one point (Mildenhall et al. 2019).

    Args:
        scene: its training cameras give the width; the first gives intrinsics and image size.
        n_frames: frames until it closes; the first is not repeated at the end.

    Returns:
        ``n_frames`` cameras with the scene's near and far, warped if the scene is.
    """
    eyes = torch.stack([view.c2w[:, 3] for view in scene.train])
    middle = eyes.mean(dim=0)
    radii = torch.quantile((eyes - middle).abs(), REACH, dim=0)
    angle = torch.arange(n_frames) * (2.0 * math.pi * TURNS / n_frames)
    swing = torch.stack([angle.cos(), -angle.sin(), -(angle / TURNS).sin()], dim=1)
    target = middle - torch.tensor([0.0, 0.0, FOCUS])
    up = torch.tensor([0.0, 1.0, 0.0])
    return _cameras(scene, [look_at(eye, target, up) for eye in middle + swing * radii])


def look_at(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """Pose of a camera that looks at a point, upright as far as possible.

    Args:
        eye, target: (3,) positions; they differ.
        up: (3,) the direction that is up in the image; where it is the viewing direction itself
            another is taken.

    Returns:
        (3, 4) camera-to-world, OpenGL axes.

    Raises:
        ValueError: eye and target coincide.
    """
    backward = eye - target
    if float(backward.norm()) == 0.0:
        raise ValueError("look_at: eye and target are the same point")
    backward = backward / backward.norm()
    upward = _perpendicular(up, backward)
    return torch.stack([torch.linalg.cross(upward, backward), upward, backward, eye], dim=1)


def up_axis(c2w: Tensor) -> Tensor:
    """The up direction of a set of cameras: the one most at right angles to their x axes, which
    are level for cameras held upright; among equals the one closest to their mean y axis.

    Args:
        c2w: (V, 3, 4) camera-to-world, OpenGL axes.

    Returns:
        (3,) float32, unit length.
    """
    right, up = c2w[:, :, 0].double(), c2w[:, :, 1].double().mean(dim=0)
    # the small second term decides where all x axes are parallel, and hardly matters elsewhere
    tilt = right.T @ right / len(right) - 1e-3 * up[:, None] * up[None, :]
    axis = torch.linalg.eigh(tilt).eigenvectors[:, 0]
    return (axis if float(axis @ up) >= 0 else -axis).float()


def _cameras(scene: Scene, poses: list[Tensor]) -> Cameras:
    """Cameras at the poses (3, 4) with the first training view's intrinsics."""
    first = Cameras.within(scene, scene.train[:1])
    return replace(
        first,
        c2w=torch.stack(poses),
        intrinsics=first.intrinsics.expand(len(poses), -1).clone(),
        sizes=first.sizes.expand(len(poses), -1).clone(),
    )


def _perpendicular(direction: Tensor, axis: Tensor) -> Tensor:
    """Unit vector at right angles to the unit ``axis``, as close to ``direction`` as can be."""
    for candidate in (direction, *torch.eye(3, dtype=axis.dtype)):
        rest = candidate - (candidate @ axis) * axis
        if float(rest.norm()) > 1e-4 * float(candidate.norm()):
            break
    return rest / rest.norm()
