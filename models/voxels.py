"""The fast field: features on the vertices of sparse voxels, and a small MLP for colour."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.encoding import encoded_width
from models.field import Style
from models.grid import locate
from models.trilinear import CORNERS, trilinear_gather, trilinear_weights

HIDDEN = 64
ROWS = 1 << 14  # in a block of the network
DIRECTION_FREQUENCIES = 2
FOG = -2.0  # raw density to start from: light goes about 8 hundredths of the box deep


class Lattice(nn.Module):
    """The cells that exist and the vertices they share.

    Args:
        active: (R0, R1, R2) bool, the cells that exist.
        bounds: (2, 3) box of the grid, scene units.
    """

    cell_of: Tensor
    corners: Tensor
    bounds: Tensor

    def __init__(self, active: Tensor, bounds: Tensor) -> None:
        super().__init__()
        self.register_buffer("active", active)
        self.register_buffer("bounds", bounds.clone())
        self.register_buffer("cell_of", torch.empty(0, dtype=torch.int32), persistent=False)
        self.register_buffer("corners", torch.empty(0, 8, dtype=torch.int32), persistent=False)
        self._index()

    def _index(self) -> None:
        """Numbers the cells and their vertices, both in raster order."""
        active = self.active
        cells = active.nonzero()
        self.cell_of = torch.full((active.numel(),), -1, dtype=torch.int32, device=active.device)
        flat = (cells[:, 0] * active.shape[1] + cells[:, 1]) * active.shape[2] + cells[:, 2]
        self.cell_of[flat] = torch.arange(len(cells), dtype=torch.int32, device=active.device)
        vertices = cells[:, None] + CORNERS.to(cells.device)
        shape = [n + 1 for n in active.shape]
        key = (vertices[..., 0] * shape[1] + vertices[..., 1]) * shape[2] + vertices[..., 2]
        self.vertex_key, rows = key.unique(return_inverse=True)
        self.corners = rows.to(torch.int32)

    @property
    def n_vertices(self) -> int:
        return len(self.vertex_key)

    @property
    def resolution(self) -> Tensor:
        return torch.tensor(self.active.shape, device=self.bounds.device)

    def vertices(self) -> Tensor:
        """(V, 3) positions of the vertices, scene units."""
        _, ny, nz = (n + 1 for n in self.active.shape)
        key = self.vertex_key
        index = torch.stack([key // (ny * nz), key // nz % ny, key % nz], -1)
        return self.bounds[0] + index * ((self.bounds[1] - self.bounds[0]) / self.resolution)

    def _position(self, x: Tensor) -> Tensor:
        """``x (M, 3)`` in units of cells."""
        return (x - self.bounds[0]) * (self.resolution / (self.bounds[1] - self.bounds[0]))

    def locate(self, x: Tensor) -> Tensor:
        """Cell number (M,) int32 of each position ``x (M, 3)``, -1 where there is none."""
        number, inside = locate(self._position(x), self.active.shape)
        return torch.where(inside, self.cell_of.index_select(0, number), -1)

    def interpolate(self, table: Tensor, cell: Tensor, x: Tensor) -> Tensor:
        """Trilinear values (M, F) of ``table (V, F)`` at ``x (M, 3)`` in existing ``cell (M,)``."""
        position = self._position(x)
        weights = trilinear_weights(position - position.floor())
        return trilinear_gather(table, self.corners, cell, weights.to(table.dtype))


class VoxelGeometry(nn.Module):
    """Position -> density: raw values on the vertices, interpolated, then a softplus.

    Interpolating before the activation lets a surface lie sharply inside a cell (DVGO, Sun et al.
    2022).  Density is measured in hundredths of the box, so scenes of any size start alike.
    """

    def __init__(self, lattice: Lattice) -> None:
        super().__init__()
        self.lattice = lattice
        self.raw = nn.Parameter(torch.full((lattice.n_vertices, 1), FOG))
        self.register_buffer(
            "unit", (lattice.bounds[1] - lattice.bounds[0]).max() / 100, persistent=False
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x (M, 3)`` -> density (M,) per scene unit, and the cell (M,) that x lies in or -1."""
        cell = self.feature(x)
        raw = self.lattice.interpolate(self.raw, cell.clamp(min=0), x)[:, 0]
        density = functional.softplus(raw) / self.unit
        return density * (cell >= 0), cell

    def feature(self, x: Tensor) -> Tensor:
        """``x (M, 3)`` -> the cell (M,) that it lies in or -1."""
        return self.lattice.locate(x)


