"""Positional encoding (Mildenhall et al. 2020, eq. 4; raw input kept, no factor pi)."""

from __future__ import annotations

import torch
from torch import Tensor


def encoded_width(width: int, n_frequencies: int) -> int:
    """Channels that `positional_encoding` makes of ``width`` input channels."""
    return width * (1 + 2 * n_frequencies)


def positional_encoding(x: Tensor, n_frequencies: int) -> Tensor:
    """``[x, sin(2^0 x), cos(2^0 x), ..., sin(2^(L-1) x), cos(2^(L-1) x)]``.

    Args:
        x: (..., D).
        n_frequencies: L; 0 gives x itself.

    Returns:
        (..., D * (1 + 2 L)).
    """
    if n_frequencies == 0:
        return x
    frequencies = 2.0 ** torch.arange(n_frequencies, device=x.device, dtype=x.dtype)
    angles = x[..., None, :] * frequencies[:, None]
    waves = torch.stack([angles.sin(), angles.cos()], dim=-2)
    return torch.cat([x, waves.flatten(-3)], dim=-1)
