"""Styles, which colour a field: a head looks up the features of a position, a decoder turns them
into a colour.

A style is a submodule of a field (`Field.style`).  Fields whose heads have the same width can share
a decoder.  `blended` averages several styles into one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from models import STYLES
from models.mlp import MLP, encoded_width, positional_encoding

if TYPE_CHECKING:
    from models.field import Cost

ParameterGroups = list[dict[str, Any]]
LEAST = 1 / 512  # of a colour, half an 8-bit step, whose logit is finite


class Decoder(nn.Module):
    """(output of the head, viewing direction, code) -> colour.

    Args:
        n_in: channels C of the head's output.
        hidden: widths of the hidden layers.
        n_frequencies: of the direction's positional encoding.
        n_code: channels of a code that the colours are conditioned on; 0: none.
        view_dependent: whether colours depend on the viewing direction; without it a stylised
            scene cannot flicker.
        colour_map: whether to create the buffers of an affine map of the final colours, so that
            one can be loaded, see `set_colour_map`.
        rows: samples per block on a CPU, see `models.mlp.in_blocks`.
    """

    colour_matrix: Tensor | None
    colour_offset: Tensor | None

    def __init__(
        self,
        n_in: int,
        hidden: Sequence[int],
        n_frequencies: int,
        n_code: int = 0,
        view_dependent: bool = True,
        colour_map: bool = False,
        rows: int = 1 << 13,
    ) -> None:
        super().__init__()
        self.n_in, self.n_code, self.n_frequencies = n_in, n_code, n_frequencies
        self.view_dependent = view_dependent
        width = n_in + encoded_width(3, n_frequencies) + n_code
        self.mlp = MLP([width, *hidden, 3], encode=self._encode, rows=rows)
        self.register_buffer("colour_matrix", torch.eye(3) if colour_map else None)
        self.register_buffer("colour_offset", torch.zeros(3) if colour_map else None)

    def forward(
        self, h: Tensor, d: Tensor, code: Tensor | None = None, bottleneck: nn.Linear | None = None
    ) -> Tensor:
        """Colours (M, 3) in [0, 1].

        Args:
            h: (M, C) output of the head.
            d: (M, 3) unit viewing directions.
            code: (n_code,) one for all samples, or (M, n_code); None: zeros.
            bottleneck: a linear layer to apply to ``h`` first; there is no non-linearity between it
                and the decoder's first layer, so the two are fused into one.
        """
        inputs = [h, d if self.view_dependent else None]
        inputs.append(code if code is not None and code.ndim == 2 else None)
        first = self._first_layer(bottleneck, d, code)
        logits = self.mlp(*(x for x in inputs if x is not None), first=first)
        rgb = torch.sigmoid(logits)
        if self.colour_matrix is None:
            return rgb
        with torch.autocast(rgb.device.type, enabled=False):
            return (rgb @ self.colour_matrix.T.to(rgb) + self.colour_offset.to(rgb)).clamp(0, 1)

    def _encode(self, h: Tensor, *others: Tensor) -> Tensor:
        """[h, encoded direction, code]; direction and code only where they vary per sample."""
        others = list(others)
        if self.view_dependent:
            others[0] = positional_encoding(others[0], self.n_frequencies)
        return torch.cat([h, *(x.to(h.dtype) for x in others)], -1)

    def _first_layer(
        self, bottleneck: nn.Linear | None, d: Tensor, code: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Weight and bias of the first layer, with the constant inputs folded into the bias."""
        layer = self.mlp.layers[0]
        of_each_sample = code is not None and code.ndim == 2
        if self.view_dependent and bottleneck is None and (of_each_sample or not self.n_code):
            return layer.weight, layer.bias
        widths = [self.n_in, encoded_width(3, self.n_frequencies), self.n_code]
        with torch.autocast(layer.weight.device.type, enabled=False):
            of_h, of_direction, of_code = layer.weight.split(widths, 1)
            bias = layer.bias
            kept = []
            if self.view_dependent:
                kept.append(of_direction)
            else:
                bias = bias + of_direction @ positional_encoding(
                    d.new_zeros(3), self.n_frequencies
                ).to(bias)
            if of_each_sample:
                kept.append(of_code)
            elif code is not None:
                bias = bias + of_code @ code.to(bias)
            if bottleneck is not None:
                bias = torch.addmv(bias, of_h, bottleneck.bias)
                of_h = of_h @ bottleneck.weight
            return torch.cat([of_h, *kept], 1), bias

    @torch.no_grad()
    def allow_view_dependence(self) -> None:
        """Enables view dependence without changing any colour."""
        if self.view_dependent:
            return
        _, bias = self._first_layer(None, self.mlp.out.weight, None)
        layer = self.mlp.layers[0]
        layer.bias.copy_(bias)
        layer.weight[:, self.n_in : layer.in_features - self.n_code] = 0
        self.view_dependent = True

    def set_colour_map(self, matrix: Tensor, offset: Tensor) -> None:
        """Maps all colours: ``matrix (3, 3) @ rgb + offset (3,)``, clamped to [0, 1]."""
        like = self.mlp.out.bias
        self.colour_matrix, self.colour_offset = matrix.to(like), offset.to(like)


