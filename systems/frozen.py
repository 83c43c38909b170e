"""Frozen geometry, computed once: in stage 2 a view's samples and weights do not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from datasets.cameras.rays import Cameras, Rays
from datasets.scene import Scene, View
from models.field import Cost, Field
from models.render import compositing_weights, drop_faint_samples, segment_sum
from models.renderer import Renderer, ray_chunks
from opt import TrainOptions
from utils.chunks import Chunks
from utils.machine import memory_of_machine

# Share of a ray's weight whose faintest samples are dropped; the rest take it over.  Measured
# on painted scenes: the picture is within 59 dB of the exact one, the style loss's gradient about
# a degree from the exact one's own, and a quarter of a degree for the same gradient of the pixels.
NEGLIGIBLE = 0.01
CUDA_SHARE = 0.4  # of a GPU's free memory, to keep frozen views in
HOST_SHARE = 1 / 6  # of the machine's memory, for the same


@dataclass
class FrozenView:
    """One view, or a window of it: everything except its colours, of the pixels in which anything
    is seen.

    Attributes:
        cameras, index: the camera that the view belongs to.
        row, column: (P,) int32 places of the pixels in the view, row-major.
        first: (P + 1,) int64: the samples of the pixel p are first[p] : first[p + 1].
        t: (M,) distances along the rays.
        weights: (M,) contributions.
        feature: (M, ...) what the style wants to know of the geometry; None where it is computed
            when needed, see `render`.
        opacity: (P,).
        corner: row and column of the window's first pixel.
        size: height, width of the window, in its own pixels.
        stride: of the view's pixels, along each side, from one of the window to the next.
    """

    cameras: Cameras
    index: int
    row: Tensor
    column: Tensor
    first: Tensor
    t: Tensor
    weights: Tensor
    feature: Tensor | None
    opacity: Tensor
    corner: tuple[int, int]
    size: tuple[int, int]
    stride: int = 1

    def __len__(self) -> int:
        return self.opacity.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that takes memory."""
        names = ("row", "column", "first", "t", "weights", "feature", "opacity")
        return {name: x for name in names if (x := getattr(self, name)) is not None}

    def nbytes(self) -> int:
        """Memory that the view takes."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def to(self, device: torch.device | str) -> FrozenView:
        return replace(self, **{name: x.to(device) for name, x in self.tensors().items()})

    def take(self, pixels: Tensor) -> FrozenView:
        """The view reduced to some of its pixels, ``pixels (K,)`` in [0, P), in their order."""
        counts = (self.first[1:] - self.first[:-1])[pixels]
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        n = int(first[-1])
        shift = torch.repeat_interleave(self.first[:-1][pixels] - first[:-1], counts, output_size=n)
        index = torch.arange(n, device=shift.device) + shift
        return replace(
            self,
            row=self.row[pixels],
            column=self.column[pixels],
            first=first,
            t=self.t.index_select(0, index),
            weights=self.weights.index_select(0, index),
            feature=None if self.feature is None else self.feature.index_select(0, index),
            opacity=self.opacity[pixels],
        )

    def window(self, corner: tuple[int, int], size: tuple[int, int]) -> FrozenView:
        """The part of the window that begins at its pixel ``corner`` (row, column) and is ``size``
        large."""
        row, column = self._local()
        row, column = row - corner[0], column - corner[1]
        inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
        top, left = (a + self.stride * b for a, b in zip(self.corner, corner, strict=True))
        return replace(self.take(inside.nonzero()[:, 0]), corner=(top, left), size=size)

    def every(self, stride: int, first: tuple[int, int]) -> FrozenView:
        """A view of fewer pixels: every ``stride``-th along each side, from the pixel ``first``
        (row, column) on."""
        row, column = self.row - first[0], self.column - first[1]
        inside = (row >= 0) & (row % stride == 0) & (column >= 0) & (column % stride == 0)
        size = tuple(-((a - n) // stride) for a, n in zip(first, self.size, strict=True))
        return replace(self.take(inside.nonzero()[:, 0]), corner=first, size=size, stride=stride)

    @torch.no_grad()
    def with_features(self, field: Field, chunks: Chunks) -> FrozenView:
        """The view with the features of all its samples, which are otherwise computed at each
        rendering."""
        none = field.geometry.feature(self.t.new_zeros(0, 3))
        feature = none.new_empty(len(self.t), *none.shape[1:])

        def fill(part: slice) -> None:
            inside, _, x, _ = self._samples(part)
            feature[inside] = field.geometry.feature(x)

        chunks.over(len(self), fill)
        return replace(self, feature=feature)

    def crop(self, image: Tensor) -> Tensor:
        """The window's pixels of an image (..., H, W) of the whole view."""
        rows, columns = (
            slice(start, start + self.stride * n, self.stride)
            for start, n in zip(self.corner, self.size, strict=True)
        )
        return image[..., rows, columns]

    def _samples(self, part: slice) -> tuple[slice, Tensor, Tensor, Tensor]:
        """Of the pixels ``part``: where their samples are; each sample's ray (K,), position and
        direction (K, 3)."""
        ends = self.first[part.start : part.stop + 1]
        inside = slice(0, len(self.t))  # of all pixels, which a GPU need not be asked for
        if len(ends) < len(self.first):
            inside = slice(*ends[[0, -1]].tolist())
        ray = torch.repeat_interleave(ends.diff(), output_size=inside.stop - inside.start)
        rays = self.rays(part)
        x, d = rays.points(ray, self.t[inside]), rays.view_directions.index_select(0, ray)
        return inside, ray, x, d

    def rays(self, part: slice) -> Rays:
        """The rays of the pixels ``part``."""
        return self.cameras.rays(self.index, self.row[part], self.column[part])

    def render(
        self,
        field: Field,
        background: Tensor,
        part: slice | None = None,
        code: Tensor | None = None,
    ) -> Tensor:
        """Colours (n, 3) of all pixels or of a stretch ``part`` of them, over the background;
        differentiable in the style and in ``code (C,)``, which it is conditioned on.

        A pure function of its arguments: the same samples, whoever asks and however often.
        """
        part = slice(0, len(self)) if part is None else part
        inside, ray, x, d = self._samples(part)
        if self.feature is None:
            rgb = field.colours(x, d, code)
        else:
            rgb = field.style(self.feature[inside], x, d, code)
        colour = segment_sum(self.weights[inside, None] * rgb, ray, part.stop - part.start)
        return torch.addcmul(colour, (1 - self.opacity[part])[:, None], background)

    @cached_property
    def places(self) -> Tensor:
        """(P,) int64 row-major numbers of the pixels in the window."""
        row, column = self._local()
        return torch.add(column, row, alpha=self.size[1]).long()

    def _local(self) -> tuple[Tensor, Tensor]:
        """(P,) int32 rows and columns of the pixels in the window."""
        if self.corner == (0, 0) and self.stride == 1:
            return self.row, self.column
        places = zip((self.row, self.column), self.corner, strict=True)
        return tuple(torch.div(x - n, self.stride, rounding_mode="floor") for x, n in places)

    def mask(self) -> Tensor:
        """(1, 1, H, W) opacity of the window."""
        opacity = self.opacity.new_zeros(self.size[0] * self.size[1])
        return opacity.index_copy_(0, self.places, self.opacity).view(1, 1, *self.size)

    def image(self, colours: Tensor, background: Tensor) -> Tensor:
        """The window (1, 3, H, W): the pixels in their ``colours (P, 3)``, the rest background."""
        picture = background.to(colours.dtype).repeat(self.size[0] * self.size[1], 1)
        picture = picture.index_copy(0, self.places, colours)
        return picture.view(*self.size, 3).permute(2, 0, 1)[None]


