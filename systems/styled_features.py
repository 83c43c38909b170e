"""What the 2D network decodes: features of photographic views in the manner of each painting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.field import Field
from models.stylizer import Manner, Statistics, Stylizer, normalised
from systems.photo_views import PhotoViews

GUIDANCE = 4.0  # weight of the field's picture beside the photographic one, when patches are chosen


class StyledFeatures:
    """Features of views in the manners of paintings.

    Of two patches that resemble a photographic view equally well, which one is taken changes from
    view to view.  A field that has learned from them shows all views the same, and so it guides the
    choice: patches are to resemble its picture as well.  Without a field, the choice is made once
    for each pair of view and painting and kept, four bytes for each cell.

    Args:
        stylizer: the 2D network; its decoder is not used.
        views: what is painted.
        content: statistics of all views together.
        manners: of the paintings.
    """

    def __init__(
        self,
        stylizer: Stylizer,
        views: PhotoViews,
        content: Statistics,
        manners: Sequence[Manner],
    ) -> None:
        self.stylizer, self.views = stylizer, views
        self.content, self.manners = content, list(manners)
        self._nearest: dict[tuple[int, int], Tensor | None] = {}
        self._last: tuple[int, Tensor | None] = (-1, None)

    @torch.no_grad()
    def of(self, view: int, painting: int, guide: Field | None = None) -> Tensor:
        """(1, C, h, w): what the decoder turns into the picture of a view.

        Args:
            view: its number.
            painting: in whose manner.
            guide: the field in that painting's style, to choose patches by; None: by the
                photographic view alone.
        """
        features, manner = self._features(view), self.manners[painting]
        nearest = self._chosen(view, painting, features, guide)
        nearest = None if nearest is None else nearest.to(features.device)
        return self.stylizer.changed(features, self.content, manner, nearest)

    def _chosen(
        self, view: int, painting: int, features: Tensor, guide: Field | None
    ) -> Tensor | None:
        manner, key = self.manners[painting], (view, painting)
        if manner.features is None or (guide is None and key in self._nearest):
            return self._nearest.get(key)
        query = normalised(features, self.content)
        if guide is not None:
            own = self.stylizer.features(self.views.painted(view, guide))
            query = torch.lerp(query, normalised(own, manner.statistics), GUIDANCE / (1 + GUIDANCE))
        nearest = self.stylizer.matched(query, manner, self.views.mask(view))
        if guide is None:
            self._nearest[key] = nearest.cpu()
        return nearest

    def _features(self, view: int) -> Tensor:
        """Of a photographic view; those of the last one are at hand, for its next painting."""
        if self._last[0] != view:
            self._last = view, self.stylizer.features(self.views.content(view))
        return self._last[1]
