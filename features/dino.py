"""DINO's vision transformer (Caron et al. 2021) through timm, which is an extra."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from features.semantic import SemanticEncoder, library, pretrained

MODEL = "vit_small_patch16_224.dino"


class Dino(SemanticEncoder):
    """The class token of a network of timm's.

    Args:
        model: without a classifier; its ``pretrained_cfg`` says what it takes.
    """

    name = "DINO"

    def __init__(self, model: nn.Module) -> None:
        about = model.pretrained_cfg
        super().__init__(about["input_size"][-1], about["mean"], about["std"])
        self.model = model

    def embed(self, x: Tensor) -> Tensor:
        return self.model(x)


def load(weights: Path | None = None) -> Dino:
    """DINO ViT-S/16, from timm's cache or downloaded.

    Raises:
        NotAtHand: timm is not installed, or its weights cannot be had.
    """
    timm = library("timm", "timm")
    return Dino(pretrained(lambda: timm.create_model(MODEL, pretrained=True, num_classes=0)))
