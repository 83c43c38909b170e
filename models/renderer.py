"""The renderer: field, sampler and background, which together turn rays into pixels."""

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
from models.render import ColourFunction, Rendering, Samples, render
from models.style import ParameterGroups
from utils.checkpoint import without_prefix
from utils.chunks import Chunks

Spec = dict[str, dict[str, Any]]


class Renderer(nn.Module):
    """Renders rays through a field, inside its bounds, over a background.

    Args:
        field: density and colour.
        sampler: ``(field, rays, generator, mark, propose) -> Samples``.
        bounds: (2, 3) box in the field's space, which is empty outside of it.
        background: (3,) in [0, 1].
        spec: plain values under "field", "style" and "sampler" from which `build` makes the same
            modules.
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
            spec: see `Field.specs_of`.
            bounds: (2, 3) box of the scene in the field's space.
            background: (3,) in [0, 1].
            occupied: (R0, R1, R2) bool, cells in which samples are taken.
            cells: (C0, C1, C2) bool, cells that may have density; None: ``occupied``.
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
        kind = FIELDS[spec["field"]["kind"]]
        cells = kind.cells_from_state(without_prefix(state, "field."))
        grid = state["sampler.grid.occupied"]
        renderer = cls.build(spec, state["bounds"], state["background"], grid, cells)
        renderer.load_state_dict(state)
        return renderer

    @property
    def spec(self) -> Spec:
        """Plain values from which, with the state_dict, `from_state` rebuilds this renderer."""
        return self._spec | {"style": self.field.style.spec()}

    def note_coarse_style(self) -> None:
        """Takes the specification of the coarse field's style, which was replaced, into `spec`."""
        sampler = self._spec["sampler"] | {"style": self.sampler.coarse.style.spec()}
        self._spec = self._spec | {"sampler": sampler}

    def parameter_groups(self, lr: float | None) -> ParameterGroups:
        """Parameters and learning rates for training on photos, see `Field.parameter_groups`."""
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
            rays: N rays.
            generator: for random positions of the samples; None: the midpoints.
            mark: record which cells unoccluded rays reach, see `OccupancySampler`.
            propose: keep the coarse rendering, see `HierarchicalSampler`.
        """
        return self.sampler(self.field, rays, generator, mark, propose)

    def forward(self, rays: Rays, code: Tensor | None = None) -> Rendering:
        """Clips, samples and renders rays; differentiable in the style alone.

        Args:
            rays: N rays, see `Cameras.rays`.
            code: (C,) or (N, C), of a conditioned style.

        Returns:
            Rendering of the N rays over the background.
        """
        rays = self.clip(rays)
        samples = self.sample(rays)
        return self.render(rays, samples, code, self.geometry(rays, samples))

    @torch.no_grad()
    def geometry(self, rays: Rays, samples: Samples) -> tuple[Tensor, Tensor]:
        """Density (M,) and feature (M, ...) at the samples, without a graph; not computed again if
        the sampler has computed them."""
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
        style: ColourFunction | None = None,
    ) -> Rendering:
        """`models.render.render` of clipped rays, laid over the background: a pure function of its
        arguments.

        Args:
            rays: N rays, clipped.
            samples: M samples of them.
            code, geometry, scale_gradients_within, style: see `models.render.render`.

        Returns:
            Rendering of the N rays over the background.
        """
        threshold = self.field.colour_threshold
        rendering = render(
            self.field, rays, samples, code, geometry, threshold, scale_gradients_within, style
        )
        return self._over_infinity(self.over_background(rendering), rays, code, style)

    def over_background(self, rendering: Rendering) -> Rendering:
        """Lays a rendering over black over the background."""
        clear = (1 - rendering.opacity)[:, None]
        rgb = torch.addcmul(rendering.rgb, clear, self.background)
        return replace(rendering, rgb=rgb)

    def reaching_infinity(self, rays: Rays, opacity: Tensor) -> tuple[Tensor, Tensor]:
        """Rays (K,) of which a rendering with ``opacity (N,)`` has left something to the field's
        colours at infinity, ascending, and the distance (K,) that stands for infinity; none where
        rays are not endless."""
        if rays.space.infinity is None:
            return opacity.new_zeros(0, dtype=torch.int64), opacity.new_zeros(0)
        ray = (1 - opacity > self.field.colour_threshold).nonzero()[:, 0]
        t = rays.near.new_full((len(ray),), rays.space.infinity)
        known = self.field.has_colours(rays.points(ray, t)).nonzero()[:, 0]
        return ray.index_select(0, known), t.index_select(0, known)

    def _over_infinity(
        self, rendering: Rendering, rays: Rays, code: Tensor | None, style: ColourFunction | None
    ) -> Rendering:
        """Puts the field's colours at infinity, where rays reach it, in the background's place."""
        ray, t = self.reaching_infinity(rays, rendering.opacity)
        if len(ray) == 0:
            return rendering
        x, d = rays.points(ray, t), rays.view_directions.index_select(0, ray)
        style = self.field.style if style is None else style
        if code is not None and code.ndim == 2:
            code = code.index_select(0, ray)
        colour = style(self.field.geometry.feature(x), x, d, code) - self.background
        behind = (1 - rendering.opacity).index_select(0, ray)[:, None] * colour
        return replace(rendering, rgb=rendering.rgb.index_add(0, ray, behind.to(rendering.rgb)))

    def refine(self, resolution: int, sides: bool = False) -> bool:
        """Refines a field with cells to ``resolution`` cells along its longest side, in the
        sampler's occupied cells and, with ``sides``, in those along the sides of its box.

        Returns:
            Whether anything has changed; False: the field has no cells.
        """
        field = self.field.refined(self.sampler.grid.occupied, resolution, sides)
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
        """A copy in CPU memory."""
        return Picture(self.rgb.cpu(), self.depth.cpu(), self.opacity.cpu())


def ray_chunks(renderer: Renderer, chunk: int = 0) -> Chunks:
    """Chunks of ``chunk`` rays for rendering without a graph; 0: the field's default."""
    return Chunks(chunk or renderer.field.cost.rays_on(renderer.bounds.device))


