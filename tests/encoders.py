"""Stand-ins for encoders of pictures, and of words."""

from typing import ClassVar

import torch
from torch.nn import functional

from features.semantic import SemanticEncoder


class StandIn(SemanticEncoder):
    """Random filters, as smooth as a network of that kind is not: for gradients."""

    name = "stand-in"

    def __init__(self):
        super().__init__(24, [0.5] * 3, [0.3] * 3)
        torch.manual_seed(5)
        self.conv = torch.nn.Conv2d(3, 16, 5, 2)

    def embed(self, x):
        return functional.silu(self.conv(x)).square().mean((2, 3))


class Colours(SemanticEncoder):
    """Sees mean colours, and knows their names."""

    name = "colours"
    words: ClassVar = {"a photo": (0.5, 0.5, 0.5), "red": (0.9, 0.1, 0.1)}

    def __init__(self):
        super().__init__(24, [0.5] * 3, [0.5] * 3)

    def embed(self, x):
        return functional.pad(x.mean((2, 3)), (0, 1), value=1.0)

    def embed_text(self, texts):
        colours = torch.tensor([self.words[text] for text in texts]).to(self.mean)
        return self(colours[:, :, None, None].expand(-1, -1, 24, 24))
