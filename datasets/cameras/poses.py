"""Camera-to-world matrices from files: checked, and a set of them moved and turned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datasets.cameras.paths import up_axis
from datasets.hull import look_at_ball
from utils.errors import UserError


def checked_pose(value: object, where: str, key: str) -> Tensor:
    """Camera-to-world (3, 4) float32 with axes of unit length, from a 4x4 or 3x4 matrix.

    Args:
        value: what the file has.
        where: file and entry, for messages.
        key: what the file calls the matrix.

    Raises:
        UserError: it is no pose.
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
    if len(matrix) == 4 and not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-4):
        raise UserError(f"{where}: {key} has not 0 0 0 1 as last row; is it transposed?")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    axes = matrix[:3, :3] / np.maximum(lengths, 1e-12)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-2 or np.linalg.det(axes) < 0:
        raise UserError(f"{where}: {key} has no rotation in its first three columns")
    return torch.from_numpy(np.column_stack([axes, matrix[:3, 3]])).float()


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
    eyes = scale * (c2w[:, :, 3] - origin) @ axes
    return torch.cat([axes.T @ c2w[:, :, :3], eyes[:, :, None]], dim=2)


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
