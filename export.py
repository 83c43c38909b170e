"""Write a trained field as files that other programs read.

python export.py mesh --ckpt_path ckpts/lego_geometry.ckpt
python export.py volume|cameras|weights|scene --ckpt_path ckpts/lego_geometry.ckpt
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assets.cameras import write_cameras
from assets.colours import field_colours, photo_colours
from assets.density import density_of, occupied_box
from assets.exposure import Exposure
from assets.mesh import Mesh, kept_parts, level_set
from assets.mesh_files import write_mesh
from assets.volume import LARGEST, volume_of, write_npz, write_vol
from assets.weights import SUFFIX, load_any_field, write_weights
from datasets.load import load_scene
from datasets.portable import place_as, scene_from
from datasets.scene import Scene
from models.renderer import Renderer
from opt import SCENE, ExportOptions, parse_export
from utils.checkpoint import ensure_writable
from utils.errors import UserError, exits_cleanly
from utils.machine import accelerator, keep_memory

AXES = {
    "scene": "those of the scene's camera poses, right-handed",
    "y_up": "those of the scene's camera poses turned by -90 degrees about x, right-handed, y up",
}
SCALE = "1 unit is 1 unit of the camera positions that `export.py cameras` writes"
TURNS = {"scene": np.eye(3), "y_up": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}
EXPOSURE_CELLS = 128  # along the longest side of the grid that tells what is hidden
LIT = 0.5  # light under which a place counts as hidden
REACH = 2.0  # cells above and below the surface that its colour is gathered from

log = logging.getLogger(__name__)


@dataclass
class Job:
    """What every export works with: where is ``directory / name`` with an extension."""

    options: ExportOptions
    payload: dict[str, Any]
    renderer: Renderer
    directory: Path

    def path(self, extension: str) -> Path:
        return self.directory / f"{self.options.name}.{extension}"

    def scene(self) -> Scene:
        """The photos and cameras that the field was trained on."""
        if self.options.root_dir is None or not self.options.root_dir.is_dir():
            raise UserError(
                f"--root_dir {self.options.root_dir}: no such directory, and "
                f"{self.options.asset} needs the scene's cameras; give --root_dir"
            )
        return place_as(load_scene(self.options), self.payload["scene"])

    def box(self) -> Tensor:
        """(2, 3) corners of what is exported, scene units."""
        if self.options.bounds is None:
            return occupied_box(self.renderer)
        return torch.tensor(self.options.bounds).view(2, 3).to(self.renderer.bounds)


def export(options: ExportOptions) -> dict[str, Any]:
    """Writes one asset, and beside it a JSON report of what it is.

    Returns:
        The report.

    Raises:
        UserError: bad input.
    """
    payload = load_any_field(options.ckpt_path, options.coarse_path, options.fine_path)
    options = options.filled_from(payload["options"], SCENE)
    directory = options.output_dir / options.dataset_name / options.scene_name
    ensure_writable(directory)
    renderer = Renderer.from_state(payload["spec"], payload["state"])
    renderer = renderer.to(accelerator(options.device)).eval()
    write = {
        "mesh": export_mesh,
        "volume": export_volume,
        "cameras": export_cameras,
        "weights": export_weights,
    }[options.asset]
    job = Job(options, payload, renderer, directory)
    start = time.perf_counter()
    paths, facts = write(job)
    report = {
        "asset": options.asset,
        "files": [str(path) for path in paths],
        **facts,
        "kind": payload["kind"],
        "digest": payload["digest"],
        "seconds": time.perf_counter() - start,
    }
    file = job.path(f"{options.asset}.json")
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, value in facts.items():
        print(f"{name:<14}{value}")
    print("written:", *paths, file)
    return report


def export_mesh(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """The field's surface, coloured by the field or by the photos."""
    options, renderer, box = job.options, job.renderer, job.box()
    scene = scene_at_hand(job)
    if scene is not None and scene.ndc:
        raise UserError(
            "mesh: this field is of a forward-facing scene, in warped space (NDC); train it with "
            "--spheric_poses for a mesh"
        )
    eyes = None
    if scene is not None:
        eyes = torch.stack([view.c2w[:, 3] for view in scene.train]).to(box)
    exposure = Exposure(renderer, box, min(EXPOSURE_CELLS, options.resolution), eyes)
    threshold = options.threshold or exposure.threshold()

    def solid(x: Tensor) -> Tensor:
        density = density_of(renderer, x)
        return torch.where(exposure(x) < LIT, torch.inf, density) if fill else density

    fill = options.fill_hidden
    mesh = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    if 0 < threshold < float(exposure.density.max()):
        mesh = level_set(solid, box, options.resolution, threshold)
    mesh, n_parts = kept_parts(mesh, options.min_part)
    if len(mesh.faces) == 0:
        raise UserError(
            f"--threshold {threshold:g}: no surface at this density; give a lower one, or other "
            "--bounds"
        )
    spacing = float((box[1] - box[0]).max()) / options.resolution
    paint(job, mesh, spacing, scene)
    notes = {
        "axes": AXES[options.axes],
        "scale": SCALE,
        "colours": f"{job.payload['kind']} checkpoint, from {options.colour}",
    }
    mesh = mesh.turned(TURNS[options.axes])
    paths = [job.path(extension) for extension in options.mesh_format]
    for path in paths:
        write_mesh(path, mesh, notes, options.unlit)
    return paths, {
        **notes,
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "parts": n_parts,
        "threshold": threshold,
        "cell": spacing,
        "bounds": [mesh.vertices.min(0).tolist(), mesh.vertices.max(0).tolist()],
    }


