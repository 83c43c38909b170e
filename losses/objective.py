"""The style objective: a weighted sum of named terms over a rendered image, a style image, a photo
and a mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses.content import content_loss, total_variation
from losses.features import LAYERS, FeatureNetwork
from losses.gram import gram_loss, gram_matrix
from losses.masked import check_image, mask_like, object_box
from losses.nnfm import nnfm_loss, unit_features
from losses.sliced_wasserstein import SlicedWasserstein
from losses.statistics import channel_statistics, statistics_loss
from utils.errors import UserError

TERMS = ("gram", "nnfm", "statistics", "content", "tv", "swd")
# the layers that each term of the network looks at, unless told otherwise
TERM_LAYERS: dict[str, tuple[str, ...]] = {
    "gram": LAYERS,
    "statistics": LAYERS,
    "nnfm": ("conv3_1",),
    "content": ("conv2_2",),
}
# "gram" is styleNeRF's.  Cosine distance alone leaves contrast open and finds the dull colours, so
# "nnfm" gets a little of the statistics.
OBJECTIVES: dict[str, dict[str, float]] = {
    "gram": {"gram": 1e6, "content": 1.0},
    "nnfm": {"nnfm": 1.0, "statistics": 0.1, "content": 3e-3, "tv": 1.0},
    "adain": {"statistics": 1.0, "content": 0.03, "tv": 10.0},
    "swd": {"swd": 1.0, "content": 2e-5},
}


def prepare_style(image: Tensor, size: int) -> Tensor:
    """The style image for a render, its shorter side ``size`` pixels long.

    Args:
        image: (H, W, 3) uint8, or floating point in [0, 1].
        size: the shorter side of the render, pixels.

    Returns:
        (1, 3, h, w) float32 in [0, 1], the proportions kept.

    Raises:
        ValueError: for a wrong shape or size.
    """
    if image.dim() != 3 or image.shape[2] != 3:
        raise ValueError(f"style image must be (H, W, 3), got {tuple(image.shape)}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    scale = 1 if image.is_floating_point() else 1 / 255
    planes = image.permute(2, 0, 1)[None].to(torch.float32) * scale
    height, width = planes.shape[2:]
    shorter = min(height, width)
    target = (round(height * size / shorter), round(width * size / shorter))
    # antialiasing: a painting is many times larger than a render, and would shimmer
    resized = functional.interpolate(planes, target, mode="bicubic", antialias=True)
    return resized.clamp(0, 1)


class StyleObjective(nn.Module):
    """Named, weighted terms that say how far a render is from the style and from the photo.

    The style is looked at once, here; a term of weight 0 costs nothing.  Where there is a mask, the
    network sees the object over the style's mean colour: over white, every feature near an outline
    is one of the background, and thin parts fade.

    Args:
        style: (3, H, W) or (1, 3, H, W) in [0, 1], see `prepare_style`.
        network: frozen, for the terms in `TERM_LAYERS`; None if none of them has a weight.
        weights: term -> weight, terms out of `TERMS`.
        layers: term -> layers, in place of `TERM_LAYERS`; "content" takes one.
        seed: of the random projections of "swd".

    Raises:
        UserError: for an unknown term, a weight that is negative or not finite, or no weight.
        ValueError: for wrong shapes, or a network that is wanted and not given.
    """

    def __init__(
        self,
        style: Tensor,
        network: FeatureNetwork | None,
        weights: Mapping[str, float],
        layers: Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.weights = _checked_weights(weights)
        layers = {**TERM_LAYERS, **(layers or {})}
        self.layers = {term: tuple(layers[term]) for term in self.weights if term in layers}
        if len(self.layers.get("content", ("",))) != 1:
            raise ValueError(f"content takes one layer, got {self.layers['content']}")
        # the deepest layer last, each once
        self.needed = [name for name in LAYERS if any(name in own for own in self.layers.values())]
        if self.needed and network is None:
            raise ValueError(f"the terms {list(self.layers)} need a feature network")
        self.network = network if self.needed else None
        style = style if style.dim() == 4 else style[None]
        check_image(style, "style")
        self.register_buffer("backdrop", style.mean(dim=(0, 2, 3), keepdim=True), persistent=False)
        self._keep_style(style.detach(), seed)

    @torch.no_grad()
    def _keep_style(self, style: Tensor, seed: int) -> None:
        """Compute what the terms need of the style; buffers follow the module to its device."""
        self.swd = SlicedWasserstein(style, seed=seed) if "swd" in self.weights else None
        features = self.network(style, self.needed) if self.network is not None else {}
        for term, names in self.layers.items():
            for name in names:
                if term == "gram":
                    self._keep("gram", name, gram_matrix(features[name]))
                elif term == "nnfm":
                    self._keep("bank", name, unit_features(features[name]))
                elif term == "statistics":
                    mean, std = channel_statistics(features[name])
                    self._keep("mean", name, mean)
                    self._keep("std", name, std)

    def _keep(self, kind: str, layer: str, value: Tensor) -> None:
        self.register_buffer(f"{kind}_{layer}", value, persistent=False)

    def _kept(self, kind: str, layer: str) -> Tensor:
        return self.get_buffer(f"{kind}_{layer}")

    @property
    def needs_content(self) -> bool:
        """Whether `forward` wants the photo's features."""
        return "content" in self.layers

    @torch.no_grad()
    def content_features(self, photo: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """The photo's features for `forward`, to be computed once per view.

        Args:
            photo: (B, 3, H, W) in [0, 1].
            mask: (B, 1, H, W) in [0, 1], the object's alpha or opacity; None if `forward` will
                have none.

        Returns:
            (B, C, h, w), or None where the content term has no weight.

        Raises:
            ValueError: for a wrong shape.
        """
        check_image(photo, "photo")
        if not self.needs_content:
            return None
        layer = self.layers["content"]
        return self.network(self._over_backdrop(photo, mask), layer)[layer[0]]

    def forward(
        self, image: Tensor, content: Tensor | None = None, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The weighted terms; their sum is the loss.

        Args:
            image: (B, 3, H, W) in [0, 1], the render.
            content: `content_features` of the photo of the same view; may be None where the
                content term has no weight.
            mask: (B, 1, H, W) in [0, 1], opacity of the render; None for everywhere.

        Returns:
            term -> scalar, for the terms with a weight, in the order of `TERMS`.

        Raises:
            ValueError: for wrong shapes, or a missing ``content``.
        """
        check_image(image)
        if min(image.shape[2:]) < 4:
            raise ValueError(f"image must be at least 4x4 pixels, got {tuple(image.shape)}")
        if self.needs_content and content is None:
            raise ValueError("the content term needs the photo's features, see content_features")
        mask = None if mask is None else mask_like(image, mask)
        terms = self._feature_terms(image, content, mask)
        if "tv" in self.weights:
            terms["tv"] = total_variation(image, mask)
        if self.swd is not None:
            terms["swd"] = self.swd(image, mask)
        return {term: self.weights[term] * terms[term] for term in TERMS if term in terms}

    def _feature_terms(
        self, image: Tensor, content: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        if not self.needed:
            return {}
        # the network need not see the empty part of the image: same values, less work
        if mask is not None:
            box = object_box(mask)
            if box is None:
                return {term: image.sum() * 0 for term in self.layers}
            image, mask = image[..., box[0], box[1]], mask[..., box[0], box[1]]
        features = self.network(self._over_backdrop(image, mask), self.needed)
        terms = {}
        for term, names in self.layers.items():
            if term == "content":
                own = features[names[0]]
                if mask is not None:
                    content = _cropped(content, own, box, names[0])
                terms[term] = content_loss(own, content, mask)
            else:
                terms[term] = sum(self._style_term(term, n, features[n], mask) for n in names)
        return terms

    def _over_backdrop(self, image: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return image
        return self.backdrop + mask_like(image, mask) * (image - self.backdrop)

    def _style_term(self, term: str, layer: str, features: Tensor, mask: Tensor | None) -> Tensor:
        if term == "gram":
            return gram_loss(features, self._kept("gram", layer), mask)
        if term == "nnfm":
            return nnfm_loss(features, self._kept("bank", layer), mask)
        return statistics_loss(features, self._kept("mean", layer), self._kept("std", layer), mask)


def _cropped(content: Tensor, like: Tensor, box: tuple[slice, slice], layer: str) -> Tensor:
    """The part of the photo's features that belongs to a box of the image."""
    stride = 2 ** (int(layer[len("conv")]) - 1)
    top, left = (side.start // stride for side in box)
    return content[..., top : top + like.shape[2], left : left + like.shape[3]]


def _checked_weights(weights: Mapping[str, float]) -> dict[str, float]:
    if unknown := [term for term in weights if term not in TERMS]:
        raise UserError(f"style terms {unknown}: unknown; take some of {', '.join(TERMS)}")
    for term, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise UserError(f"weight of the style term {term}: {weight}; give a number >= 0")
    weights = {term: weights[term] for term in TERMS if weights.get(term, 0) > 0}
    if not weights:
        raise UserError(f"style weights: all are zero; give at least one of {', '.join(TERMS)}")
    return weights
