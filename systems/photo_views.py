"""The training views in the field's own photographic colours: what the 2D network paints, and which
pixels of two views show the same surface."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from datasets.cameras.rays import Cameras
from models.field import Field
from models.render import Samples, median_depth
from models.stylizer import Moments, Statistics, Stylizer, pooled
from models.warp import OPAQUE, Frame, Surface, correspondence
from systems.frozen import FrozenGeometry, FrozenView
from utils.checkpoint import digest
from utils.chunks import Chunks
from utils.images import to_uint8

NEIGHBOURS = 3  # of the nearest cameras, one is compared with


class PhotoViews:
    """Photographic renders of frozen views, eight bytes a pixel.

    Args:
        frozen: geometry of the views.
        field: in its photographic colours.
        background: (3,) behind the scene.
        chunks: pixels at once.

    Attributes:
        backdrop: (3,) mean colour of the scene.  The 2D network sees an object over it: over white,
            every feature near an outline would be one of the background.
    """

    def __init__(
        self, frozen: FrozenGeometry, field: Field, background: Tensor, chunks: Chunks
    ) -> None:
        self.frozen, self.field, self.background, self.chunks = frozen, field, background, chunks
        self.cameras: Cameras = frozen.cameras
        self.rgb: list[Tensor] = []  # (H, W, 3) uint8, over the background
        self.alpha: list[Tensor] = []  # (H, W) uint8
        self.distance: list[Tensor] = []  # (H, W), world
        self.digests: list[str] = []
        self._sum = torch.zeros(4, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.frozen)

    @torch.no_grad()
    def add(self, index: int) -> None:
        """Renders the next view; they are added in their order."""
        view = self.frozen.view(index)
        parts = self.chunks.over(
            len(view), lambda part: view.render(self.field, self.background, part)
        )
        colours = torch.cat([*parts, view.opacity.new_zeros(0, 3)]).float().clamp(0, 1)
        rgb = to_uint8(view.image(colours, self.background)[0].permute(1, 2, 0)).cpu()
        alpha = to_uint8(view.mask()[0, 0]).cpu()
        self.rgb.append(rgb)
        self.alpha.append(alpha)
        self.distance.append(self._distances(view).cpu())
        self.digests.append(digest({"rgb": rgb, "alpha": alpha}))
        own = colours - (1 - view.opacity)[:, None] * self.background
        total = torch.cat([own.double().sum(0), view.opacity.double().sum()[None]])
        self._sum += total.cpu()

    @property
    def backdrop(self) -> Tensor:
        return (self._sum[:3] / self._sum[3].clamp(min=1e-6)).float().clamp(0, 1)

    def _distances(self, view: FrozenView) -> Tensor:
        """(H, W) distance of the median depth from the camera, in the world; 0: nothing."""
        whole = slice(0, len(view))
        counts = view.first.diff()
        ray = torch.repeat_interleave(torch.arange(len(view), device=counts.device), counts)
        samples = Samples(ray, view.t, torch.zeros_like(view.t), len(view))
        depth = median_depth(view.weights, samples)
        points = view.rays(whole).points(torch.arange(len(view), device=depth.device), depth)
        world = self.cameras.space.to_world(points)
        found = (world - self.cameras.c2w[view.index, :, 3]).norm(dim=-1)
        image = found.new_zeros(view.size[0] * view.size[1])
        return image.index_copy(0, view.places, found).view(view.size)

    def content(self, index: int) -> Tensor:
        """(1, 3, H, W) in [0, 1]: a view over the backdrop."""
        device = self.background.device
        rgb = self.rgb[index].to(device).float() / 255
        missing = 1 - self.alpha[index].to(device).float()[..., None] / 255
        image = rgb + missing * (self.backdrop.to(device) - self.background)
        return image.clamp(0, 1).permute(2, 0, 1)[None]

    @torch.no_grad()
    def painted(self, view: FrozenView, field: Field) -> Tensor:
        """(1, 3, H, W) in [0, 1]: a view of the field in other colours, over their mean."""
        background = self.background
        parts = self.chunks.over(len(view), lambda part: view.render(field, background, part))
        colours = torch.cat([*parts, view.opacity.new_zeros(0, 3)]).float()
        missing = (1 - view.opacity)[:, None]
        total = (colours - missing * background).sum(0)
        backdrop = total / view.opacity.sum().clamp(min=1e-6)
        return view.image(colours + missing * (backdrop - background), backdrop).clamp(0, 1)

    def mask(self, index: int) -> Tensor:
        """(1, 1, H, W) opacity of a view."""
        return self.alpha[index].to(self.background.device).float()[None, None] / 255

    @torch.no_grad()
    def statistics(self, stylizer: Stylizer, indices: Iterable[int], stride: int = 1) -> Statistics:
        """Of the features of some views together, of every ``stride``-th pixel, within their masks.

        One content's statistics for the whole scene: with each view's own a surface would change
        its colours with what else is in the picture.
        """
        total: Moments | None = None
        for index in indices:
            image, mask = (
                x[..., ::stride, ::stride] for x in (self.content(index), self.mask(index))
            )
            features = stylizer.features(image)
            own = Moments.of(features, pooled(mask, features))
            total = own if total is None else total + own
        return total.statistics()

    def frame(self, index: int) -> Frame:
        """What a view shows, without pictures."""
        device = self.background.device
        distance = self.distance[index].to(device)
        size = distance.shape
        eye, pixels = self.cameras.c2w[index, :, 3], distance.numel()
        directions = self.cameras.view_rays(index, 0, pixels).view_directions.view(*size, 3)
        opaque = self.mask(index)[0, 0] > OPAQUE
        points = eye + distance[..., None] * directions
        return Frame(index, Surface(points, distance, opaque & (distance > 0)), {})

    def same_surface(self, target: int, source: int) -> tuple[Tensor, Tensor]:
        """See `correspondence`."""
        return correspondence(self.cameras, self.frame(target), self.frame(source))

    def neighbours(self, index: int) -> list[int]:
        """The views whose cameras are nearest, the nearest first."""
        eyes = self.cameras.c2w[:, :, 3]
        order = (eyes - eyes[index]).norm(dim=1).argsort(stable=True).tolist()
        return [other for other in order if other != index][:NEIGHBOURS]
