"""What every export works with: options, the trained field, its scene, and what of it to export."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assets.density import occupied_box
from datasets.cameras.rays import Cameras
from datasets.cameras.space import Space, space_from
from datasets.load import load_scene
from datasets.portable import place_as, scene_from
from datasets.scene import Scene
from models.checkpoint import PHOTO, Checkpoint
from models.renderer import Renderer
from opt import ExportOptions
from utils.errors import UserError

AXES = {
    "scene": "those of the scene's camera poses, right-handed",
    "y_up": "those of the scene's camera poses turned by -90 degrees about x, right-handed, y up",
}
FORWARD_AXES = "those of the scene's camera poses, right-handed, y up, seen along -z"
ROTATIONS = {"scene": np.eye(3), "y_up": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}
SCALE = "1 unit is 1 unit of the camera positions that `export.py cameras` writes"
RAYS = 4096  # of each view, by which the depth of the scene is measured
VISIBLE_SHARE = 0.99  # of these rays end within the exported depth
MARGIN = 1.1
MIN_PARALLAX = 4.0  # pixels between any two cameras; below, a depth is unknown

log = logging.getLogger(__name__)

# writes the files; returns them, and entries for the report
Export = Callable[["Job"], tuple[list[Path], dict[str, Any]]]


@dataclass
class Job:
    """One export.

    Attributes:
        options: of export.py.
        checkpoint: with the trained field.
        field, style: names of the field and of the colours, in the checkpoint.
        renderer: of that field in those colours.
        directory: where the files go.
    """

    options: ExportOptions
    checkpoint: Checkpoint
    field: str
    style: str
    renderer: Renderer
    directory: Path

    @property
    def saved_scene(self) -> dict[str, Any]:
        """What the checkpoint tells of the scene."""
        return self.checkpoint.scenes[self.field]

    @property
    def colours(self) -> str:
        """Which ones the renderer shows, in words."""
        if self.style in self.checkpoint.decoders:
            return f"those of the decoder '{self.style}'"
        return "photographic" if self.style == PHOTO else f"those of the style '{self.style}'"

    def path(self, extension: str) -> Path:
        """The file with an extension."""
        return self.directory / f"{self.options.name}.{extension}"

    @cached_property
    def scene(self) -> Scene | None:
        """The scene that the field was trained on, with its photos where they are needed; None
        where nothing gives its cameras, and the export does without them.

        Raises:
            UserError: the export needs them, and there is no --root_dir.
        """
        options, saved = self.options, self.saved_scene
        photos = options.asset == "cameras" or (
            options.asset == "mesh" and options.colour == "photos"
        )
        if photos or "root_dir" in options.given:
            return self._loaded_scene()
        scene = scene_from(saved)
        if scene is None and space_from(saved["space"]).forward_facing:
            return self._loaded_scene()
        if scene is None:
            log.warning("no cameras in the file: the scene is taken as seen from all sides")
        return scene

    def _loaded_scene(self) -> Scene:
        root_dir = self.options.root_dir
        if root_dir is None or not root_dir.is_dir():
            raise UserError(
                f"--root_dir {root_dir}: no such directory, and {self.options.asset} needs the "
                "scene's cameras; give --root_dir"
            )
        return place_as(load_scene(self.options), self.saved_scene)

    @cached_property
    def space(self) -> Space:
        """The space of the field, on its device."""
        if self.scene is None:
            return space_from(self.saved_scene["space"]).to(self.renderer.bounds)
        return self.scene.space.to(self.renderer.bounds)

    @cached_property
    def depth(self) -> float | None:
        """How deep a forward-facing scene is exported, see `visible_depth`; None elsewhere."""
        return visible_depth(self.renderer, self.scene) if self.space.forward_facing else None

    @property
    def asked_box(self) -> Tensor | None:
        """(2, 3) corners in the world of what ``--bounds`` asks for."""
        if self.options.bounds is None:
            return None
        return torch.tensor(self.options.bounds).view(2, 3).to(self.renderer.bounds)

    def box(self) -> Tensor:
        """(2, 3) corners in the field of what is exported: what ``--bounds`` asks for, or what is
        occupied.

        Raises:
            UserError: it is empty.
        """
        occupied, asked = occupied_box(self.renderer), self.asked_box
        if asked is None:
            box, subject = self.space.exportable_box(occupied, self.depth), "the field: holds"
        else:
            box, subject = self.space.box_from_world(asked, occupied), "--bounds: hold"
        if not bool((box[1] > box[0]).all()):
            raise UserError(f"{subject} nothing of the scene; {self.space.extent}")
        return box

    def orientation(self, axes: str) -> tuple[str, np.ndarray]:
        """What ``--axes`` comes to, in words and as a rotation (3, 3)."""
        if self.space.forward_facing:
            return FORWARD_AXES, np.eye(3)
        return AXES[axes], ROTATIONS[axes]


@torch.no_grad()
def visible_depth(renderer: Renderer, scene: Scene) -> float:
    """Depth (-z) up to which a forward-facing scene is worth exporting, scene units.

    It holds what all but a hundredth of the training cameras' rays end at, and ends where the
    parallax between the outermost cameras, ``f * baseline / depth``, is too small to determine a
    depth: what lies there (the sky) got its depth by chance.
    """
    cameras = Cameras.within(scene, scene.train).to(renderer.bounds.device)
    positions = cameras.c2w[:, :2, 3]
    baseline = float(torch.cdist(positions, positions).max())
    depths = []
    for view in range(len(cameras)):
        height, width = cameras.sizes[view].tolist()
        step = math.ceil(math.sqrt(height * width / RAYS))
        row, column = torch.meshgrid(
            torch.arange(step // 2, height, step, device=positions.device),
            torch.arange(step // 2, width, step, device=positions.device),
            indexing="ij",
        )
        row, column = row.flatten(), column.flatten()
        rays = cameras.rays(view, row, column)
        seen = renderer(rays)
        points = rays.points(torch.arange(len(rays), device=row.device), seen.depth)
        solid = (seen.opacity > 0.5) & (seen.depth > 0)
        depths.append(-scene.space.to_world(points[solid])[:, 2])
    parallax = float(cameras.intrinsics[:, 0].max()) * baseline / MIN_PARALLAX
    depth = torch.cat(depths)
    if len(depth) == 0:
        return parallax
    return min(parallax, MARGIN * float(depth.quantile(VISIBLE_SHARE)))
