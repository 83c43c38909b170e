"""How consistent the renders along a camera path are: each frame is compared with earlier ones,
warped by depth and pose (docs/measures.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from datasets.cameras.rays import Cameras
from datasets.scene import Scene
from features.network import FeatureNetwork
from losses.masked import mask_like
from models.render import ColourFunction
from models.renderer import Renderer
from systems.warp import (
    Frame,
    correspondence,
    masked_rmse,
    misregistration,
    render_frame,
)
from utils.images import sample_bilinear
from utils.metrics import means
from utils.tables import markdown_table

GAPS = (1, 7, 10)  # frames between the two of a pair
LEAST_COVERAGE = 0.3  # of a pair that counts
FLAT = 1 / 255  # misregistration up to which a picture has nothing that could be out of place
WAVELENGTH = 16.0  # of the solid texture, pixels: 8 are out of step
TEXTURE, CONSTANT = "solid texture", "flat colour"

# distance of the pictures (H, W, 3) a and b over the mask (H, W)
Distance = Callable[[Tensor, Tensor, Tensor], float]


def default_path(scene: Scene) -> str:
    """Name of the measure's path: LLFF's spiral where the cameras face forward, a smooth path
    through training views where the scene surrounds them, else a circle."""
    if scene.space.forward_facing:
        return "spiral"
    return "interpolate" if scene.surrounds else "circle"


def measure_consistency(
    renderer: Renderer,
    cameras: Cameras,
    styles: Mapping[str, ColourFunction],
    distances: Mapping[str, Distance],
    rendering: AbstractContextManager[Any],
    chunk: int = 0,
) -> dict[str, Any]:
    """Renders a path in several styles and in a solid texture, and measures each.

    Args:
        renderer: whose geometry it is.
        cameras: of the path, all of one size, on the renderer's device.
        styles: that are measured, by name; the first also lends its mean to a flat colour.
        distances: besides the RMSE, by name.
        rendering: context to render in, such as autocast.
        chunk: rays at once; 0: by field and device.

    Returns:
        See `score`.
    """
    with rendering:
        first = render_frame(renderer, cameras, 0, {}, chunk)
    texture = solid_texture(wavelength(cameras, first))
    mean: list[Tensor] = []

    def frames() -> Iterable[Frame]:
        for view in tqdm(range(len(cameras)), desc="consistency", unit="view"):
            with rendering:
                colours = {**styles, TEXTURE: texture}
                frame = render_frame(renderer, cameras, view, colours, chunk)
            measured = frame.pictures[next(iter(styles))]
            if not mean:
                mean.append(measured.mean((0, 1)))
            frame.pictures[CONSTANT] = mean[0].expand_as(measured)
            yield frame

    return score(frames(), cameras, distances)


def wavelength(cameras: Cameras, frame: Frame) -> float:
    """`WAVELENGTH` pixels of a frame as a length in the field: there, and not in the world, what is
    far and what is near is resolved alike."""
    x, opaque = cameras.space.from_world(frame.surface.points), frame.surface.opaque
    apart = (x[:, 1:] - x[:, :-1]).norm(dim=-1)[opaque[:, 1:] & opaque[:, :-1]]
    pixel = float(apart.median()) if len(apart) else 0.0
    return WAVELENGTH * pixel if pixel > 0 else 1.0


def solid_texture(period: float) -> ColourFunction:
    """A texture c(x) in the field's coordinates, the same from all sides: what its renders differ
    by is the error of the warp, and of the field's depth.

    Args:
        period: of the wave in each colour channel, in the field's units.
    """
    # three directions at right angles to each other, none of them along an axis
    across = torch.tensor([[2.0, 2, 1], [-2, 1, 2], [1, -2, 2]]) / 3

    def style(feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        return 0.5 + 0.5 * torch.sin(x.float() @ across.to(x.device).T * (2 * math.pi / period))

    return style


def score(
    frames: Iterable[Frame], cameras: Cameras, distances: Mapping[str, Distance]
) -> dict[str, Any]:
    """Compares every frame with those `GAPS` frames before it.

    Args:
        frames: in order, no more of which are held than the longest gap needs.
        cameras: of the frames.
        distances: besides the RMSE, by name.

    Returns:
        "frames": their number; "gaps": for each gap the number of "pairs" that count, those
        "dropped", the "coverage" of those that count and, by "pictures", the means of their
        "rmse", "misregistration", "normalised" (rmse / misregistration, None of flat pictures) and
        ``distances``, and each "of_floor", as a multiple of the solid texture's, but not of flat
        pictures.
    """
    kept: dict[int, Frame] = {}
    pairs: dict[int, list[dict[str, Any]]] = {gap: [] for gap in GAPS}
    for frame in frames:
        kept[frame.view] = frame
        kept.pop(frame.view - max(GAPS) - 1, None)
        sources = {gap: kept[frame.view - gap] for gap in GAPS if frame.view - gap in kept}
        for gap, pair in compare(frame, sources, cameras, distances).items():
            pairs[gap].append(pair)
    return {"frames": len(cameras), "gaps": {gap: _summary(found) for gap, found in pairs.items()}}


@torch.no_grad()
def compare(
    target: Frame,
    sources: Mapping[int, Frame],
    cameras: Cameras,
    distances: Mapping[str, Distance],
) -> dict[int, dict[str, Any]]:
    """Compares a frame with others warped to it.

    Args:
        sources: the others, by gap.

    Returns:
        For each gap "coverage": valid pixels per opaque pixel of the target; "pictures": name ->
        "rmse", "misregistration" and ``distances``, empty where the coverage is too low.
    """
    found: dict[int, dict[str, Any]] = {}
    warps = {}
    for gap, source in sources.items():
        pixel, valid = correspondence(cameras, target, source)
        coverage = float(valid.sum() / target.surface.opaque.sum().clamp(min=1))
        found[gap] = {"coverage": coverage, "pictures": {}}
        if coverage >= LEAST_COVERAGE:
            warps[gap] = pixel, valid
    for name, picture in target.pictures.items():  # outside: a distance may keep what it saw in it
        for gap, (pixel, valid) in warps.items():
            warped = sample_bilinear(sources[gap].pictures[name], pixel)
            found[gap]["pictures"][name] = {
                "rmse": masked_rmse(picture, warped, valid),
                "misregistration": misregistration(picture, valid),
            } | {key: distance(picture, warped, valid) for key, distance in distances.items()}
    return found


def _summary(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the pairs of one gap."""
    counted = [pair for pair in pairs if pair["pictures"]]
    rows: dict[str, dict[str, Any]] = {}
    for name in counted[0]["pictures"] if counted else ():
        mean = means([pair["pictures"][name] for pair in counted])
        flat = mean["misregistration"] < FLAT
        normalised = None if flat else mean["rmse"] / mean["misregistration"]
        rows[name] = {"rmse": mean["rmse"], "normalised": normalised, **mean}
    floor = rows.get(TEXTURE, {})
    for row in rows.values():
        flat = row["normalised"] is None
        keys = [key for key in row if key != "misregistration" and floor.get(key) and not flat]
        row["of_floor"] = {key: row[key] / floor[key] for key in keys}
    return {
        "pairs": len(counted),
        "dropped": len(pairs) - len(counted),
        "coverage": fmean(pair["coverage"] for pair in counted) if counted else None,
        "pictures": rows,
    }


