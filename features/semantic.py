"""Encoders that say what a picture shows, by one vector: the table of what ``--semantic`` and
``--directional_encoder`` name.

To add one: write ``features/NAME.py`` with a subclass of `SemanticEncoder` and a function
``load(weights: Path | None) -> SemanticEncoder``, and add a line to `ENCODERS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.registry import ENCODERS
from utils.errors import UserError

WITHOUT_DOWNLOAD = ("efficientnet", "own")


class NotAtHand(Exception):
    """An encoder's package or its weights are missing; `load_encoder` says which option asked."""


class SemanticEncoder(nn.Module):
    """A frozen network that maps pictures to unit vectors.

    Args:
        side: of the square pictures that it takes, pixels.
        mean, deviation: of each channel, in [0, 1], by which they are normalised.

    Attributes:
        name: in messages.
    """

    name: str
    mean: Tensor
    deviation: Tensor

    def __init__(self, side: int, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    def embed(self, x: Tensor) -> Tensor:
        """``x (B, 3, side, side)``, normalised, -> (B, C)."""
        raise NotImplementedError

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (T, C) of what is said in words, in the space of the pictures'.

        Raises:
            UserError: the encoder knows none.
        """
        raise UserError(
            f"--prompt: {self.name} knows no words; take --directional_encoder clip, or a painting "
            "(--style_dir) in place of the prompt"
        )

    def forward(self, image: Tensor) -> Tensor:
        """Unit vectors (B, C) of square pictures ``image (B, 3, N, N)``, sRGB in [0, 1], of any
        size: they are resized (bicubic) and normalised as the network was trained."""
        size = (self.side, self.side)
        if image.shape[2:] != size:
            # filtered only where it shrinks
            shrinks = image.shape[2] > self.side
            image = functional.interpolate(image, size, mode="bicubic", antialias=shrinks)
        x = (image - self.mean) / self.deviation
        return functional.normalize(self.embed(x), dim=1)


def library(module: str, package: str) -> ModuleType:
    """The ``module`` of an extra ``package``.

    Raises:
        NotAtHand: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise NotAtHand(f"{module} is not installed; pip install {package}") from None


def pretrained(create: Callable[[], nn.Module]) -> nn.Module:
    """What a library's ``create`` gives, from its cache or downloaded.

    Raises:
        NotAtHand: the weights cannot be had.
    """
    try:
        return create()
    except Exception as error:  # of the network, the hub or the file: many kinds
        reason = " ".join(str(error).split())[:200]
        raise NotAtHand(
            f"its weights are not in the cache and cannot be downloaded ({reason}); run once with "
            "a network"
        ) from error


def load_encoder(name: str, option: str = "--semantic") -> SemanticEncoder:
    """The encoder that an option names, in evaluation mode, without parameter gradients.

    Args:
        name: one of `ENCODERS`, or a file of EfficientNet-Lite0's weights.
        option: for messages.

    Raises:
        UserError: it is not at hand; the line says what to do.
    """
    if name not in ENCODERS and not Path(name).expanduser().is_file():
        raise UserError(
            f"{option} {name}: no such encoder or file; take one of {', '.join(ENCODERS)}, or a "
            "file of EfficientNet-Lite0's weights"
        )
    try:
        if name in ENCODERS:
            encoder = ENCODERS[name](None)
        else:
            encoder = ENCODERS["efficientnet"](Path(name).expanduser())
    except NotAtHand as error:
        others = " or ".join(other for other in WITHOUT_DOWNLOAD if other != name)
        raise UserError(f"{option} {name}: {error}, or take {option} {others}") from error
    return encoder.eval().requires_grad_(False)
