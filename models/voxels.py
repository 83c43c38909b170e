"""The fast field: features on the vertices of sparse voxels, and a small MLP for colour."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.field import Cost, Field
from models.occupancy import (
    bordered_index,
    dilate,
    grid_shape,
    resample_any,
    with_border,
    with_sides,
)
from models.style import Decoder, ParameterGroups, Style
from models.trilinear import CORNERS, trilinear_gather, trilinear_weights

HIDDEN_WIDTHS = (64, 64)
ROWS = 1 << 14  # samples per block of the network on a CPU
FEATURES = 12  # per vertex
DIRECTION_FREQUENCIES = 2
RAW_DENSITY = -2.0  # initial raw value: a mean free path of about 8 % of the box
SOLID = 3.0  # most initial density, for each hundredth of the box
TINY = 1e-6
STEPS_PER_CELL = 4 / 3
RATES = {"density": 0.3, "features": 0.05, "mlp": 2e-3}
STYLE_RATES = {"features": 0.1, "mlp": 2e-3}
# a vertex is in one patch of a view; through the steps on the others momentum moves it on
STYLE_PATCH_RATES = {"features": 0.01, "mlp": 5e-4}


class Lattice(nn.Module):
    """The cells that exist and the vertices they share.

    Args:
        active: (R0, R1, R2) bool, the cells that exist.
        bounds: (2, 3) box of the grid in the field's space.
    """

    active: Tensor
    bounds: Tensor
    cell_of: Tensor
    corners: Tensor
    vertex_key: Tensor

    def __init__(self, active: Tensor, bounds: Tensor) -> None:
        super().__init__()
        self.register_buffer("active", active)
        self.register_buffer("bounds", bounds.clone())
        resolution = torch.tensor(active.shape, device=bounds.device)
        self.register_buffer("resolution", resolution, persistent=False)
        # cells per unit of the field's space
        scale = resolution / (bounds[1] - bounds[0])
        self.register_buffer("scale", scale, persistent=False)
        self._index_cells()

    def _index_cells(self) -> None:
        """Assigns indices to the cells and their vertices, both in raster order."""
        active = self.active
        cells = active.nonzero()
        numbers = torch.arange(len(cells), dtype=torch.int32, device=active.device)
        cell_of = torch.full(active.shape, -1, dtype=torch.int32, device=active.device)
        cell_of[active] = numbers
        # marked in a grid: 7 times faster than finding the distinct ones of all cells' corners
        n = active.shape
        is_vertex = active.new_zeros([size + 1 for size in n])
        for x, y, z in CORNERS.tolist():
            is_vertex[x : x + n[0], y : y + n[1], z : z + n[2]] |= active
        vertex_key = is_vertex.flatten().nonzero()[:, 0]
        vertex_of = torch.empty(is_vertex.numel(), dtype=torch.int32, device=active.device)
        vertex_of[vertex_key] = torch.arange(
            len(vertex_key), dtype=torch.int32, device=active.device
        )
        stride = torch.tensor([(n[1] + 1) * (n[2] + 1), n[2] + 1, 1], device=active.device)
        first, offsets = (cells * stride).sum(1), (CORNERS.to(stride) * stride).sum(1)
        corners = vertex_of[first[:, None] + offsets]
        self.register_buffer("cell_of", with_border(cell_of, -1).flatten(), persistent=False)
        self.register_buffer("corners", corners, persistent=False)
        self.register_buffer("vertex_key", vertex_key, persistent=False)

    @property
    def n_vertices(self) -> int:
        return len(self.vertex_key)

    @property
    def cell(self) -> Tensor:
        """(3,) edge lengths of a cell, units of the field's space."""
        return (self.bounds[1] - self.bounds[0]) / self.resolution

    def vertices(self) -> Tensor:
        """(V, 3) positions of the vertices in the field's space."""
        _, ny, nz = (n + 1 for n in self.active.shape)
        key = self.vertex_key
        index = torch.stack([key // (ny * nz), key // nz % ny, key % nz], -1)
        return self.bounds[0] + index * self.cell

    def next_vertex(self, axis: int, side: int) -> Tensor:
        """(V,) int64: the vertex that follows each one along an axis, ``side`` 1 or -1; itself
        where there is none."""
        shape = [n + 1 for n in self.active.shape]
        stride = math.prod(shape[axis + 1 :])
        key, own = self.vertex_key, torch.arange(self.n_vertices, device=self.vertex_key.device)
        wanted = key + side * stride
        found = torch.searchsorted(key, wanted).clamp(max=self.n_vertices - 1)
        within = key // stride % shape[axis] != (shape[axis] - 1 if side > 0 else 0)
        return torch.where(within & (key[found] == wanted), found, own)

    def position(self, x: Tensor) -> Tensor:
        """(3, M): ``x (M, 3)`` in cell coordinates."""
        return (x.T.contiguous() - self.bounds[0][:, None]) * self.scale[:, None]

    def locate(self, position: Tensor) -> Tensor:
        """Index (M,) int32 of the cell that contains each ``position (3, M)``; -1: no cell."""
        return self.cell_of.index_select(0, bordered_index(position, self.active.shape))

    def interpolate(
        self, table: Tensor, cell: Tensor, position: Tensor, row: Tensor | None = None
    ) -> Tensor:
        """Trilinear values (M, F) of ``table (V, F)`` at ``position (3, M)`` in existing
        ``cell (M,)``; of one whose rows are not the vertices with each vertex's ``row (V,)``."""
        weights = trilinear_weights(position - position.floor())
        return trilinear_gather(table, self.corners, cell, weights.to(table.dtype), row)

    def smoothed(self, table: Tensor) -> Tensor:
        """Averages of each vertex in ``table (V, F)`` with the next ones along each axis, weights
        1/4, 1/2, 1/4: nothing is left of what alternates from vertex to vertex."""
        for axis in range(3):
            before, after = (table[self.next_vertex(axis, side)] for side in (-1, 1))
            table = before.add_(after).mul_(0.25).add_(table, alpha=0.5)
        return table


class VoxelGeometry(nn.Module):
    """Position -> density: raw values on the vertices, interpolated, then a softplus.

    Interpolating before the activation lets a sharp surface lie inside a cell (DVGO, Sun et al.
    2022).  Raw values are per hundredth of the box, so scenes of any size start alike.

    Args:
        lattice: its vertices hold the raw values.
    """

    def __init__(self, lattice: Lattice) -> None:
        super().__init__()
        self.lattice = lattice
        self.raw = nn.Parameter(torch.full((lattice.n_vertices, 1), RAW_DENSITY))
        self.register_buffer(
            "unit", (lattice.bounds[1] - lattice.bounds[0]).max() / 100, persistent=False
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x (M, 3)`` -> density (M,) per unit of the field's space, and the index (M,) of the
        cell that contains x, or -1."""
        position = self.lattice.position(x)
        cell = self.lattice.locate(position)
        raw = self.lattice.interpolate(self.raw, cell.clamp(min=0), position)[:, 0]
        density = functional.softplus(raw) / self.unit
        return density * (cell >= 0), cell

    def feature(self, x: Tensor) -> Tensor:
        """``x (M, 3)`` -> the index (M,) of the cell that contains it, or -1."""
        return self.lattice.locate(self.lattice.position(x))


class VertexFeatures(nn.Module):
    """The head of a voxel style: features on the vertices, interpolated.

    Args:
        lattice: of the geometry.
        n_features: F, per vertex.
        n_rows: of the table; None: one for each vertex.

    Attributes:
        row: (V,) each vertex's row of the table; None: they have the same numbers.
    """

    linear = None
    row: Tensor | None

    def __init__(self, lattice: Lattice, n_features: int, n_rows: int | None = None) -> None:
        super().__init__()
        self._lattice = (lattice,)  # in a tuple, or it would be registered as a submodule
        n_rows = lattice.n_vertices if n_rows is None else n_rows
        self.table = nn.Parameter(torch.zeros(n_rows, n_features))
        self.register_buffer("row", None, persistent=False)

    def forward(self, feature: Tensor, x: Tensor) -> Tensor:
        """``feature (M,)``, indices of cells or -1, and ``x (M, 3)`` -> (M, F)."""
        lattice = self._lattice[0]
        return lattice.interpolate(self.table, feature.clamp(min=0), lattice.position(x), self.row)

    @torch.no_grad()
    def smooth(self) -> None:
        """See `Lattice.smoothed`."""
        self.table.copy_(self._lattice[0].smoothed(self.table))


class VoxelStyle(Style):
    """(cell, position, viewing direction) -> colour: features on the vertices and a small MLP.

    Args:
        geometry: of the field that the style is for.
        n_features: per vertex.
        n_frequencies: of the viewing direction's positional encoding.
        decoder: further arguments of `Decoder`.
    """

    kind = reads = "voxels"

    def __init__(
        self,
        geometry: VoxelGeometry,
        n_features: int = FEATURES,
        n_frequencies: int = DIRECTION_FREQUENCIES,
        **decoder: Any,
    ) -> None:
        super().__init__()
        self.head = VertexFeatures(geometry.lattice, n_features)
        self.decoder = Decoder(n_features, HIDDEN_WIDTHS, n_frequencies, rows=ROWS, **decoder)

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"n_features": self.decoder.n_in}

    def clone(self) -> VoxelStyle:
        shared = self.head._lattice
        return deepcopy(self, {id(shared): shared})

    def reset(self) -> None:
        """Draws the parameters anew: small random features, colours near grey."""
        super().reset()
        nn.init.normal_(self.head.table, std=0.1)

    def smooth(self) -> None:
        self.head.smooth()

    def parameter_groups(self, lr: float | None, every_patch: bool = False) -> ParameterGroups:
        return self.groups_at(STYLE_PATCH_RATES if every_patch else STYLE_RATES, lr)

    def groups_at(self, rates: dict[str, float], lr: float | None) -> ParameterGroups:
        """Parameters and learning rates.

        Each entry of a table is met by few rays, so its gradients are tiny; the optimiser is told
        by the key "sparse".

        Args:
            rates: default learning rates of "features" and "mlp".
            lr: learning rate of the features, to which the others are scaled; None: ``rates``.
        """
        scale = lr / rates["features"] if lr else 1.0
        return [
            {"params": [self.head.table], "lr": rates["features"] * scale, "sparse": True},
            {"params": list(self.decoder.parameters()), "lr": rates["mlp"] * scale},
        ]


class VoxelField(Field):
    """Sparse trilinear voxels: `geometry` holds density and structure, `style` all colour."""

    kind = "voxels"
    rows = ROWS
    colour_threshold = 1e-3
    cost = Cost(
        rays=(1 << 14, 1 << 18),
        points=1 << 16,
        learning_bytes=1500,
        painting_bytes=600,
        painting_samples=((1 << 18, 1 << 20), (1 << 22, 1 << 22)),
    )

    @classmethod
    def specs_of(cls, options: Any) -> dict[str, dict[str, Any]]:
        return {
            "field": {"kind": cls.kind},
            "style": {"kind": VoxelStyle.kind},
            "sampler": {"kind": "occupancy", "n_steps": 0},
        }

    @classmethod
    def grid_resolution(cls, options: Any, finest: float) -> int:
        return round(min(options.voxel_resolution, finest))

    @classmethod
    def build_geometry(cls, spec: dict[str, Any], bounds: Tensor, cells: Tensor) -> VoxelGeometry:
        return VoxelGeometry(Lattice(cells, bounds))

    @classmethod
    def cells_from_state(cls, state: dict[str, Tensor]) -> Tensor:
        return state["geometry.lattice.active"]

    @property
    def step(self) -> float:
        return float(self.geometry.lattice.cell.min()) / STEPS_PER_CELL

    def has_colours(self, x: Tensor) -> Tensor:
        return self.geometry.feature(x) >= 0

    def fill(self, raw_density: float) -> None:
        nn.init.constant_(self.geometry.raw, raw_density)

    @torch.no_grad()
    def start_from(self, density: Tensor) -> None:
        geometry = self.geometry
        low, high = geometry.lattice.bounds
        where = (2 * (geometry.lattice.vertices() - low) / (high - low) - 1).flip(1)
        likely = functional.grid_sample(
            density[None, None], where[None, None, None], align_corners=True
        )
        # the inverse of softplus; what is solid stays able to learn
        raw = (likely.flatten() * geometry.unit).clamp(TINY, SOLID).expm1().log()
        geometry.raw.copy_(torch.maximum(geometry.raw, raw[:, None]))

    def parameter_groups(self, lr: float | None) -> ParameterGroups:
        scale = lr / RATES["features"] if lr else 1.0
        density = {"params": [self.geometry.raw], "lr": RATES["density"] * scale, "sparse": True}
        return [density, *self.style.groups_at(RATES, lr)]

    def corner_densities(self, n: int, generator: torch.Generator) -> Tensor:
        return self._at_corners(self.geometry.raw, n, generator)

    def corner_features(self, n: int, generator: torch.Generator) -> Tensor:
        return self._at_corners(self.style.head.table, n, generator)

    def _at_corners(self, table: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """(n, 8, F) rows of ``table (V, F)`` at the corners of ``n`` random cells."""
        corners = self.geometry.lattice.corners
        cells = torch.randint(len(corners), (n,), generator=generator, device=generator.device)
        rows = corners.index_select(0, cells.to(corners.device))
        # not table[rows], whose gradient threads add up in any order
        return table.index_select(0, rows.flatten()).view(*rows.shape, -1)

    def refined(self, occupied: Tensor, resolution: int, sides: bool = False) -> VoxelField:
        shape = grid_shape(self.geometry.lattice.bounds, resolution)
        active = resample_any(dilate(occupied), shape)
        return self.on_cells(with_sides(active) if sides else active)

    @torch.no_grad()
    def on_cells(self, active: Tensor) -> VoxelField:
        """The same field on other cells ``active (R0, R1, R2) bool``, usually finer and fewer."""
        old = self.geometry.lattice
        spec = {"field": {}, "style": self.style.spec()}
        new = type(self).build(spec, old.bounds, active).to(old.bounds.device)
        vertices = new.geometry.lattice.vertices()
        unknown = torch.arange(len(vertices), device=vertices.device)
        # a vertex on the boundary lies in an old cell on one of its eight sides only
        nudge = 1e-3 * old.cell
        for corner in CORNERS.to(nudge):
            position = old.position(vertices[unknown] + (corner * 2 - 1) * nudge)
            cell = old.locate(position)
            found = cell >= 0
            cell, position, known = cell[found], position[:, found], unknown[found]
            new.geometry.raw[known] = old.interpolate(self.geometry.raw, cell, position)
            new.style.head.table[known] = old.interpolate(self.style.head.table, cell, position)
            unknown = unknown[~found]
        new.style.adopt_networks(self.style)
        return new
