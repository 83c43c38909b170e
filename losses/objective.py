"""The style objective: a weighted sum of named terms of a render, a style image, the photo of the
same view and a mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from features.network import FeatureNetwork
from features.tiles import Tile, step_and_halo, tiles_of
from losses.masked import Sums, check_image, mask_like, masks_like
from losses.registry import TERMS, checked_weights
from losses.terms import FeatureTerm, PixelTerm
from utils.sums import total_of
from utils.team import ALONE, Team

TILE = 384  # pixels; features of one tile and their graph are in memory at a time
Key = tuple[str, str]  # name of a term, layer
Values = dict[str, Tensor]


class _View(NamedTuple):
    """A render and the photo, both over the backdrop, and the mask."""

    image: Tensor
    photo: Tensor | None
    mask: Tensor | None


class StyleObjective(nn.Module):
    """Named, weighted terms that measure how far a render is from the style and from the photo.

    What the terms need of the style is computed once, here; a term of weight 0 costs nothing.
    Where there is a mask, the network sees the object over the style's mean colour: over white,
    every feature near an outline would be one of the background, and thin parts would fade.

    Args:
        style: (3, H, W) or (1, 3, H, W) in [0, 1], see `prepare_style`.
        network: frozen, with the layers `layers_needed`; None if there are none.
        weights: term -> weight, terms out of `TERMS`.
        layers: term -> layers, in place of the term's `default_layers`; a term of several layers is
            the sum over them.
        seed: seed of the terms' random numbers.
        made: term -> pixel term that was made already, since it needs more than the style.
        tile: side of the tiles in which `gradient` processes a large image, pixels.

    Attributes:
        needs_photo: whether a term compares the render with the photo.
        halo: pixels around each tile that its features depend on.

    Raises:
        UserError: for an unknown term, a weight that is negative or not finite, or no weight.
        ValueError: for wrong shapes, or a network that is needed and not given.

    >>> from features.registry import load_features
    >>> network = load_features("own", layers=["conv2_2", "conv3_1"])
    >>> weights = {"nnfm": 1.0, "content": 1e-3, "tv": 1.0}
    >>> objective = StyleObjective(torch.rand(3, 64, 64), network, weights)
    >>> image, photo = torch.rand(2, 1, 3, 48, 48)
    >>> terms, gradient = objective.gradient(image, photo)
    >>> list(terms), gradient.shape
    (['nnfm', 'content', 'tv'], torch.Size([1, 3, 48, 48]))
    """

    def __init__(
        self,
        style: Tensor,
        network: FeatureNetwork | None,
        weights: Mapping[str, float],
        layers: Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
        made: Mapping[str, PixelTerm] | None = None,
        tile: int = TILE,
    ) -> None:
        super().__init__()
        self.weights = checked_weights(weights)
        self.tile = tile
        style = (style if style.dim() == 4 else style[None]).detach()
        check_image(style, "style")
        self.register_buffer("backdrop", style.mean(dim=(0, 2, 3), keepdim=True), persistent=False)
        self.feature_terms, self.pixel_terms = nn.ModuleDict(), nn.ModuleDict()
        for name in self.weights:
            cls = TERMS[name].load()
            if issubclass(cls, FeatureTerm):
                own = (layers or {}).get(name, cls.default_layers)
                own = own if network is None else network.layers_of(own)
                self.feature_terms[name] = nn.ModuleDict({layer: cls() for layer in own})
            else:
                self.pixel_terms[name] = (made or {}).get(name) or cls(style, seed)
        terms = [(layer, term) for (_, layer), term in self._per_layer()]
        self.layers = list(dict.fromkeys(layer for layer, _ in terms))
        self.photo_layers = list(dict.fromkeys(layer for layer, term in terms if term.needs_photo))
        of_photo = any(term.needs_photo for term in self.pixel_terms.values())
        self.needs_photo = bool(self.photo_layers) or of_photo
        if self.layers and network is None:
            raise ValueError(f"the terms {list(self.feature_terms)} need a feature network")
        if self.layers:
            network.require(self.layers)
        self.network = network if self.layers else None
        self.geometry = {layer: network.layers[layer] for layer in self.layers}
        self.smallest_side, self.halo = step_and_halo(self.geometry.values())
        self._check_side(style, "style")
        self._add_style(style)

    @torch.no_grad()
    def _add_style(self, style: Tensor) -> None:
        for tile in tiles_of(style.shape[2:], self.geometry.values(), self.tile):
            features = self._features(tile, tile.crop_with_halo(style), self.layers)
            for (_, layer), term in self._per_layer():
                term.add_style(features[layer])
        for _, term in self._per_layer():
            term.finish_style()

    def forward(
        self, image: Tensor, photo: Tensor | None = None, mask: Tensor | None = None
    ) -> Values:
        """The weighted terms, with their graph; their sum is the loss.

        Args:
            image: (B, 3, H, W) in [0, 1], the render.
            photo: (B, 3, H, W) in [0, 1] of the same view; may be None unless `needs_photo`.
            mask: (B, 1, H, W) in [0, 1], opacity of the render; None for everywhere.

        Returns:
            term -> scalar, for the terms with a weight.

        Raises:
            ValueError: for wrong shapes, or a missing ``photo``.
        """
        view = self._view(image, photo, mask)
        tiles = tiles_of(image.shape[2:], self.geometry.values(), max(image.shape), view.mask)
        if not tiles:
            return {name: image.sum() * 0 for name in self.weights}
        sums = self._sums(tiles[0], tiles[0].crop_with_halo(view.image), view)
        return self._feature_values(sums) | self._pixel_values(image, photo, view.mask)

    def gradient(
        self,
        image: Tensor,
        photo: Tensor | None = None,
        mask: Tensor | None = None,
        team: Team = ALONE,
    ) -> tuple[Values, Tensor]:
        """The weighted terms and the gradient of their sum with respect to the image.

        The same as differentiating `forward`, in memory that does not grow with the image: every
        feature term is a function of sums over positions.  So the sums are added up tile by tile;
        the loss is differentiated with respect to the sums; and that gradient is back-propagated
        through each tile.

        Args:
            image, photo, mask: see `forward`.
            team: processes that share the tiles.

        Returns:
            Detached terms; (B, 3, H, W).

        Raises:
            ValueError: for wrong shapes, or a missing ``photo``.
        """
        image = image.detach()
        view = self._view(image, photo, mask)
        side = self.tile if team.size == 1 else min(self.tile, max(image.shape) // team.size)
        tiles = tiles_of(image.shape[2:], self.geometry.values(), side, view.mask)
        if not tiles:
            return self.forward(image, photo, mask), torch.zeros_like(image)
        values, gradient = self._feature_gradient(team.share(tiles), view, team)
        leaf = image.requires_grad_()
        if pixel_values := self._pixel_values(leaf, photo, view.mask):
            gradient += torch.autograd.grad(total_of(pixel_values.values()), leaf)[0]
        return {k: value.detach() for k, value in (values | pixel_values).items()}, gradient

    def _feature_gradient(
        self, tiles: Sequence[Tile], view: _View, team: Team
    ) -> tuple[Values, Tensor]:
        """`gradient` of the feature terms; ``tiles`` are this process's."""
        gradient = torch.zeros_like(view.image)
        if not self.layers:
            return {}, gradient

        def forward(tile: Tile) -> tuple[Tensor, dict[Key, Sums]]:
            crop = tile.crop_with_halo(view.image).detach().requires_grad_()
            return crop, self._sums(tile, crop, view)

        keep_graph = len(tiles) == 1  # the graphs of several would be in memory together
        totals: dict[Key, Sums] = {} if tiles else self._zero_sums(view.image)
        for tile in tiles:
            with torch.set_grad_enabled(keep_graph):
                crop, sums = forward(tile)
            own = {key: total.detach() for key, total in sums.items()}
            totals = {key: totals[key] + own[key] for key in own} if totals else own
        for total in totals.values():
            team.add(total.value, total.weight)
            # Sums is frozen, its tensors are not: they become the leaves of the loss
            total.value.requires_grad_()
        values = self._feature_values(totals)
        leaves = [total.value for total in totals.values()]
        upstream = torch.autograd.grad(total_of(values.values()), leaves)
        for tile in tiles:
            if not keep_graph:
                crop, sums = forward(tile)
            outputs = [sums[key].value for key in totals]
            # a view of the whole gradient, to which overlapping halos add up in place
            tile.crop_with_halo(gradient).add_(torch.autograd.grad(outputs, crop, upstream)[0])
        team.add(gradient)
        # of the image over the backdrop -> of the image
        return values, gradient if view.mask is None else gradient * view.mask

    def _sums(self, tile: Tile, crop: Tensor, view: _View) -> dict[Key, Sums]:
        """What a tile contributes; ``crop`` is the tile and its halo, out of the view's image."""
        features, photos = self._features(tile, crop, self.layers), {}
        if self.photo_layers:
            with torch.no_grad():
                photos = self._features(tile, tile.crop_with_halo(view.photo), self.photo_layers)
        masks = masks_like(features, None if view.mask is None else tile.crop(view.mask))
        return {
            (name, layer): term.sums(features[layer], photos.get(layer), masks[layer])
            for (name, layer), term in self._per_layer()
        }

    def _zero_sums(self, image: Tensor) -> dict[Key, Sums]:
        """What no tile at all contributes."""
        empty = {n: image.new_zeros(len(image), g.channels, 0, 0) for n, g in self.geometry.items()}
        return {key: t.sums(empty[key[1]], empty[key[1]], None) for key, t in self._per_layer()}

    def _features(self, tile: Tile, crop: Tensor, layers: Sequence[str]) -> Values:
        """Features of a tile, from its pixels and their halo."""
        features = self.network(crop, layers) if layers else {}
        return {n: tile.without_halo(f, self.geometry[n].stride) for n, f in features.items()}

    def _feature_values(self, sums: Mapping[Key, Sums]) -> Values:
        """The weighted feature terms, of the sums over the whole image."""
        return {
            name: self.weights[name]
            * TERMS[name].load().total([*terms.values()], [sums[name, layer] for layer in terms])
            for name, terms in self.feature_terms.items()
        }

    def _pixel_values(self, image: Tensor, photo: Tensor | None, mask: Tensor | None) -> Values:
        """The weighted pixel terms, which need little memory."""
        return {
            name: self.weights[name] * term(image, mask, *([photo] if term.needs_photo else []))
            for name, term in self.pixel_terms.items()
        }

    def _per_layer(self) -> Iterator[tuple[Key, FeatureTerm]]:
        for name, terms in self.feature_terms.items():
            for layer, term in terms.items():
                yield (name, layer), term

    def _view(self, image: Tensor, photo: Tensor | None, mask: Tensor | None) -> _View:
        """The arguments, over the backdrop; ValueError where they do not fit."""
        check_image(image)
        self._check_side(image, "image")
        if self.needs_photo and (photo is None or photo.shape != image.shape):
            got = "None" if photo is None else tuple(photo.shape)
            raise ValueError(f"photo {got} must have the shape of image {tuple(image.shape)}")
        photo = photo if self.needs_photo else None
        if mask is None:
            return _View(image, photo, None)
        mask, backdrop = mask_like(image, mask), self.backdrop
        over = (
            None if x is None else torch.lerp(backdrop.to(mask), x.to(mask), mask)
            for x in (image, photo)
        )
        return _View(*over, mask)

    def _check_side(self, image: Tensor, name: str) -> None:
        if min(image.shape[2:]) < (side := self.smallest_side):
            raise ValueError(f"{name} must be at least {side}x{side}, got {tuple(image.shape)}")
