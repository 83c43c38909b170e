"""The NeRF field: the paper's MLP, cut in two where geometry ends and style begins."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.blocks import in_blocks
from models.encoding import encoded_width, positional_encoding
from models.field import Style
from models.layers import alarm, linear_relu, precise_linear

WIDTH = 256
ROWS = 1 << 13  # in a block of the networks
STYLE_WIDTH = 128
FOG = 10.0  # density of a raw value of about 1, per half edge of the scene's box


class NerfGeometry(nn.Module):
    """Position -> density: eight layers of 256 with a skip connection, and a softplus head.

    Args:
        n_frequencies: of the positional encoding.
        bounds: (2, 3) box that is mapped to [-pi, pi]^3 before it is encoded, so that the lowest
            frequency spans the scene whatever its units are.
        skip: layer (from 0) that sees the encoded position again.
    """

    bounds: Tensor

    def __init__(self, n_frequencies: int, bounds: Tensor, skip: int = 4) -> None:
        super().__init__()
        self.n_frequencies = n_frequencies
        self.skip = skip
        self.register_buffer("bounds", bounds.clone())
        width = encoded_width(3, n_frequencies)
        inputs = [width] + [WIDTH + (width if i == skip else 0) for i in range(1, 8)]
        self.layers = nn.ModuleList(nn.Linear(n, WIDTH) for n in inputs)
        self.density = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x (M, 3)`` -> density (M,) per scene unit and feature (M, 256)."""
        centred = self._centred(x)
        raw, feature = in_blocks(self._density, ROWS, centred)
        raw = raw + alarm(centred, ((layer.weight, layer.bias) for layer in self.layers))
        return functional.softplus(raw) * (FOG / self._half), feature

    def feature(self, x: Tensor) -> Tensor:
        """``x (M, 3)`` -> feature (M, 256).  What is not finite may not show, see `alarm`: for
        positions and weights that have had a density."""
        return in_blocks(self._trunk, ROWS, self._centred(x))[0]

    @property
    def _half(self) -> Tensor:
        return (self.bounds[1] - self.bounds[0]).max() / 2

    def _centred(self, x: Tensor) -> Tensor:
        return (x - self.bounds.mean(0)) * (torch.pi / self._half)

    def _density(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x (M, 3)``, centred -> raw density (M,) and feature (M, 256)."""
        (h,) = self._trunk(x)
        # density in full precision: its exponential is what the picture is made of
        return precise_linear(h, self.density.weight, self.density.bias)[:, 0], h

    def _trunk(self, x: Tensor) -> tuple[Tensor]:
        """``x (M, 3)``, centred -> feature (M, 256)."""
        h = encoded = positional_encoding(x, self.n_frequencies)
        for i, layer in enumerate(self.layers):
            if i == self.skip:
                h = torch.cat([encoded.to(h.dtype), h], -1)
            h = linear_relu(h, layer.weight, layer.bias)
        return (h,)


class NerfStyle(Style):
    """(feature, direction) -> colour: bottleneck, ``depth`` hidden layers of 128 (styleNeRF: 6).

    Args:
        n_frequencies: of the direction's encoding.
        depth: hidden layers.
    """

    def __init__(self, n_frequencies: int, depth: int = 6) -> None:
        super().__init__(n_frequencies)
        self.bottleneck = nn.Linear(WIDTH, WIDTH)
        widths = [WIDTH + encoded_width(3, n_frequencies), *[STYLE_WIDTH] * depth]
        self.hidden = nn.ModuleList(nn.Linear(widths[i], widths[i + 1]) for i in range(depth))
        self.rgb = nn.Linear(STYLE_WIDTH, 3)

    def forward(self, feature: Tensor, x: Tensor, d: Tensor) -> Tensor:
        """``feature (M, 256)``, ``x (M, 3)``, unit ``d (M, 3)`` -> rgb (M, 3) in [0, 1]."""
        rest = [(layer.weight, layer.bias) for layer in self.hidden[1:]]
        return self.decode(feature, d, [self._first_layer(), *rest], ROWS)

    def _first_layer(self) -> tuple[Tensor, Tensor]:
        """Weight (128, 256 + D) and bias (128,) of bottleneck and first hidden layer in one:
        nothing bends between the two."""
        hidden = self.hidden[0]
        inner, direction = hidden.weight.split([WIDTH, hidden.in_features - WIDTH], 1)
        with torch.autocast(hidden.weight.device.type, enabled=False):
            weight = torch.cat([inner @ self.bottleneck.weight, direction], 1)
            return weight, hidden.bias + inner @ self.bottleneck.bias


class NerfField(nn.Module):
    """One NeRF MLP: `geometry` and `style` are separate modules.

    Args:
        bounds: (2, 3) box of the scene.
        n_xyz, n_dir: frequencies of the encodings of position and direction.
    """

    rows = ROWS

    def __init__(self, bounds: Tensor, n_xyz: int = 10, n_dir: int = 4) -> None:
        super().__init__()
        self.geometry = NerfGeometry(n_xyz, bounds)
        self.style = NerfStyle(n_dir)
