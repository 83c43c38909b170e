"""Depth maps as files: colours for the eye, 16-bit grey, PFM and raw floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from utils.files import replacing

# viridis (van der Walt & Smith 2015, public domain) at 0, 1/8, ..., 1: dark is near
VIRIDIS = (
    (68, 1, 84),
    (71, 44, 122),
    (59, 81, 139),
    (44, 113, 142),
    (33, 144, 141),
    (39, 173, 129),
    (92, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
)
PNG16_MAX = 65535
SOLID = 0.5  # opacity from which a pixel has a depth


def depth_to_colour(depth: Tensor, opacity: Tensor, near: float, far: float) -> np.ndarray:
    """Colours a depth map: ``near`` is dark violet, ``far`` yellow, empty pixels are white.

    Args:
        depth: (H, W) distances along the rays, scene units; ignored where opacity is 0.
        opacity: (H, W) in [0, 1]; colours fade to white as it decreases.
        near, far: range of distances that the colours span, scene units.

    Returns:
        (H, W, 3) uint8.
    """
    table = torch.tensor(VIRIDIS, dtype=torch.float64)
    opacity = opacity.detach().double().cpu().clamp(0, 1)
    position = _unit(depth, opacity > 0, near, far) * (len(VIRIDIS) - 1)
    below = position.long().clamp(max=len(VIRIDIS) - 2)
    colour = torch.lerp(table[below], table[below + 1], (position - below)[..., None])
    over_white = torch.lerp(torch.full_like(colour, 255), colour, opacity[..., None])
    return over_white.round().to(torch.uint8).numpy()


def write_depth_png16(
    path: str | Path, depth: Tensor, opacity: Tensor, near: float, far: float
) -> None:
    """Writes a depth map as 16-bit grey PNG.

    0 is empty (opacity below 1/2); a value v of 1 .. 65535 is the distance
    near + (v - 1) / 65534 * (far - near).  The file holds ``near`` and ``far`` as text entries.

    Args:
        path: the file.
        depth: (H, W) distances along the rays, scene units; clamped to [near, far].
        opacity: (H, W) in [0, 1].
        near, far: range of distances that the file can hold, scene units.
    """
    solid = opacity.detach().cpu() >= SOLID
    grey = torch.where(solid, 1 + (_unit(depth, solid, near, far) * (PNG16_MAX - 1)).round(), 0)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("near", repr(float(near)))
    notes.add_text("far", repr(float(far)))
    with replacing(Path(path)) as partial:
        Image.fromarray(grey.numpy().astype(np.uint16)).save(partial, format="PNG", pnginfo=notes)


def _unit(depth: Tensor, valid: Tensor, near: float, far: float) -> Tensor:
    """Depth (H, W) float64 scaled from [near, far] to [0, 1]; 0 where not valid."""
    unit = ((depth.detach().double().cpu() - near) / (far - near)).clamp(0, 1)
    return torch.where(valid, unit, 0.0)


def solid_depth(depth: Tensor, opacity: Tensor) -> np.ndarray:
    """Depth with empty pixels set to 0.

    Args:
        depth: (H, W) distances along the rays, scene units.
        opacity: (H, W) in [0, 1]; below 1/2 a pixel is empty.

    Returns:
        (H, W) float32.
    """
    return (depth * (opacity >= SOLID)).detach().cpu().numpy().astype("<f4")


def write_pfm(path: Path, depth: Tensor, opacity: Tensor) -> None:
    """Writes a depth map as PFM: header "Pf", width and height, scale -1 for little-endian, then
    rows from the lowest up, float32.

    Args:
        path: the file.
        depth: (H, W) distances along the rays, scene units.
        opacity: (H, W) in [0, 1]; where it is below 1/2, 0 is written.
    """
    values = solid_depth(depth, opacity)
    height, width = values.shape
    with replacing(path) as partial:
        partial.write_bytes(f"Pf\n{width} {height}\n-1.0\n".encode() + values[::-1].tobytes())


def write_raw(path: Path, depth: Tensor, opacity: Tensor) -> None:
    """Writes a depth map without a header: H * W little-endian float32, rows from the top down.

    Args:
        path: the file.
        depth, opacity: as for `write_pfm`.
    """
    with replacing(path) as partial:
        partial.write_bytes(solid_depth(depth, opacity).tobytes())
