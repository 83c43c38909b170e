"""Decoders, and the features of encoders, as maps of the feature plane."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from analysis.features import MASK, Analysis, Plane
from models.encoded import FeatureDecoder

SIZE = 256  # cells along a side of the map
BINS = 64  # of the densities
LEVELS = (0.05, 0.3, 0.7)  # of the largest density, at which contours are drawn
COLOURS = colormaps["tab10"].colors


@torch.no_grad()
def decoded(decoder: FeatureDecoder, plane: Plane, size: int = SIZE) -> Tensor:
    """(size, size, 3) colours in [0, 1] of a decoder over a plane, rows from the lowest v up; one
    that sees the place is shown none."""
    grid = plane.grid(size).flatten(0, 1).float().to(decoder.unit.device)
    nowhere = grid.new_zeros(len(grid), 3)
    colours = decoder(grid, nowhere, code=grid.new_zeros(1))
    return colours.view(size, size, 3).cpu()


def material_map(analysis: Analysis) -> dict[str, Any]:
    """Draws each decoder over the feature plane.

    Returns:
        What is in the picture.
    """
    features = {name: analysis.features(name) for name in analysis.encoders}
    plane = Plane.of(features)
    figure, panels = panels_of(len(analysis.decoders), plane)
    for panel, name in zip(panels, analysis.decoders, strict=True):
        draw_map(panel, decoded(analysis.decoder(name), plane), plane, f"decoder {name}")
    path = analysis.directory / "material_map.png"
    figure.savefig(path, dpi=120)
    return {
        "files": [str(path)],
        "decoders": analysis.decoders,
        "colours": "the decoder with its sigmoid, at the centres of the cells",
        "cells": SIZE,
        **plane.state(),
    }


def feature_map(analysis: Analysis) -> dict[str, Any]:
    """Draws the density of each encoder's features, in a colour of its own, over each decoder.

    Returns:
        What is in the picture.
    """
    features = {name: analysis.features(name) for name in analysis.encoders}
    plane = Plane.of(features)
    figure, panels = panels_of(len(analysis.decoders), plane)
    for panel, name in zip(panels, analysis.decoders, strict=True):
        draw_map(panel, decoded(analysis.decoder(name), plane), plane, f"over decoder {name}")
        for index, (encoder, own) in enumerate(features.items()):
            draw_density(panel, plane.flat(own), plane, COLOURS[index % 10], encoder)
        panel.legend(loc="upper right", fontsize=8)
    path = analysis.directory / "feature_map.png"
    figure.savefig(path, dpi=120)
    flat = {name: plane.flat(own) for name, own in features.items()}
    return {
        "files": [str(path)],
        "mask": MASK,
        "points": {name: len(own) for name, own in features.items()},
        "mean": {name: x.mean(0).tolist() for name, x in flat.items()},
        "deviation": {name: x.std(0).tolist() for name, x in flat.items()},
        "contours": f"{', '.join(map(str, LEVELS))} of the encoder's largest density",
        **plane.state(),
    }


def panels_of(n: int, plane: Plane) -> tuple[Figure, list[Axes]]:
    """A figure with a row of n panels, labelled with what the plane is."""
    figure = Figure(figsize=(5 * n, 5.4), layout="constrained")
    figure.supxlabel(plane.words, fontsize=9)
    return figure, list(figure.subplots(1, n, squeeze=False)[0])


def draw_map(panel: Axes, colours: Tensor, plane: Plane, title: str) -> None:
    """Lays colours (S, S, 3) under a panel."""
    panel.imshow(colours.numpy(), origin="lower", extent=plane.extent, aspect="auto")
    panel.set_title(title)


def draw_density(panel: Axes, flat: Tensor, plane: Plane, colour: Any, label: str) -> None:
    """Draws the density of points (N, 2) as contours in one colour, over a darker rim so that they
    are seen on any map."""
    density = density_of(flat, plane)
    left, right, bottom, top = plane.extent
    u = left + (torch.arange(BINS) + 0.5) / BINS * (right - left)
    v = bottom + (torch.arange(BINS) + 0.5) / BINS * (top - bottom)
    levels = [level * float(density.max()) for level in LEVELS]
    for width, shade in ((3.0, "white"), (1.5, colour)):
        panel.contour(u, v, density.T.numpy(), levels=levels, colors=[shade], linewidths=width)
    panel.plot([], [], color=colour, label=f"encoder {label}")


def density_of(flat: Tensor, plane: Plane) -> Tensor:
    """(BINS, BINS) share of points (N, 2) by u and v, blurred by a binomial filter over five
    cells."""
    left, right, bottom, top = plane.extent
    counts = torch.histogramdd(
        flat.contiguous(), [BINS, BINS], range=[left, right, bottom, top]
    ).hist
    tap = torch.tensor([1.0, 4, 6, 4, 1]).double() / 16
    kernel = torch.outer(tap, tap)[None, None]
    blurred = torch.nn.functional.conv2d(counts[None, None].double(), kernel, padding=2)[0, 0]
    return blurred / len(flat)
