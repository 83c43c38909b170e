"""The style objective: a weighted sum of named terms over a rendered image, a style image, a photo
and a mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.network import LAYERS, FeatureNetwork
from features.tiles import Tile, object_box, tiles_of
from losses.content import total_variation
from losses.masked import Sums, check_image, mask_like
from losses.sliced_wasserstein import SlicedWasserstein
from losses.terms import LAYER_TERMS
from utils.errors import UserError
from utils.team import ALONE, Team

TILE = 384  # pixels; features of one tile and their graph are in memory at a time

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
    "nnfm": {"nnfm": 1.0, "statistics": 0.3, "content": 3e-4, "tv": 1.0},
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
        tile: side in pixels of the tiles in which `gradient` looks at a large image.

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
        tile: int = TILE,
    ) -> None:
        super().__init__()
        self.weights = _checked_weights(weights)
        self.tile = tile
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
        self.swd = SlicedWasserstein(style, seed=seed) if "swd" in self.weights else None
        self.parts = nn.ModuleDict(
            {
                f"{term} {layer}": LAYER_TERMS[term](layer)
                for term in self.layers
                for layer in self.layers[term]
            }
        )
        if self.network is not None:
            self._show(style.detach())

    @torch.no_grad()
    def _show(self, style: Tensor) -> None:
        """Shows the style to the terms."""
        for tile in tiles_of(style.shape[2:], None, self.tile):
            features = self.network(tile.cut(style), self.needed)
            for part in self.parts.values():
                part.look(tile.own(features[part.layer], part.layer))
        for part in self.parts.values():
            part.settle()

    @property
    def needs_photo(self) -> bool:
        """Whether there is a content term."""
        return "content" in self.layers

    def forward(
        self, image: Tensor, photo: Tensor | None = None, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The weighted terms, with their graph; their sum is the loss.

        Args:
            image: (B, 3, H, W) in [0, 1], the render.
            photo: (B, 3, H, W) in [0, 1] of the same view; may be None where `needs_photo` is
                False.
            mask: (B, 1, H, W) in [0, 1], opacity of the render; None for everywhere.

        Returns:
            term -> scalar, for the terms with a weight, in the order of `TERMS`.

        Raises:
            ValueError: for wrong shapes, or a missing ``photo``.
        """
        mask = self._checked(image, photo, mask)
        tiles = self._tiles(image, mask, max(image.shape))
        if not tiles:
            return {term: image.sum() * 0 for term in TERMS if term in self.weights}
        sums = self._sums(tiles[0], tiles[0].cut(image), photo, mask) if self.network else {}
        return self._weighted(self._terms(sums) | self._pixel_terms(image, mask))

    def gradient(
        self,
        image: Tensor,
        photo: Tensor | None = None,
        mask: Tensor | None = None,
        team: Team = ALONE,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted terms and the gradient of their sum with respect to the image.

        The same as differentiating `forward`, in memory that does not grow with the image: every
        term that looks through the network is a function of sums over places.  So the sums are
        taken tile by tile; the loss is differentiated with respect to the sums; and that gradient
        goes back through each tile.

        Args:
            image, photo, mask: as of `forward`.
            team: processes that share the tiles.

        Returns:
            Detached terms; (B, 3, H, W).

        Raises:
            ValueError: for wrong shapes, or a missing ``photo``.
        """
        mask = self._checked(image, photo, mask)
        image = image.detach()
        side = self.tile if team.size == 1 else min(self.tile, max(image.shape) // team.size)
        tiles = self._tiles(image, mask, side)
        if not tiles:
            return self.forward(image, photo, mask), torch.zeros_like(image)
        gradient, terms = torch.zeros_like(image), {}
        if self.network is not None and len(tiles) == 1:
            crop = tiles[0].cut(image).requires_grad_()
            terms = self._terms(self._sums(tiles[0], crop, photo, mask))
            tiles[0].cut(gradient).add_(torch.autograd.grad(self._loss(terms), crop)[0])
        elif self.network is not None:
            terms, gradient = self._tiled(team.share(tiles), image, photo, mask, team)
        pixels = image.requires_grad_()
        others = self._pixel_terms(pixels, mask)
        if others:
            gradient += torch.autograd.grad(self._loss(others), pixels)[0]
        detached = {name: value.detach() for name, value in (terms | others).items()}
        return self._weighted(detached), gradient

    def _tiled(
        self,
        tiles: list[Tile],
        image: Tensor,
        photo: Tensor | None,
        mask: Tensor | None,
        team: Team,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """`gradient` for the terms that look through the network."""
        totals = self._nothing(image)
        with torch.no_grad():
            for tile in tiles:
                for part, sums in self._sums(tile, tile.cut(image), photo, mask).items():
                    totals[part].value.add_(sums.value)
                    totals[part].weight.add_(sums.weight)
        for sums in totals.values():
            team.add(sums.value, sums.weight)
            sums.value.requires_grad_()
        terms = self._terms(totals)
        upstream = torch.autograd.grad(self._loss(terms), [s.value for s in totals.values()])
        gradient = torch.zeros_like(image)
        for tile in tiles:
            crop = tile.cut(image).detach().requires_grad_()
            values = [sums.value for sums in self._sums(tile, crop, photo, mask).values()]
            tile.cut(gradient).add_(torch.autograd.grad(values, crop, upstream)[0])
        team.add(gradient)
        return terms, gradient

    def _checked(self, image: Tensor, photo: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """The mask in the image's type, where the arguments fit."""
        check_image(image)
        if min(image.shape[2:]) < 4:
            raise ValueError(f"image must be at least 4x4 pixels, got {tuple(image.shape)}")
        if self.needs_photo:
            if photo is None:
                raise ValueError("the content term needs the photo of the view")
            check_image(photo, "photo")
            if photo.shape != image.shape:
                raise ValueError(
                    f"photo {tuple(photo.shape)} must have the shape of image {tuple(image.shape)}"
                )
        return None if mask is None else mask_like(image, mask)

    def _tiles(self, image: Tensor, mask: Tensor | None, side: int) -> list[Tile]:
        """Tiles of the part of the image that holds an object: none where nothing does."""
        box = None if mask is None else object_box(mask)
        if mask is not None and box is None:
            return []
        tiles = tiles_of(image.shape[2:], box, side)
        return [tile for tile in tiles if mask is None or tile.inner(mask).any()]

    def _sums(
        self, tile: Tile, crop: Tensor, photo: Tensor | None, mask: Tensor | None
    ) -> dict[str, Sums]:
        """What the tile contributes; ``crop`` is `tile.cut` of the image."""
        seen = None if mask is None else tile.cut(mask)
        own = None if mask is None else tile.inner(mask)
        features = self.network(self._over_backdrop(crop, seen), self.needed)
        photos = {}
        if self.needs_photo:
            with torch.no_grad():
                view = self._over_backdrop(tile.cut(photo), seen)
                photos = self.network(view, self.layers["content"])
        sums = {}
        for name, part in self.parts.items():
            layer = part.layer
            photo_here = tile.own(photos[layer], layer) if layer in photos else None
            sums[name] = part.sums(tile.own(features[layer], layer), photo_here, own)
        return sums

    def _nothing(self, image: Tensor) -> dict[str, Sums]:
        """The sums over no tile at all."""
        return {
            name: part.nothing(image, self.network.convs[part.layer].out_channels)
            for name, part in self.parts.items()
        }

    def _terms(self, sums: Mapping[str, Sums]) -> dict[str, Tensor]:
        """The terms, without their weights, of the whole image's sums."""
        terms: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            term, value = name.split()[0], part.value(sums[name])
            terms[term] = terms[term] + value if term in terms else value
        return terms

    def _pixel_terms(self, image: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The terms that need no network, and little memory."""
        terms = {}
        if "tv" in self.weights:
            terms["tv"] = total_variation(image, mask)
        if self.swd is not None:
            terms["swd"] = self.swd(image, mask)
        return terms

    def _weighted(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {term: self.weights[term] * terms[term] for term in TERMS if term in terms}

    def _loss(self, terms: Mapping[str, Tensor]) -> Tensor:
        return sum(self._weighted(terms).values())

    def _over_backdrop(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return image if mask is None else self.backdrop + mask * (image - self.backdrop)


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
