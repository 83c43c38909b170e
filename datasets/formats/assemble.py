"""Views of all splits -> Scene: bounds, range of rays, background or not, and the checks."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datasets.formats.perturb import perturb_views
from datasets.hull import near_far, scene_bounds
from datasets.scene import GREY, Scene, View
from utils.errors import UserError

log = logging.getLogger(__name__)

WHITE = (1.0, 1.0, 1.0)
PLAIN = 12  # 8-bit levels by which JPEG may change a plain background
NAMED = 8  # so many files a message names


@dataclass(frozen=True)
class Wishes:
    """What the options ask of a scene, whatever its format.

    Attributes:
        img_wh: width, height to resize every image to; the intrinsics follow axis by axis.
        near, far: range of ray distances, scene units; None: from the data.
        data_perturb: corruptions of the training views, see `perturb_views`.
        background: (3,) in [0, 1], laid under images with alpha.

    Raises:
        UserError: an impossible value.
    """

    img_wh: tuple[int, int] | None = None
    near: float | None = None
    far: float | None = None
    data_perturb: Sequence[str] = ()
    background: Sequence[float] | Tensor = WHITE

    def __post_init__(self) -> None:
        size, near, far = self.img_wh, self.near, self.far
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise UserError(f"--img_wh {list(size)}: give a width and a height of at least 1 pixel")
        for option, value in (("--near", near), ("--far", far)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"{option} {value}: give a finite distance of at least 0")
        if near is not None and far is not None and near >= far:
            raise UserError(f"--near {near:g} --far {far:g}: near has to be below far")

    @property
    def under(self) -> Tensor:
        """The background (3,) float32."""
        return torch.as_tensor(self.background, dtype=torch.float32)


def make_scene(
    root_dir: Path,
    views: dict[str, list[View]],
    wishes: Wishes,
    known_range: tuple[float, float] | None = None,
) -> Scene:
    """The scene of views in world space.

    Args:
        root_dir: the scene's folder, for its name and for messages.
        views: by split.
        wishes: what the user set.
        known_range: near and far where the data tell (sparse points); None: from cameras and box.

    Raises:
        UserError: near is not below far, or an unknown perturbation.
    """
    train = perturb_views(views["train"], wishes.data_perturb, wishes.under)
    bounds = scene_bounds(train)
    near, far = chosen_range(root_dir, wishes, known_range or near_far(train, bounds))
    name = root_dir.resolve().name
    scene = Scene(name, train, views["val"], views["test"], near, far, bounds, wishes.under)
    if shows_background(views["train"], wishes.under):
        scene.unbounded, scene.background = True, torch.tensor(GREY)
    return scene


def chosen_range(root_dir: Path, wishes: Wishes, found: tuple[float, float]) -> tuple[float, float]:
    """near and far: the user's where set, else those ``found``."""
    near = found[0] if wishes.near is None else wishes.near
    far = found[1] if wishes.far is None else wishes.far
    if near >= far:
        raise UserError(
            f"--near/--far: near ({near:g}) is not below far ({far:g}); "
            f"for {root_dir} near {found[0]:.3g} and far {found[1]:.3g} hold the scene"
        )
    return near, far


def shows_background(views: Sequence[View], background: Tensor) -> bool:
    """Whether images without alpha show more along their borders than the plain ``background``."""
    if all(view.alpha is not None for view in views):
        return False
    level = (255.0 * background).round()
    plain = []
    for view in views:
        edge = _border(view.image).float()
        if view.valid is not None:
            edge = edge[_border(view.valid)]
        if len(edge):
            plain.append(((edge - level).abs() <= PLAIN).all(dim=1).float().mean())
    if not plain:
        return True
    return float(torch.stack(plain).median()) < 0.95


def _border(image: Tensor) -> Tensor:
    """The pixels along the sides of an image (H, W, ...), in one list."""
    return torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])


def require_folder(root_dir: Path) -> None:
    """Raises a `UserError` where there is no such folder."""
    if not root_dir.is_dir():
        raise UserError(f"{root_dir}: no such directory; give the data set's folder (--root_dir)")


def named(items: Sequence[object]) -> str:
    """A list for a message: the first few, and how many more."""
    shown = ", ".join(str(item) for item in items[:NAMED])
    return shown if len(items) <= NAMED else f"{shown} and {len(items) - NAMED} more"
