"""How far a stylised picture is from the painting in style, and from the photo in content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from features.registry import load_features
from losses.objective import StyleObjective
from losses.registry import layers_needed
from losses.style_image import prepare_style
from models.renderer import Picture
from opt import TrainOptions
from utils.errors import UserError
from utils.images import read_image

WEIGHTS = {"gram": 1.0, "content": 1.0}


class StyleMeter:
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
    def of(cls, options: Mapping[str, Any], device: torch.device) -> StyleMeter | None:
        """The meter for a style that was trained with ``options``; None where its painting or
        network is gone."""
        try:
            run = TrainOptions.from_dict(options)
            rgb, _ = read_image(run.style_dir)
            return cls(torch.from_numpy(rgb), run.features, run.vgg_weights, device)
        except UserError as error:
            print(f"style distances are not measured: {error}")
            return None

    @torch.no_grad()
    def __call__(self, picture: Picture, photo: Tensor | None) -> dict[str, float]:
        """Distances of one picture; ``photo (H, W, 3)`` uint8 or None."""
        height, width, _ = picture.rgb.shape
        size = min(height, width)
        if size not in self.objectives:
            style = prepare_style(self.painting, size)
            self.objectives[size] = StyleObjective(style, self.network, WEIGHTS).to(self.device)
        objective = self.objectives[size]
        image = picture.rgb.permute(2, 0, 1)[None]
        truth = image if photo is None else photo.to(image).permute(2, 0, 1)[None] / 255
        mask = picture.opacity[None, None]
        terms = objective(image, truth, mask)
        distances = {"style_distance": float(terms["gram"])}
        if photo is not None:
            distances["content_distance"] = float(terms["content"])
        return distances
