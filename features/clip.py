"""CLIP (Radford et al. 2021) through open_clip, which is an extra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.semantic import SemanticEncoder, library, pretrained

MODEL, PRETRAINED = "ViT-B-32", "openai"
SIDE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class Clip(SemanticEncoder):
    """The projected class token of an image tower, and the text tower's vectors.

    Args:
        model: of open_clip, with ``encode_image`` and ``encode_text``.
        tokenize: texts -> (T, L) tokens.
    """

    name = "CLIP ViT-B/32"

    def __init__(self, model: nn.Module, tokenize: Callable[[Sequence[str]], Tensor]) -> None:
        super().__init__(SIDE, MEAN, DEVIATION)
        self.model, self.tokenize = model, tokenize

    def embed(self, x: Tensor) -> Tensor:
        return self.model.encode_image(x)

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenize(list(texts)).to(self.mean.device)
        return functional.normalize(self.model.encode_text(tokens), dim=1)


def load(weights: Path | None = None) -> Clip:
    """CLIP with OpenAI's weights, from open_clip's cache or downloaded.

    Raises:
        NotAtHand: open_clip is not installed, or its weights cannot be had.
    """
    open_clip = library("open_clip", "open_clip_torch")
    model = pretrained(lambda: open_clip.create_model(MODEL, pretrained=str(weights or PRETRAINED)))
    return Clip(model, open_clip.get_tokenizer(MODEL))
