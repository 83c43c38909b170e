"""Triangles of a density's level set: marching cubes slab by slab, and the parts that are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes
from torch import Tensor

SLAB = 1 << 23  # grid points held at once
LEVEL = 0.5

Density = Callable[[Tensor], Tensor]


@dataclass
class Mesh:
    """Triangles in world space.

    Attributes:
        vertices: (V, 3) float64 positions, scene units.
        faces: (F, 3) int64 vertices of each triangle, counter-clockwise seen from outside.
        colours: (V, 3) float in [0, 1], sRGB; or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray | None = None

    def corners(self) -> np.ndarray:
        """(F, 3, 3) positions of the corners of each triangle."""
        return self.vertices[self.faces]

    def face_normals(self) -> np.ndarray:
        """(F, 3) outward normals, of twice the triangle's area in length."""
        a, b, c = self.corners().transpose(1, 0, 2)
        return np.cross(b - a, c - a)

    def normals(self) -> np.ndarray:
        """(V, 3) unit outward normals, the mean of the triangles' around, weighted by area."""
        total = np.zeros_like(self.vertices)
        normals = self.face_normals()
        for corner in range(3):
            for axis in range(3):
                total[:, axis] += np.bincount(
                    self.faces[:, corner], normals[:, axis], len(self.vertices)
                )
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-30)

    def part(self, keep: np.ndarray) -> Mesh:
        """The triangles ``keep (F,) bool`` and the vertices that they use."""
        used, faces = np.unique(self.faces[keep], return_inverse=True)
        colours = None if self.colours is None else self.colours[used]
        return Mesh(self.vertices[used], faces.reshape(-1, 3), colours)

    def moved(self, positions: np.ndarray, mirrored: bool = False) -> Mesh:
        """The mesh with its vertices moved to ``positions (V, 3)``; ``mirrored``: by a map that
        changes handedness, after which the triangles have to be wound the other way."""
        faces = self.faces[:, ::-1] if mirrored else self.faces
        return replace(self, vertices=positions, faces=np.ascontiguousarray(faces))

    def turned(self, rotation: np.ndarray) -> Mesh:
        """The mesh with its vertices turned by ``rotation (3, 3)``."""
        return replace(self, vertices=self.vertices @ rotation.T)


def level_set(
    density: Density, box: Tensor, resolution: int, threshold: float, slab: int = SLAB
) -> Mesh:
    """The closed surface where the density rises over ``threshold``.

    Marching cubes (Lewiner et al. 2003) run on ``1 - 2^(-density / threshold)``, the share of light
    that is absorbed where the threshold absorbs half of it: unlike the density, whose peaks would
    push the surface outward, it is as steep inside as outside.  Outside the box there is nothing.

    Args:
        density: positions (M, 3) -> (M,) per scene unit.
        box: (2, 3) corners, scene units.
        resolution: cells along the longest side; cells are cubes.
        threshold: density, per scene unit.
        slab: grid points to hold at once; memory grows with it, and not with the whole grid.

    Returns:
        The mesh, empty where nothing is as dense.
    """
    extent = box[1] - box[0]
    spacing = float(extent.max()) / resolution
    inner = [max(2, round(float(e) / spacing) + 1) for e in extent]
    # the grid lies in the middle of the box, and has a rim of nothing around it
    centred = (torch.tensor(inner, device=box.device) - 1) * spacing / 2
    origin = box.mean(0) - centred - spacing
    shape = [n + 2 for n in inner]
    thick = max(1, slab // (shape[1] * shape[2]) - 1)
    starts = range(0, shape[0] - 1, thick)
    vertices, faces, count = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    last = None
    for start in starts:
        planes = range(start if last is None else start + 1, min(start + thick, shape[0] - 1) + 1)
        absorbed = [_plane(density, origin, spacing, shape, i, threshold) for i in planes]
        values = np.stack(absorbed if last is None else [last, *absorbed])
        last = values[-1]
        if values.max() <= LEVEL:
            continue
        v, f, _, _ = marching_cubes(values, LEVEL, gradient_direction="ascent")
        vertices.append(v.astype(np.float64) + np.array([start, 0, 0]))
        faces.append(f.astype(np.int64) + count)
        count += len(v)
    merged, faces = _welded(np.concatenate(vertices), np.concatenate(faces), starts)
    return Mesh(origin.double().cpu().numpy() + merged * spacing, faces)


def _plane(
    density: Density, origin: Tensor, spacing: float, shape: list[int], i: int, threshold: float
) -> np.ndarray:
    """Absorbed light (Ny, Nz) in the plane ``i`` of the grid, 0 on its rim."""
    values = np.zeros(shape[1:], np.float32)
    if 0 < i < shape[0] - 1:
        y, z = (torch.arange(1, n - 1, device=origin.device) for n in shape[1:])
        index = torch.stack(torch.meshgrid(y, z, indexing="ij"), -1).view(-1, 2)
        index = torch.cat([torch.full_like(index[:, :1], i), index], 1)
        absorbed = 1 - torch.exp2(-density(origin + index * spacing) / threshold)
        values[1:-1, 1:-1] = absorbed.view(len(y), len(z)).cpu().numpy()
    return values


def _welded(
    vertices: np.ndarray, faces: np.ndarray, planes: range
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) in cells, where slabs meet one in place of two, and faces without area."""
    seam = np.isin(vertices[:, 0], planes)
    # both slabs computed them from the same numbers: they are equal, or nearly
    _, first, same = np.unique(
        np.rint(vertices[seam] * 4096).astype(np.int64),
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    number = np.empty(len(vertices), np.int64)
    number[~seam] = np.arange(int((~seam).sum()))
    number[seam] = int((~seam).sum()) + same.reshape(-1)
    faces = number[faces]
    a, b, c = faces.T
    return (
        np.concatenate([vertices[~seam], vertices[seam][first]]),
        faces[(a != b) & (b != c) & (c != a)],
    )


def kept_parts(mesh: Mesh, smallest: float, closed: bool = True) -> tuple[Mesh, int]:
    """The mesh without its small parts, and without the insides of hollow ones.

    Args:
        mesh: of any number of parts.
        smallest: area of the smallest part that is kept, as a share of the largest part's; 1 keeps
            the largest alone, 0 all.
        closed: whether the mesh is, so that its parts have an inside.

    Returns:
        What is left, and the number of its parts.
    """
    n = len(mesh.vertices)
    a, b, c = mesh.faces.T
    edges = coo_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, c])), shape=(n, n))
    label = connected_components(edges, directed=False)[1][a]
    normals = mesh.face_normals()
    area = np.bincount(label, np.linalg.norm(normals, axis=1) / 2)
    # a cavity's surface faces inward: its signed volume is negative
    centre = mesh.vertices.mean(0) if n else 0
    volume = np.bincount(label, ((mesh.corners()[:, 0] - centre) * normals).sum(1))
    outer = volume > 0 if closed else np.ones_like(volume, bool)
    keep = outer & (area >= smallest * area[outer].max(initial=0))
    return mesh.part(keep[label]), int(keep.sum())
