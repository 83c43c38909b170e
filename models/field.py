"""What the two families of field share: the interface, and the end of every style module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from models.blocks import in_blocks
from models.encoding import positional_encoding
from models.layers import alarm, linear_relu, precise_linear


class Field(Protocol):
    """``geometry(x (M, 3)) -> density (M,), feature (M, ...)`` and ``style(feature, x, d) -> rgb
    (M, 3)``: two modules with parameters of their own.  ``feature`` is whatever the style module
    wants to know of the geometry, one row a sample; ``geometry.feature(x)`` gives it alone.  The
    networks take ``rows`` samples at a time, see `in_blocks`."""

    geometry: nn.Module
    style: Style
    rows: int


def colours_at(field: Field, x: Tensor, d: Tensor) -> Tensor:
    """Colours (M, 3) of the positions ``x (M, 3)`` seen in the unit directions ``d (M, 3)``;
    differentiable in the style.  Block by block: features, which may be long, are never in memory
    all at once."""

    def network(x: Tensor, d: Tensor) -> tuple[Tensor]:
        with torch.no_grad():
            feature = field.geometry.feature(x)
        return (field.style(feature, x, d),)

    return in_blocks(network, field.rows, x, d)[0]


class Style(nn.Module):
    """Base of the style modules: from a feature and a direction to a colour.

    Attributes:
        view_dependent: () 1 or 0; with 0 the colour of a point is the same from everywhere, and a
            stylised scene cannot flicker.
        colour_matrix, colour_offset: (3, 3), (3,) affine map of the final colours; the identity
            until colour transfer sets it.
    """

    rgb: nn.Linear  # the last layer
    view_dependent: Tensor
    colour_matrix: Tensor
    colour_offset: Tensor

    def __init__(self, n_frequencies: int) -> None:
        super().__init__()
        self.n_frequencies = n_frequencies
        self.register_buffer("view_dependent", torch.ones(()))
        self.register_buffer("colour_matrix", torch.eye(3))
        self.register_buffer("colour_offset", torch.zeros(3))

    def encode_direction(self, d: Tensor) -> Tensor:
        """Encoded directions (M, 3 + 6 L) of unit ``d (M, 3)``."""
        return positional_encoding(d * self.view_dependent, self.n_frequencies)

    def decode(
        self, h: Tensor, d: Tensor, hidden: Sequence[tuple[Tensor, Tensor]], rows: int
    ) -> Tensor:
        """Colours (M, 3) of features ``h (M, C)`` seen in the unit directions ``d (M, 3)``.

        Args:
            hidden: weight and bias of the hidden layers; the first sees the encoded direction, too.
            rows: in a block, see `in_blocks`.
        """
        hidden, blocks = list(hidden), [h, d]
        if not self.view_dependent:  # the direction is the same for all samples: a bias
            with torch.autocast(h.device.type, enabled=False):
                weight, bias = hidden[0]
                weight, inner = weight.split([h.shape[1], weight.shape[1] - h.shape[1]], 1)
                hidden[0] = weight, bias + inner @ self.encode_direction(d.new_zeros(3))
            blocks = [h]

        def network(h: Tensor, *d: Tensor) -> tuple[Tensor]:
            if d:
                h = torch.cat([h, self.encode_direction(*d).to(h.dtype)], -1)
            for weight, bias in hidden:
                h = linear_relu(h, weight, bias)
            # a gradient of the density is made of differences of colours: bfloat16 is too coarse
            return (self.finish(precise_linear(h, self.rgb.weight, self.rgb.bias)),)

        return in_blocks(network, rows, *blocks)[0] + alarm(h, hidden)

    def finish(self, logits: Tensor) -> Tensor:
        """Colours (M, 3) in [0, 1] of the last layer's output."""
        rgb = torch.sigmoid(logits)
        if torch.equal(self.colour_matrix, torch.eye(3).to(self.colour_matrix)):
            return rgb
        with torch.autocast(rgb.device.type, enabled=False):
            return (rgb @ self.colour_matrix.T.to(rgb) + self.colour_offset.to(rgb)).clamp(0, 1)

    def linears(self) -> list[nn.Linear]:
        """The linear layers, first to last."""
        return [module for module in self.modules() if isinstance(module, nn.Linear)]

    def reset(self) -> None:
        """Starts again: Xavier-uniform weights and zero biases, as styleNeRF does in stage 2."""
        for layer in self.linears():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
