"""Write a trained field as files that other programs read.

python export.py mesh --ckpt_path ckpts/lego_geometry.ckpt
python export.py volume|cameras|weights|scene --ckpt_path ckpts/lego_geometry.ckpt
"""

from __future__ import annotations

from opt import SCENE, ExportOptions, parse_export
from utils.errors import UserError, exits_cleanly

if __name__ == "__main__":  # help and mistakes do not wait for what takes seconds to import
    exits_cleanly(parse_export)()

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from assets.cameras import write_cameras
from assets.colours import Surface, field_colours
from assets.density import density_of, occupied_box
from assets.exposure import Exposure
from assets.mesh import Mesh, kept_parts, level_set
from assets.mesh_files import write_mesh
from assets.space import Space, frustum_box, reach, warped_box
from assets.volume import LARGEST, volume_of, write_npz, write_vol
from assets.weights import SUFFIX, read_trained, write_weights
from datasets.load import load_scene
from datasets.portable import place_as, scene_from
from datasets.scene import Scene
from models.checkpoint import PHOTO, Checkpoint
from models.renderer import Renderer
from utils.checkpoint import ensure_writable, require_other_file
from utils.machine import accelerator, keep_memory

AXES = {
    "scene": "those of the scene's camera poses, right-handed",
    "y_up": "those of the scene's camera poses turned by -90 degrees about x, right-handed, y up",
}
FORWARD_AXES = "those of the scene's camera poses, right-handed, y up, seen along -z"
SCALE = "1 unit is 1 unit of the camera positions that `export.py cameras` writes"
TURNS = {"scene": np.eye(3), "y_up": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}
EXPOSURE_CELLS = 128  # along the longest side of the grid that tells what is hidden
LIT = 0.5  # light under which a place counts as hidden
REACH = 2.0  # cells above and below the surface that its colour is gathered from

WEIGHTS = ("ckpt_path", "coarse_path", "fine_path")

log = logging.getLogger(__name__)


@dataclass
class Job:
    """What every export works with: where is ``directory / name`` with an extension."""

    options: ExportOptions
    checkpoint: Checkpoint
    field: str
    style: str
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
        return place_as(load_scene(self.options), self.checkpoint.scenes[self.field])

    def scene_at_hand(self) -> Scene | None:
        """The scene, with its photos where they are to colour a mesh; None where neither they nor
        the file tell of its cameras, and it does without them.

        Raises:
            UserError: it does not: the field may be of a forward-facing scene.
        """
        saved = self.checkpoint.scenes[self.field]
        photos = self.options.asset == "mesh" and self.options.colour == "photos"
        if photos or "root_dir" in self.options.given:
            return self.scene()
        scene = scene_from(saved)
        if scene is None and saved.get("ndc", self.may_be_warped()):
            return self.scene()
        if scene is None:
            log.warning("no cameras in the file: the scene is taken as seen from all sides")
        return scene

    def may_be_warped(self) -> bool:
        """Whether a file that does not tell may hold a field in warped space (NDC)."""
        return self.options.dataset_name == "llff" and not self.options.spheric_poses


def export(options: ExportOptions) -> dict[str, Any]:
    """Writes one asset, and beside it a JSON report of what it is.

    Returns:
        The report.

    Raises:
        UserError: bad input.
    """
    checkpoint = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    field, style = checkpoint.chosen(style=options.style)
    options = options.filled_from(checkpoint.options, SCENE)
    directory = options.output_dir / options.dataset_name / options.scene_name
    ensure_writable(directory)
    renderer = checkpoint.renderer(field, style).to(accelerator(options.device)).eval()
    write = {
        "mesh": export_mesh,
        "volume": export_volume,
        "cameras": export_cameras,
        "weights": export_weights,
    }[options.asset]
    job = Job(options, checkpoint, field, style, renderer, directory)
    start = time.perf_counter()
    paths, facts = write(job)
    report = {
        "asset": options.asset,
        "files": [str(path) for path in paths],
        **facts,
        "style": style,
        "digest": checkpoint.fields[field].digest,
        "seconds": time.perf_counter() - start,
    }
    file = job.path(f"{options.asset}.json")
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, value in facts.items():
        print(f"{name:<14}{value}")
    print("written:", *paths, file)
    return report


