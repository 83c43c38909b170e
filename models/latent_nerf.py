"""StylizedNeRF's style module (Huang et al. 2022, section 3.2): eight layers of 256 on the encoded
position, conditioned on a painting's code in every layer, independent of the viewing direction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.latents import N_CODE, Latents
from models.mlp import (
    encoded_width,
    in_blocks,
    linear_relu,
    nan_guard,
    positional_encoding,
    precise_linear,
)
from models.nerf import NerfGeometry
from models.style import ParameterGroups, Style

DEPTH = 8
WIDTH = 256
N_FREQUENCIES = 10  # of the position, at most
SKIP = 4  # the layer, from 0, that gets the position again
RATE = 5e-4


class LatentNetwork(nn.Module):
    """(position, code) -> colour, shared by all paintings.

    Args:
        n_code: channels of a code.
        n_frequencies: of the position's encoding.
        rows: samples per block on a CPU, see `models.mlp.in_blocks`.
    """

    def __init__(self, n_code: int, n_frequencies: int, rows: int = 1 << 13) -> None:
        super().__init__()
        self.n_code, self.n_frequencies, self.rows = n_code, n_frequencies, rows
        position = encoded_width(3, n_frequencies)
        widths = [position, *[WIDTH] * (DEPTH - 1)]
        widths[SKIP] += position
        outputs = [*[WIDTH] * (DEPTH - 1), 3]
        self.layers = nn.ModuleList(
            nn.Linear(n + n_code, m) for n, m in zip(widths, outputs, strict=True)
        )

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Colours (M, 3) in [0, 1].

        Args:
            x: (M, 3) positions in [-pi, pi]^3.
            code: (n_code,) one for all samples, or (M, n_code).
        """
        each = (code,) if code.ndim == 2 else ()
        layers = [(layer.weight, layer.bias) for layer in self.layers]
        if not each:  # the same for all rows: a part of the bias
            with torch.autocast(x.device.type, enabled=False):
                layers = [
                    (w[:, : -self.n_code], b + w[:, -self.n_code :] @ code.to(b)) for w, b in layers
                ]

        def run(x: Tensor, *code: Tensor) -> tuple[Tensor]:
            h = encoded = positional_encoding(x, self.n_frequencies)
            for i, (weight, bias) in enumerate(layers):
                if i == SKIP:
                    h = torch.cat([h, encoded.to(h.dtype)], -1)
                if code:
                    h = torch.cat([h, code[0].to(h.dtype)], -1)
                last = i == len(layers) - 1
                h = precise_linear(h, weight, bias) if last else linear_relu(h, weight, bias)
            return (h,)

        (logits,) = in_blocks(run, self.rows, x, *each)
        return torch.sigmoid(logits + nan_guard((x, *each), layers))


class LatentNerfStyle(Style):
    """One painting of several on a NeRF field.

    Args:
        geometry: of the field that the style is for.
        n_views: training views, which have a code each.
        n_code: channels of a code.
        n_frequencies: of the position's encoding.
    """

    kind = "latent_nerf"
    reads = "nerf"
    reads_features = False

    def __init__(
        self,
        geometry: NerfGeometry,
        n_views: int,
        n_code: int = N_CODE,
        n_frequencies: int = N_FREQUENCIES,
    ) -> None:
        super().__init__()
        self.network = LatentNetwork(n_code, n_frequencies)
        self.latents = Latents(n_views, n_code)
        sides = geometry.bounds[1] - geometry.bounds[0]
        self.register_buffer("centre", geometry.bounds.mean(0), persistent=False)
        self.register_buffer("unit", torch.pi / (sides.max() / 2), persistent=False)

    def share(self, other: LatentNerfStyle) -> None:
        """Takes another painting's network for its own."""
        self.network = other.network

    def forward(self, feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        """As `Style.forward`; without a code in the painting's mean."""
        code = self.latents.mean if code is None else code
        return self.network((x - self.centre) * self.unit, code)

    def parameter_groups(self, lr: float | None, every_patch: bool = False) -> ParameterGroups:
        return [{"params": list(self.network.parameters()), "lr": lr or RATE}]

    def spec(self) -> dict[str, Any]:
        n_code, n_frequencies = self.network.n_code, self.network.n_frequencies
        n_views = len(self.latents.codes)
        return {
            "kind": self.kind,
            "n_views": n_views,
            "n_code": n_code,
            "n_frequencies": n_frequencies,
        }
