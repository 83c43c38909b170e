"""Sliced Wasserstein loss, which needs no network: the distributions of patches of render and style
at several scales are compared in one-dimensional projections (Rabin et al. 2011; Elnekave & Weiss,
GPDM, 2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from losses.masked import check_image, mask_like
from losses.terms import PixelTerm

# entries of a table of the style's quantiles along one projection
_QUANTILES = 8192
# filter responses sorted at a time, so that memory does not grow with the image
_RESPONSES = 1 << 23


def quantile_table(values: Tensor, entries: int = _QUANTILES) -> Tensor:
    """Sorted values, reduced to at most ``entries`` evenly spaced quantiles.

    Args:
        values: (P, N).
        entries: largest number of quantiles.

    Returns:
        (P, min(N, entries)); entry j is the quantile (j + 1/2) / min(N, entries).
    """
    ordered = values.sort(dim=1).values
    entries = min(entries, values.shape[1])
    levels = (torch.arange(entries, device=values.device, dtype=torch.float64) + 0.5) / entries
    return interpolate_quantiles(ordered, levels.expand(values.shape[0], -1))


def interpolate_quantiles(table: Tensor, levels: Tensor) -> Tensor:
    """Quantiles at any levels, linearly interpolated between the entries of a table.

    Args:
        table: (P, Q) ascending; entry j is the quantile (j + 1/2) / Q.
        levels: (P, N) in [0, 1].

    Returns:
        (P, N) of the table's dtype.
    """
    entries = table.shape[1]
    position = (levels * entries - 0.5).clamp(0, entries - 1)
    below = position.floor().long().clamp_max(max(entries - 2, 0))
    above = (below + 1).clamp_max(entries - 1)
    low = table.gather(1, below)
    return low + (position - below).to(table.dtype) * (table.gather(1, above) - low)


class SlicedWasserstein(PixelTerm):
    """Sliced 2-Wasserstein distance between the patches of a render and of a style image.

    Each level of an image pyramid is filtered with fixed random filters of unit norm; for each
    filter the sorted responses of the render are compared with the style's quantiles.  Outside the
    mask the filters see the style's mean colour, and patches are weighted by their overlap with the
    mask.

    Args:
        style: (1, 3, H, W) in [0, 1].
        seed: seed of the filters; equal seeds give equal losses.
        patch: side of the patches, pixels.
        projections: filters per level.
        levels: levels of the pyramid; levels smaller than a patch are skipped.

    Raises:
        ValueError: the style has a wrong shape or is smaller than a patch.
    """

    def __init__(
        self,
        style: Tensor,
        seed: int = 0,
        patch: int = 5,
        projections: int = 64,
        levels: int = 3,
    ) -> None:
        super().__init__(style, seed)
        check_image(style, "style")
        self.patch = patch
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(projections, 3, patch, patch, generator=generator).to(style)
        filters = filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        self.register_buffer("filters", filters, persistent=False)
        mean = style.mean(dim=(0, 2, 3), keepdim=True)
        self.register_buffer("mean", mean, persistent=False)
        self.levels = 0
        level = style - mean
        while self.levels < levels and min(level.shape[2:]) >= patch:
            responses = functional.conv2d(level, filters)[0].flatten(1)
            self.register_buffer(f"table{self.levels}", quantile_table(responses), persistent=False)
            self.levels += 1
            level = _downsample(level)
        if self.levels == 0:
            raise ValueError(f"style {tuple(style.shape)} is smaller than a {patch}-pixel patch")

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean squared difference of the sorted responses, over levels and projections.

        Args:
            image: (B, 3, H, W) in [0, 1].
            mask: (B, 1, H, W) in [0, 1], or None for everywhere.

        Returns:
            Scalar, averaged over the batch.

        Raises:
            ValueError: for wrong shapes or an image smaller than a patch.
        """
        check_image(image)
        if min(image.shape[2:]) < self.patch:
            raise ValueError(
                f"image {tuple(image.shape)} is smaller than a {self.patch}-pixel patch"
            )
        weight = mask_like(image, mask)
        level = (image - self.mean) * weight
        total = image.new_zeros(())
        used = 0
        while used < self.levels and min(level.shape[2:]) >= self.patch:
            # patches that extend beyond the mask lack variation there; with full weight they would
            # drive the inside to extreme colours to compensate
            coverage = functional.avg_pool2d(weight, self.patch, stride=1) ** 4
            table = self.get_buffer(f"table{used}")
            total = total + _LevelDistance.apply(level, coverage, self.filters, table)
            used += 1
            level, weight = _downsample(level), _downsample(weight)
        return total / (used * image.shape[0])


class _LevelDistance(torch.autograd.Function):
    """Distance of an image's filter responses to tables of quantiles, mean over filters and sum
    over the batch; computed for a few filters at a time, with their gradient, so that the graph of
    each is freed.

    Args:
        image: (B, 3, H, W).
        coverage: (B, 1, h, w), weight of each response.
        filters: (P, 3, patch, patch).
        table: (P, Q), see `quantile_table`.
    """

    @staticmethod
    def forward(ctx, image: Tensor, coverage: Tensor, filters: Tensor, table: Tensor) -> Tensor:  # noqa: ANN001
        wanted = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(image) if wanted else None
        total = image.new_zeros(())
        at_once = max(1, _RESPONSES // coverage[0].numel())
        for some, rows in zip(filters.split(at_once), table.split(at_once), strict=True):
            for i, weight in enumerate(coverage):
                with torch.set_grad_enabled(wanted):
                    single = image[i : i + 1].detach().requires_grad_(wanted)
                    response = functional.conv2d(single, some)[0].flatten(1)
                    distance = _distance(response, weight.flatten(), rows) * len(some)
                total += distance.detach()
                if wanted:
                    gradient[i] += torch.autograd.grad(distance, single)[0][0]
        if wanted:
            ctx.save_for_backward(gradient / len(filters))
        return total / len(filters)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN001
        return grad * ctx.saved_tensors[0], None, None, None


def _downsample(planes: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H // 2, W // 2) with the binomial filter 1 3 3 1; the gradient of a
    2 x 2 mean would be visible as blocks."""
    tap = planes.new_tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(tap, tap).expand(planes.shape[1], 1, 4, 4)
    padded = functional.pad(planes, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, kernel, stride=2, groups=planes.shape[1])


def _distance(values: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance of weighted values (P, N), weight (N,), to a quantile table,
    mean over P."""
    inside = (weight > 0).nonzero().squeeze(1)
    weight = weight[inside]
    ordered, order = values[:, inside].sort(dim=1)
    ordered_weight = weight[order]
    # float64: in float32 the sum of many small weights is off by whole quantiles
    levels = ordered_weight.cumsum(dim=1, dtype=torch.float64) - ordered_weight / 2
    target = interpolate_quantiles(table, levels / weight.sum(dtype=torch.float64))
    squared = ((ordered - target).square() * ordered_weight).sum(dim=1).mean()
    return squared / weight.sum().clamp_min(1)
