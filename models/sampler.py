"""What every sampler is: it chooses where along its rays a field is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from datasets.cameras.rays import Rays
from models.field import Field
from models.render import Samples
from models.style import ParameterGroups

if TYPE_CHECKING:
    from models.occupancy import OccupancyGrid


class Sampler(nn.Module):
    """``sampler(field, rays, generator) -> samples``; `models.SAMPLERS` lists the subclasses.

    Attributes:
        grid: cells in which there may be something; no samples are taken in others.
    """

    grid: OccupancyGrid

    @classmethod
    def spec_of(cls, options: Any, style: dict[str, Any]) -> dict[str, Any]:
        """Plain values from which `build` makes the sampler that the options ask for.

        Args:
            style: specification of the style that learns from photos.
        """
        raise NotImplementedError

    @classmethod
    def build(cls, spec: dict[str, Any], field: Field, grid: OccupancyGrid) -> Sampler:
        """The sampler of a ``spec`` for a field."""
        raise NotImplementedError

    def parameter_groups(self, lr: float | None) -> ParameterGroups:
        """Its own trainable parameters and their learning rates, see `Field.parameter_groups`."""
        return []

    def reveal(self, share: float) -> None:
        """Follows `Field.reveal`, where it has a field of its own."""

    def refine(self, field: Field, resolution: int) -> None:
        """Follows the field to ``resolution`` cells along its longest side."""

    def prune(self, field: Field, lit_only: bool) -> None:
        """Empties cells of the grid in which the field turned out to hold nothing.

        Args:
            lit_only: also empty the cells that no unoccluded ray has reached since the last time.
        """

    def forward(
        self,
        field: Field,
        rays: Rays,
        generator: torch.Generator | None = None,
        mark: bool = False,
        propose: bool = False,
    ) -> Samples:
        """Samples of rays that are clipped to the field's box.

        Args:
            field: that will be rendered.
            rays: N rays.
            generator: random numbers for the samples' positions; None: no noise.
            mark: record in the grid which cells unoccluded rays reach, for the next `prune`.
            propose: give the samples the rendering of the field that proposed them, with its
                graph, where there is one.
        """
        raise NotImplementedError