class VoxelStyle(Style):
    """(cell, position, direction) -> colour: features on the vertices and a small MLP."""

    def __init__(self, lattice: Lattice, n_features: int) -> None:
        super().__init__(DIRECTION_FREQUENCIES)
        self._lattice = (lattice,)  # in a tuple: it belongs to the geometry, not to this module
        self.features = nn.Parameter(torch.zeros(lattice.n_vertices, n_features))
        width = n_features + encoded_width(3, DIRECTION_FREQUENCIES)
        self.hidden = nn.ModuleList([nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, HIDDEN)])
        self.rgb = nn.Linear(HIDDEN, 3)

    def reset(self) -> None:
        """Starts again from a colourless field."""
        super().reset()
        nn.init.normal_(self.features, std=0.1)

    def forward(self, feature: Tensor, x: Tensor, d: Tensor) -> Tensor:
        """``feature (M,)`` cells, ``x (M, 3)``, unit ``d (M, 3)`` -> rgb (M, 3) in [0, 1]."""
        h = self._lattice[0].interpolate(self.features, feature.clamp(min=0), x)
        return self.decode(h, d, [(layer.weight, layer.bias) for layer in self.hidden], ROWS)


class VoxelField(nn.Module):
    """Sparse trilinear voxels; `geometry` holds density and structure, `style` all of the colour.

    Args:
        active: (R0, R1, R2) bool cells that exist.
        bounds: (2, 3) box of the grid.
        n_features: appearance features on a vertex.
    """

    rows = ROWS

    def __init__(self, active: Tensor, bounds: Tensor, n_features: int = 12) -> None:
        super().__init__()
        lattice = Lattice(active, bounds)
        self.geometry = VoxelGeometry(lattice)
        self.style = VoxelStyle(lattice, n_features)

    @property
    def cell(self) -> float:
        """Shortest edge of a cell, scene units."""
        lattice = self.geometry.lattice
        return float(((lattice.bounds[1] - lattice.bounds[0]) / lattice.resolution).min())

    @torch.no_grad()
    def refined(self, active: Tensor) -> VoxelField:
        """The same field on other cells ``active (R0, R1, R2)``, usually finer and fewer."""
        old = self.geometry.lattice
        n_features = self.style.features.shape[1]
        new = VoxelField(active, old.bounds, n_features).to(old.bounds.device)
        vertices = new.geometry.lattice.vertices()
        # a vertex on the rim belongs to an old cell on one of its eight sides
        nudge = 1e-3 * (old.bounds[1] - old.bounds[0]) / old.resolution
        for corner in CORNERS.to(nudge):
            x = vertices + (corner * 2 - 1) * nudge
            cell = old.locate(x)
            known = cell >= 0
            new.geometry.raw[known] = old.interpolate(self.geometry.raw, cell[known], x[known])
            new.style.features[known] = old.interpolate(self.style.features, cell[known], x[known])
        new.style.hidden, new.style.rgb = self.style.hidden, self.style.rgb
        return new


def grid_shape(bounds: Tensor, resolution: int) -> tuple[int, int, int]:
    """Cells along each axis: nearly cubes, ``resolution`` of them along the longest."""
    extent = bounds[1] - bounds[0]
    shape = (extent / extent.max() * resolution).round().clamp(min=4)
    return tuple(int(n) for n in shape)
