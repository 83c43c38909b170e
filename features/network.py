"""The base class of feature networks: named layers, each with channels, stride and receptive
field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """Channels, stride and halo of a layer, which determine the tiles (`features/tiles.py`).

    The feature at position (i, j) belongs to the cell of stride x stride pixels that starts at
    pixel (i stride, j stride), and depends on that cell and on ``halo`` pixels around it.

    Attributes:
        channels: number of channels C.
        stride: pixels per feature position.
        halo: pixels around the cell that a feature depends on.
    """

    channels: int
    stride: int
    halo: int

    @property
    def receptive_field(self) -> int:
        """Side of the square of pixels that a feature depends on."""
        return self.stride + 2 * self.halo


class FeatureNetwork(nn.Module):
    """A frozen network that maps an image to features of named layers.

    A subclass sets ``name``, ``layers`` and ``roles``, and defines ``forward``.

    Attributes:
        name: name in messages.
        layers: name -> `Layer`, the deepest last.
        roles: role in a loss -> names of the layers for it.  The roles: "statistics" of the style,
            "matching" of single features, "content".
    """

    name: str
    layers: dict[str, Layer]
    roles: Mapping[str, Sequence[str]]

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Computes the features of some layers.

        Args:
            image: (B, 3, H, W) sRGB in [0, 1].
            layers: names in ``self.layers``.

        Returns:
            layer -> (B, C, H // stride, W // stride).

        Raises:
            ValueError: the network has no such layer.
        """
        raise NotImplementedError

    def layers_of(self, names: Sequence[str]) -> list[str]:
        """Names of layers for ``names`` of layers or roles, without duplicates."""
        return expanded(names, self.roles)

    def require(self, layers: Sequence[str]) -> None:
        """Raises ValueError unless the network has all of these layers."""
        if unknown := [layer for layer in layers if layer not in self.layers]:
            raise ValueError(f"{self.name} has no layers {unknown}; it has {list(self.layers)}")


def expanded(names: Sequence[str], roles: Mapping[str, Sequence[str]]) -> list[str]:
    """``names`` with every role replaced by its layers, without duplicates."""
    return list(dict.fromkeys(layer for name in names for layer in roles.get(name, (name,))))
