"""How much light of those who took the photos gets to a place: what tells a surface from the foam
behind it, which no photo has shown and training has left as it was."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional

from assets.density import density_of
from models.renderer import Renderer

DIRECTIONS = tuple(d for d in itertools.product((-1, 0, 1), repeat=3) if any(d))
AGREE = 3  # directions that have to bring light, so that a pore in one line counts for nothing
APART = math.cos(math.radians(32))  # between a camera and the direction of light that stands for it
TYPICAL = 0.15  # share of the density that stops most light, from which on there is a surface


class Exposure:
    """Light on a coarse grid, from the 26 directions along its axes and diagonals.

    Args:
        renderer: whose density stops the light.
        box: (2, 3) corners, scene units.
        resolution: cells along the longest side; memory is four floats for each.
        eyes: (V, 3) positions of the cameras; only the directions that they looked in bring light.
            None: all do.
    """

    def __init__(
        self, renderer: Renderer, box: Tensor, resolution: int, eyes: Tensor | None = None
    ) -> None:
        extent = box[1] - box[0]
        self.low, self.spacing = box[0], float(extent.max()) / resolution
        shape = [math.ceil(float(e) / self.spacing) + 1 for e in extent]
        axes = [torch.arange(n, device=box.device) for n in shape]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
        self.density = density_of(renderer, self.low + points * self.spacing).view(shape)
        directions = looked_in(eyes - box.mean(0)) if eyes is not None else list(DIRECTIONS)
        self.light = agreed_light(self.density * self.spacing, directions)

    def __call__(self, x: Tensor) -> Tensor:
        """Light (M,) in [0, 1] at ``x (M, 3)``."""
        size = torch.tensor(self.light.shape, device=x.device)
        place = ((x - self.low) / self.spacing / (size - 1) * 2 - 1).flip(-1)
        values = functional.grid_sample(
            self.light[None, None],
            place[None, None, None].to(self.light.dtype),
            padding_mode="border",
            align_corners=True,
        )
        return values[0, 0, 0, 0]

    def threshold(self) -> float:
        """Density from which on there is a surface, per scene unit: a share of the density that
        half of the stopped light is stopped below of; 0 in an empty field."""
        density = self.density.flatten()
        # light that arrives is that beside the point: behind a hard surface none is left
        arriving = functional.max_pool3d(self.light[None, None], 3, stride=1, padding=1).flatten()
        stopped = arriving * -torch.expm1(-density * self.spacing)
        order = density.argsort()
        total = stopped[order].double().cumsum(0)
        middle = int(torch.searchsorted(total, total[-1:] / 2))
        return TYPICAL * float(density[order[min(middle, len(order) - 1)]])


def looked_in(arms: Tensor) -> list[tuple[int, int, int]]:
    """The directions of light nearest to what cameras at ``arms (V, 3)`` from the middle see by."""
    toward = -functional.normalize(arms, dim=-1)
    table = functional.normalize(torch.tensor(DIRECTIONS).to(toward), dim=-1)
    near = (toward @ table.T > APART).any(0).tolist()
    return [d for d, chosen in zip(DIRECTIONS, near, strict=True) if chosen]


def agreed_light(optical: Tensor, directions: list[tuple[int, int, int]]) -> Tensor:
    """Light that gets to every point from at least `AGREE` of the directions (or all, if fewer).

    Args:
        optical: (X, Y, Z) density times spacing.
        directions: steps of -1, 0 or 1 along each axis, in which light travels.

    Returns:
        (X, Y, Z) in [0, 1]: the transmittance of the direction that brings the third most.
    """
    best = [torch.zeros_like(optical) for _ in range(min(AGREE, len(directions)))]
    for direction in directions:
        light = transmitted(optical, direction)
        for i, kept in enumerate(best):
            best[i], light = torch.maximum(kept, light), torch.minimum(kept, light)
    return best[-1]


def transmitted(optical: Tensor, direction: tuple[int, int, int]) -> Tensor:
    """Transmittance (X, Y, Z) along one direction from outside of the grid, plane after plane."""
    axis = next(i for i in range(3) if direction[i])
    aside = [i for i in range(3) if i != axis]
    out = torch.empty_like(optical)
    planes, results = optical.permute(axis, *aside), out.permute(axis, *aside)
    length = math.sqrt(sum(step * step for step in direction))
    steps = [direction[i] for i in aside]
    order = range(len(planes)) if direction[axis] > 0 else range(len(planes) - 1, -1, -1)
    light, before = torch.ones_like(planes[0]), torch.zeros_like(planes[0])
    for i in order:
        # the trapezoidal rule between a point and the one that light comes from
        depth = (moved(before, steps, 0.0) + planes[i]) * (length / 2)
        light = moved(light, steps, 1.0) * torch.exp(-depth)
        results[i], before = light, planes[i]
    return out


def moved(plane: Tensor, steps: list[int], border: float) -> Tensor:
    """The plane (Y, Z) shifted by ``steps``, each -1, 0 or 1; ``border`` comes in."""
    padded = functional.pad(plane[None, None], (1, 1, 1, 1), value=border)[0, 0]
    y, z = 1 - steps[0], 1 - steps[1]
    return padded[y : y + plane.shape[0], z : z + plane.shape[1]]
