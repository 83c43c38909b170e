"""Field + sampler + background: everything that turns rays into pixels, and can be saved whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from datasets.cameras.rays import Cameras, Rays
from models import FIELDS, SAMPLERS
from models.field import Field
from models.occupancy import OccupancyGrid
from models.render import Rendering, Samples, render
from models.style import ParameterGroups
from utils.chunks import Chunks

Spec = dict[str, dict[str, Any]]


class Renderer(nn.Module):
    """Renders rays through a field, inside its bounds, over a background.

    Args:
        field: what is where.
        sampler: where to look.
        bounds: (2, 3) box outside of which nothing is.
        background: (3,) colour behind everything.
        spec: plain values, "field", "style" and "sampler", from which `build` makes the same
            modules again.
    """

    bounds: Tensor
    background: Tensor

    def __init__(
        self, field: Field, sampler: nn.Module, bounds: Tensor, background: Tensor, spec: Spec
    ) -> None:
        super().__init__()
        self.field = field
        self.sampler = sampler
        self.register_buffer("bounds", bounds.clone())
        self.register_buffer("background", background.clone())
        self._spec = spec

    @classmethod
    def build(
        cls,
        spec: Spec,
        bounds: Tensor,
        background: Tensor,
        occupied: Tensor,
        cells: Tensor | None = None,
    ) -> Renderer:
        """A renderer with random parameters.

        Args:
            spec: as of `Field.specs_of`.
            bounds: (2, 3) box of the scene in the field's space.
            background: (3,) in [0, 1].
            occupied: (R0, R1, R2) bool: where samples are taken.
            cells: (C0, C1, C2) bool, of a field with cells those that exist; None: ``occupied``.
        """
        field = FIELDS[spec["field"]["kind"]].build(
            spec, bounds, occupied if cells is None else cells
        )
        grid = OccupancyGrid(occupied, bounds)
        sampler = SAMPLERS[spec["sampler"]["kind"]].build(spec["sampler"], field, grid)
        return cls(field, sampler, bounds, background, spec)

    @classmethod
    def from_state(cls, spec: Spec, state: Mapping[str, Tensor]) -> Renderer:
        """The renderer that was saved as (`spec`, `state_dict`).

        Raises:
            RuntimeError, KeyError, TypeError: they do not belong together.
        """
        own = {k.removeprefix("field."): v for k, v in state.items() if k.startswith("field.")}
        cells = FIELDS[spec["field"]["kind"]].cells_in(own)
        grid = state["sampler.grid.occupied"]
        renderer = cls.build(spec, state["bounds"], state["background"], grid, cells)
        renderer.load_state_dict(state)
        return renderer

    @property
    def spec(self) -> Spec:
        """Plain values that, with the state_dict, are this renderer."""
        return self._spec | {"style": self.field.style.spec()}

    def parameter_groups(self, lr: float | None) -> ParameterGroups:
        """Parameters and learning rates for learning from photos, see `Field.parameter_groups`."""
        return self.field.parameter_groups(lr) + self.sampler.parameter_groups(lr)

    def clip(self, rays: Rays) -> Rays:
        """The part of the rays that is inside the bounds."""
        return rays.clip(self.bounds)

    def sample(
        self,
        rays: Rays,
        generator: torch.Generator | None = None,
        mark: bool = False,
        propose: bool = False,
    ) -> Samples:
        """Samples of rays that are already clipped.

        Args:
            generator: random numbers for the samples' places; None for the middles.
            mark: learn which cells light reaches, see `OccupancySampler`.
            propose: keep the coarse rendering, see `HierarchicalSampler`.
        """
        return self.sampler(self.field, rays, generator, mark, propose)

    def forward(self, rays: Rays, code: Tensor | None = None) -> Rendering:
        """Colour over the background, depth and opacity of ``rays``; differentiable in the style
        alone.

        Args:
            rays: N rays in scene units.
            code: (C,) or (N, C) that the style is conditioned on, if it is.
        """
        rays = self.clip(rays)
        samples = self.sample(rays)
        return self.render(rays, samples, code, self.geometry(rays, samples))

    @torch.no_grad()
    def geometry(self, rays: Rays, samples: Samples) -> tuple[Tensor, Tensor]:
        """Density (M,) and feature (M, ...) at the samples, without a graph: the sampler's, where
        it had to ask for them."""
        if samples.geometry is not None:
            return samples.geometry
        return self.field.geometry(rays.points(samples.ray_index, samples.t))

    def render(
        self,
        rays: Rays,
        samples: Samples,
        code: Tensor | None = None,
        geometry: tuple[Tensor, Tensor] | None = None,
        scale_gradients_within: float | None = None,
    ) -> Rendering:
        """The picture of clipped ``rays`` through given ``samples``, over the background: a pure
        function of its arguments, see `models.render.render`."""
        threshold = self.field.colour_threshold
        rendering = render(
            self.field, rays, samples, code, geometry, threshold, scale_gradients_within
        )
        return self.over_background(rendering)

    def over_background(self, rendering: Rendering) -> Rendering:
        """A rendering over black, laid over the background."""
        rgb = rendering.rgb + (1 - rendering.opacity)[:, None] * self.background
        return replace(rendering, rgb=rgb)

    def refine(self, resolution: int) -> bool:
        """Gives a field with cells ``resolution`` of them along its longest side, where the
        sampler finds something; False where the field has none, and nothing has changed."""
        field = self.field.refined(self.sampler.grid.occupied, resolution)
        if field is self.field:
            return False
        self.field = field
        self.sampler.refine(field, resolution)
        return True


@dataclass
class Picture:
    """A rendered view: rgb (H, W, 3) in [0, 1], depth (H, W) in scene units, opacity (H, W)."""

    rgb: Tensor
    depth: Tensor
    opacity: Tensor

    def cpu(self) -> Picture:
        """The same in the host's memory."""
        return Picture(self.rgb.cpu(), self.depth.cpu(), self.opacity.cpu())


def ray_chunks(renderer: Renderer, chunk: int = 0) -> Chunks:
    """Chunks of rays that are rendered at once without a graph: ``chunk``; 0: what suits field and
    device."""
    return Chunks(chunk or renderer.field.cost.rays[renderer.bounds.is_cuda])


@torch.no_grad()
def render_view(
    renderer: Renderer, cameras: Cameras, view: int, chunk: int = 0, code: Tensor | None = None
) -> Picture:
    """Renders one view, without noise.

    Args:
        cameras: on the renderer's device.
        view: number of the camera.
        chunk: rays at once; 0: by field and device.
        code: (C,) that the style is conditioned on, if it is.
    """
    height, width = cameras.sizes[view].tolist()
    parts = ray_chunks(renderer, chunk).over(
        height * width,
        lambda part: renderer(cameras.view_rays(view, part.start, part.stop), code),
    )
    return Picture(
        torch.cat([p.rgb for p in parts]).clamp(0, 1).view(height, width, 3),
        torch.cat([p.depth for p in parts]).view(height, width),
        torch.cat([p.opacity for p in parts]).view(height, width),
    )