def scene_at_hand(job: Job) -> Scene | None:
    """The scene, with its photos where they are to colour the mesh; None where neither they nor
    the checkpoint tell of its cameras."""
    if job.options.colour == "photos" or "root_dir" in job.options.given:
        return job.scene()
    scene = scene_from(job.payload["scene"])
    if scene is None:
        log.warning("no cameras in the file: the mesh takes the scene as seen from all sides")
    return scene


def paint(job: Job, mesh: Mesh, spacing: float, scene: Scene | None) -> None:
    """Gives ``mesh`` its colours; a vertex that no photo shows gets the field's."""
    renderer, reach = job.renderer, REACH * spacing
    vertices = torch.from_numpy(mesh.vertices).to(renderer.bounds)
    normals = torch.from_numpy(mesh.normals()).to(renderer.bounds)
    colours = field_colours(renderer, vertices, normals, reach)
    if job.options.colour == "photos":
        shown, weight = photo_colours(renderer, scene.train, vertices, normals, reach)
        colours = torch.where((weight > 0)[:, None], shown, colours)
    mesh.colours = colours.double().cpu().numpy()


def export_volume(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """The field as coloured voxels."""
    if job.options.resolution > LARGEST:
        raise UserError(
            f"--resolution {job.options.resolution}: a volume has at most {LARGEST} cells a side"
        )
    volume = volume_of(job.renderer, job.box(), job.options.resolution)
    writers = {"vol": write_vol, "npz": write_npz}
    paths = [job.path(extension) for extension in job.options.volume_format]
    for path in paths:
        writers[path.suffix[1:]](path, volume)
    return paths, {
        "axes": AXES["scene"],
        "scale": SCALE,
        "resolution": volume.resolution,
        "bounds": volume.bounds.tolist(),
        "voxels": len(volume.index),
        "index": "(y * N + x) * N + z",
    }


def export_cameras(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """The cameras of all splits."""
    scene, axes = job.scene(), job.options.axes
    directory = ensure_writable(job.directory / f"{job.options.name}_cameras")
    paths = write_cameras(directory, scene, TURNS[axes], job.options.images)
    counts = {split: len(getattr(scene, split)) for split in ("train", "val", "test")}
    return paths, {"axes": AXES[axes], "views": counts}


def export_weights(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """The field alone."""
    path = job.path(SUFFIX[1:])
    write_weights(path, job.payload, job.options.half)
    return [path], {"precision": "half" if job.options.half else "single", **size_of(path)}


def size_of(path: Path) -> dict[str, int]:
    """The file's size for a report."""
    return {"bytes": path.stat().st_size}


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    keep_memory()
    export(parse_export())


if __name__ == "__main__":
    main()
