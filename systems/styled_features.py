"""What the 2D network decodes: features of photographic views in the manner of each painting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from losses.adain import content_term, style_statistics, style_term
from models.field import Field
from models.stylizer import Manner, Moments, Statistics, Stylizer, normalised, pooled
from systems.frozen import FrozenView
from systems.photo_views import PhotoViews
from systems.system import Terms

GUIDANCE = 4.0  # weight of the field's picture beside the photographic one, when patches are chosen
LEAST_VARIANCE = 0.1  # of a channel, in units of the mean of all
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
LayerStatistics = Mapping[str, tuple[Tensor, Tensor]]


class StyledFeatures:
    """Features of views in the manners of paintings, and losses of pictures that should show them.

    Of two patches that resemble a photographic view equally well, which one is taken changes from
    view to view.  A field that has learned from them shows all views the same, and so it guides the
    choice: patches are to resemble its picture as well.  Without a field, the choice for a whole
    view is made once and kept, four bytes for each cell.

    Args:
        stylizer: the 2D network; its decoder is not used.
        views: what is painted.
        content: statistics of all views together.
        manners: of the paintings.
        style: statistics of their layers, see `style_statistics`.
    """

    def __init__(
        self,
        stylizer: Stylizer,
        views: PhotoViews,
        content: Statistics,
        manners: Sequence[Manner],
        style: Sequence[LayerStatistics],
    ) -> None:
        self.stylizer, self.views, self.content = stylizer, views, content
        self.manners, self.style = list(manners), list(style)
        self._nearest: dict[tuple[int, int], Tensor | None] = {}
        self._last: tuple[object, Tensor | None] = (None, None)

    @classmethod
    @torch.no_grad()
    def of_paintings(
        cls,
        stylizer: Stylizer,
        views: PhotoViews,
        content: Statistics,
        images: Sequence[Tensor],
        patches: bool,
    ) -> StyledFeatures:
        """Of the images (1, 3, h, w) in [0, 1] of paintings, with their patches or not."""
        manners, style = [], []
        layers = [layer for layer in STYLE_LAYERS if layer in stylizer.network.layers]
        for image in images:
            own = image.to(views.background)
            manners.append(Manner.of(stylizer.features(own).float(), patches))
            style.append(style_statistics(stylizer.network(own, layers), layers))
        return cls(stylizer, views, content, manners, style)

    @torch.no_grad()
    def of(
        self,
        index: int,
        painting: int,
        guide: Field | None = None,
        view: FrozenView | None = None,
    ) -> Tensor:
        """(1, C, h, w): what the decoder turns into the picture of a view.

        Args:
            index: of the view.
            painting: in whose manner.
            guide: the field in that painting's style, to choose patches by; None: by the
                photographic view alone.
            view: the part of the view that is painted; None: all of it.
        """
        features, manner = self._features(index, view), self.manners[painting]
        nearest = self._chosen(index, painting, features, guide, view)
        nearest = None if nearest is None else nearest.to(features.device)
        return self.stylizer.changed(features, self.content, manner, nearest)

    def terms(self, picture: Tensor, wanted: Tensor, painting: int, mask: Tensor) -> Terms:
        """How far pictures are from what they should show: the losses of AdaIN.

        Args:
            picture: (B, 3, H, W).
            wanted: (B, C, h, w), see `of`.
            painting: in whose manner.
            mask: (B, 1, H, W) in [0, 1].
        """
        stylizer, style = self.stylizer, self.style[painting]
        variance = self.manners[painting].statistics.std.square()
        # a channel that the painting hardly excites would outweigh all others
        std = (variance + LEAST_VARIANCE * variance.mean()).sqrt()
        mask = stylizer.whole_cells(mask)
        layers = list(dict.fromkeys([*style, stylizer.layer]))
        found = stylizer.network(stylizer.whole_cells(picture), layers)
        return {
            "content": content_term(found[stylizer.layer], wanted, mask, std),
            "style": style_term({name: found[name] for name in style}, style, mask),
        }

    def _chosen(
        self,
        index: int,
        painting: int,
        features: Tensor,
        guide: Field | None,
        view: FrozenView | None,
    ) -> Tensor | None:
        manner, key = self.manners[painting], (index, painting)
        kept = guide is None and view is None
        if manner.features is None or (kept and key in self._nearest):
            return self._nearest.get(key)
        query, mask = normalised(features, self.content), self.views.mask(index)
        mask = mask if view is None else view.crop(mask)
        if guide is not None:
            view = self.views.frozen.view(index) if view is None else view
            own = self.stylizer.features(self.views.painted(view, guide))
            # by its own statistics: by the painting's, what the field shows a little more of than
            # the painting would be matched more often still, until nothing else is left
            statistics = Moments.of(own, pooled(mask, own)).statistics()
            query = torch.lerp(query, normalised(own, statistics), GUIDANCE / (1 + GUIDANCE))
        nearest = self.stylizer.matched(query, manner, mask)
        if kept:
            self._nearest[key] = nearest.cpu()
        return nearest

    def _features(self, index: int, view: FrozenView | None) -> Tensor:
        """Of a photographic view; those of the last one are at hand, for its next painting."""
        key = index if view is None else (index, view.stride, view.corner, view.size)
        if self._last[0] != key:
            content = self.views.content(index)
            content = content if view is None else view.crop(content)
            self._last = key, self.stylizer.features(content)
        return self._last[1]
