"""Hierarchical sampling: a coarse network proposes samples for the fine one (NeRF, section 5.2)."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.cameras.march import March
from datasets.cameras.rays import Rays
from models.field import Field
from models.occupancy import OccupancyGrid
from models.render import Samples, compositing_weights, render
from models.sampler import Sampler
from models.style import ParameterGroups


def stratified(near: Tensor, far: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """One distance in each of ``n`` equal bins of [near, far].

    Args:
        near, far: (N,).
        n: number of bins.
        generator: for a random position in each bin; None: its midpoint.

    Returns:
        (N, n) ascending.
    """
    return torch.addcmul(near[:, None], (far - near)[:, None], strata(near, n, generator))


def strata(like: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """`stratified` in [0, 1], for as many rays as ``like (N,)`` has entries, in its dtype."""
    shape, edges = (len(like), n), _strata_edges(n, like.device, like.dtype)
    if generator is None:
        u = torch.full(shape, 0.5, device=like.device, dtype=like.dtype)
    else:
        u = torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
    return torch.add(edges, u, alpha=1 / n)


@cache
def _strata_edges(n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(n,) where the bins of [0, 1] begin."""
    return torch.arange(n, device=device, dtype=dtype) / n


def importance(edges: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Inverse-CDF samples of a piecewise constant density.

    Args:
        edges: (N, S + 1) ascending.
        weights: (N, S) >= 0, unnormalised; a ray of zeros counts as uniform.
        u: (N, n) in [0, 1], ascending: values of the CDF, see `stratified`.

    Returns:
        (N, n) ascending distances.
    """
    cdf = (weights + 1e-5).cumsum(-1)
    cdf = functional.pad(cdf / cdf[:, -1:], (1, 0))
    upper = torch.searchsorted(cdf, u, right=True).clamp_(1, weights.shape[-1])
    both = torch.stack([cdf, edges])
    lower = both.gather(-1, (upper - 1).expand(2, -1, -1))
    (low, left), (height, width) = lower, both.gather(-1, upper.expand(2, -1, -1)) - lower
    return torch.addcmul(left, ((u - low) / height).clamp_(0, 1), width)


def max_blurred(weights: Tensor) -> Tensor:
    """2-tap max filter, then 2-tap mean filter of the weights (mip-NeRF, Barron et al. 2021): a
    surface just in front of the first bin with weight is sampled too.

    Args:
        weights: (N, S).

    Returns:
        (N, S).
    """
    padded = torch.cat([weights[:, :1], weights, weights[:, -1:]], -1)
    larger = torch.maximum(padded[:, 1:], padded[:, :-1])
    return torch.lerp(larger[:, 1:], larger[:, :-1], 0.5)


def interval_edges(t: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Edges of the intervals that samples represent: the midpoints between them, near and far.

    Args:
        t: (N, S) distances, ascending.
        near, far: (N,).

    Returns:
        (N, S + 1) ascending.
    """
    middles = torch.lerp(t[:, 1:], t[:, :-1], 0.5)
    return torch.cat([near[:, None], middles, far[:, None]], -1)


class HierarchicalSampler(Sampler):
    """Stratified samples, and importance samples from the weights that a coarse field gives them.

    Args:
        coarse: the coarse field; None if ``n_fine`` is 0.
        n_coarse: stratified samples per ray.
        n_fine: importance samples per ray; 0: only the stratified ones.
        grid: samples in its empty cells are skipped; None: none are.
    """

    def __init__(
        self, coarse: Field | None, n_coarse: int, n_fine: int, grid: OccupancyGrid | None
    ) -> None:
        super().__init__()
        self.coarse = coarse
        self.n_coarse = n_coarse
        self.n_fine = n_fine
        self.grid = grid

    @classmethod
    def spec_of(cls, options: Any, style: dict[str, Any]) -> dict[str, Any]:
        return {"n_coarse": options.N_samples, "n_fine": options.N_importance, "style": style}

    @classmethod
    def build(cls, spec: dict[str, Any], field: Field, grid: OccupancyGrid) -> HierarchicalSampler:
        """The sampler of ``spec``: numbers of samples "n_coarse" and "n_fine", and "style", the
        specification of the coarse field's style; its geometry has the shape of ``field``'s."""
        coarse = field.like(spec["style"]) if spec["n_fine"] else None
        return cls(coarse, spec["n_coarse"], spec["n_fine"], grid)

    def parameter_groups(self, lr: float | None) -> ParameterGroups:
        return [] if self.coarse is None else self.coarse.parameter_groups(lr)

    def reveal(self, share: float) -> None:
        if self.coarse is not None:
            self.coarse.reveal(share)

    def refine(self, field: Field, resolution: int) -> None:
        if self.coarse is not None:
            self.coarse = self.coarse.refined(self.grid.occupied, resolution)

    def forward(
        self,
        field: nn.Module,
        rays: Rays,
        generator: torch.Generator | None = None,
        mark: bool = False,
        propose: bool = False,
    ) -> Samples:
        """Samples for ``field``.

        Args:
            field: unused here.
            rays: N rays.
            generator: for random positions in the bins; None: their midpoints.
            mark: unused here.
            propose: return the coarse rendering, with its graph, as the samples' `proposal`.
        """
        path = rays.march()
        s = stratified(path.near, path.far, self.n_coarse, generator)
        edges = interval_edges(s, path.near, path.far)
        samples, places = self._pack(rays, path, s, edges)
        if self.n_fine == 0:
            return samples
        proposal = None
        if propose:
            proposal = render(self.coarse, rays, samples)
            packed = proposal.weights.detach()
        else:
            with torch.no_grad():
                density, _ = self.coarse.geometry(rays.points(samples.ray_index, samples.t))
                packed = compositing_weights(density, samples)
        weights = torch.zeros_like(s).flatten().index_copy_(0, places, packed.to(s.dtype))
        u = strata(rays.near, self.n_fine, generator)
        fine = importance(edges, max_blurred(weights.view_as(s)), u)
        s = torch.cat([s, fine], -1).sort(-1).values
        samples, _ = self._pack(rays, path, s, interval_edges(s, path.near, path.far))
        samples.proposal = proposal
        return samples

    def _pack(self, rays: Rays, path: March, s: Tensor, edges: Tensor) -> tuple[Samples, Tensor]:
        """Packs path parameters ``s (N, S)`` with the intervals between ``edges (N, S + 1)``,
        without the samples of empty rays and in empty cells; also returns the places (M,) of the
        samples kept among all N S."""
        each = torch.arange(len(rays), device=s.device)
        ray, t = each[:, None].expand_as(s).flatten(), path.distance(each, s).flatten()
        delta = path.lengths(each, edges).flatten()
        kept = (path.far > path.near)[:, None]
        if self.grid is not None:
            kept = kept & self.grid.contains(rays.points(ray, t)).view_as(s)
        places = kept.expand_as(s).flatten().nonzero()[:, 0]
        return Samples(ray, t, delta, len(rays)).take(places), places
