"""Camera-to-world matrices: checked, made, moved, and what a set of them looks at."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError

FARTHEST = 1e18  # coordinate of a camera, whose square single precision still holds


def checked_pose(value: object, where: str, key: str) -> Tensor:
    """Camera-to-world (3, 4) float32 with axes of unit length, from a 4x4 or 3x4 matrix.

    Args:
        value: the file's entry.
        where: file and entry, for messages.
        key: what the file calls the matrix.

    Raises:
        UserError: it is not a pose.
    """
    if value is None:
        raise UserError(f"{where}: has no {key}; give the camera-to-world pose")
    try:
        matrix = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{where}: {key} is not a matrix of numbers") from None
    if matrix.shape not in ((4, 4), (3, 4)):
        raise UserError(f"{where}: {key} is {matrix.shape}; it has to be 4x4 or 3x4")
    if not np.isfinite(matrix).all():
        raise UserError(f"{where}: {key} has NaN or infinite numbers")
    if np.abs(matrix[:3, 3]).max() > FARTHEST:
        raise UserError(f"{where}: {key} has a position beyond {FARTHEST:g}; check its units")
    if len(matrix) == 4 and not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-4):
        raise UserError(f"{where}: the last row of {key} is not 0 0 0 1; is it transposed?")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    axes = matrix[:3, :3] / np.maximum(lengths, 1e-12)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-2 or np.linalg.det(axes) < 0:
        raise UserError(f"{where}: {key} has no rotation in its first three columns")
    return torch.from_numpy(np.column_stack([axes, matrix[:3, 3]])).float()


def look_at_ball(c2w: Tensor) -> tuple[Tensor, float]:
    """The ball that cameras look at: around the point closest to all optical axes, with the
    cameras' mean distance from it as radius.

    Where the axes do not meet in front of the cameras (parallel or outward-looking ones, or a
    single one) the distance is a guess: four times the cameras' spread.

    Args:
        c2w: (V, 3, 4) camera-to-world, OpenGL axes.

    Returns:
        centre (3,) float32 and radius, scene units.
    """
    positions, forward = c2w[:, :, 3].double(), -c2w[:, :, 2].double()
    forward = forward / forward.norm(dim=1, keepdim=True)
    projection = torch.eye(3, dtype=torch.double) - forward[:, :, None] * forward[:, None, :]
    normal = projection.mean(dim=0)
    middle = positions.mean(dim=0)
    spread = float((positions - middle).norm(dim=1).mean())
    if float(torch.linalg.eigvalsh(normal)[0]) > 1e-6:
        centre = torch.linalg.solve(normal, (projection @ positions[:, :, None]).mean(dim=0)[:, 0])
        depth = ((centre - positions) * forward).sum(dim=1).mean()
        if float(depth) > 0.5 * spread:
            return centre.float(), float((centre - positions).norm(dim=1).mean())
    distance = 4.0 * spread or float(middle.norm()) or 1.0
    centre = middle + distance * forward.mean(dim=0)
    return centre.float(), max(distance, float((centre - positions).norm(dim=1).mean()))


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
    upward = perpendicular(up, backward)
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


def moved(c2w: Tensor, origin: Tensor, axes: Tensor, scale: float) -> Tensor:
    """The same cameras in another coordinate system.

    Args:
        c2w: (V, 3, 4) camera-to-world.
        origin: (3,) the new origin, in the old system.
        axes: (3, 3) the new axes as columns, in the old system.
        scale: new lengths per old ones.

    Returns:
        (V, 3, 4) camera-to-world.
    """
    positions = scale * (c2w[:, :, 3] - origin) @ axes
    return torch.cat([axes.T @ c2w[:, :, :3], positions[:, :, None]], dim=2)


def around_look_at(c2w: Tensor) -> tuple[Tensor, Tensor, float]:
    """The coordinate system around the point that cameras (V, 3, 4) look at, z up, in which their
    mean distance from it is 1: origin, axes and scale for `moved`."""
    centre, radius = look_at_ball(c2w)
    return centre, upright_axes(up_axis(c2w), centre - c2w[0, :, 3]), 1.0 / radius


def upright_axes(up: Tensor, forward: Tensor) -> Tensor:
    """Axes (3, 3) as columns with z ``up (3,)`` and y as close to ``forward (3,)`` as can be."""
    ahead = forward - (forward @ up) * up
    if float(ahead.norm()) < 1e-6:
        ahead = torch.linalg.cross(up, torch.eye(3, dtype=up.dtype)[int(up.abs().argmin())])
    ahead = ahead / ahead.norm()
    return torch.stack([torch.linalg.cross(ahead, up), ahead, up], dim=1)


def mean_axes(c2w: Tensor) -> Tensor:
    """Axes (3, 3) as columns of the mean camera: z the mean backward direction, y up."""
    backward = c2w[:, :, 2].mean(dim=0)
    backward = backward / backward.norm().clamp(min=1e-12)
    right = torch.linalg.cross(c2w[:, :, 1].mean(dim=0), backward)
    right = right / right.norm().clamp(min=1e-12)
    return torch.stack([right, torch.linalg.cross(backward, right), backward], dim=1)


def perpendicular(direction: Tensor, axis: Tensor) -> Tensor:
    """Unit vector at right angles to the unit ``axis``, as close to ``direction`` as can be."""
    for candidate in (direction, *torch.eye(3, dtype=axis.dtype)):
        rest = candidate - (candidate @ axis) * axis
        if float(rest.norm()) > 1e-4 * float(candidate.norm()):
            break
    return rest / rest.norm()
