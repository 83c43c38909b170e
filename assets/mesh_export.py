"""The surface of a trained field as a coloured mesh.

It is looked for in the coordinates that the field lives in, where its resolution is, and then taken
to the world.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from assets.colours import Surface, field_colours
from assets.density import density_of
from assets.job import SCALE, Job
from assets.mesh import Mesh, kept_parts, level_set
from assets.mesh_files import write_mesh
from assets.visibility import Visibility
from utils.errors import UserError

VISIBILITY_CELLS = 128  # along the longest side of the grid that tells what is hidden
HIDDEN = 0.5  # visibility below which a point counts as hidden
OFFSET = 2.0  # cells above and below the surface that its colour is gathered from


def export_mesh(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """Writes the field's surface, coloured by the field or by the photos.

    Returns:
        The files, and entries for the report.

    Raises:
        UserError: there is no surface, or a file cannot be written.
    """
    options, space = job.options, job.space
    mesh, facts = surface_of(job)
    mesh.colours = colours_of(job, mesh, facts["cell"])
    if space.forward_facing:
        world = space.to_world(torch.from_numpy(mesh.vertices)).numpy()
        mesh = mesh.moved(world, mirrored=True)
        facts |= {"units": "threshold and cell: those of warped space (NDC)", "depth": job.depth}
    axes, rotation = job.orientation(options.axes)
    mesh = mesh.turned(rotation)
    notes = {
        "axes": axes,
        "scale": SCALE,
        "colours": "those of the photos" if options.colour == "photos" else job.colours,
    }
    paths = [job.path(extension) for extension in options.mesh_format]
    for path in paths:
        write_mesh(path, mesh, notes, options.unlit)
    counts = {"vertices": len(mesh.vertices), "faces": len(mesh.faces)}
    corners = [mesh.vertices.min(0).tolist(), mesh.vertices.max(0).tolist()]
    return paths, {**notes, **counts, **facts, "bounds": corners}


def surface_of(job: Job) -> tuple[Mesh, dict[str, Any]]:
    """The mesh in the field's coordinates, without colours, and how it was found.

    Raises:
        UserError: there is none.
    """
    options, space, box = job.options, job.space, job.box()
    viewpoints = None
    if job.scene is not None:
        poses = torch.stack([view.c2w for view in job.scene.train])
        viewpoints = space.viewpoints(poses, box.mean(0))
    cells = min(VISIBILITY_CELLS, options.resolution)
    visibility = Visibility(job.renderer, box, cells, viewpoints)
    threshold = options.threshold or visibility.threshold()

    def solid(x: Tensor) -> Tensor:
        density = density_of(job.renderer, x)
        if space.forward_facing:
            # a box of the world is no box of the field
            return density if job.asked_box is None else density * _within(job, x)
        if options.fill_hidden:
            return torch.where(visibility(x) < HIDDEN, torch.inf, density)
        return density

    mesh = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    if 0 < threshold < float(visibility.density.max()):
        mesh = level_set(solid, box, options.resolution, threshold)
    spacing = float((box[1] - box[0]).max()) / options.resolution
    # of a place, what no camera sees stays open instead of being filled
    is_open = space.surrounds and options.fill_hidden
    if is_open and len(mesh.faces):
        mesh = seen_part(job, mesh, spacing)
    mesh, n_parts = kept_parts(mesh, options.min_part, closed=not is_open)
    if len(mesh.faces) == 0:
        raise UserError(
            f"--threshold {threshold:g}: no surface at this density; give a lower one, or other "
            "--bounds"
        )
    return mesh, {"parts": n_parts, "threshold": threshold, "cell": spacing}


def _within(job: Job, x: Tensor) -> Tensor:
    """(M,) bool: whether the field's positions ``x (M, 3)`` are in the box that is asked for."""
    world, (lower, upper) = job.space.to_world(x), job.asked_box
    return ((world >= lower) & (world <= upper)).all(1)


def _on_device(job: Job, mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Vertices and normals (V, 3) of a mesh where the field is."""
    bounds = job.renderer.bounds
    return torch.from_numpy(mesh.vertices).to(bounds), torch.from_numpy(mesh.normals()).to(bounds)


def seen_part(job: Job, mesh: Mesh, spacing: float) -> Mesh:
    """The triangles with a corner that a training camera sees."""
    vertices, normals = _on_device(job, mesh)
    surface = Surface(job.renderer, job.scene.train, vertices, normals, OFFSET * spacing, job.space)
    return mesh.part(surface.seen().cpu().numpy()[mesh.faces].any(1))


def colours_of(job: Job, mesh: Mesh, spacing: float) -> np.ndarray:
    """Colours (V, 3) of the vertices of a mesh in the field's coordinates; a vertex that no photo
    shows gets the field's."""
    renderer, space, offset = job.renderer, job.space, OFFSET * spacing
    vertices, normals = _on_device(job, mesh)
    directions = None
    if space.forward_facing:
        # the cameras all looked one way: from the middle of them, not against the normal
        middle = torch.stack([view.c2w[:, 3] for view in job.scene.train]).mean(0).to(vertices)
        directions = functional.normalize(space.to_world(vertices) - middle, dim=1)
    colours = field_colours(renderer, vertices, normals, offset, directions)
    if job.options.colour == "photos":
        surface = Surface(renderer, job.scene.train, vertices, normals, offset, space)
        shown, weight = surface.photo_colours()
        colours = torch.where((weight > 0)[:, None], shown, colours)
    return colours.double().cpu().numpy()
