"""A scene's photographic colours in the palettes of paintings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from losses.colour_transfer import ColourTransfer, fit_colour_transfer
from models.style import logits_of
from models.trilinear import CORNERS
from systems.paintings import Painting
from systems.photo_views import PhotoViews

COLOURS = 100_000  # of the scene, that its palette is taken from
SIDE = 64  # pixels of a painting's shorter side, that its palette is taken from


class Palettes:
    """Maps of logits of colours, in two steps: into a unit in which the scene's vary alike, then
    into each painting's palette.

    Args:
        views: of the scene.
        paintings: whose palettes they are.
        preserve_colour: all palettes are the scene's own.

    Attributes:
        unit: the first step.
        of: the second, one for each painting.
    """

    def __init__(
        self, views: PhotoViews, paintings: Sequence[Painting], preserve_colour: bool
    ) -> None:
        shown = zip(views.rgb, views.alpha, strict=True)
        colours = torch.cat([rgb[alpha > 127] for rgb, alpha in shown])
        unit = CORNERS.float() * 2 - 1  # mean 0, and the identity for covariance
        photo = logits_of(colours[:: max(1, len(colours) // COLOURS)].float() / 255)
        photo = photo if len(photo) else unit
        self.unit = fit_colour_transfer(photo, unit)
        self.of: list[ColourTransfer] = []
        for painting in paintings:
            own = photo
            if not preserve_colour:
                own = logits_of(painting.image(SIDE)[0].flatten(1).T)
            self.of.append(fit_colour_transfer(unit, own))

    def recoloured(self, photo: Tensor, number: int) -> Tensor:
        """Colours ``photo (P, 3)``, in [0, 1], in the palette of a painting."""
        return torch.sigmoid(self.of[number].apply(self.unit.apply(logits_of(photo))))
