"""Volume rendering: a pure function of (field, rays, samples); samples are packed along rays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from datasets.cameras.rays import Rays

# style(feature, x, d, code) -> rgb, as `models.style.Style`
ColourFunction = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]

TINY = 1e-6  # guards divisions by an opacity of 0


@dataclass
class Samples:
    """Sample points of a batch of rays, all rays' samples in one flat list.

    Attributes:
        ray_index: (M,) int64, ascending: the ray of each sample.
        t: (M,) distance along the ray, scene units (in NDC along the warped ray), ascending within
            a ray.
        delta: (M,) length of the interval that the sample represents, units of the field's space.
        n_rays: number of rays N; a ray may have no sample.
        proposal: the coarse field's rendering, over black, for its own loss; or None.
        geometry: density (M,) and feature (M, ...) of the field at the samples, without a graph, if
            the sampler computed them; or None.
    """

    ray_index: Tensor
    t: Tensor
    delta: Tensor
    n_rays: int
    proposal: Rendering | None = None
    geometry: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return self.t.shape[0]

    @cached_property
    def edges(self) -> Tensor:
        """(N + 1,) where the samples of each ray begin, and M."""
        return first_samples(self.ray_index, self.n_rays + 1)

    def take(self, index: Tensor) -> Samples:
        """The samples at ``index (K,)``, ascending."""
        parts = (x.index_select(0, index) for x in (self.ray_index, self.t, self.delta))
        return Samples(*parts, self.n_rays)


@dataclass
class Rendering:
    """The rendered rays.

    `render` and `composite` give colours over black; `Renderer.render` and `Renderer.forward` lay
    them over the background (`Renderer.over_background`).

    Attributes:
        rgb: (N, 3) colour over black, that is premultiplied by opacity, or over the background.
        opacity: (N,) in [0, 1].
        weights: (M,) contribution of each sample to its ray.
        samples: the M samples.
    """

    rgb: Tensor
    opacity: Tensor
    weights: Tensor
    samples: Samples

    @property
    def depth(self) -> Tensor:
        """(N,) expected distance of the hit, scene units (in NDC along the warped ray); 0 where
        nothing is hit.  Computed when it is asked for."""
        samples = self.samples
        along = segment_sum(self.weights * samples.t, samples.ray_index, samples.n_rays)
        return along / self.opacity.clamp(min=TINY)


def render(
    field: nn.Module,
    rays: Rays,
    samples: Samples,
    code: Tensor | None = None,
    geometry: tuple[Tensor, Tensor] | None = None,
    threshold: float = 0.0,
    scale_gradients_within: float | None = None,
    style: ColourFunction | None = None,
) -> Rendering:
    """Renders ``samples`` of ``rays`` through ``field``, over black.

    Args:
        field: a `models.field.Field`, or any module with its ``geometry`` and ``style``.
        rays: N rays.
        samples: M samples of them.
        code: (C,) that the style is conditioned on, or (N, C), one for each ray.
        geometry: density (M,) and feature (M, ...) at the samples, if they are known; None: the
            field computes them, and the rendering is differentiable in them.
        threshold: colours of samples whose weight is at most this are not computed.
        scale_gradients_within: distance from the camera, scene units, within which gradients are
            multiplied by ``(t / distance)^2``.  Ray density falls as 1 / t^2, so nearby points get
            larger gradients and grow floaters in front of the cameras (Philip and Deschaintre,
            Floaters No More, 2023).  None: true gradients.
        style: gives the colours; None: the field's own.

    Returns:
        Rendering of the N rays over black, its weights aligned with ``samples``.
    """
    x, ray = rays.points(samples.ray_index, samples.t), samples.ray_index
    density, feature = field.geometry(x) if geometry is None else geometry
    scale = None
    if scale_gradients_within is not None:
        scale = (samples.t / scale_gradients_within).clamp(max=1.0).square()
        density = _ScaledGradient.apply(density, scale)
    weights = compositing_weights(density, samples)
    keep = None
    if threshold > 0:
        keep = (weights > threshold).nonzero()[:, 0]
        feature, ray = feature.index_select(0, keep), ray.index_select(0, keep)
        x = x.T.index_select(1, keep).T
    if code is not None and code.ndim == 2:
        code = code.index_select(0, ray)
    style = field.style if style is None else style
    rgb = style(feature, x, rays.view_directions.index_select(0, ray), code)
    if scale is not None:
        rgb = _ScaledGradient.apply(rgb, scale if keep is None else scale.index_select(0, keep))
    return composite(rgb, weights, samples, keep)


def composite(
    rgb: Tensor, weights: Tensor, samples: Samples, keep: Tensor | None = None
) -> Rendering:
    """Sums samples along their rays, over black.

    Args:
        rgb: (K, 3) colours of the samples.
        weights: (M,) from `compositing_weights`.
        samples: M samples of N rays.
        keep: (K,) indices of the samples that have a colour, ascending; the weight of a ray's other
            samples is distributed over them in proportion.  None: all samples have one.

    Returns:
        Rendering of the N rays over black.
    """
    n, ray = samples.n_rays, samples.ray_index
    opacity = segment_sum(weights, ray, n)
    if keep is None:
        return Rendering(segment_sum(weights[:, None] * rgb, ray, n), opacity, weights, samples)
    kept, ray = weights.index_select(0, keep), ray.index_select(0, keep)
    share = opacity / segment_sum(kept, ray, n).clamp(min=TINY)
    colour = segment_sum(kept[:, None] * rgb, ray, n) * share[:, None]
    return Rendering(colour, opacity, weights, samples)


def transmittance(density: Tensor, samples: Samples) -> Tensor:
    """Transmittance in front of every sample, ``T_i = exp(-sum_{j<i} density_j delta_j)``.

    Args:
        density: (M,) per unit of the field's space, >= 0.
        samples: M samples.

    Returns:
        (M,) in (0, 1].
    """
    return density if len(samples) == 0 else _light(density * samples.delta, samples)


def _light(optical: Tensor, samples: Samples) -> Tensor:
    """`transmittance`, from the optical depth (M,) of each sample."""
    # One running sum over all rays: in double, or the later rays would lose their digits.
    before = optical.cumsum(0, dtype=torch.float64) - optical
    first = samples.edges.index_select(0, samples.ray_index)
    return (before.index_select(0, first) - before).to(optical.dtype).exp_()


def first_samples(ray_index: Tensor, n_rays: int) -> Tensor:
    """(N,) the first sample of each ray, of ascending ``ray_index (M,)``; where a ray has none, the
    next ray's."""
    return torch.searchsorted(ray_index, torch.arange(n_rays, device=ray_index.device))


