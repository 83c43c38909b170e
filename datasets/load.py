"""The one way in: options -> Scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from datasets.blender import load_blender
from datasets.scene import Scene


class SceneOptions(Protocol):
    """The options that say which scene."""

    dataset_name: str
    root_dir: Path
    scene_name: str
    img_wh: tuple[int, int] | None
    near: float | None
    far: float | None


def load_scene(options: SceneOptions) -> Scene:
    """Loads the scene of ``--root_dir`` in the format ``--dataset_name``.

    Raises:
        UserError: anything missing, unreadable or contradictory, naming the file or option.
    """
    perturb: Sequence[str] = getattr(options, "data_perturb", ())
    scene = load_blender(options.root_dir, options.img_wh, options.near, options.far, perturb)
    scene.name = options.scene_name
    return scene
