"""Frozen geometry, computed once: in stage 2 a view's samples and weights do not change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.cameras import Cameras, Rays
from models.renderer import Renderer
from models.samples import compositing_weights, segment_sum
from systems.deferred import chunks_of
from systems.rendering import chunk_size

# A sample under this weight changes no pixel by more than a 250th of one 8-bit step; what all the
# dropped samples of a ray weigh together is given to those that stay.
NEGLIGIBLE = 1e-3


@dataclass
class FrozenView:
    """One view, all but its colours.

    Attributes:
        rays: (N,) of all pixels, row-major.
        first: (N + 1,) int64: the samples of the pixel n are first[n] : first[n + 1].
        t: (M,) distances along the rays.
        weights: (M,) contributions.
        feature: (M, ...) what the style module wants to know of the geometry; None where it is
            computed when needed.
        opacity: (N,).
        size: height, width.
    """

    rays: Rays
    first: Tensor
    t: Tensor
    weights: Tensor
    feature: Tensor | None
    opacity: Tensor
    size: tuple[int, int]

    def nbytes(self) -> int:
        """Memory that the view takes."""
        tensors = [self.rays.origins, self.rays.directions, self.first, self.t, self.weights]
        tensors += [self.opacity] + ([] if self.feature is None else [self.feature])
        return sum(t.numel() * t.element_size() for t in tensors)

    def take(self, pixels: Tensor) -> FrozenView:
        """The view reduced to some pixels (K,), in their order."""
        counts = (self.first[1:] - self.first[:-1])[pixels]
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = torch.repeat_interleave(self.first[:-1][pixels] - first[:-1], counts)
        index = torch.arange(int(first[-1]), device=shift.device) + shift
        feature = None if self.feature is None else self.feature[index]
        rays, opacity = self.rays[pixels], self.opacity[pixels]
        size = (1, len(pixels))
        return FrozenView(rays, first, self.t[index], self.weights[index], feature, opacity, size)

    def shade(self, field: nn.Module, background: Tensor, part: slice) -> Tensor:
        """Colours (n, 3) of the pixels ``part`` over the background; differentiable in the style.

        A pure function of the field's style: the same samples, whoever asks and however often.
        """
        ends = self.first[part.start : part.stop + 1]
        inside = slice(int(ends[0]), int(ends[-1]))
        n = part.stop - part.start
        ray = torch.repeat_interleave(torch.arange(n, device=ends.device), ends.diff())
        rays = self.rays[part]
        x = rays.points(ray, self.t[inside])
        if self.feature is None:
            with torch.no_grad():
                _, feature = field.geometry(x)
        else:
            feature = self.feature[inside]
        rgb = field.style(feature, x, rays.directions[ray])
        colour = segment_sum(self.weights[inside, None] * rgb, ray, n)
        return colour + (1 - self.opacity[part])[:, None] * background


class FrozenGeometry:
    """The frozen views of a set of cameras, kept as far as a memory budget goes.

    Args:
        renderer: its geometry does not change any more.
        cameras: of the views, on the renderer's device.
        budget: bytes to keep; views beyond it are computed again whenever asked for.
        chunk: rays at once while computing; 0: by field and device.
        threshold: samples of less weight are dropped; 0 keeps all.
    """

    def __init__(
        self,
        renderer: Renderer,
        cameras: Cameras,
        budget: float,
        chunk: int = 0,
        threshold: float = NEGLIGIBLE,
    ) -> None:
        self.renderer = renderer
        self.cameras = cameras
        self.budget = budget
        self.chunk = chunk_size(renderer, chunk)
        self.threshold = threshold
        self.kept: dict[int, FrozenView] = {}
        self.used = 0

    def __len__(self) -> int:
        return len(self.cameras)

    def view(self, index: int) -> FrozenView:
        """One view, from memory where it is."""
        if index in self.kept:
            return self.kept[index]
        view = self._compute(index)
        if self.used + view.nbytes() <= self.budget:
            self.kept[index] = view
            self.used += view.nbytes()
        return view

    @torch.no_grad()
    def _compute(self, index: int) -> FrozenView:
        renderer = self.renderer
        training = renderer.training
        renderer.eval()
        height, width = self.cameras.sizes[index].tolist()
        parts = []
        for part in chunks_of(height * width, self.chunk):
            rays = renderer.clip(self.cameras.view_rays(index, part.start, part.stop))
            samples = renderer.samples(rays)
            density, feature = renderer.field.geometry(rays.points(samples.ray_index, samples.t))
            weights = compositing_weights(density, samples)
            keep = (weights > self.threshold).nonzero()[:, 0]
            ray = samples.ray_index[keep]
            opacity = segment_sum(weights, samples.ray_index, len(rays))
            if self.threshold > 0:
                left = segment_sum(weights[keep], ray, len(rays))
                weights = weights[keep] * (opacity / left.clamp(min=1e-6))[ray]
                opacity = segment_sum(weights, ray, len(rays))
            else:
                weights = weights[keep]
            small = feature.ndim == 1
            counts = torch.bincount(ray, minlength=len(rays))
            parts.append(
                (counts, samples.t[keep], weights, feature[keep] if small else None, opacity)
            )
        renderer.train(training)
        counts, t, weights, feature, opacity = zip(*parts, strict=True)
        first = torch.cat(counts).cumsum(0)
        return FrozenView(
            self.cameras.view_rays(index),
            torch.cat([first.new_zeros(1), first]),
            torch.cat(t),
            torch.cat(weights),
            None if feature[0] is None else torch.cat(feature),
            torch.cat(opacity),
            (height, width),
        )