def compositing_weights(density: Tensor, samples: Samples) -> Tensor:
    """Contribution of every sample, ``w_i = T_i (1 - exp(-density_i delta_i))`` (Max 1995;
    Mildenhall et al. 2020, eq. 3).

    Args:
        density: (M,) per unit of the field's space, >= 0.
        samples: M samples.

    Returns:
        (M,) weights; those of one ray sum to at most 1.

    >>> t, delta = torch.tensor([1.0, 2.0]), torch.ones(2)
    >>> samples = Samples(torch.zeros(2, dtype=torch.int64), t, delta, n_rays=1)
    >>> weights = compositing_weights(torch.tensor([0.6931, 50.0]), samples)  # 0.6931 = ln 2
    >>> weights.round(decimals=3)
    tensor([0.5000, 0.5000])
    >>> composite(torch.eye(3)[:2], weights, samples).rgb.round(decimals=3)  # red before green
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    return _Weights.apply(density, samples)


class _Weights(torch.autograd.Function):
    """`compositing_weights`.  With ``o_i = density_i delta_i`` the gradient with respect to ``o_i``
    is ``g_i (T_i - w_i) - sum_{j>i} g_j w_j``: one running sum, as in the forward pass."""

    @staticmethod
    def forward(ctx, density: Tensor, samples: Samples) -> Tensor:  # noqa: ANN001
        optical = density * samples.delta
        light = _light(optical, samples)
        weights = torch.expm1(optical.neg_()).mul_(light).neg_()
        ctx.save_for_backward(weights, light)
        ctx.samples = samples
        return weights

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        (weights, light), samples = ctx.saved_tensors, ctx.samples
        ray = samples.ray_index
        upto = (grad * weights).cumsum(0, dtype=torch.float64)
        last = samples.edges[1:].index_select(0, ray) - 1
        behind = upto.index_select(0, last) - upto
        of_optical = torch.addcmul(-behind.to(grad.dtype), grad, light - weights)
        return of_optical * samples.delta, None


class _SegmentSum(torch.autograd.Function):
    """Sum of rows by segment.  On a CPU by columns: `index_add_` on rows is ten times slower."""

    @staticmethod
    def forward(ctx, values: Tensor, segment: Tensor, n_segments: int) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(segment)
        out = values.new_zeros((n_segments, *values.shape[1:]))
        if values.ndim == 1 or values.is_cuda:
            return out.index_add_(0, segment, values)
        for column in range(values.shape[1]):
            total = values.new_zeros(n_segments)
            out[:, column] = total.index_add_(0, segment, values[:, column].contiguous())
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN001
        (segment,) = ctx.saved_tensors
        return grad.index_select(0, segment), None, None


def segment_sum(values: Tensor, segment: Tensor, n_segments: int) -> Tensor:
    """Sums ``values (M,) or (M, C)`` over equal ``segment (M,)``; returns (n_segments,) or
    (n_segments, C)."""
    return _SegmentSum.apply(values, segment, n_segments)


def median_depth(weights: Tensor, samples: Samples) -> Tensor:
    """Distance at which a ray has met half of all that it meets: unlike the expected depth never a
    place between two surfaces.

    Args:
        weights: (M,) from `compositing_weights`.
        samples: whose weights these are; a sample's weight is spread evenly over its interval,
            ``t - delta / 2`` to ``t + delta / 2``.

    Returns:
        (N,) scene units; 0 where a ray meets nothing.
    """
    n, ray = samples.n_rays, samples.ray_index
    exact = weights.double()
    whole = segment_sum(exact, ray, n)
    upto = exact.cumsum(0) - (whole.cumsum(0) - whole).index_select(0, ray)
    half = (whole / 2).index_select(0, ray)
    reached = (upto >= half) & (upto - exact < half)
    found = reached.nonzero()[:, 0]
    share = (half - upto + exact)[found] / exact[found]
    depth = samples.t[found] + (share - 0.5).to(samples.t.dtype) * samples.delta[found]
    # rounding may let two neighbours both be the one: the last is taken
    return samples.t.new_zeros(n).index_copy_(0, ray[found], depth)


def drop_faint_samples(weights: Tensor, ray: Tensor, n_rays: int, share: float) -> Tensor:
    """The samples that remain after every ray has dropped its faintest ones, up to a fraction
    ``share`` of its total weight.

    Unlike a bound on the single weight, this does not depend on how densely a ray is sampled.  A
    ray whose total weight is below ``share ** 2`` drops all its samples.

    Args:
        weights: (M,) >= 0, from `compositing_weights`.
        ray: (M,) the ray of each, ascending.
        n_rays: number of rays.
        share: in [0, 1); 0 drops only the samples of weight 0.

    Returns:
        (K,) indices of the remaining samples, ascending.
    """
    if share == 0:
        return (weights > 0).nonzero()[:, 0]
    exact = weights.double()
    order = (2.0 * ray + exact).argsort()  # by ray, by weight within the ray: no weight exceeds 1
    whole = segment_sum(exact, ray, n_rays)
    before = whole.cumsum(0) - whole
    ray = ray.index_select(0, order)
    # weight of a sample and of all lighter ones of its ray
    lighter = exact.index_select(0, order).cumsum(0) - before.index_select(0, ray)
    least = (share * whole.clamp(min=share)).index_select(0, ray)
    return order[lighter > least].sort().values


class _ScaledGradient(torch.autograd.Function):
    """The identity, with a gradient multiplied row by row."""

    @staticmethod
    def forward(ctx, values: Tensor, scale: Tensor) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(scale)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        (scale,) = ctx.saved_tensors
        return grad * (scale if grad.ndim == 1 else scale[:, None]), None