class Style(nn.Module):
    """``style(feature, x, d, code=None) -> rgb``: a head and a decoder.

    Attributes:
        cost: of painting in it, where it is another one than its field's.
        kind: name in `models.STYLES`.
        reads: kind of the fields whose features it reads.
        head: ``(feature, x) -> (M, C)``.  Its attribute ``linear`` is the `nn.Linear` that the head
            consists of, so that the decoder can fuse it into its first layer; None: the head is
            something else.
        decoder: reads the C channels of the head.  A subclass without one, or with another kind of
            it, has its own `forward` and `spec`.
        reads_features: whether colours depend on the geometry's features.

    Subclasses define their specification (``kind``, `spec`) and their learning rates.
    """

    cost: ClassVar[Cost | None] = None
    kind: str
    reads: ClassVar[str]
    head: nn.Module
    decoder: Decoder
    reads_features = True

    def forward(self, feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        """Colours (M, 3) in [0, 1].

        Args:
            feature: (M, ...) features of the samples, from the field's geometry.
            x: (M, 3) positions in the field's space.
            d: (M, 3) unit viewing directions in world space.
            code: (n_code,) or (M, n_code), of a conditioned style.
        """
        if self.head.linear is not None:
            return self.decoder(feature, d, code, bottleneck=self.head.linear)
        return self.decoder(self.head(feature, x), d, code)

    def parameter_groups(self, lr: float | None, every_patch: bool = False) -> ParameterGroups:
        """Parameters and learning rates for training a style on frozen geometry.

        Args:
            lr: learning rate of the fastest parameters; None: the style's default.
            every_patch: whether the optimiser steps after every patch instead of every view.
        """
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        """Plain values from which `models.STYLES` builds a style of this shape."""
        decoder = self.decoder
        return {
            "kind": self.kind,
            "n_frequencies": decoder.n_frequencies,
            "n_code": decoder.n_code,
            "view_dependent": decoder.view_dependent,
            "colour_map": decoder.colour_matrix is not None,
        }

    def adopt_networks(self, other: Style) -> None:
        """Takes over the networks of a style that was looked up elsewhere; they are then shared."""
        self.decoder = other.decoder

    def clone(self) -> Style:
        """A copy with its own parameters, for the same field."""
        return deepcopy(self)

    def smooth(self) -> None:
        """Removes what differs from one place that it keeps apart to the next; nothing where no
        place has parameters of its own."""

    def reset(self) -> None:
        """Draws the linear layers anew: Xavier-uniform weights and zero biases, as styleNeRF does
        in stage 2."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def build_style(spec: Mapping[str, Any], geometry: nn.Module) -> Style:
    """A style with random parameters.

    Args:
        spec: as returned by `Style.spec`; values that are left out take their defaults.
        geometry: of the field that the style is for.
    """
    arguments = dict(spec)
    return STYLES[arguments.pop("kind")](geometry, **arguments)


class BlendedColours(nn.Module):
    """Several styles at once: the weighted mean of the logits of their colours, sample by sample.

    Args:
        styles: styles of the same field.
        weights: one for each, with sum 1.
    """

    def __init__(self, styles: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.styles, self.weights = nn.ModuleList(styles), _checked(styles, weights)
        self.reads_features = any(style.reads_features for style in styles)

    def forward(self, feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        """As `Style.forward`; where styles have codes of their own, ``code`` holds those of all of
        them, one after another."""
        latents = [getattr(style, "latents", None) for style in self.styles]
        codes = [code] * len(latents)
        if code is not None and any(own is not None for own in latents):
            sizes = [0 if own is None else len(own.mean) for own in latents]
            parts = zip(latents, code.split(sizes, -1), strict=True)
            codes = [None if own is None else part for own, part in parts]
        logits = 0.0
        for weight, style, own in zip(self.weights, self.styles, codes, strict=True):
            logits = logits + weight * logits_of(style(feature, x, d, own))
        return torch.sigmoid(logits)


def logits_of(colours: Tensor) -> Tensor:
    """Logits of colours in [0, 1], finite ones."""
    return torch.logit(colours.clamp(LEAST, 1 - LEAST))


def blended(styles: Sequence[Style], weights: Sequence[float]) -> Style:
    """One style whose parameters are the weighted mean of the parameters of several.

    It is as fast as one of them.  Where all were trained from the same initial style, it is a style
    in between rather than a cross-fade of their images.

    Args:
        styles: styles of the same kind and shape; a missing colour map counts as the identity.
        weights: one for each, with sum 1.
    """
    weights = _checked(styles, weights)
    styles = [style.clone() for style in styles]
    view_dependent = [style.decoder.view_dependent for style in styles]
    if any(view_dependent):
        for style in styles:
            style.decoder.allow_view_dependence()
    mean = styles[0].clone()
    if any(style.decoder.colour_matrix is not None for style in styles):
        like = mean.decoder.mlp.out.bias.detach()
        maps = [
            (like.new_tensor(torch.eye(3).tolist()), torch.zeros_like(like))
            if style.decoder.colour_matrix is None
            else (style.decoder.colour_matrix, style.decoder.colour_offset)
            for style in styles
        ]
        matrix, offset = (
            sum(w * part for w, part in zip(weights, parts, strict=True))
            for parts in zip(*maps, strict=True)
        )
        mean.decoder.set_colour_map(matrix, offset)
    return _averaged(mean, styles, weights)


def averaged(styles: Sequence[Style], weights: Sequence[float]) -> Style:
    """As `blended`, of styles whose parameters are all that they consist of."""
    weights = _checked(styles, weights)
    return _averaged(styles[0].clone(), styles, weights)


@torch.no_grad()
def _averaged(mean: Style, styles: Sequence[Style], weights: Sequence[float]) -> Style:
    """Gives ``mean`` the weighted mean of the styles' parameters."""
    states: list[Mapping[str, Tensor]] = [dict(style.named_parameters()) for style in styles]
    for name, parameter in mean.named_parameters():
        parts = zip(weights, states, strict=True)
        parameter.copy_(sum(weight * state[name] for weight, state in parts))
    return mean


def _checked(styles: Sequence[nn.Module], weights: Sequence[float]) -> list[float]:
    if len(styles) != len(weights) or not styles:
        raise ValueError(f"{len(styles)} styles, {len(weights)} weights; give one for each")
    return [float(weight) for weight in weights]
