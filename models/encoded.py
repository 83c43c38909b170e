"""Styles that several fields share: an encoder of the field's own gives a few features, and a
decoder, which any of the fields may wear, turns them into a colour (O'Mahony, Joint Training for
Style Transfer in NeRF)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.cameras.rays import Rays
from models.mlp import MLP, encoded_width, positional_encoding, precise_linear
from models.nerf import WIDTH, Bottleneck, NerfGeometry
from models.render import ColourFunction, compositing_weights
from models.renderer import Renderer
from models.style import ParameterGroups, Style
from models.voxels import FEATURES, ROWS, VertexFeatures, VoxelGeometry

DECODER_WIDTH = 64


class FeatureDecoder(nn.Module):
    """A few features, and perhaps the place -> colour: two hidden layers.

    A decoder of the features alone gives equal materials equal colours, so it cannot make a
    pattern.  One that sees the place can: a solid texture.

    Args:
        n_features: of an encoder.
        n_place: frequencies of the encoded place; 0: the decoder does not see it.
        unit: length, in units of the fields' space, that the lowest frequency spans: the same
            for all fields that wear the decoder.
        rows: samples per block on a CPU, see `models.mlp.in_blocks`.
    """

    unit: Tensor

    def __init__(
        self, n_features: int, n_place: int = 0, unit: float = 1.0, rows: int = ROWS
    ) -> None:
        super().__init__()
        self.n_features, self.n_place = n_features, n_place
        self.register_buffer("unit", torch.tensor(float(unit)))
        width = n_features + (encoded_width(3, n_place) if n_place else 0)
        self.first = nn.Linear(width, DECODER_WIDTH)
        self.mlp = MLP([DECODER_WIDTH, DECODER_WIDTH, 3], rows=rows)

    def forward(self, features: Tensor, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Colours (M, 3) in [0, 1].

        Args:
            features: (M, n_features).
            x: (M, 3) positions in the field's space.
            code: (1,) or (M, 1), 0 where the place is hidden, 1 where it is shown; None: shown.
        """
        if self.n_place:
            place = positional_encoding(x * (2 * math.pi / self.unit), self.n_place)
            features = torch.cat([features, place if code is None else place * code], 1)
        # in few features a digit counts: bfloat16 would turn gradients of colour into steps
        hidden = precise_linear(features.float(), self.first.weight, self.first.bias)
        return torch.sigmoid(self.mlp(functional.relu(hidden)))

    def spec(self) -> dict[str, Any]:
        """Plain values from which a decoder of this shape is built."""
        return {"n_features": self.n_features, "n_place": self.n_place}


class EncodedStyle(Style):
    """``style(feature, x, d) -> rgb`` by way of a few features: lookup, encoder, decoder.

    Density and features belong to the encoder, and so does the viewing direction: what is the same
    in two fields has the same features also in its highlights.

    Args:
        head: the lookup, ``(feature, x) -> (M, C)``.
        widths: C, and those of the encoder's hidden layers.
        n_features: of the encoder.
        n_place: see `FeatureDecoder`.
        n_frequencies: of the viewing direction's positional encoding.
        rows: samples per block on a CPU.

    Attributes:
        encoder: (lookup, direction) -> features.
        decoder: features -> colour.  `wear` puts another one in its place.
    """

    def __init__(
        self,
        head: nn.Module,
        widths: tuple[int, ...],
        n_features: int,
        n_place: int,
        n_frequencies: int,
        rows: int,
    ) -> None:
        super().__init__()
        self.n_frequencies = n_frequencies
        first, *hidden = widths
        first += encoded_width(3, n_frequencies)
        self.head = head
        self.encoder = MLP([first, *hidden, n_features], encode=self._encode, rows=rows)
        self.decoder = FeatureDecoder(n_features, n_place, rows=rows)

    def features(self, feature: Tensor, x: Tensor, d: Tensor) -> Tensor:
        """The encoder's features (M, n_features) of samples; arguments as of `forward`."""
        return self.encoder(self.head(feature, x), d)

    def forward(self, feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        return self.decoder(self.features(feature, x, d), x, code)

    def _encode(self, h: Tensor, d: Tensor) -> Tensor:
        return torch.cat([h, positional_encoding(d, self.n_frequencies).to(h.dtype)], -1)

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "n_frequencies": self.n_frequencies, **self.decoder.spec()}

    def adopt_networks(self, other: EncodedStyle) -> None:
        self.encoder, self.decoder = other.encoder, other.decoder


