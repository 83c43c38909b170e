"""What rendered views are measured by: likeness to the photos or, where they are painted, distance
to the painting in style and to the photo in content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.scene import View
from features.registry import load_features
from losses.objective import StyleObjective
from losses.registry import layers_needed
from losses.style_image import prepare_style
from models.checkpoint import PHOTO, Checkpoint
from models.renderer import Picture
from opt import TrainOptions
from utils.errors import UserError
from utils.images import read_painting
from utils.metrics import ImageMetrics

WEIGHTS = {"gram": 1.0, "content": 1.0}


class Measures:
    """Measures the views of one rendering: against photos of photographic colours, against painting
    and photos of painted ones, which are not meant to be like photos.

    Args:
        checkpoint: that is rendered.
        style: name of its colours.
        photos: of the views, in their order; empty: there are none.
        smallest: pixels of the shortest side of all views.
        device: to compute on.

    Attributes:
        left_out: by measure, why it is not taken, and how to have it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        style: str,
        photos: Sequence[View],
        smallest: int,
        device: torch.device,
    ) -> None:
        self.photos = photos
        self.style_distance: StyleDistance | None = None
        self.metrics: ImageMetrics | None = None
        self.left_out: dict[str, str] = {}
        if style != PHOTO:
            try:
                self.style_distance = StyleDistance.of(checkpoint.styles[style].options, device)
            except UserError as error:
                self.left_out["style_distance"] = str(error)
        elif photos:
            self.metrics = ImageMetrics(device, smallest)
            self.left_out = self.metrics.left_out

    def leave_out_style(self, reason: str) -> None:
        """Takes no distance to a painting."""
        self.style_distance = None
        self.left_out["style_distance"] = reason

    def __call__(self, index: int, picture: Picture) -> dict[str, float]:
        """The measures of one view, by name; ``picture`` in the host's memory."""
        photo = self.photos[index] if self.photos else None
        if self.style_distance is not None:
            return self.style_distance(picture, None if photo is None else photo.image)
        if self.metrics is None or photo is None:
            return {}
        return self.metrics(picture.rgb, photo.image.float() / 255, photo.valid)


class StyleDistance:
    """Gram distance to the painting, feature distance to the photo; nothing here is a PSNR.

    Args:
        painting: (H, W, 3) uint8.
        features, vgg_weights: the network, as the options of the same names.
    """

    def __init__(
        self, painting: Tensor, features: str, vgg_weights: Path | None, device: torch.device
    ) -> None:
        self.painting = painting
        self.network = load_features(features, vgg_weights, layers=layers_needed(WEIGHTS))
        self.device = device
        self.objectives: dict[int, StyleObjective] = {}

    @classmethod
    def of(cls, options: Mapping[str, Any], device: torch.device) -> StyleDistance:
        """The distances of a style that was trained with ``options``.

        Raises:
            UserError: its painting or its network is gone.
        """
        run = TrainOptions.from_dict(options)
        return cls(painting_of(run), run.features, run.vgg_weights, device)

    @torch.no_grad()
    def __call__(self, picture: Picture, photo: Tensor | None) -> dict[str, float]:
        """Distances of one picture; ``photo (H, W, 3)`` uint8 or None."""
        height, width, _ = picture.rgb.shape
        size = min(height, width)
        if size not in self.objectives:
            style = prepare_style(self.painting, size)
            self.objectives[size] = StyleObjective(style, self.network, WEIGHTS).to(self.device)
        objective = self.objectives[size]
        image = picture.rgb.to(self.device).permute(2, 0, 1)[None]
        truth = image if photo is None else photo.to(image).permute(2, 0, 1)[None] / 255
        mask = picture.opacity.to(self.device)[None, None]
        terms = objective(image, truth, mask)
        distances = {"style_distance": float(terms["gram"])}
        if photo is not None:
            distances["content_distance"] = float(terms["content"])
        return distances


def painting_of(run: TrainOptions) -> Tensor:
    """The painting (H, W, 3) uint8 of the run that trained a style.

    Raises:
        UserError: it is gone, or there was none.
    """
    if run.style_dir is None:
        raise UserError(f"painted after the words '{run.prompt}': no painting to compare with")
    return torch.from_numpy(read_painting(run.style_dir))
