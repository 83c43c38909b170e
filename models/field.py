"""The base class of fields: geometry gives density and features, style gives colour."""

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
    """Measured memory per sample, and the chunk sizes that suit a field.  A pair is for (CPU, GPU).

    Attributes:
        rays: rays per chunk when rendering without a graph.
        points: positions per chunk when the field is evaluated without a graph.
        learning_bytes: memory per sample in stage geometry: forward and backward through geometry
            and style.
        painting_bytes: memory per sample in stage style: forward and backward through the style
            alone.
        painting_samples: samples whose graph through the style is in memory at once, in each pair:
            those of a chunk, and the most in a view that is not cut into chunks, whose graph can be
            kept until the loss is known.
    """

    rays: tuple[int, int]
    points: int
    learning_bytes: int
    painting_bytes: int
    painting_samples: tuple[tuple[int, int], tuple[int, int]]

    def rays_on(self, device: torch.device) -> int:
        """Rays per chunk on a device."""
        return self.rays[device.type == "cuda"]

    def painting_samples_on(self, device: torch.device) -> tuple[int, int]:
        """Samples of a chunk, and the most in a view that is not cut, on a device."""
        return self.painting_samples[device.type == "cuda"]


class Field(nn.Module):
    """``geometry(x) -> density, feature`` and ``style(feature, x, d, code=None) -> rgb``: two
    modules with parameters of their own.

    ``feature`` is whatever the style needs from the geometry, one row per sample;
    ``geometry.feature(x)`` computes it alone.  `models.FIELDS` lists the subclasses.

    Positions are in the field's space: the world, NDC or contracted space
    (`datasets.cameras.space`). Densities and lengths inside a field are in units of that space.

    Args:
        geometry: the density module.
        style: the colour module.

    Attributes:
        kind: name in `models.FIELDS`.
        cost: see `Cost`.
        rows: samples per block of its networks on a CPU, see `in_blocks`.
        colour_threshold: samples whose weight is at most this are rendered without their colour.
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
        """Specifications made from the command line's options.

        Returns:
            Plain values under "field", "style" and "sampler", as `Renderer.build` takes them.
        """
        raise NotImplementedError

    @classmethod
    def grid_resolution(cls, options: Any, finest: float) -> int:
        """Cells along the longest side of the occupancy grid, from the command line's options;
        where colours are kept in cells at most ``finest``."""
        raise NotImplementedError

    @classmethod
    def build_geometry(cls, spec: dict[str, Any], bounds: Tensor, cells: Tensor) -> nn.Module:
        """The geometry module with random parameters.

        Args:
            spec: "field" of `specs_of`.
            bounds: (2, 3) box of the scene in the field's space.
            cells: (R0, R1, R2) bool, cells that may have density.
        """
        raise NotImplementedError

    @classmethod
    def build(cls, spec: dict[str, Any], bounds: Tensor, cells: Tensor) -> Field:
        """A field with random parameters.

        Args:
            spec: "field" and "style" of `specs_of`.
            bounds: (2, 3) box of the scene in the field's space.
            cells: (R0, R1, R2) bool, cells that may have density.
        """
        geometry = cls.build_geometry(spec["field"], bounds, cells)
        return cls(geometry, build_style(spec["style"], geometry))

    def like(self, style: dict[str, Any]) -> Field:
        """A field with geometry of the same shape, newly drawn network weights, and a new style.

        Args:
            style: specification of the style, see `Style.spec`.
        """
        geometry = deepcopy(self.geometry)
        for module in geometry.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        return type(self)(geometry, build_style(style, geometry))

    @classmethod
    def cells_from_state(cls, state: dict[str, Tensor]) -> Tensor | None:
        """The ``cells`` that `build` needs for a saved field.

        Args:
            state: the field's state_dict.

        Returns:
            (R0, R1, R2) bool; None: this kind of field has no cells.
        """
        return None

    @property
    def step(self) -> float | None:
        """Distance between uniform samples that resolves the field, units of the field's space;
        None: the field has no resolution of its own."""
        return None

    def has_colours(self, x: Tensor) -> Tensor:
        """(M,) bool: whether the field has colours at positions ``x (M, 3)``."""
        return torch.ones_like(x[:, 0], dtype=torch.bool)

    def fill(self, raw_density: float) -> None:
        """Sets a uniform initial density, if this kind of field supports it.

        Args:
            raw_density: value before the activation.
        """

    def start_from(self, density: Tensor) -> None:
        """Raises the initial density to what is likely, if this kind of field supports it.

        Args:
            density: (N0, N1, N2) at the vertices of an even grid over the field's box, per unit of
                its space.
        """

    def reveal(self, share: float) -> None:
        """Shows as much of the detail as belongs to a share, in [0, 1], of a training that goes
        from coarse to fine; fields whose cells are refined have no other detail to hide."""

    def corner_densities(self, n: int, generator: torch.Generator) -> Tensor | None:
        """(n, 8, 1) densities before the activation, differentiable, at the corners of ``n`` random
        cells of a field that has cells; None: it has none."""
        return None

    def corner_features(self, n: int, generator: torch.Generator) -> Tensor | None:
        """(n, 8, F) features that colours are made of, as `corner_densities`."""
        return None

    def parameter_groups(self, lr: float | None) -> ParameterGroups:
        """Parameters and learning rates for training on photos.

        Args:
            lr: learning rate of appearance; None: the field's default.
        """
        raise NotImplementedError

    def refined(self, occupied: Tensor, resolution: int, sides: bool = False) -> Field:
        """The same field at another resolution.

        Args:
            occupied: (R0, R1, R2) bool, cells that may have density.
            resolution: cells along the longest side.
            sides: whether the outermost cells have colours even so, those of infinity.

        Returns:
            A new field on the occupied cells; the field itself if it has no cells.
        """
        return self

    def colours(self, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        """Colours of positions, differentiable in the style alone.

        Features, which may have many channels, are computed block by block, so that they are never
        all in memory.

        Args:
            x: (M, 3) positions in the field's space.
            d: (M, 3) unit viewing directions in world space.
            code: (C,) or (M, C), of a conditioned style.

        Returns:
            (M, 3) in [0, 1].
        """

        if not self.style.reads_features:
            return self.style(x.new_empty(len(x), 0), x, d, code)

        def network(x: Tensor, d: Tensor, *codes: Tensor) -> tuple[Tensor]:
            with torch.no_grad():
                feature = self.geometry.feature(x)
            return (self.style(feature, x, d, codes[0] if codes else code),)

        codes = (code,) if code is not None and code.ndim == 2 else ()
        return in_blocks(network, self.rows, x, d, *codes)[0]