class EncodedVoxelStyle(EncodedStyle):
    """Features on the vertices and a small network are the encoder of a voxel field.

    Args:
        geometry: of the field that the style is for.
        n_features, n_place, n_frequencies: see `EncodedStyle`.
    """

    kind = "encoded_voxels"
    reads: ClassVar[str] = "voxels"

    def __init__(
        self, geometry: VoxelGeometry, n_features: int, n_place: int = 0, n_frequencies: int = 2
    ) -> None:
        head = VertexFeatures(geometry.lattice, FEATURES)
        super().__init__(head, (FEATURES, 64), n_features, n_place, n_frequencies, ROWS)

    def groups_at(self, rates: dict[str, float], lr: float | None) -> ParameterGroups:
        """Parameters and learning rates, see `models.voxels.VoxelStyle.groups_at`."""
        scale = lr / rates["features"] if lr else 1.0
        networks = [*self.encoder.parameters(), *self.decoder.parameters()]
        return [
            {"params": [self.head.table], "lr": rates["features"] * scale, "sparse": True},
            {"params": networks, "lr": rates["mlp"] * scale},
        ]


class EncodedNerfStyle(EncodedStyle):
    """The paper's colour branch, which ends in the features, is the encoder of a NeRF.

    Args:
        geometry: of the field that the style is for.
        n_features, n_place, n_frequencies: see `EncodedStyle`.
    """

    kind = "encoded_nerf"
    reads: ClassVar[str] = "nerf"

    def __init__(
        self, geometry: NerfGeometry, n_features: int, n_place: int = 0, n_frequencies: int = 4
    ) -> None:
        super().__init__(Bottleneck(), (WIDTH, 128), n_features, n_place, n_frequencies, 1 << 13)


def wear(renderer: Renderer, decoder: FeatureDecoder) -> None:
    """Gives a renderer another decoder; a coarse network, which has an encoder of its own into the
    same features, wears it too.

    Args:
        renderer: of a field with an `EncodedStyle`.
        decoder: of as many features.
    """
    renderer.field.style.decoder = decoder
    coarse = getattr(renderer.sampler, "coarse", None)
    if coarse is not None:
        coarse.style.decoder = decoder
        renderer.note_coarse_style()


def worn(style: EncodedStyle, decoder: FeatureDecoder) -> ColourFunction:
    """The colours of a style's encoder in a decoder; unlike `wear` it changes neither."""

    def colours(feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        return decoder(style.features(feature, x, d), x, code)

    return colours


def contributing_points(
    renderer: Renderer, rays: Rays, n_points: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Samples of some rays, drawn in proportion to what they contribute to their pixels.

    Args:
        renderer: of a field.
        rays: N rays, clipped.
        n_points: K.
        generator: on the CPU.

    Returns:
        Positions and viewing directions (K, 3); K is 0 where the rays meet nothing.
    """
    with torch.no_grad():
        samples = renderer.sample(rays)
        weights = compositing_weights(renderer.geometry(rays, samples)[0], samples)
    if len(samples) == 0 or not bool(weights.sum() > 0):
        return weights.new_zeros(0, 3), weights.new_zeros(0, 3)
    # by the cumulated weights: `multinomial` would want a generator of the device
    total = weights.double().cumsum(0)
    u = torch.rand(n_points, generator=generator, dtype=torch.float64).to(total.device)
    index = torch.searchsorted(total, u * total[-1]).clamp(max=len(samples) - 1)
    ray = samples.ray_index[index]
    return rays.points(ray, samples.t[index]), rays.view_directions[ray]


def features_at(renderer: Renderer, x: Tensor, d: Tensor) -> Tensor:
    """Features (K, D) of a field with an `EncodedStyle`, at positions ``x (K, 3)`` from viewing
    directions ``d (K, 3)``; differentiable in the field, not in where it is looked up."""
    field = renderer.field
    return field.style.features(field.geometry.feature(x), x, d)
