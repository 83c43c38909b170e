"""The last resort among the encoders: what our own texture encoder sees, averaged.  It knows
materials and colours, not objects, and needs nothing that is not in this repository."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from features import texture_encoder
from features.semantic import SemanticEncoder

SIDE = 96  # strokes and edges, which it was trained on, are a few pixels wide
LAYER = texture_encoder.LAYERS[-1]


class OwnSemantic(SemanticEncoder):
    """Mean and deviation of its deepest features: (B, 256)."""

    name = "our own encoder"

    def __init__(self) -> None:
        super().__init__(SIDE, [0.0] * 3, [1.0] * 3)
        self.network = texture_encoder.load()

    def embed(self, x: Tensor) -> Tensor:
        features = functional.relu(self.network(x, [LAYER])[LAYER]).flatten(2)
        variance = features.var(2, unbiased=False)
        return torch.cat([features.mean(2), (variance + 1e-6).sqrt()], 1)


def load(_weights: Path | None = None) -> OwnSemantic:
    """The encoder; ``_weights`` is unused."""
    return OwnSemantic()
