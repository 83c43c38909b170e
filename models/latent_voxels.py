"""The style of a voxel field that learned several paintings at once: features of its own on the
vertices, and a decoder that all paintings share, conditioned on their codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.latents import N_CODE, Latents
from models.voxels import VoxelGeometry, VoxelStyle


class LatentVoxelStyle(VoxelStyle):
    """One painting of several on a voxel field.

    Args:
        geometry: of the field that the style is for.
        n_views: training views, which have a code each.
        n_code: channels of a code.
        style: further arguments of `VoxelStyle`.
    """

    kind = "latent_voxels"

    def __init__(
        self, geometry: VoxelGeometry, n_views: int, n_code: int = N_CODE, **style: Any
    ) -> None:
        super().__init__(geometry, n_code=n_code, **style)
        self.latents = Latents(n_views, n_code)

    @classmethod
    @torch.no_grad()
    def like(
        cls, style: VoxelStyle, geometry: VoxelGeometry, n_views: int, n_code: int = N_CODE
    ) -> LatentVoxelStyle:
        """A style with the very colours of an unconditioned ``style``, whatever the code is."""
        spec = {k: v for k, v in style.spec().items() if k not in ("kind", "n_code")}
        new = cls(geometry, n_views, n_code, **spec)
        new.head.load_state_dict(style.head.state_dict())
        state = style.decoder.state_dict()
        first = state["mlp.layers.0.weight"]
        state["mlp.layers.0.weight"] = torch.cat([first, first.new_zeros(len(first), n_code)], 1)
        new.decoder.load_state_dict(state)
        return new

    def share(self, other: LatentVoxelStyle) -> None:
        """Takes another painting's decoder for its own."""
        self.decoder = other.decoder

    def forward(self, feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        """As `Style.forward`; without a code in the painting's mean."""
        return super().forward(feature, x, d, self.latents.mean if code is None else code)

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"n_views": len(self.latents.codes)}
