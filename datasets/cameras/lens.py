"""The intrinsics that a file declares, and those of an image of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError


@dataclass(frozen=True)
class Lens:
    """A camera's intrinsics as a file declares them.

    Attributes:
        fx, fy: focal lengths in pixels of the declared size, or None where an angle is given.
        cx, cy: centre in pixels of the declared size; None: the middle.
        width, height: the declared size in pixels; None: that of the image file.
        angle_x, angle_y: fields of view in radians, in place of fx and fy; angle_y None: square
            pixels.
        model, coefficients: distortion, see `datasets.cameras.distortion`.
    """

    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    width: float | None = None
    height: float | None = None
    angle_x: float | None = None
    angle_y: float | None = None
    model: str = "PINHOLE"
    coefficients: tuple[float, ...] = ()

    @property
    def declares_size(self) -> bool:
        return self.width is not None and self.height is not None

    def fits(self, width: int, height: int) -> bool:
        """Whether an image has the declared shape; scaled to whole pixels it may be off by one."""
        declared = (self.width or width, self.height or height)
        sx, sy = width / declared[0], height / declared[1]
        return abs(declared[0] * sy - width) <= 1 or abs(declared[1] * sx - height) <= 1

    def at(self, path: Path, width: int, height: int) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in pixels of the image ``path`` of the given size.

        Raises:
            UserError: the image does not have the declared shape.
        """
        declared = (self.width or width, self.height or height)
        if not self.fits(width, height):
            raise UserError(
                f"{path}: is {width}x{height}, which is not the shape of the declared w and h, "
                f"{declared[0]:g}x{declared[1]:g}; correct them or the image"
            )
        sx, sy = width / declared[0], height / declared[1]
        if self.fx is not None:
            fx, fy = self.fx * sx, (self.fx if self.fy is None else self.fy) * sy
        else:
            fx = fy = 0.5 * width / math.tan(0.5 * self.angle_x)
            if self.angle_y is not None:
                fy = 0.5 * height / math.tan(0.5 * self.angle_y)
        cx = 0.5 * declared[0] if self.cx is None else self.cx
        cy = 0.5 * declared[1] if self.cy is None else self.cy
        return fx, fy, cx * sx, cy * sy
