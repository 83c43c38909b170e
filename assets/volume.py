"""A trained field as coloured voxels: nerf_pl's `.vol` for Unity, and NPZ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from assets.density import chunks, density_of
from assets.job import SCALE, Job
from datasets.cameras.space import WORLD, Space
from models.renderer import Renderer
from utils.errors import UserError
from utils.files import replacing

LARGEST = 1625  # cells a side: the flat index is a uint32


@dataclass
class Volume:
    """The voxels of a cube that are not empty.

    Attributes:
        index: (K, 3) uint16 cell along x, y, z; ascending in y, then x, then z.
        rgba: (K, 4) uint8, sRGB, alpha of light that crosses one cell: 1 .. 255.
        density: (K,) float32, per scene unit.
        bounds: (2, 3) float64 corners of the cube; the centre of cell i is at
            ``bounds[0] + (i + 0.5) / resolution * (bounds[1] - bounds[0])``.
        resolution: N, cells along each side.
    """

    index: np.ndarray
    rgba: np.ndarray
    density: np.ndarray
    bounds: np.ndarray
    resolution: int


def cube_around(box: Tensor) -> Tensor:
    """(2, 3) corners of the cube with the middle of ``box (2, 3)`` and its longest edge."""
    half = (box[1] - box[0]).max() / 2
    return torch.stack([box.mean(0) - half, box.mean(0) + half])


@torch.no_grad()
def volume_of(renderer: Renderer, box: Tensor, resolution: int, space: Space = WORLD) -> Volume:
    """The field in a cube of the world, plane by plane.

    Alpha is ``1 - exp(-density * edge)``.  Colour is that of the direction 0, as in nerf_pl: a
    mean of all directions.

    Args:
        box: (2, 3) corners in the world of what the cube is to hold.
        resolution: N, cells along each side of the cube.
        space: of the field; a density that depends on the direction there is that of light towards
            the origin (NDC) or the centre (contracted).
    """
    cube = cube_around(box)
    edge = float(cube[1, 0] - cube[0, 0]) / resolution
    line = torch.arange(resolution, device=box.device)
    x, z = torch.meshgrid(line, line, indexing="ij")
    kept: list[list[np.ndarray]] = [[], [], []]
    for y in tqdm(range(resolution), desc="volume", unit="plane"):
        index = torch.stack([x, torch.full_like(x, y), z], -1).view(-1, 3)
        world = cube[0] + (index + 0.5) * edge
        positions = space.from_world(world)
        density = density_of(renderer, positions) * space.stretch(world)
        alpha = (-torch.expm1(-density * edge) * 255).round()
        solid = (alpha > 0).nonzero()[:, 0]
        if len(solid) == 0:
            continue
        rgb = (colours_of(renderer, positions[solid]) * 255).round()
        rgba = torch.cat([rgb, alpha[solid, None]], 1)
        kept[0].append(index[solid].cpu().numpy().astype(np.uint16))
        kept[1].append(rgba.cpu().numpy().astype(np.uint8))
        kept[2].append(density[solid].cpu().numpy().astype(np.float32))
    empty = (np.zeros((0, 3), np.uint16), np.zeros((0, 4), np.uint8), np.zeros(0, np.float32))
    columns = [np.concatenate([first, *rest]) for first, rest in zip(empty, kept, strict=True)]
    return Volume(*columns, cube.double().cpu().numpy(), resolution)


def colours_of(renderer: Renderer, x: Tensor) -> Tensor:
    """Colours (M, 3) in [0, 1] at ``x (M, 3)``, of the direction 0."""

    def colours(part: slice) -> Tensor:
        return renderer.field.colours(x[part], torch.zeros_like(x[part])).float()

    return torch.cat(chunks(renderer).over(len(x), colours))


def write_vol(path: Path, volume: Volume) -> None:
    """Writes nerf_pl's `.vol`: for every voxel that is not empty two little-endian uint32, its
    flat index ``(y * N + x) * N + z`` and ``R << 24 | G << 16 | B << 8 | A``.  N is not in it."""
    x, y, z = volume.index.astype(np.uint32).T
    r, g, b, a = volume.rgba.astype(np.uint32).T
    n = np.uint32(volume.resolution)
    pairs = np.stack([(y * n + x) * n + z, r << 24 | g << 16 | b << 8 | a], 1)
    with replacing(path) as partial:
        partial.write_bytes(pairs.astype("<u4").tobytes())


def write_npz(path: Path, volume: Volume) -> None:
    """Writes the attributes of `Volume` as arrays of the same names."""
    with replacing(path) as partial:
        np.savez_compressed(partial, **vars(volume))


def export_volume(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """Writes the field as coloured voxels of the world.

    Returns:
        The files, and entries for the report.

    Raises:
        UserError: too many cells, or a file cannot be written.
    """
    options = job.options
    if options.resolution > LARGEST:
        raise UserError(
            f"--resolution {options.resolution}: a volume has at most {LARGEST} cells a side"
        )
    box = job.box()  # which refuses --bounds that hold nothing
    box = job.space.world_box(box) if job.asked_box is None else job.asked_box
    volume = volume_of(job.renderer, box, options.resolution, job.space)
    writers = {"vol": write_vol, "npz": write_npz}
    paths = [job.path(extension) for extension in options.volume_format]
    for path in paths:
        writers[path.suffix[1:]](path, volume)
    return paths, {
        "axes": job.orientation("scene")[0],
        "scale": SCALE,
        "resolution": volume.resolution,
        "bounds": volume.bounds.tolist(),
        "voxels": len(volume.index),
        "index": "(y * N + x) * N + z",
    }
