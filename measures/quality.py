"""How much a painted picture is like the painting in style and like the photo in content, with
anchors from the same pictures (docs/measures.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from features.network import FeatureNetwork
from losses.masked import flatten_positions, mask_like
from losses.style_image import prepare_style
from measures.distances import (
    frechet_distance,
    gram_distance,
    histogram_distance,
    luminance_ssim,
    sliced_wasserstein,
    structure_distance,
)
from utils.images import resize
from utils.metrics import means
from utils.tables import markdown_table

PIXELS = 256 * 256  # of a picture, at most, that its histogram counts
STYLE = ("gram", "frechet", "wasserstein", "histogram")
CONTENT = ("structure", "ssim")
# what a run may have -> measures that it minimises with that, or nearly
OPTIMISED = {
    "colour_transfer": ("histogram",),
    "gram": ("gram",),
    "statistics": ("frechet",),
    "swd": ("wasserstein",),
    "content": ("structure", "ssim"),
}
STYLISED, PHOTO, CROPS, PAINTING = (
    "stylised",
    "photograph",
    "crops of the painting",
    "the painting in its place",
)

Features = dict[str, Tensor]


class Quality:
    """Measures painted pictures; all features and colours are those of the object alone.

    Args:
        painting: (H, W, 3) uint8.
        network: on ``device``.
        layers: of the network, the deepest last: Gram matrices are compared in all of them, the
            rest in the deepest.
        device: to compute on.
    """

    def __init__(
        self,
        painting: Tensor,
        network: FeatureNetwork,
        layers: Sequence[str],
        device: torch.device,
    ) -> None:
        self.painting, self.network, self.layers = painting, network, list(layers)
        self.device = device
        self._described: dict[int, tuple[Tensor, Features, dict[str, float]]] = {}

    @torch.no_grad()
    def __call__(self, picture: Tensor, photo: Tensor, mask: Tensor) -> dict[str, dict[str, float]]:
        """Measures one view.

        Args:
            picture, photo: (H, W, 3) in [0, 1].
            mask: (H, W) bool, the object; where it holds no feature, all of the picture counts.

        Returns:
            "stylised", "photograph", "crops of the painting" (of style alone) and "the painting in
            its place" (of content alone), each with its measures by name.
        """
        picture, photo, mask = (x.to(self.device) for x in (picture, photo, mask))
        height, width = mask.shape
        size, deepest = min(height, width), self.layers[-1]
        if size not in self._described:
            style = prepare_style(self.painting, size).to(self.device)[0].permute(1, 2, 0)
            self._described[size] = (style, self.rows(style), self.between_crops(style))
        style, features, crops = self._described[size]
        painted, instead = (features, style.flatten(0, 1)), resize(style, width, height)
        mask = self._usable(mask)
        own, truth = (self.rows(image, mask) for image in (picture, photo))

        def content(features: Features, image: Tensor) -> dict[str, float]:
            return {
                "structure": structure_distance(truth[deepest], features[deepest]),
                "ssim": luminance_ssim(photo, image, mask),
            }

        colours = [image[mask] for image in (picture, photo)]
        return {
            STYLISED: self.style(own, colours[0], *painted) | content(own, picture),
            PHOTO: self.style(truth, colours[1], *painted) | content(truth, photo),
            CROPS: crops,
            PAINTING: content(self.rows(instead, mask), instead),
        }

    def _usable(self, mask: Tensor) -> Tensor:
        """The mask, or all where the features of the deepest layer would have none or one place."""
        stride = self.network.layers[self.layers[-1]].stride
        height, width = mask.shape
        place = mask.new_zeros(1, 1, height // stride, width // stride, dtype=torch.float32)
        inside = mask_like(place, mask[None, None].float()) > 0.5
        return mask if int(inside.sum()) > 1 else torch.ones_like(mask)

    def rows(self, image: Tensor, mask: Tensor | None = None) -> Features:
        """Features (N, C) of an image (H, W, 3) by layer, of the positions in ``mask (H, W)``."""
        found = self.network(image.permute(2, 0, 1)[None], self.layers)
        rows = {}
        for layer in self.layers:
            features = found[layer]
            flat = flatten_positions(features)[0]
            if mask is not None:
                inside = mask_like(features, mask[None, None].float()) > 0.5
                flat = flat[inside.flatten()]
            rows[layer] = flat
        return rows

    def style(
        self, features: Features, colours: Tensor, painted: Features, palette: Tensor
    ) -> dict[str, float]:
        """Distances in style of features (N, C) by layer and colours (M, 3) from others."""
        deepest = self.layers[-1]
        grams = (gram_distance(features[layer], painted[layer]) for layer in self.layers)
        return {
            "gram": sum(grams),
            "frechet": frechet_distance(features[deepest], painted[deepest]),
            "wasserstein": sliced_wasserstein(features[deepest], painted[deepest]),
            "histogram": histogram_distance(thinned(colours), thinned(palette)),
        }

    def between_crops(self, style: Tensor) -> dict[str, float]:
        """Distances between the quarters of the painting (H, W, 3), mean over all pairs."""
        middle, centre = style.shape[0] // 2, style.shape[1] // 2
        halves = (style[:middle], style[middle : 2 * middle])
        quarters = [q for h in halves for q in (h[:, :centre], h[:, centre : 2 * centre])]
        described = [(self.rows(quarter), quarter.flatten(0, 1)) for quarter in quarters]
        return means([self.style(*a, *b) for a, b in combinations(described, 2)])


def thinned(colours: Tensor) -> Tensor:
    """At most `PIXELS` of colours (N, 3), evenly."""
    return colours[:: -(-len(colours) // PIXELS)]


def quality_report(
    views: Mapping[str, Mapping[str, Mapping[str, float]]], trained: Collection[str]
) -> dict[str, Any]:
    """Means over the views.

    Args:
        views: by name, what `Quality` says; at least one.
        trained: terms of the style loss, and "colour_transfer" where that was done.

    Returns:
        "pictures": the means of the measures; "trained_on": the names of those that the run
        minimised, or nearly; "views": as given.
    """
    found = list(views.values())
    rows = {name: means([view[name] for view in found]) for name in found[0]}
    names = [key for term, keys in OPTIMISED.items() if term in trained for key in keys]
    return {"pictures": rows, "trained_on": names, "views": dict(views)}


def quality_table(report: Mapping[str, Any]) -> str:
    """A report of `quality_report` as a Markdown table."""
    trained = report["trained_on"]
    names = {key: f"{key}{'*' * (key in trained)}" for key in (*STYLE, *CONTENT)}
    rows = [[name, *(row.get(key) for key in names)] for name, row in report["pictures"].items()]
    table = markdown_table(["pictures", *names.values()], rows)
    return f"{table}\n\n* what the run was trained on, or nearly" if trained else table
