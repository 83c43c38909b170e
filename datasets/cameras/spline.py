"""A smooth curve through cameras: positions, orientations and lenses between those given."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline
from torch import Tensor

STEPS = 200  # by which the length between two cameras is measured


class CameraSpline:
    """A curve that goes through every camera exactly, at its knot.

    Positions follow a cubic spline, orientations a cubic spline of rotations, both with continuous
    acceleration; intrinsics change linearly.

    Args:
        c2w: (V, 3, 4) camera-to-world, V >= 2.
        intrinsics: (V, 4) pixels, of images of one size.
        knots: ascending; (V,), or (V + 1,) for a curve that goes on from the last camera to the
            first.
    """

    def __init__(self, c2w: Tensor, intrinsics: Tensor, knots: np.ndarray) -> None:
        n = len(c2w)
        self.knots, self.closed = knots, len(knots) > n
        poses = c2w.double().numpy()
        order = np.arange(len(knots)) % n
        ends = "periodic" if self.closed else "natural"
        self.position = CubicSpline(knots, poses[order, :, 3], bc_type=ends)
        self.lens = intrinsics.double().numpy()[order]
        times = knots
        if self.closed:
            # one period before and one after make the joint as smooth as the rest
            period = knots[-1] - knots[0]
            times = np.concatenate([knots[:-1] - period, knots, knots[1:] + period])
            order = np.arange(len(times)) % n
        self.orientation = RotationSpline(times, Rotation.from_matrix(poses[order, :, :3]))

    def at(self, t: np.ndarray) -> tuple[Tensor, Tensor]:
        """The cameras at ``t (N,)``: camera-to-world (N, 3, 4) and intrinsics (N, 4), float32."""
        axes, positions = self.orientation(t).as_matrix(), self.position(t)
        lens = [np.interp(t, self.knots, column) for column in self.lens.T]
        return (
            torch.from_numpy(np.concatenate([axes, positions[:, :, None]], axis=2)).float(),
            torch.from_numpy(np.stack(lens, axis=1)).float(),
        )

    def in_time(self, n: int) -> np.ndarray:
        """``n`` values of t in even steps; with both ends, or the start of a closed curve."""
        return _steps(self.knots[0], self.knots[-1], n, self.closed)

    def evenly(self, n: int, radius: float) -> np.ndarray:
        """``n`` values of t between which the camera moves equally far.

        Args:
            n: from one end to the other, or once around.
            radius: a turn on the spot by 1 radian counts as this length, scene units.
        """
        t = np.interp(
            np.arange((len(self.knots) - 1) * STEPS + 1) / STEPS,
            np.arange(len(self.knots)),
            self.knots,
        )
        length = np.linalg.norm(np.diff(self.position(t), axis=0), axis=1)
        rotations = self.orientation(t)
        angle = (rotations[:-1].inv() * rotations[1:]).magnitude()
        length = np.concatenate([[0.0], np.cumsum(np.maximum(length, radius * angle))])
        return np.interp(_steps(0.0, length[-1], n, self.closed), length, t)


def _steps(start: float, end: float, n: int, closed: bool) -> np.ndarray:
    return np.linspace(start, end, n, endpoint=not closed)
