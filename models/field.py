"""A field: geometry says what is where, style says in which colour it is seen."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.mlp import in_blocks
from models.style import ParameterGroups, Style, build_style


@dataclass(frozen=True)
class Cost:
    """What a field takes of memory and time, measured.  Sizes are for a CPU and for a GPU.

    Attributes:
        rays: rendered at once, without a graph.
        points: positions at once, without a graph.
        learning_bytes: of a sample's way through both modules and back.
        painting_bytes: of a sample's way through the style and back.
        painting_samples: whose graph through the style is in memory at once: of a chunk, and of a
            view that is not cut, since its graph can be kept while the loss is taken.
    """

    rays: tuple[int, int]
    points: int
    learning_bytes: int
    painting_bytes: int
    painting_samples: tuple[tuple[int, int], tuple[int, int]]


class Field(nn.Module):
    """``geometry(x) -> density, feature`` and ``style(feature, x, d, code=None) -> rgb``: two
    modules with parameters of their own.

    ``feature`` is whatever the style wants to know of the geometry, one row a sample;
    ``geometry.feature(x)`` gives it alone.  `models.FIELDS` lists the subclasses.

    Attributes:
        kind: name in `models.FIELDS`.
        cost: see `Cost`.
        rows: samples that its networks take at a time on a CPU, see `in_blocks`.
        colour_threshold: weight of a sample on its ray up to which its colour is not computed.
    """

    kind: ClassVar[str]
    cost: ClassVar[Cost]
    rows: ClassVar[int]
    colour_threshold: ClassVar[float] = 0.0

    def __init__(self, geometry: nn.Module, style: nn.Module) -> None:
        super().__init__()
        self.geometry = geometry
        self.style: Style = style

    @classmethod
    def specs_of(cls, options: Any) -> dict[str, dict[str, Any]]:
        """The plain specification of field, style and sampler that the options ask for."""
        raise NotImplementedError

    @classmethod
    def grid_resolution(cls, options: Any) -> int:
        """Cells along the longest side of the occupancy grid that the options ask for."""
        raise NotImplementedError

    @classmethod
    def geometry_of(cls, spec: dict[str, Any], bounds: Tensor, cells: Tensor) -> nn.Module:
        """The geometry that ``spec``, "field" of `specs_of`, asks for; for the rest see `build`."""
        raise NotImplementedError

    @classmethod
    def build(cls, spec: dict[str, Any], bounds: Tensor, cells: Tensor) -> Field:
        """A field with random parameters.

        Args:
            spec: "field" and "style" as of `specs_of`.
            bounds: (2, 3) box of the scene in the field's space.
            cells: (R0, R1, R2) bool, where it may hold anything.
        """
        geometry = cls.geometry_of(spec["field"], bounds, cells)
        return cls(geometry, build_style(spec["style"], geometry))

    def like(self, style: dict[str, Any]) -> Field:
        """Another field with geometry of the same shape, the weights of its networks drawn anew,
        and a new style of the specification ``style``."""
        geometry = deepcopy(self.geometry)
        for module in geometry.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        return type(self)(geometry, build_style(style, geometry))

    @classmethod
    def cells_in(cls, state: dict[str, Tensor]) -> Tensor | None:
        """The ``cells`` that a field with this state_dict was built with; None: it needs none."""
        return None

    @property
    def step(self) -> float | None:
        """Distance of even samples that misses nothing, scene units; None: the field has no
        resolution that would tell."""
        return None

    def fill(self, raw_density: float) -> None:
        """Sets a uniform density to start from, where the field can."""

    def parameter_groups(self, lr: float | None) -> ParameterGroups:
        """Parameters and learning rates for learning from photos.

        Args:
            lr: of appearance; None: what suits it.
        """
        raise NotImplementedError

    def refined(self, occupied: Tensor, resolution: int) -> Field:
        """The same field with ``resolution`` cells along its longest side, where ``occupied (R0,
        R1, R2) bool`` says that there is something; itself where it has no cells."""
        return self

    def colours(self, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        """Colours (M, 3) of the positions ``x (M, 3)`` seen in the unit directions ``d (M, 3)``;
        differentiable in the style alone.  Features, which may be long, are computed block by
        block and never in memory all at once."""

        def network(x: Tensor, d: Tensor, *codes: Tensor) -> tuple[Tensor]:
            with torch.no_grad():
                feature = self.geometry.feature(x)
            return (self.style(feature, x, d, codes[0] if codes else code),)

        codes = (code,) if code is not None and code.ndim == 2 else ()
        return in_blocks(network, self.rows, x, d, *codes)[0]
