"""Depth as pictures: colours for the eye, 16-bit grey for programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

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
SOLID = 0.5


def depth_to_colour(depth: Tensor, opacity: Tensor, near: float, far: float) -> np.ndarray:
    """A depth map for the eye: ``near`` is dark violet, ``far`` yellow, nothing is white.

    Args:
        depth: (H, W) distances along the rays, scene units; ignored where opacity is 0.
        opacity: (H, W) in [0, 1]; colours fade to white with it.
        near, far: the range of distances that the colours span.

    Returns:
        (H, W, 3) uint8.
    """
    table = torch.tensor(VIRIDIS, dtype=torch.float64)
    opacity = opacity.detach().double().cpu().clamp(0, 1)
    place = _unit(depth, opacity > 0, near, far) * (len(VIRIDIS) - 1)
    below = place.long().clamp(max=len(VIRIDIS) - 2)
    colour = torch.lerp(table[below], table[below + 1], (place - below)[..., None])
    over_white = torch.lerp(torch.full_like(colour, 255), colour, opacity[..., None])
    return over_white.round().to(torch.uint8).numpy()


def write_depth_png16(
    path: str | Path, depth: Tensor, opacity: Tensor, near: float, far: float
) -> None:
    """Write a depth map as 16-bit grey PNG.

    0 is empty (opacity below 1/2); a value v of 1 .. 65535 is the distance
    near + (v - 1) / 65534 * (far - near).  ``near`` and ``far`` are in the file, as text entries.

    Args:
        path: the file.
        depth: (H, W) distances along the rays, scene units; cut off to [near, far].
        opacity: (H, W) in [0, 1].
        near, far: the range of distances that the file can hold.
    """
    solid = opacity.detach().cpu() >= SOLID
    grey = torch.where(solid, 1 + (_unit(depth, solid, near, far) * (PNG16_MAX - 1)).round(), 0)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("near", repr(float(near)))
    notes.add_text("far", repr(float(far)))
    Image.fromarray(grey.numpy().astype(np.uint16)).save(path, format="PNG", pnginfo=notes)


def _unit(depth: Tensor, valid: Tensor, near: float, far: float) -> Tensor:
    """Depth as float64 (H, W) in [0, 1] from near to far; 0 where not valid, whatever is there."""
    unit = ((depth.detach().double().cpu() - near) / (far - near)).clamp(0, 1)
    return torch.where(valid, unit, 0.0)
