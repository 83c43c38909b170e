"""When a field grows: cells that turned out empty are given up, and the rest made finer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from datasets.cameras.space import World
from datasets.scene import Scene
from models import FIELDS
from opt import TrainOptions

CLOSEST = 0.25  # share of the photos that may resolve more than a field's cells


@dataclass(frozen=True)
class Due:
    """What is due before a step: pruning, and perhaps a finer field.

    Attributes:
        lit_only: whether cells that no ray has reached are given up too.
        resolution: fraction of the final resolution to go on with; None: as it is.
    """

    lit_only: bool
    resolution: float | None


@dataclass(frozen=True)
class GrowthSchedule:
    """How a field with cells grows, and when either field's occupancy grid is pruned, by fractions
    of the run.

    Attributes:
        resolutions: (fraction of the run, fraction of the final resolution) pairs; each but the
            first at a time of pruning.  The same resolution again leaves out the cells that were
            given up since.
        pruning: when cells that turned out empty are given up.
        raw_density: to start from.
    """

    resolutions: tuple[tuple[float, float], ...]
    pruning: tuple[float, ...]
    raw_density: float

    def due(self, step: int, n_steps: int, enough: int) -> Due | None:
        """What has to be done before ``step`` of ``n_steps``; None: nothing.

        Args:
            step: counted from 0.
            n_steps: of the run.
            enough: steps after which a cell that no ray has reached counts as hidden.
        """
        pruning = [round(at * n_steps) for at in self.pruning]
        if step == 0 or step not in pruning:
            return None
        since, lit_only = 0, False
        for at in pruning[: pruning.index(step) + 1]:
            lit_only = at - since >= enough
            since = at if lit_only else since
        finer = [size for at, size in self.resolutions[1:] if step == round(at * n_steps)]
        return Due(lit_only, finer[-1] if finer else None)


# In a visual hull little is empty.  Without one the cameras are inside the volume, so the field
# starts thin, and stays coarse until most of space has been given up; what is given up at the final
# resolution is taken out of the field too, which makes its steps faster.
HULL = GrowthSchedule(
    ((0.0, 0.4), (0.12, 0.7), (0.35, 1.0)), (0.06, 0.12, 0.22, 0.35, 0.5, 0.7), -2.0
)
OPEN = GrowthSchedule(
    ((0.0, 0.25), (0.12, 0.5), (0.35, 1.0), (0.5, 1.0), (0.7, 1.0)),
    (0.03, 0.06, 0.12, 0.22, 0.35, 0.5, 0.7),
    -4.0,
)


# From surfaces that are known, about, it can start finer.
STEREO = replace(OPEN, resolutions=((0.0, 0.5), *OPEN.resolutions[1:]))


def growth_of(scene: Scene, stereo: bool = False) -> GrowthSchedule:
    """What suits a scene, and whether its field starts from ``stereo``."""
    if scene.has_alpha:
        return HULL
    return STEREO if stereo and scene.surrounds else OPEN


def final_resolution(options: TrainOptions, *scenes: Scene) -> int:
    """Cells along the longest side of the box of a field that learns from ``scenes``, at the end.

    Cells of an object that are finer than the photos' pixels learn colours that no photo shows
    clearly: lego at 200x200 with 256 of them is 31.5 dB, with 160 32.8 dB, and is painted with
    less grain.  In warped space cells grow with the distance, and those nearby may be finer.
    """
    finest = max(map(pixels_along, scenes))
    return FIELDS[options.field].grid_resolution(options, finest)


def pixels_along(scene: Scene) -> float:
    """Pixels of the photos along the longest side of an object's box: of the closest quarter of
    them, that many or more; without limit where space is warped."""
    if not isinstance(scene.space, World):
        return math.inf
    centre, longest = scene.box.mean(0), float((scene.box[1] - scene.box[0]).max())
    away = torch.stack([view.c2w[:, 3] for view in scene.train]).sub(centre).norm(dim=1)
    focal = torch.tensor([max(view.fx, view.fy) for view in scene.train])
    pixel = float((away / focal).quantile(CLOSEST))
    return max(1.0, longest / pixel) if pixel > 0 else math.inf
