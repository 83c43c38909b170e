"""Options -> Scene: finds the format, and does what all formats share once views are loaded."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from datasets.cameras.space import Contracted
from datasets.formats.folders import images_in
from datasets.formats.frames import HOLD_OUT
from datasets.formats.names import AUTO, FORMATS, format_of
from datasets.formats.perturb import perturb_views
from datasets.hull import near_far, plain_border, scene_bounds
from datasets.matte import cut_out
from datasets.scene import GREY, Scene, View
from datasets.selection import EVERYTHING, Selection
from utils.errors import UserError

log = logging.getLogger(__name__)

WHITE = (1.0, 1.0, 1.0)
NAMED = 8  # files that a message names, at most
LONGEST_NAME = 200  # characters of each
SAME_PLACE = 1e-3  # of the scene's longest side, within which cameras stand at one place
PLAIN = 0.8  # least share of background along the border of most photos of an object


class SceneOptions(Protocol):
    """The options of a script that say which scene."""

    dataset_name: str
    root_dir: Path
    scene_name: str
    img_wh: tuple[int, int] | None
    near: float | None
    far: float | None
    hold_out: float
    spheric_poses: bool | None
    few_shot: int | None
    shuffle_seed: int
    views: tuple[str, ...]
    occluded: str
    hull: bool
    matte: bool


@dataclass(frozen=True)
class LoadOptions:
    """How to load a scene; each format reads what concerns it.

    Attributes:
        img_wh: width, height to resize every image to; the intrinsics follow axis by axis.
        near, far: range of ray distances, scene units; None: from the data.
        hold_out: which views are kept for test where the data do not say, see `split_frames`.
        spheric_poses: LLFF: seen from around or not; None: by the viewing directions.
        data_perturb: corruptions of the training views, see `perturb_views`.
        background: (3,) in [0, 1], laid under images with alpha.
        selection: which of the training views are kept.
        hull: whether the alpha of the training views is a mask; else they are photos without.
        matte: whether training views without alpha, on a plain background, are cut out by it.

    Raises:
        UserError: an impossible value.
    """

    img_wh: tuple[int, int] | None = None
    near: float | None = None
    far: float | None = None
    hold_out: float = HOLD_OUT
    spheric_poses: bool | None = None
    data_perturb: Sequence[str] = ()
    background: Sequence[float] | Tensor = WHITE
    selection: Selection = EVERYTHING
    hull: bool = True
    matte: bool = False

    def __post_init__(self) -> None:
        background = torch.as_tensor(self.background, dtype=torch.float32)
        object.__setattr__(self, "background", background)
        size, near, far = self.img_wh, self.near, self.far
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise UserError(f"--img_wh {list(size)}: give a width and a height of at least 1 pixel")
        for option, value in (("--near", near), ("--far", far)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"{option} {value}: give a finite distance of at least 0")
        if near is not None and far is not None and near >= far:
            raise UserError(f"--near {near:g} --far {far:g}: near has to be below far")


def load_scene(options: SceneOptions) -> Scene:
    """Loads the scene of ``--root_dir`` in the format ``--dataset_name``.

    Raises:
        UserError: anything missing, unreadable or contradictory, naming the file or option.
    """
    root_dir, name = options.root_dir, options.dataset_name
    require_folder(root_dir)
    if name == AUTO:
        name = format_of(root_dir)
    if name is None:
        raise _no_scene(root_dir)
    module, function = FORMATS[name][0].split(":")
    load = getattr(importlib.import_module(module), function)
    scene = load(
        root_dir,
        LoadOptions(
            options.img_wh,
            options.near,
            options.far,
            options.hold_out,
            options.spheric_poses,
            getattr(options, "data_perturb", ()),
            selection=Selection(
                options.few_shot, options.shuffle_seed, options.views, options.occluded
            ),
            hull=options.hull,
            matte=options.matte,
        ),
    )
    scene.name = options.scene_name
    if from_one_place(scene):
        log.warning(
            "%s: the training photos are taken from one place, so nothing says how far away "
            "anything is; add some from elsewhere",
            root_dir,
        )
    return scene


def from_one_place(scene: Scene) -> bool:
    """Whether no two training cameras are apart by more than poses are uncertain."""
    positions = torch.stack([view.c2w[:, 3] for view in scene.train])
    apart = (positions.amax(dim=0) - positions.amin(dim=0)).max()
    return bool(apart < SAME_PLACE * (scene.bounds[1] - scene.bounds[0]).max())


def _no_scene(root_dir: Path) -> UserError:
    """The folder has the files of no format."""
    if images_in(root_dir):
        return UserError(
            f"{root_dir}: has images but no camera poses; find them with: "
            f"python prepare.py {root_dir}"
        )
    signs = ", ".join(signs[0] for _, signs in FORMATS.values())
    return UserError(f"{root_dir}: not a scene, it has none of {signs}; check --root_dir")


def make_scene(
    root_dir: Path,
    views: dict[str, list[View]],
    options: LoadOptions,
    known_range: tuple[float, float] | None = None,
) -> Scene:
    """The scene of views in world or contracted space: its box, its range of rays, its background.

    Args:
        root_dir: the scene's folder, for its name and for messages.
        views: by split.
        options: what the user set.
        known_range: near and far where the data say (sparse points); None: from cameras and box.

    Raises:
        UserError: near is not below far, an unknown perturbation, or nothing but transparent
            images.
    """
    if all(view.alpha is not None and not bool(view.alpha.any()) for view in views["train"]):
        raise UserError(
            f"{root_dir}: all training images are transparent; there is nothing to learn from them"
        )
    if not options.hull:
        views = {**views, "train": [replace(view, alpha=None) for view in views["train"]]}
    surrounded = shows_background(views["train"], options.background)
    if options.matte and surrounded:
        log.warning("%s: the photos show surroundings; --matte makes no masks of them", root_dir)
    elif options.matte:
        views = {**views, "train": _cut_out(root_dir, views["train"], options.background)}
    train = perturb_views(views["train"], options.data_perturb, options.background)
    bounds = scene_bounds(train, None if surrounded else options.background)
    near, far = chosen_range(root_dir, options, known_range or near_far(train, bounds))
    name = root_dir.resolve().name
    splits = (train, views["val"], views["test"])
    scene = Scene(name, *splits, near, far, bounds, options.background)
    if surrounded:
        scene.space, scene.background = Contracted(bounds), torch.tensor(GREY)
    return scene


def _cut_out(root_dir: Path, views: list[View], background: Tensor) -> list[View]:
    """The views, those without alpha with masks made from the plain background.

    Raises:
        UserError: one shows nothing else, whose mask would carve the object away.
    """
    cut = [view if view.alpha is not None else cut_out(view, background) for view in views]
    made = [new for old, new in zip(views, cut, strict=True) if old.alpha is None]
    empty = [view.name for view in made if not bool(view.alpha.any())]
    if empty:
        way = "use --no-matte" if len(empty) == len(cut) else "leave it out, or use --no-matte"
        raise UserError(f"{root_dir}: nothing but plain background on {named(empty)}; {way}")
    return cut


def chosen_range(
    root_dir: Path, options: LoadOptions, found: tuple[float, float]
) -> tuple[float, float]:
    """near and far: the user's where set, else those ``found``."""
    near = found[0] if options.near is None else options.near
    far = found[1] if options.far is None else options.far
    if near >= far and found[0] >= found[1]:
        raise UserError(
            f"{root_dir}: all cameras are in one place, from where photos tell no distances; add "
            "some from elsewhere"
        )
    if near >= far:
        raise UserError(
            f"--near/--far: near ({near:g}) is not below far ({far:g}); "
            f"for {root_dir} near {found[0]:.3g} and far {found[1]:.3g} hold the scene"
        )
    return near, far


def shows_background(views: Sequence[View], background: Tensor) -> bool:
    """Whether images without alpha show more along their borders than the plain ``background`` and
    an object that leaves some of them."""
    if all(view.alpha is not None for view in views):
        return False
    plain = [share for view in views if (share := plain_border(view, background)) is not None]
    if not plain:
        return True
    return float(torch.tensor(plain).median()) < PLAIN


def require_folder(root_dir: Path) -> None:
    """Raises a `UserError` where there is no such folder."""
    if not root_dir.is_dir():
        raise UserError(f"{root_dir}: no such directory; give the data set's folder (--root_dir)")


def named(items: Sequence[object]) -> str:
    """A list for a message: the first few, and how many more."""
    shown = ", ".join(str(item)[:LONGEST_NAME] for item in items[:NAMED])
    return shown if len(items) <= NAMED else f"{shown} and {len(items) - NAMED} more"