class FeatureDistance:
    """Squared distance of unit-normalised features, mean over the positions in the mask and over
    the layers: LPIPS (Zhang et al. 2018) without its learned weights, in any network.

    Args:
        network: on the device of the pictures.
        layers: to compare.
    """

    def __init__(self, network: FeatureNetwork, layers: list[str]) -> None:
        self.network, self.layers = network, layers
        self._last: tuple[Tensor, list[Tensor]] | None = None

    def __call__(self, a: Tensor, b: Tensor, mask: Tensor) -> float:
        """The distance of (H, W, 3) images in [0, 1] over the ``mask (H, W)``, outside of which
        ``b`` is taken for equal to ``a``."""
        filled = torch.where(mask[..., None], b, a)
        if torch.allclose(filled, a, rtol=0, atol=1e-6):  # of a flat picture
            return 0.0
        if self._last is None or self._last[0] is not a:  # a frame meets several others in a row
            self._last = a, self._features(a)
        planes = mask[None, None].float()
        values = []
        for one, other in zip(self._last[1], self._features(filled), strict=True):
            error = (one - other).square().sum(1, keepdim=True)
            weight = mask_like(error, planes)
            values.append(float((error * weight).sum() / weight.sum().clamp(min=1e-6)))
        return fmean(values)

    def _features(self, image: Tensor) -> list[Tensor]:
        """Unit-normalised features (1, C, h, w) of each layer."""
        found = self.network(image.permute(2, 0, 1)[None], self.layers)
        return [functional.normalize(found[layer], dim=1) for layer in self.layers]


def filled_lpips(lpips: Callable[[Tensor, Tensor], float]) -> Distance:
    """LPIPS of whole pictures that are alike outside of the mask, as it is published."""
    return lambda a, b, mask: lpips(a, torch.where(mask[..., None], b, a))


def consistency_table(report: Mapping[str, Any]) -> str:
    """A report of `measure_consistency` as a Markdown table, with a line for each gap above it."""
    lines, rows, keys = [], [], []
    for gap, found in report["gaps"].items():
        coverage = found["coverage"]
        lines.append(
            f"gap {gap}: {found['pairs']} pairs, coverage "
            f"{'n/a' if coverage is None else f'{coverage:.0%}'}, {found['dropped']} dropped "
            f"(coverage under {LEAST_COVERAGE:.0%})"
        )
        for name, row in found["pictures"].items():
            keys = [key for key in row if key not in ("of_floor", "misregistration")]
            values = [cell for key in keys for cell in (row[key], row["of_floor"].get(key))]
            rows.append([f"{gap}", name, *values])
    headings = [cell for key in keys for cell in (key, "x floor")]
    table = markdown_table(["gap", "pictures", *headings], rows) if rows else "no pair counts"
    return "\n".join([*(f"- {line}" for line in lines), "", table])
