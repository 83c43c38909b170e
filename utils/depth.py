"""Depth maps as floats: PFM and raw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

SOLID = 0.5


def solid_depth(depth: Tensor, opacity: Tensor) -> np.ndarray:
    """Distances (H, W) float32 along the rays, scene units; 0 where nothing is (opacity < 1/2)."""
    return (depth * (opacity >= SOLID)).detach().cpu().numpy().astype("<f4")


def write_pfm(path: Path, depth: Tensor, opacity: Tensor) -> None:
    """Writes a depth map as PFM: header "Pf", width and height, scale -1 for little-endian, then
    rows from the lowest up, float32.

    Args:
        path: the file.
        depth: (H, W) distances along the rays, scene units.
        opacity: (H, W) in [0, 1]; where it is under 1/2, 0 is written.
    """
    values = solid_depth(depth, opacity)
    height, width = values.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1.0\n".encode() + values[::-1].tobytes())


def write_raw(path: Path, depth: Tensor, opacity: Tensor) -> None:
    """Writes the same numbers alone: H * W little-endian float32, rows from the top down.

    Args:
        path: the file.
        depth, opacity: as for `write_pfm`.
    """
    path.write_bytes(solid_depth(depth, opacity).tobytes())
