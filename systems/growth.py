"""Where a field starts, and how it grows: what is empty at first, when cells are given up, and when
they are made finer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.hull import seen_by_several, visual_hull
from datasets.scene import Scene
from models import FIELDS
from models.occupancy import grid_shape, resampled, upsampled
from models.renderer import Renderer
from opt import TrainOptions

SEEN_GRID = 64  # cells along the scene's box when it is asked which of them several views see


@dataclass(frozen=True)
class Due:
    """What is due before a step: pruning, and perhaps a finer field.

    Attributes:
        steps_since: the last pruning.
        resolution: fraction of the final resolution to go on with; None: as it is.
    """

    steps_since: int
    resolution: float | None


@dataclass(frozen=True)
class GrowthSchedule:
    """How a field with cells grows, and when either field's occupancy grid is pruned, by fractions
    of the run.

    Attributes:
        resolutions: (fraction of the run, fraction of the final resolution) pairs; each but the
            first at a time of pruning.
        pruning: when cells that turned out empty are given up.
        raw_density: to start from.
    """

    resolutions: tuple[tuple[float, float], ...]
    pruning: tuple[float, ...]
    raw_density: float

    def due(self, step: int, n_steps: int) -> Due | None:
        """What has to be done before ``step`` of ``n_steps``; None: nothing."""
        pruning = [round(at * n_steps) for at in self.pruning]
        if step == 0 or step not in pruning:
            return None
        finer = [size for at, size in self.resolutions[1:] if step == round(at * n_steps)]
        before = max([0, *(at for at in pruning if at < step)])
        return Due(step - before, finer[-1] if finer else None)


# In a visual hull little is empty.  Without one the cameras are inside the volume, so the field
# starts thin, and stays coarse until most of space has been given up.
HULL = GrowthSchedule(
    ((0.0, 0.4), (0.12, 0.7), (0.35, 1.0)), (0.06, 0.12, 0.22, 0.35, 0.5, 0.7), -2.0
)
OPEN = GrowthSchedule(
    ((0.0, 0.25), (0.12, 0.5), (0.35, 1.0)), (0.03, 0.06, 0.12, 0.22, 0.35, 0.5, 0.7), -4.0
)


def growth_of(scene: Scene) -> GrowthSchedule:
    """What suits a scene."""
    return HULL if scene.has_alpha else OPEN


def new_renderer(options: TrainOptions, scene: Scene) -> Renderer:
    """An untrained renderer for ``scene``, initialised from the seed."""
    kind, growth = FIELDS[options.field], growth_of(scene)
    resolution = kind.grid_resolution(options)
    occupied = first_occupancy(scene, resolution)
    coarse = grid_shape(scene.box, round(resolution * growth.resolutions[0][1]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        renderer = Renderer.build(
            kind.specs_of(options),
            scene.box,
            scene.background,
            occupied,
            resampled(occupied, coarse),
        )
        renderer.field.fill(growth.raw_density)
    return renderer


def first_occupancy(scene: Scene, resolution: int) -> Tensor:
    """(R0, R1, R2) bool: the visual hull where there are alpha masks; what several photos show
    where they show all that is there; everything otherwise."""
    shape = grid_shape(scene.box, resolution)
    if scene.has_alpha:
        return visual_hull(scene.train, scene.bounds, shape)
    if scene.surrounds:
        return upsampled(seen_by_several(scene, grid_shape(scene.box, SEEN_GRID)), shape)
    return torch.ones(shape, dtype=torch.bool)