def export_mesh(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """The field's surface, coloured by the field or by the photos.

    It is looked for in the coordinates that the field lives in, where its resolution is, and then
    taken to the world.
    """
    options, renderer, scene = job.options, job.renderer, job.scene_at_hand()
    space = Space.of(scene)
    warped = space.scale is not None
    deepest = reach(renderer, scene) if warped else None
    mesh, facts = surface_of(job, scene, space, deepest)
    mesh.colours = colours_of(job, mesh, facts["cell"], scene, space)
    if warped:
        world = space.to_world(torch.from_numpy(mesh.vertices)).numpy()
        mesh = mesh.moved(world, mirrored=True)
        facts |= {"units": "threshold and cell: those of warped space (NDC)", "deepest": deepest}
    axes, turn = orientation(options.axes, scene)
    mesh = mesh.turned(turn)
    painted = "photographic" if job.style == PHOTO else f"of the style '{job.style}'"
    colours = "of the photos" if options.colour == "photos" else painted
    notes = {
        "axes": axes,
        "scale": SCALE,
        "colours": colours,
    }
    paths = [job.path(extension) for extension in options.mesh_format]
    for path in paths:
        write_mesh(path, mesh, notes, options.unlit)
    counts = {"vertices": len(mesh.vertices), "faces": len(mesh.faces)}
    corners = [mesh.vertices.min(0).tolist(), mesh.vertices.max(0).tolist()]
    return paths, {**notes, **counts, **facts, "bounds": corners}


def surface_of(
    job: Job, scene: Scene | None, space: Space, deepest: float | None
) -> tuple[Mesh, dict[str, Any]]:
    """The mesh in the field's coordinates, without colours, and how it was found.

    Raises:
        UserError: there is none.
    """
    options, renderer = job.options, job.renderer
    warped = space.scale is not None
    box = field_box(job, space, deepest)
    eyes = None if scene is None else space.eyes(scene.train, box.mean(0))
    exposure = Exposure(renderer, box, min(EXPOSURE_CELLS, options.resolution), eyes)
    threshold = options.threshold or exposure.threshold()
    asked = None if options.bounds is None else world_box(job)

    def solid(x: Tensor) -> Tensor:
        density = density_of(renderer, x)
        if warped and asked is not None:
            world = space.to_world(x)
            density = density * ((world >= asked[0]) & (world <= asked[1])).all(1)
        if options.fill_hidden and not warped:
            return torch.where(exposure(x) < LIT, torch.inf, density)
        return density

    mesh = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    if 0 < threshold < float(exposure.density.max()):
        mesh = level_set(solid, box, options.resolution, threshold)
    spacing = float((box[1] - box[0]).max()) / options.resolution
    unseen_goes = warped and options.fill_hidden
    if unseen_goes and len(mesh.faces):
        mesh = seen_part(job, mesh, spacing, scene, space)
    mesh, n_parts = kept_parts(mesh, options.min_part, closed=not unseen_goes)
    if len(mesh.faces) == 0:
        raise UserError(
            f"--threshold {threshold:g}: no surface at this density; give a lower one, or other "
            "--bounds"
        )
    return mesh, {"parts": n_parts, "threshold": threshold, "cell": spacing}


def world_box(job: Job) -> Tensor:
    """(2, 3) corners of what ``--bounds`` asks for, in the world."""
    return torch.tensor(job.options.bounds).view(2, 3).to(job.renderer.bounds)


def field_box(job: Job, space: Space, deepest: float | None) -> Tensor:
    """(2, 3) corners, in the field's coordinates, of what is exported: what ``--bounds`` asks for,
    or what is occupied, down to the depth ``deepest`` of a forward-facing scene."""
    asked = job.options.bounds is not None
    if space.foreground is not None:
        return foreground_box(job, space.foreground)
    if space.scale is None:
        return world_box(job) if asked else occupied_box(job.renderer)
    box = occupied_box(job.renderer)
    if asked:
        box = warped_box(space, world_box(job), box)
    else:
        box[1, 2] = torch.minimum(box[1, 2], space.to_field(box.new_tensor([0, 0, -deepest]))[2])
    if not bool((box[1] > box[0]).all()):
        raise UserError("--bounds: hold nothing of the scene; it lies beyond z = -1, towards -z")
    return box


def foreground_box(job: Job, foreground: Tensor) -> Tensor:
    """(2, 3) corners of what is exported of an unbounded scene: what ``--bounds`` asks for, or what
    is occupied, of its foreground; beyond, cells grow without limit."""
    lower, upper = foreground.to(job.renderer.bounds)
    box = occupied_box(job.renderer) if job.options.bounds is None else world_box(job)
    box = torch.stack([torch.maximum(box[0], lower), torch.minimum(box[1], upper)])
    if not bool((box[1] > box[0]).all()):
        numbers = " ".join(f"{x:.3g}" for x in foreground.flatten().tolist())
        raise UserError(f"--bounds: hold nothing of the scene's foreground, which is {numbers}")
    return box


def orientation(axes: str, scene: Scene | None) -> tuple[str, np.ndarray]:
    """What the option --axes comes to, in words and as a rotation (3, 3)."""
    if scene is not None and scene.ndc:
        return FORWARD_AXES, np.eye(3)
    return AXES[axes], TURNS[axes]


def on_device(job: Job, mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Vertices and normals (V, 3) of a mesh where the field is."""
    bounds = job.renderer.bounds
    return torch.from_numpy(mesh.vertices).to(bounds), torch.from_numpy(mesh.normals()).to(bounds)


def seen_part(job: Job, mesh: Mesh, spacing: float, scene: Scene, space: Space) -> Mesh:
    """The triangles with a corner that a training camera sees."""
    surface = Surface(job.renderer, scene.train, *on_device(job, mesh), REACH * spacing, space)
    return mesh.part(surface.seen().cpu().numpy()[mesh.faces].any(1))


def colours_of(
    job: Job, mesh: Mesh, spacing: float, scene: Scene | None, space: Space
) -> np.ndarray:
    """Colours (V, 3) of the vertices of a mesh in the field's coordinates; a vertex that no photo
    shows gets the field's."""
    renderer, near = job.renderer, REACH * spacing
    vertices, normals = on_device(job, mesh)
    directions = None
    if space.scale is not None:
        # the cameras all looked one way: from the middle of them, not against the normal
        middle = torch.stack([view.c2w[:, 3] for view in scene.train]).mean(0).to(vertices)
        directions = functional.normalize(space.to_world(vertices) - middle, dim=1)
    colours = field_colours(renderer, vertices, normals, near, directions)
    if job.options.colour == "photos":
        surface = Surface(renderer, scene.train, vertices, normals, near, space)
        shown, weight = surface.photo_colours()
        colours = torch.where((weight > 0)[:, None], shown, colours)
    return colours.double().cpu().numpy()


def export_volume(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """The field as coloured voxels of the world."""
    options = job.options
    if options.resolution > LARGEST:
        raise UserError(
            f"--resolution {options.resolution}: a volume has at most {LARGEST} cells a side"
        )
    scene = job.scene_at_hand()
    space = Space.of(scene)
    deepest = reach(job.renderer, scene) if space.scale is not None else None
    box = field_box(job, space, deepest)
    if options.bounds is not None:
        box = world_box(job)
    elif deepest is not None:
        box = frustum_box(space, box)
    volume = volume_of(job.renderer, box, options.resolution, space)
    writers = {"vol": write_vol, "npz": write_npz}
    paths = [job.path(extension) for extension in options.volume_format]
    for path in paths:
        writers[path.suffix[1:]](path, volume)
    return paths, {
        "axes": orientation("scene", scene)[0],
        "scale": SCALE,
        "resolution": volume.resolution,
        "bounds": volume.bounds.tolist(),
        "voxels": len(volume.index),
        "index": "(y * N + x) * N + z",
    }


def export_cameras(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """The cameras of all splits."""
    scene = job.scene()
    axes, turn = orientation(job.options.axes, scene)
    directory = ensure_writable(job.directory / f"{job.options.name}_cameras")
    paths = write_cameras(directory, scene, turn, job.options.images)
    counts = {split: len(getattr(scene, split)) for split in ("train", "val", "test")}
    return paths, {"axes": axes, "views": counts}


def export_weights(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """The field alone."""
    path = job.path(SUFFIX[1:])
    options = job.options
    require_other_file(path, {name: getattr(options, name) for name in WEIGHTS})
    write_weights(path, job.checkpoint, options.half, job.field, job.style)
    return [path], {"precision": "half" if options.half else "single", **size_of(path)}


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
