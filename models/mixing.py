"""Strength and mixture of styles when they are rendered, from one checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from models.checkpoint import PHOTO, Checkpoint
from models.latent_nerf import LatentNerfStyle
from models.latent_voxels import LatentVoxelStyle
from models.renderer import Renderer
from models.style import BlendedColours, Style, averaged, blended
from utils.errors import UserError


@dataclass(frozen=True)
class Mixture:
    """Shares of the styles of one field.

    Attributes:
        field: its name in the checkpoint.
        shares: style -> share, with sum 1; `PHOTO` for the photographic colours.
    """

    field: str
    shares: Mapping[str, float]

    @classmethod
    def asked(
        cls,
        checkpoint: Checkpoint,
        words: Sequence[str],
        strength: float = 1.0,
        encoder: str | None = None,
        decoder: str | None = None,
    ) -> Mixture:
        """The mixture of ``NAME`` or ``NAME:WEIGHT ...``, whose weights are scaled to the sum 1, of
        a ``strength`` between the photographic colours (0) and the mixture (1); of a joint
        training the colours of a ``decoder``, or of the one that ``words`` name.

        Raises:
            UserError: an unknown name, a weight that is none, styles of different fields, or no
                photographic colours to go back to.
        """
        if checkpoint.decoders:
            if len(words) > 1 or strength < 1:
                raise UserError("--style, --strength: decoders of a joint training do not mix")
            if words and decoder:
                raise UserError("--style: names a decoder of a joint training, as --decoder does")
            field, style = checkpoint.chosen(encoder, decoder or next(iter(words), None))
            return cls(field, {style: 1.0})
        weights: dict[str, float] = {}
        fields = set()
        for word in words or (None,):
            name, weight = _parsed(checkpoint, word)
            field, style = checkpoint.chosen(encoder, decoder or name)
            fields.add(field)
            weights[style] = weights.get(style, 0.0) + weight
        if len(fields) > 1:
            raise UserError(
                f"--style {' '.join(words)}: styles of different fields; give one field's"
            )
        total = math.fsum(weights.values())
        if total <= 0:
            raise UserError(f"--style {' '.join(words)}: all weights are 0; give a positive one")
        shares = {name: strength * w / total for name, w in weights.items() if strength * w > 0}
        if strength < 1:
            shares[PHOTO] = shares.get(PHOTO, 0.0) + 1 - strength
        (field,) = fields
        if PHOTO in shares:
            checkpoint.chosen(field, PHOTO)  # names what is missing
        return cls(field, shares)

    @property
    def paintings(self) -> list[str]:
        """Its styles but the photographic colours, the largest share first."""
        return sorted((n for n in self.shares if n != PHOTO), key=lambda n: -self.shares[n])

    @property
    def style(self) -> str:
        """The style of the largest share that is a painting's, else `PHOTO`."""
        return (self.paintings or [PHOTO])[0]

    @property
    def single(self) -> bool:
        """Whether it is one style alone."""
        return len(self.shares) == 1

    def __str__(self) -> str:
        if self.single:
            return next(iter(self.shares))
        return " ".join(f"{name}:{share:.3g}" for name, share in self.shares.items())

    def renderer(self, checkpoint: Checkpoint) -> Renderer:
        """The field in these colours, on the CPU.

        Styles of one shape are averaged in their parameters: what lies between is a style of its
        own, not two pictures laid over each other, and as fast as one.  Where shapes differ (of a
        mutual training, whose photographic colours are another network than the painted ones), or
        units (a painting's palette), the logits of colours are averaged.
        """
        renderer = checkpoint.renderer(self.field, next(iter(self.shares)))
        if self.single:
            return renderer
        geometry = renderer.field.geometry
        styles = {name: checkpoint.style(self.field, name, geometry) for name in self.shares}
        renderer.field.style = self.mixed(styles)
        return renderer

    def mixed(self, styles: Mapping[str, Style]) -> nn.Module:
        """The one style that these shares come to.

        Args:
            styles: by name, those that it has a share of; they are not changed.
        """
        own = [styles[name] for name in self.shares]
        return own[0] if self.single else _mixed(own, list(self.shares.values()))


def _mixed(styles: Sequence[Style], shares: Sequence[float]) -> nn.Module:
    """One style in between where shapes and units allow, else the mean of the colours' logits."""
    if not _alike(styles) or isinstance(styles[0], LatentVoxelStyle):
        return BlendedColours(styles, shares)
    if isinstance(styles[0], LatentNerfStyle):
        return averaged(styles, shares)
    return blended(styles, shares)


def _parsed(checkpoint: Checkpoint, word: str | None) -> tuple[str | None, float]:
    """Name and weight of ``NAME`` or ``NAME:WEIGHT``; a name may have a colon itself."""
    if word is None or word in checkpoint.styles or ":" not in word:
        return word, 1.0
    name, _, text = word.rpartition(":")
    try:
        weight = float(text)
    except ValueError:
        return word, 1.0  # `chosen` says which names there are
    if not math.isfinite(weight) or weight < 0:
        raise UserError(f"--style {word}: the weight must not be negative; give NAME:WEIGHT")
    return name, weight


def _alike(styles: Sequence[Style]) -> bool:
    """Whether parameters of the same names have the same shapes in all styles."""
    shapes = [{name: p.shape for name, p in style.named_parameters()} for style in styles]
    return all(shape == shapes[0] for shape in shapes)
