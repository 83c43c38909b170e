"""Field + sampler + background: everything that turns rays into pixels, and can be saved whole."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.cameras.rays import Rays
from models.hierarchical import HierarchicalSampler
from models.nerf import NerfField
from models.occupancy import OccupancyGrid, OccupancySampler
from models.render import over, render
from models.samples import Rendering, Samples
from models.voxels import VoxelField

STEPS_PER_CELL = 4 / 3
NEGLIGIBLE = 1e-3  # weight of a sample whose colour the voxel field does not compute


class Renderer(nn.Module):
    """Renders rays through a field, inside its bounds, over a background.

    Args:
        field: what is where.
        sampler: where to look.
        bounds: (2, 3) box outside of which nothing is.
        background: (3,) colour behind everything.
        threshold: samples that contribute no more are not coloured.
        spec: plain values from which `from_state` builds the same modules again.
    """

    bounds: Tensor
    background: Tensor

    def __init__(
        self,
        field: nn.Module,
        sampler: nn.Module,
        bounds: Tensor,
        background: Tensor,
        threshold: float,
        spec: dict[str, object],
    ) -> None:
        super().__init__()
        self.field = field
        self.sampler = sampler
        self.register_buffer("bounds", bounds.clone())
        self.register_buffer("background", background.clone())
        self.threshold = threshold
        self.spec = spec

    def clip(self, rays: Rays) -> Rays:
        """The part of the rays that is inside the bounds."""
        return rays.clip(self.bounds)

    def samples(self, rays: Rays, generator: torch.Generator | None = None) -> Samples:
        """Samples of rays that are already clipped; random only with ``generator``."""
        return self.sampler(self.field, rays, generator)

    def forward(self, rays: Rays, generator: torch.Generator | None = None) -> Rendering:
        """Colour over the background, depth and opacity of ``rays``.

        Args:
            rays: N rays in scene units.
            generator: random numbers for the samples' places; None for the middles.
        """
        rays = self.clip(rays)
        return self.shade(rays, self.samples(rays, generator))

    def shade(self, rays: Rays, samples: Samples, arm: float | None = None) -> Rendering:
        """The picture of clipped ``rays`` through given ``samples``: a pure function of both.

        Within the distance ``arm`` of the eye gradients are damped, see `render`.
        """
        return self.finish(render(self.field, rays, samples, self.threshold, arm))

    def finish(self, rendering: Rendering) -> Rendering:
        """The rendering over the background."""
        rendering.rgb = over(rendering, self.background)
        return rendering

    @classmethod
    def nerf(
        cls,
        bounds: Tensor,
        background: Tensor,
        occupied: Tensor,
        n_coarse: int = 64,
        n_fine: int = 64,
        n_xyz: int = 10,
        n_dir: int = 4,
        sampling: str = "hierarchical",
    ) -> Renderer:
        """NeRF; samples where ``occupied (R0, R1, R2)`` is False are left out.

        ``sampling`` is "hierarchical", through a coarse network, or "occupancy": equal steps, as
        many along the box as there would be samples, and a grid that learns what is empty.
        """
        spec = {"field": "nerf", "n_coarse": n_coarse, "n_fine": n_fine}
        spec |= {"n_xyz": n_xyz, "n_dir": n_dir, "sampling": sampling}
        grid = OccupancyGrid(occupied, bounds)
        if sampling == "occupancy":
            step = float((bounds[1] - bounds[0]).max()) / (n_coarse + n_fine)
            field = NerfField(bounds, n_xyz, n_dir)
            return cls(field, OccupancySampler(grid, step), bounds, background, 0.0, spec)
        coarse = NerfField(bounds, n_xyz, n_dir)
        field = NerfField(bounds, n_xyz, n_dir) if n_fine else coarse
        sampler = HierarchicalSampler(coarse, n_coarse, n_fine, grid)
        return cls(field, sampler, bounds, background, 0.0, spec)

    @classmethod
    def voxels(
        cls,
        bounds: Tensor,
        background: Tensor,
        occupied: Tensor,
        active: Tensor,
        n_features: int = 12,
    ) -> Renderer:
        """Sparse voxels on the cells ``active (R0, R1, R2)``, sampled where ``occupied``, a grid of
        its own resolution, is True."""
        field = VoxelField(active, bounds, n_features)
        sampler = OccupancySampler(OccupancyGrid(occupied, bounds), field.cell / STEPS_PER_CELL)
        spec = {"field": "voxels", "n_features": n_features}
        return cls(field, sampler, bounds, background, NEGLIGIBLE, spec)

    @classmethod
    def from_state(cls, spec: Mapping[str, object], state: Mapping[str, Tensor]) -> Renderer:
        """The renderer that was saved as (spec, state_dict)."""
        values = dict(spec)
        grids = [state["sampler.grid.occupied"]]
        if values.pop("field") == "voxels":
            make = cls.voxels
            grids.append(state["field.geometry.lattice.active"])
        else:
            make = cls.nerf
        renderer = make(state["bounds"], state["background"], *grids, **values)
        renderer.load_state_dict(state)
        return renderer

    def refine(self, active: Tensor) -> None:
        """Voxels: the same field on other cells ``active (R0, R1, R2)``; the step follows."""
        self.field = self.field.refined(active)
        self.sampler.step = self.field.cell / STEPS_PER_CELL