class FrozenGeometry:
    """The frozen views of a set of cameras, kept as far as a memory budget goes.

    On a GPU they are kept there first, then in the host's memory; what neither holds is computed
    again whenever it is asked for, and no more of it than is asked for.  Features that are long
    vectors are kept if those of all views fit where they are used: computing them is quicker than
    fetching them.

    Args:
        renderer: its geometry does not change any more.
        cameras: of the views, on the renderer's device.
        budget: bytes to keep in the host's memory.
        device_budget: bytes to keep on the GPU.
        chunk: rays at once while computing; 0: by field and device.
        threshold: share of a ray's weight whose faintest samples are dropped; 0 keeps all.
    """

    def __init__(
        self,
        renderer: Renderer,
        cameras: Cameras,
        budget: float,
        device_budget: float = 0.0,
        chunk: int = 0,
        threshold: float = NEGLIGIBLE,
    ) -> None:
        self.renderer = renderer
        self.cameras = cameras
        self.budget = budget
        self.device_budget = device_budget if renderer.bounds.is_cuda else 0.0
        self.chunks = ray_chunks(renderer, chunk)
        self.threshold = threshold
        self.keeps_vectors: bool | None = None  # decided by the first view
        self.kept: dict[int, FrozenView] = {}
        self.last: tuple[int, FrozenView | None] = (-1, None)  # of those that are not kept
        self.largest = 0  # bytes of a view so far
        self.used = {"device": 0, "host": 0}

    @classmethod
    def of_views(
        cls,
        renderer: Renderer,
        scene: Scene,
        views: Sequence[View],
        options: TrainOptions,
        threshold: float = NEGLIGIBLE,
    ) -> FrozenGeometry:
        """Of views of a scene, on the renderer's device, in the memory that the options allow.

        Args:
            threshold: where the options say nothing else.
        """
        device, given = renderer.bounds.device, options.cache_gb
        return cls(
            renderer,
            Cameras.within(scene, views).to(device),
            HOST_SHARE * memory_of_machine() if given is None else given * 1e9,
            CUDA_SHARE * torch.cuda.mem_get_info()[0] if device.type == "cuda" else 0,
            options.chunk,
            threshold if options.sample_threshold is None else options.sample_threshold,
        )

    def __len__(self) -> int:
        return len(self.cameras)

    def painting_chunks(
        self, first: FrozenView, chunk: int = 0, cost: Cost | None = None
    ) -> Chunks:
        """How many pixels are painted at once, of views with as many samples as the ``first``.

        Args:
            chunk: pixels, if not by field and device.
            cost: of a sample; None: the field's.
        """
        cost = cost or self.renderer.field.cost
        if chunk:
            return Chunks(chunk)
        samples_per_pixel = max(1.0, len(first.t) / max(1, len(first)))
        sizes = cost.painting_samples_on(self.renderer.bounds.device)
        return Chunks(*(n / samples_per_pixel for n in sizes))

    def view(self, index: int, stride: int = 1, first: tuple[int, int] = (0, 0)) -> FrozenView:
        """One view, or every ``stride``-th pixel of it from the pixel ``first`` (row, column) on,
        on the renderer's device, from memory where it is."""
        if stride > 1 and (index in self.kept or self._has_room()):
            return self.view(index).every(stride, first)
        if index in self.kept:
            return self.kept[index].to(self.renderer.bounds.device)
        if stride > 1:
            return self._compute(index, stride, first)
        if self.last[0] == index:
            return self.last[1]
        view = self._compute(index)
        size = view.nbytes()
        self.largest = max(self.largest, size)
        if self.used["device"] + size <= self.device_budget:
            self.kept[index] = view
            self.used["device"] += size
        elif self.used["host"] + size <= self.budget:
            self.kept[index] = view.to("cpu")
            self.used["host"] += size
        else:
            self.last = index, view
        return view

    def _has_room(self) -> bool:
        """Whether one more view is likely to be kept."""
        room = max(self.budget - self.used["host"], self.device_budget - self.used["device"])
        return self.largest <= room

    @torch.no_grad()
    def _compute(self, index: int, stride: int = 1, corner: tuple[int, int] = (0, 0)) -> FrozenView:
        size = self.cameras.shapes[index]
        height, width = (-((a - n) // stride) for a, n in zip(corner, size, strict=True))

        def part_of(part: slice) -> tuple[Tensor | None, ...]:
            pixel = torch.arange(part.start, part.stop, device=self.cameras.c2w.device)
            row = corner[0] + pixel // width * stride
            column = corner[1] + pixel % width * stride
            return self._part(self.cameras.rays(index, row, column))

        parts = self.chunks.over(height * width, part_of)
        counts, t, weights, feature, opacity = (
            None if tensors[0] is None else torch.cat(tensors)
            for tensors in zip(*parts, strict=True)
        )
        seen = (counts > 0).nonzero()[:, 0]
        first = counts[seen].cumsum(0)
        view = FrozenView(
            self.cameras,
            index,
            (corner[0] + seen // width * stride).to(torch.int32),
            (corner[1] + seen % width * stride).to(torch.int32),
            torch.cat([first.new_zeros(1), first]),
            t,
            weights,
            feature,
            opacity[seen],
            corner,
            (height, width),
            stride,
        )
        if self.keeps_vectors is None:
            none = self.renderer.field.geometry.feature(t.new_zeros(0, 3))
            missing = 0 if feature is not None else none[:0].new_empty(1, *none.shape[1:]).nbytes
            room = self.device_budget if t.is_cuda else self.budget
            self.keeps_vectors = (view.nbytes() + missing * len(t)) * len(self) <= room
            if self.keeps_vectors and feature is None:
                return view.with_features(self.renderer.field, self.chunks)
        return view

    def _part(self, rays: Rays) -> tuple[Tensor | None, ...]:
        """Each ray's number of samples, each sample's t, weight, feature; each ray's opacity."""
        renderer = self.renderer
        rays = renderer.clip(rays)
        samples = renderer.sample(rays)
        density, feature = renderer.geometry(rays, samples)
        weights = compositing_weights(density, samples)
        ray, t = samples.ray_index, samples.t
        opacity = segment_sum(weights, ray, len(rays))
        end, distance = renderer.reaching_infinity(rays, opacity)
        if len(end):
            clear = 1 - opacity.index_select(0, end)
            behind = renderer.field.geometry.feature(rays.points(end, distance))
            order = torch.cat([ray, end]).argsort(stable=True)  # behind the others of its ray
            pairs = (ray, end), (t, distance), (weights, clear), (feature, behind)
            ray, t, weights, feature = (torch.cat(pair)[order] for pair in pairs)
            opacity = segment_sum(weights, ray, len(rays))
        keep = drop_faint_samples(weights, ray, len(rays), self.threshold)
        ray, weights = ray[keep], weights[keep]
        if self.threshold > 0:
            left = segment_sum(weights, ray, len(rays))
            weights = weights * (opacity / left.clamp(min=1e-6))[ray]
            opacity = segment_sum(weights, ray, len(rays))
        ends = torch.arange(len(rays) + 1, device=ray.device)
        counts = torch.searchsorted(ray, ends).diff()
        feature = feature[keep] if feature.ndim == 1 or self.keeps_vectors else None
        return counts, t[keep], weights, feature, opacity
