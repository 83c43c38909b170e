"""The style of a voxel field that learned several paintings at once: a colour on each vertex.

Painted colours depend on no viewing direction, so a vertex needs no more than one colour: measured,
a network behind twelve features adds nothing that the logits of it cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.latents import N_CODE, Latents
from models.style import ParameterGroups, Style, logits_of
from models.voxels import (
    STYLE_RATES,
    Lattice,
    VertexFeatures,
    VoxelField,
    VoxelGeometry,
    VoxelStyle,
)

ROWS = 1 << 16  # vertices whose photographic colours are computed at once


class SeenVertices(VertexFeatures):
    """The head of a painting: numbers of the vertices that training views see, in their order; any
    other has those of the last one before it, nearly always next to it.

    Args:
        lattice: of the geometry.
        n_features: F, per vertex.
        n_seen: how many vertices they see; None: all.
    """

    seen: Tensor  # (V,) bool
    row: Tensor

    def __init__(self, lattice: Lattice, n_features: int, n_seen: int | None = None) -> None:
        super().__init__(lattice, n_features, n_seen)
        self.register_buffer("seen", torch.ones(lattice.n_vertices, dtype=torch.bool))
        self.row = rows_of(self.seen)
        self.register_load_state_dict_post_hook(lambda head, _: head._count())

    def _count(self) -> None:
        row = rows_of(self.seen)
        # the same one stays: paintings share it
        if row.is_meta or not torch.equal(row, self.row):
            self.row = row

    @torch.no_grad()
    def smooth(self) -> None:
        self.table.copy_(self._lattice[0].smoothed(self.table[self.row])[self.seen])

    def keep(self, seen: Tensor, row: Tensor) -> None:
        """Drops the numbers of all vertices but those ``seen (V,)``; nothing was dropped before.

        Args:
            row: `rows_of` these, which all paintings share.
        """
        self.table.data = self.table.data[seen]
        self.seen, self.row = seen, row


def rows_of(seen: Tensor) -> Tensor:
    """(V,) int32: each vertex's row in a table of those ``seen (V,)``; of another one the row of
    the last before it.

    >>> rows_of(torch.tensor([False, True, False, True])).tolist()
    [0, 0, 0, 1]
    """
    return (seen.cumsum(0, dtype=torch.int32) - 1).clamp_(min=0)


class LatentVoxelStyle(Style):
    """One painting of several on a voxel field: (cell, position, code) -> colour.

    A vertex has three numbers, in units of the painting's palette: an affine map makes logits of
    them.  The optimiser moves all numbers at the same pace, so what the palette hardly varies in
    (often all but lightness) stays free of noise.  A view's code scales and shifts the numbers by
    as much as it differs from the painting's mean code, by a linear layer that all paintings share.

    Args:
        geometry: of the field that the style is for.
        n_views: training views, which have a code each.
        n_code: channels of a code.
        n_seen: vertices that training views see, see `SeenVertices`.
    """

    cost = replace(
        VoxelField.cost,
        painting_bytes=240,
        painting_samples=((1 << 20, 1 << 22), (1 << 22, 1 << 22)),
    )
    kind = "latent_voxels"
    reads = "voxels"

    def __init__(
        self,
        geometry: VoxelGeometry,
        n_views: int,
        n_code: int = N_CODE,
        n_seen: int | None = None,
    ) -> None:
        super().__init__()
        self.head = SeenVertices(geometry.lattice, 3, n_seen)
        self.tint = nn.Linear(n_code, 6, bias=False)
        nn.init.zeros_(self.tint.weight)
        self.latents = Latents(n_views, n_code)
        self.palette = nn.Parameter(torch.eye(3), requires_grad=False)
        self.centre = nn.Parameter(torch.zeros(3), requires_grad=False)

    @classmethod
    @torch.no_grad()
    def like(
        cls, style: VoxelStyle, geometry: VoxelGeometry, n_views: int, n_code: int = N_CODE
    ) -> LatentVoxelStyle:
        """A style that begins with the colours of another one on the vertices, without their
        dependence on the direction."""
        new = cls(geometry, n_views, n_code)
        plain = style.clone()
        plain.decoder.view_dependent = False
        for rows, logits in zip(
            plain.head.table.split(ROWS), new.head.table.split(ROWS), strict=True
        ):
            logits.copy_(logits_of(plain.decoder(rows, rows.new_zeros(len(rows), 3))))
        return new

    def share(self, other: LatentVoxelStyle) -> None:
        """Takes another painting's layer for its own."""
        self.tint = other.tint

    @torch.no_grad()
    def recolour(self, change: Callable[[Tensor], Tensor], palette: Tensor, centre: Tensor) -> None:
        """Changes the numbers (V, 3) of the vertices, and the map ``palette (3, 3) @ x + centre``
        that makes logits of them."""
        for rows in self.head.table.split(ROWS):
            rows.copy_(change(rows))
        self.palette.copy_(palette)
        self.centre.copy_(centre)

    def forward(self, feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        """As `Style.forward`; without a code in the painting's mean."""
        own = self.head(feature, x)
        if code is not None:
            gain, offset = self.tint(code - self.latents.mean).to(own).chunk(2, -1)
            own = own * (1 + gain) + offset
        with torch.autocast(own.device.type, enabled=False):
            return torch.sigmoid(torch.addmm(self.centre, own, self.palette.T))

    def clone(self) -> LatentVoxelStyle:
        shared = self.head._lattice, self.head.seen, self.head.row
        return deepcopy(self, {id(x): x for x in shared})

    def smooth(self) -> None:
        self.head.smooth()

    def parameter_groups(self, lr: float | None, every_patch: bool = False) -> ParameterGroups:
        scale = lr / STYLE_RATES["features"] if lr else 1.0
        return [
            {"params": [self.head.table], "lr": STYLE_RATES["features"] * scale, "sparse": True},
            {"params": [self.tint.weight], "lr": STYLE_RATES["mlp"] * scale},
        ]

    def spec(self) -> dict[str, Any]:
        n_views, n_code = self.latents.codes.shape
        n_seen = len(self.head.table)
        return {"kind": self.kind, "n_views": n_views, "n_code": n_code, "n_seen": n_seen}
