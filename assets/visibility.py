"""Which points the cameras can see, on a coarse grid: separates a surface from the density behind
it, which no photo shows and training leaves as it was."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional

from assets.density import density_of
from models.renderer import Renderer

DIRECTIONS = tuple(d for d in itertools.product((-1, 0, 1), repeat=3) if any(d))
MIN_DIRECTIONS = 3  # that have to bring light: what comes through one line of pores does not count
MAX_ANGLE = math.radians(32)  # between a camera's rays and the direction that stands for them
SURFACE_SHARE = 0.15  # of the density that absorbs most light: from there on there is a surface


class Visibility:
    """Transmittance on a grid, from the 26 directions along its axes and diagonals.

    Args:
        renderer: whose density absorbs the light.
        box: (2, 3) corners, the field's coordinates.
        resolution: cells along the longest side; memory is four floats for each.
        viewpoints: (V, 3) positions of the cameras; only directions in which they look count.
            None: all do.
    """

    def __init__(
        self, renderer: Renderer, box: Tensor, resolution: int, viewpoints: Tensor | None = None
    ) -> None:
        extent = box[1] - box[0]
        self.low, self.spacing = box[0], float(extent.max()) / resolution
        shape = [math.ceil(float(e) / self.spacing) + 1 for e in extent]
        axes = [torch.arange(n, device=box.device) for n in shape]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
        self.density = density_of(renderer, self.low + points * self.spacing).view(shape)
        directions = list(DIRECTIONS)
        if viewpoints is not None:
            directions = viewing_directions(viewpoints - box.mean(0))
        self.light = visibility(self.density * self.spacing, directions)

    def __call__(self, x: Tensor) -> Tensor:
        """Visibility (M,) in [0, 1] at ``x (M, 3)``."""
        size = torch.tensor(self.light.shape, device=x.device)
        position = ((x - self.low) / self.spacing / (size - 1) * 2 - 1).flip(-1)
        values = functional.grid_sample(
            self.light[None, None],
            position[None, None, None].to(self.light.dtype),
            padding_mode="border",
            align_corners=True,
        )
        return values[0, 0, 0, 0]

    def threshold(self) -> float:
        """Density from which on there is a surface, per unit of the field: a share of the median
        density at which light is absorbed; 0 in an empty field."""
        density = self.density.flatten()
        # light that arrives is that beside the point: behind a hard surface none is left
        arriving = functional.max_pool3d(self.light[None, None], 3, stride=1, padding=1).flatten()
        absorbed = arriving * -torch.expm1(-density * self.spacing)
        order = density.argsort()
        total = absorbed[order].double().cumsum(0)
        middle = int(torch.searchsorted(total, total[-1:] / 2))
        return SURFACE_SHARE * float(density[order[min(middle, len(order) - 1)]])


def viewing_directions(offsets: Tensor) -> list[tuple[int, int, int]]:
    """Those of `DIRECTIONS` in which cameras look at a point, ``offsets (V, 3)`` away from it."""
    toward = -functional.normalize(offsets, dim=-1)
    table = functional.normalize(torch.tensor(DIRECTIONS).to(toward), dim=-1)
    chosen = (toward @ table.T > math.cos(MAX_ANGLE)).any(0).tolist()
    return [d for d, near in zip(DIRECTIONS, chosen, strict=True) if near]


def visibility(optical_depth: Tensor, directions: list[tuple[int, int, int]]) -> Tensor:
    """Light that gets to every point from at least `MIN_DIRECTIONS` (or all, if fewer).

    Args:
        optical_depth: (X, Y, Z) density times spacing.
        directions: steps of -1, 0 or 1 along each axis, in which light travels.

    Returns:
        (X, Y, Z) in [0, 1]: the transmittance of the direction with the third largest.
    """
    best = [torch.zeros_like(optical_depth) for _ in range(min(MIN_DIRECTIONS, len(directions)))]
    for direction in directions:
        light = transmittance(optical_depth, direction)
        for i, kept in enumerate(best):
            best[i], light = torch.maximum(kept, light), torch.minimum(kept, light)
    return best[-1]


def transmittance(optical_depth: Tensor, direction: tuple[int, int, int]) -> Tensor:
    """Transmittance (X, Y, Z) along one direction from outside of the grid, plane after plane."""
    axis = next(i for i in range(3) if direction[i])
    others = [i for i in range(3) if i != axis]
    out = torch.empty_like(optical_depth)
    planes, results = optical_depth.permute(axis, *others), out.permute(axis, *others)
    length = math.sqrt(sum(step * step for step in direction))
    steps = [direction[i] for i in others]
    order = range(len(planes)) if direction[axis] > 0 else range(len(planes) - 1, -1, -1)
    light, before = torch.ones_like(planes[0]), torch.zeros_like(planes[0])
    for i in order:
        # the trapezoidal rule between a point and the one that light comes from
        depth = (shifted(before, steps, 0.0) + planes[i]) * (length / 2)
        light = shifted(light, steps, 1.0) * torch.exp(-depth)
        results[i], before = light, planes[i]
    return out


def shifted(plane: Tensor, steps: list[int], border: float) -> Tensor:
    """The plane (Y, Z) shifted by ``steps``, each -1, 0 or 1; ``border`` comes in."""
    padded = functional.pad(plane[None, None], (1, 1, 1, 1), value=border)[0, 0]
    y, z = 1 - steps[0], 1 - steps[1]
    return padded[y : y + plane.shape[0], z : z + plane.shape[1]]
