"""The NeRF field: the paper's network, cut in two where geometry ends and style begins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import SAMPLERS
from models.field import Cost, Field
from models.mlp import MLP, encoded_width, positional_encoding
from models.style import Decoder, ParameterGroups, Style

WIDTH = 256
STYLE_WIDTH = 128
FOG = 10.0  # density scale: softplus(raw) is multiplied by FOG / half the box's longest side
GRID = 128  # cells along the longest side of the occupancy grid
RATE = 5e-4
STYLE_RATE = 1e-3
STYLE_PATCH_RATE = 1e-4  # as in styleNeRF; one step per patch, and each changes the whole network


class NerfGeometry(nn.Module):
    """Position -> density: eight layers of 256 with a skip connection, and a softplus head
    (Mildenhall et al. 2020, figure 7; the softplus as in mip-NeRF).

    Args:
        n_frequencies: of the positional encoding.
        bounds: (2, 3) box, whose longest side is mapped to [-pi, pi] before the encoding, so that
            the lowest frequency spans the scene whatever its units are.
        skip: index (from 0) of the layer that gets the encoded position again.
    """

    bounds: Tensor

    def __init__(self, n_frequencies: int, bounds: Tensor, skip: int = 4) -> None:
        super().__init__()
        self.register_buffer("bounds", bounds.clone())
        half = (bounds[1] - bounds[0]).max() / 2
        # to [-pi, pi]^3, and from the softplus to a density
        self.register_buffer("scale", torch.pi / half, persistent=False)
        self.register_buffer("shift", -bounds.mean(0) * self.scale, persistent=False)
        self.register_buffer("fog", FOG / half, persistent=False)
        self.n_frequencies = n_frequencies
        self.revealed = 1.0  # share of the frequencies, see `Field.reveal`
        self.mlp = MLP([encoded_width(3, n_frequencies), *[WIDTH] * 8, 1], skip, self._encode)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x (M, 3)`` -> density (M,) per unit of the field's space, and feature (M, 256)."""
        raw, feature = self.mlp.with_hidden(self._normalised(x))
        return functional.softplus(raw.squeeze(1)) * self.fog, feature

    def feature(self, x: Tensor) -> Tensor:
        """``x (M, 3)`` -> feature (M, 256).  Only for inputs already passed through `forward`:
        without the NaN guard a NaN may come out as 0, see `MLP.hidden`."""
        return self.mlp.hidden(self._normalised(x))

    def _encode(self, x: Tensor) -> Tensor:
        """The positional encoding of ``x (M, 3)``, without the frequencies that are still hidden
        (FreeNeRF, Yang et al. 2023, eq. 4; without its three that are never hidden)."""
        encoded = positional_encoding(x, self.n_frequencies)
        if self.revealed >= 1 or self.n_frequencies == 0:
            return encoded
        band = torch.arange(self.n_frequencies, device=x.device, dtype=x.dtype)
        seen = (self.revealed * self.n_frequencies - band).clamp(0, 1).repeat_interleave(6)
        return encoded * torch.cat([torch.ones_like(seen[:3]), seen])

    def _normalised(self, x: Tensor) -> Tensor:
        """``x (M, 3)`` in [-pi, pi]^3."""
        return torch.addcmul(self.shift, x, self.scale)


class Bottleneck(nn.Module):
    """The head of a NeRF's style: a linear layer without an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, feature: Tensor, x: Tensor) -> Tensor:
        """``feature (M, 256)`` -> (M, 256)."""
        return self.linear(feature)


class NerfStyle(Style):
    """(feature, viewing direction) -> colour: bottleneck and ``depth`` hidden layers of 128 (NeRF:
    1, styleNeRF: 6).

    Args:
        geometry: of the field that the style is for.
        n_frequencies: of the viewing direction's positional encoding.
        depth: hidden layers.
        decoder: further arguments of `Decoder`.
    """

    kind = reads = "nerf"

    def __init__(
        self, geometry: NerfGeometry, n_frequencies: int = 4, depth: int = 6, **decoder: Any
    ) -> None:
        super().__init__()
        self.head = Bottleneck()
        self.decoder = Decoder(WIDTH, [STYLE_WIDTH] * depth, n_frequencies, **decoder)

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"depth": len(self.decoder.mlp.layers)}

    def parameter_groups(self, lr: float | None, every_patch: bool = False) -> ParameterGroups:
        usual = STYLE_PATCH_RATE if every_patch else STYLE_RATE
        return [{"params": list(self.parameters()), "lr": lr or usual}]


class NerfField(Field):
    """The paper's network: `geometry` and `style` are separate modules."""

    kind = "nerf"
    rows = 1 << 13
    cost = Cost(
        rays=(2048, 16384),
        points=1 << 15,
        learning_bytes=24000,
        painting_bytes=2500,
        painting_samples=((1 << 16, 3 << 18), (1 << 20, 1 << 20)),
    )

    @classmethod
    def specs_of(cls, options: Any) -> dict[str, dict[str, Any]]:
        style = {"kind": NerfStyle.kind, "n_frequencies": options.N_emb_dir}
        sampler = SAMPLERS[options.sampling].spec_of(options, style)
        return {
            "field": {"kind": cls.kind, "n_frequencies": options.N_emb_xyz},
            "style": style,
            "sampler": {"kind": options.sampling, **sampler},
        }

    @classmethod
    def grid_resolution(cls, options: Any, finest: float) -> int:
        return GRID

    @classmethod
    def build_geometry(cls, spec: dict[str, Any], bounds: Tensor, cells: Tensor) -> NerfGeometry:
        return NerfGeometry(spec["n_frequencies"], bounds)

    def reveal(self, share: float) -> None:
        self.geometry.revealed = share

    def parameter_groups(self, lr: float | None) -> ParameterGroups:
        return [{"params": list(self.parameters()), "lr": lr or RATE}]
