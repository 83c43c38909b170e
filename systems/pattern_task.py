"""Patterns on what was never seen with them: patches of swapped renders against those of the photos
that show the pattern."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from losses.patches import patch_distance
from models.encoded import FeatureDecoder, wear
from models.style import ParameterGroups
from opt import TrainOptions
from systems.pair_task import PairTask
from systems.system import Plan, Task, Terms

WINDOW = 48  # pixels along the side of a rendered window
PHOTOS = 6  # windows of photos that it is compared with


@dataclass(frozen=True)
class Swap:
    """An encoder in a decoder that it was not trained with.

    Attributes:
        task: one that trains the encoder.
        decoder: to wear.
        shown: the tasks whose photos show the decoder's pattern.
    """

    task: PairTask
    decoder: FeatureDecoder
    shown: Sequence[PairTask]


class PatternTask(Task):
    """Renders a window of each swap in every step, and compares its patches with those of photos.
    The gradient reaches the decoder and the encoder's colours, not its geometry.

    Args:
        options: of the run.
        swaps: to be rendered.
    """

    name = "pattern"

    def __init__(self, options: TrainOptions, swaps: Sequence[Swap]) -> None:
        super().__init__(options)
        self.swaps = list(swaps)

    def parameter_groups(self) -> ParameterGroups:
        groups = []
        for swap in self.swaps:
            wear(swap.task.renderer, swap.decoder)
            groups += swap.task.renderer.parameter_groups(self.options.lr)
        return groups

    def start(self) -> Plan:
        field = self.swaps[0].task.renderer.field
        samples = WINDOW**2 * 16
        return Plan(f"patches of {len(self.swaps)} swaps", field.cost.learning_bytes * samples)

    def gradients(self, step: int) -> Iterator[Terms]:
        weight = self.options.pattern_weight.at(step)
        if weight == 0:
            return
        generator, share = self.generator(step), weight / self.engine.team.size
        total = 0
        for swap in self.swaps:
            references = [
                photo_window(swap.shown[i % len(swap.shown)], generator) for i in range(PHOTOS)
            ]
            image, cover = self._render(swap, generator)
            with torch.autocast(self.engine.device.type, enabled=False):
                total = total + patch_distance([(image.float(), cover)], references, generator)
        self.descend({"patches": total * share}, step)
        yield {"patches": total.detach() * weight}

    def _render(self, swap: Swap, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random window of a swap, and its opacity."""
        task, renderer = swap.task, swap.task.renderer
        wear(renderer, swap.decoder)
        flat, height, width = window(task, generator)
        rays = task.rays_of(flat)
        samples = renderer.sample(rays)
        found = renderer.render(rays, samples, geometry=renderer.geometry(rays, samples))
        return found.rgb.view(height, width, 3), found.opacity.detach().view(height, width)


def window(task: PairTask, generator: torch.Generator) -> tuple[Tensor, int, int]:
    """Flat indices of the pixels of a window around a random pixel that is worth learning from, its
    height and width; moved inwards at the borders of the view."""
    pixels = task.pixels
    centre = pixels.draw(1, generator)
    view, row, column = (int(x) for x in pixels.locate(centre))
    height, width = pixels.sizes[view].tolist()
    h, w = min(WINDOW, height), min(WINDOW, width)
    top, left = min(max(row - h // 2, 0), height - h), min(max(column - w // 2, 0), width - w)
    rows = torch.arange(top, top + h, device=centre.device)[:, None]
    columns = torch.arange(left, left + w, device=centre.device)
    return (pixels.offsets[view] + rows * width + columns).flatten(), h, w


def photo_window(task: PairTask, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Colours (h, w, 3) of a window of a photo, and where the object is (h, w)."""
    flat, h, w = window(task, generator)
    pixels = task.pixels
    cover = torch.ones(h * w, device=flat.device)
    view = int(pixels.locate(flat[:1])[0])
    alpha = task.scene.train[view].alpha
    if alpha is not None:
        cover = alpha.flatten()[(flat - pixels.offsets[view]).cpu()].to(flat.device) / 255
    return pixels.colours(flat).view(h, w, 3), cover.view(h, w)
