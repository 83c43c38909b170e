"""The one way in: options -> Scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from datasets.formats.assemble import Wishes, require_folder
from datasets.formats.blender import load_blender
from datasets.formats.colmap import load_colmap
from datasets.formats.folders import images_in
from datasets.formats.llff import load_llff
from datasets.formats.names import AUTO, SIGNS, format_of
from datasets.formats.transforms import load_transforms
from datasets.scene import Scene
from utils.errors import UserError


class SceneOptions(Protocol):
    """The options that say which scene."""

    dataset_name: str
    root_dir: Path
    scene_name: str
    img_wh: tuple[int, int] | None
    near: float | None
    far: float | None
    hold_out: float
    spheric_poses: bool | None


def load_scene(options: SceneOptions) -> Scene:
    """Loads the scene of ``--root_dir`` in the format ``--dataset_name``.

    Raises:
        UserError: anything missing, unreadable or contradictory, naming the file or option.
    """
    perturb: Sequence[str] = getattr(options, "data_perturb", ())
    wishes = Wishes(options.img_wh, options.near, options.far, perturb)
    root_dir, name = options.root_dir, options.dataset_name
    require_folder(root_dir)
    if name == AUTO:
        name = format_of(root_dir) or _refuse(root_dir)
    if name == "blender":
        scene = load_blender(root_dir, wishes, options.hold_out)
    elif name == "llff":
        scene = load_llff(root_dir, wishes, options.hold_out, options.spheric_poses)
    elif name == "transforms":
        scene = load_transforms(root_dir, wishes, options.hold_out)
    else:
        scene = load_colmap(root_dir, wishes, options.hold_out)
    scene.name = options.scene_name
    return scene


def _refuse(root_dir: Path) -> str:
    """Raises: the folder has none of the formats."""
    if images_in(root_dir):
        raise UserError(
            f"{root_dir}: has images but no camera poses; find them with: "
            f"python prepare.py {root_dir}"
        )
    signs = ", ".join(sign for _, sign in SIGNS[:4])
    raise UserError(f"{root_dir}: not a scene, it has none of {signs}; check --root_dir")