@torch.no_grad()
def render_view(
    renderer: Renderer, cameras: Cameras, view: int, chunk: int = 0, code: Tensor | None = None
) -> Picture:
    """Renders one whole view, deterministically.

    Args:
        renderer: the trained field.
        cameras: on the renderer's device.
        view: index of the camera.
        chunk: rays per chunk; 0: the field's size for the device.
        code: (C,), of a conditioned style.

    Returns:
        The picture, over the background.

    >>> bounds, cells = torch.tensor([[-1.0] * 3, [1.0] * 3]), torch.ones(8, 8, 8, dtype=torch.bool)
    >>> spec = {"field": {"kind": "voxels"}, "style": {"kind": "voxels"}}
    >>> spec["sampler"] = {"kind": "occupancy", "n_steps": 0}
    >>> renderer = Renderer.build(spec, bounds, torch.ones(3), cells)
    >>> c2w = torch.cat([torch.eye(3), torch.tensor([[0.0], [0], [4]])], 1)[None]
    >>> lens, size = torch.tensor([[20.0, 20, 8, 6]]), torch.tensor([[12, 16]])
    >>> render_view(renderer, Cameras(c2w, lens, size, near=2.0, far=6.0), view=0).rgb.shape
    torch.Size([12, 16, 3])
    """
    height, width = cameras.shapes[view]

    def part_of(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        seen = renderer(cameras.view_rays(view, part.start, part.stop), code)
        return seen.rgb, seen.depth, seen.opacity

    chunks, n = ray_chunks(renderer, chunk), height * width
    on_cpu = cameras.c2w.device.type == "cpu"
    parts = chunks.side_by_side(n, part_of) if on_cpu else chunks.over(n, part_of)
    rgb, depth, opacity = (x[0] if len(x) == 1 else torch.cat(x) for x in zip(*parts, strict=True))
    return Picture(
        rgb.clamp(0, 1).view(height, width, 3),
        depth.view(height, width),
        opacity.view(height, width),
    )
