"""A path over the surface of a scene beside its track in feature space, as an animation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor

from analysis.features import Analysis, Plane
from analysis.maps import COLOURS, decoded, draw_density, draw_map, panels_of
from datasets.cameras.rays import Cameras
from models.renderer import Renderer, render_view
from utils.video import write_gif, write_mp4

FRAMES = 150
FPS = 15
OPAQUE = 0.5  # opacity of a pixel from which there is a surface
TURNS = (3, 2)  # of the Lissajous figure, across and down


def path(analysis: Analysis) -> dict[str, Any]:
    """Moves a point over a view of the first encoder, in the colours of the first decoder, and
    beside it its features over that decoder's map.

    Returns:
        The path: where it meets the surface, and the features there.
    """
    encoder, decoder = analysis.encoders[0], analysis.decoders[0]
    features = {name: analysis.features(name) for name in analysis.encoders}
    plane, renderer = Plane.of(features), analysis.renderer(encoder, decoder)
    scene = analysis.scene(encoder)
    views = scene.test or scene.val or scene.train
    cameras = Cameras.within(scene, views[:1]).to(analysis.device)
    picture = render_view(renderer, cameras, 0).cpu()
    rows, columns = lissajous(picture.opacity > OPAQUE)
    points, own, hit = track(renderer, cameras, rows, columns)
    flat = torch.where(hit[:, None], plane.flat(own), math.nan)

    figure, (left, right) = panels_of(2, plane)
    canvas = FigureCanvasAgg(figure)
    left.imshow(picture.rgb.numpy())
    left.set_title(f"{encoder}, view {views[0].name}")
    left.set_axis_off()
    draw_map(right, decoded(analysis.decoder(decoder), plane), plane, f"over decoder {decoder}")
    draw_density(right, plane.flat(features[encoder]), plane, COLOURS[0], encoder)
    over_view, at_view = _marks(left)
    over_map, at_map = _marks(right)
    frames = []
    for i in range(FRAMES):
        for line, dot, x, y in (
            (over_view, at_view, columns, rows),
            (over_map, at_map, flat[:, 0], flat[:, 1]),
        ):
            line.set_data(x[: i + 1], y[: i + 1])
            dot.set_data(x[i : i + 1], y[i : i + 1])
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    gif, mp4, still = (analysis.directory / f"path.{suffix}" for suffix in ("gif", "mp4", "png"))
    write_gif(gif, frames, FPS)
    write_mp4(mp4, frames, FPS)
    figure.savefig(still, dpi=120)
    met = hit.tolist()
    return {
        "files": [str(gif), str(mp4), str(still)],
        "encoder": encoder,
        "decoder": decoder,
        "view": views[0].name,
        "pixels": [
            [round(r, 2), round(c, 2)] for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
        ],
        "places": [p if there else None for p, there in zip(points.tolist(), met, strict=True)],
        "features": [f if there else None for f, there in zip(own.tolist(), met, strict=True)],
        **plane.state(),
    }


def lissajous(solid: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (FRAMES,) of a closed figure over the box around what is ``solid (H, W)``
    bool; over the whole view where nothing is."""
    height, width = solid.shape
    box = []
    for along, size in ((solid.any(1), height), (solid.any(0), width)):
        inside = along.nonzero()
        box.append((inside.min(), inside.max()) if len(inside) else (0, size - 1))
    phase = torch.arange(FRAMES) * (2 * math.pi / FRAMES)
    waves = (torch.sin(TURNS[1] * phase), torch.sin(TURNS[0] * phase))
    (top, bottom), (first, last) = (map(float, pair) for pair in box)
    rows = (top + bottom) / 2 + 0.45 * (bottom - top) * waves[0]
    columns = (first + last) / 2 + 0.45 * (last - first) * waves[1]
    return rows, columns


@torch.no_grad()
def track(
    renderer: Renderer, cameras: Cameras, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the rays of pixels of the first camera meet the surface.

    Returns:
        World places (N, 3), features (N, D) there, and whether there is a surface (N,).
    """
    device = renderer.bounds.device
    view = torch.zeros(len(rows), dtype=torch.int64, device=device)
    rays = cameras.rays(view, rows.round().long().to(device), columns.round().long().to(device))
    rendering = renderer(rays)
    each = torch.arange(len(rays), device=device)
    x = rays.points(each, rendering.depth)
    field = renderer.field
    own = field.style.features(field.geometry.feature(x), x, rays.view_directions)
    world = cameras.space.to_world(x)
    return world.cpu(), own.double().cpu(), (rendering.opacity > OPAQUE).cpu()


def _marks(panel: Axes) -> tuple[Any, Any]:
    """The track so far, and where it is, in a panel."""
    (line,) = panel.plot([], [], color="black", linewidth=1)
    (dot,) = panel.plot([], [], "o", color="black", markerfacecolor="white", markersize=8)
    return line, dot
