"""All of space in a box: what lies beyond the foreground is drawn closer, infinity to the wall."""

from __future__ import annotations

import torch
from torch import Tensor


def contract(x: Tensor, foreground: Tensor) -> Tensor:
    """Positions as the fields of an unbounded scene see them: as they are in the foreground, and
    the rest of space in a shell around it of half the foreground's width (mip-NeRF 360, Barron et
    al. 2022, eq. 10, with the largest coordinate for a norm, which suits a grid).

    With u the position in half widths from the foreground's centre and m its largest coordinate:
    ``u -> (2 - 1 / m) u / m`` for m > 1.

    Args:
        x: (..., 3) world positions, scene units.
        foreground: (2, 3) corners of the box.

    Returns:
        (..., 3) within `contracted_box`.
    """
    centre, half = foreground.mean(0), (foreground[1] - foreground[0]) / 2
    u = (x - centre) / half
    m = u.abs().amax(-1, keepdim=True)
    beyond = m.clamp(min=1.0)
    # beyond is 1 in the foreground, and what is there stays to the bit
    return torch.where(m > 1, centre + half * u * ((2 - 1 / beyond) / beyond), x)


def uncontract(y: Tensor, foreground: Tensor) -> Tensor:
    """World positions (..., 3) of contracted ones ``y (..., 3)`` inside `contracted_box`."""
    centre, half = foreground.mean(0), (foreground[1] - foreground[0]) / 2
    u = (y - centre) / half
    m = u.abs().amax(-1, keepdim=True)
    beyond = m.clamp(min=1.0)
    return torch.where(m > 1, centre + half * u / (beyond * (2 - beyond)), y)


def contracted_box(foreground: Tensor) -> Tensor:
    """(2, 3) corners of the box that holds all of contracted space: twice the foreground's."""
    half = (foreground[1] - foreground[0]) / 2
    return torch.stack([foreground[0] - half, foreground[1] + half])
