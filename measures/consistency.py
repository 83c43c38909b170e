"""How consistent the renders along a camera path are: each frame is compared with earlier ones,
warped by depth and pose, or by optical flow (docs/measures.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from datasets.cameras.poses import look_at_ball
from datasets.cameras.rays import Cameras
from datasets.scene import Scene, View
from features.network import FeatureNetwork
from losses.masked import mask_like
from models.render import ColourFunction
from models.renderer import Renderer
from models.warp import LEAST_COVERAGE, Frame, correspondence, masked_rmse, render_frame
from utils.images import sample_bilinear
from utils.metrics import means
from utils.octaves import WAVELENGTHS, misregistration, normalised_error
from utils.tables import markdown_table

GAPS = (1, 7, 10)  # frames between the two of a pair
EVERY = 3  # so many-th frame is compared with earlier ones
FLOW_EVERY = 6  # and by optical flow
BY_HAND = 2  # frames that are compared as painted frame by frame
PHOTOS = 8  # photographs that are compared with their neighbours
FLAT = 1 / 255  # misregistration up to which a picture has nothing that could be out of place
FLOOR = 0.9  # of the solid texture's normalised score, below which no other row may lie
UNSURE = 0.5  # normalised score of the solid texture from which a warp says nothing
UNSTYLISED, ALONE, PHOTOGRAPHS = "unstylised", "painted frame by frame", "photographs"
TEXTURE, CONSTANT = "solid texture", "flat colour"

# distance of the pictures (H, W, 3) a and b over the mask (H, W)
Distance = Callable[[Tensor, Tensor, Tensor], float]
# (target, source), numbers of frames
Pairs = Mapping[Any, Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class Warp:
    """A way to find a frame's pixels in another one.

    Attributes:
        find: see `models.warp.correspondence`.
        every: only frames whose number this divides are compared in this way.
    """

    find: Callable[[Cameras, Frame, Frame], tuple[Tensor, Tensor]]
    every: int = 1


GEOMETRY = {"geometry": Warp(correspondence)}


def default_path(scene: Scene) -> str:
    """Name of the measure's path: LLFF's spiral where the cameras face forward, a smooth path
    through training views where the scene surrounds them, else a circle."""
    if scene.space.forward_facing:
        return "spiral"
    return "interpolate" if scene.surrounds else "circle"


def path_pairs(n_frames: int) -> dict[int, list[tuple[int, int]]]:
    """The pairs of a path: by gap, every `EVERY`-th frame and the one that is the gap before it.
    All gaps are 1 more than a multiple of 3, so that they share their frames."""
    targets = range(EVERY, n_frames, EVERY)
    return {gap: [(t, t - gap) for t in targets if t >= gap] for gap in GAPS}


def frames_by_hand(pairs: Pairs) -> set[int]:
    """The frames of a few targets, each with all its sources: painting them one by one is slow."""
    sources: dict[int, set[int]] = {}
    for target, source in (pair for found in pairs.values() for pair in found):
        sources.setdefault(target, set()).add(source)
    whole = [t for t, found in sources.items() if len(found) == max(map(len, sources.values()))]
    chosen = whole[len(whole) // (2 * BY_HAND) :: -(-len(whole) // BY_HAND)][:BY_HAND]
    return {view for target in chosen for view in (target, *sources[target])}


def measure_consistency(
    renderer: Renderer,
    cameras: Cameras,
    styles: Mapping[str, ColourFunction],
    distances: Mapping[str, Distance],
    rendering: AbstractContextManager[Any],
    chunk: int = 0,
    warps: Mapping[str, Warp] = GEOMETRY,
    alone: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Renders a path in several styles and in a solid texture, and measures each.

    Args:
        renderer: whose geometry it is.
        cameras: of the path, all of one size, on the renderer's device.
        styles: that are measured, by name; the first also lends its mean to a flat colour.
        distances: besides the RMSE, by name.
        rendering: context to render in, such as autocast.
        chunk: rays at once; 0: by field and device.
        warps: by name.
        alone: (picture, mask) -> picture, see `measures.alone.FramePainter`; it is shown the last
            of ``styles``.

    Returns:
        "frames": their number; by the name of each warp "gaps": `score` by gap.
    """
    pairs = path_pairs(len(cameras))
    by_hand = frames_by_hand(pairs) if alone and any(pairs.values()) else set()

    def change(frame: Frame) -> None:
        if frame.view in by_hand:
            shown = frame.pictures[list(styles)[-1]]
            frame.pictures[ALONE] = alone(shown, frame.surface.opaque)

    frames = _frames(renderer, cameras, pairs, styles, rendering, chunk, change)
    found = score(frames, cameras, pairs, distances, warps)
    return {"frames": len(cameras)} | {name: {"gaps": gaps} for name, gaps in found.items()}


def measure_photographs(
    renderer: Renderer,
    scene: Scene,
    styles: Mapping[str, ColourFunction],
    distances: Mapping[str, Distance],
    rendering: AbstractContextManager[Any],
    chunk: int = 0,
) -> dict[str, Any]:
    """The same between neighbouring training views, where there are photographs, too.

    Args:
        renderer, styles, distances, rendering, chunk: see `measure_consistency`.
        scene: its training views are compared, with their photographs.

    Returns:
        What `score` says of these pairs.
    """
    views, pairs = photo_pairs(scene.train)
    cameras = Cameras.within(scene, views).to(renderer.bounds.device)

    def change(frame: Frame) -> None:
        view = views[frame.view]
        frame.pictures[PHOTOGRAPHS] = view.image.to(frame.surface.distance) / 255
        if view.valid is not None:
            frame.surface.opaque &= view.valid.to(frame.surface.opaque)

    frames = _frames(renderer, cameras, pairs, styles, rendering, chunk, change)
    return score(frames, cameras, pairs, distances)["geometry"][PHOTOGRAPHS]


def photo_pairs(views: Sequence[View]) -> tuple[list[View], Pairs]:
    """At most `PHOTOS` views, evenly, each after the one that is nearest to it in position and
    direction."""
    if len(views) < 2:
        return list(views), {PHOTOGRAPHS: []}
    c2w = torch.stack([view.c2w for view in views])
    _, radius = look_at_ball(c2w)
    where = torch.cat([c2w[:, :, 3] / radius, c2w[:, :, 2]], 1)
    apart = torch.cdist(where, where).fill_diagonal_(math.inf)
    chosen = range(0, len(views), -(-len(views) // PHOTOS))
    found = [views[k] for i in chosen for k in (int(apart[i].argmin()), i)]
    return found, {PHOTOGRAPHS: [(i, i - 1) for i in range(1, len(found), 2)]}


def _frames(
    renderer: Renderer,
    cameras: Cameras,
    pairs: Pairs,
    styles: Mapping[str, ColourFunction],
    rendering: AbstractContextManager[Any],
    chunk: int,
    change: Callable[[Frame], None],
) -> Iterator[Frame]:
    """The frames that are compared, in the styles and controls; ``change`` adds to them."""
    views = sorted({view for found in pairs.values() for pair in found for view in pair})
    colours, mean = dict(styles), None
    for view in tqdm(views, desc="consistency", unit="view"):
        if TEXTURE not in colours:
            with rendering:
                first = render_frame(renderer, cameras, view, {}, chunk)
            texture = SolidTexture(pixel_in_field(cameras, first))
            colours[TEXTURE] = texture.to(cameras.c2w.device)
        with rendering:
            frame = render_frame(renderer, cameras, view, colours, chunk)
        measured = frame.pictures[next(iter(styles))]
        mean = measured.mean((0, 1)) if mean is None else mean
        frame.pictures[CONSTANT] = mean.expand_as(measured)
        change(frame)
        last = {name: frame.pictures.pop(name) for name in (TEXTURE, CONSTANT)}
        frame.pictures |= last  # in the table, too
        yield frame


def pixel_in_field(cameras: Cameras, frame: Frame) -> float:
    """The side of a frame's pixel as a length in the field: there, and not in the world, what is
    far and what is near is resolved alike."""
    x, opaque = cameras.space.from_world(frame.surface.points), frame.surface.opaque
    apart = (x[:, 1:] - x[:, :-1]).norm(dim=-1)[opaque[:, 1:] & opaque[:, :-1]]
    pixel = float(apart.median()) if len(apart) else 0.0
    return pixel if pixel > 0 else 1.0


class SolidTexture(nn.Module):
    """A texture c(x) in the field's coordinates, the same from all sides, with as much in each of
    the octaves that are measured: what its renders differ by is the error of the warp, and of the
    field's depth.

    Args:
        pixel: in the field's units, see `pixel_in_field`.
    """

    def __init__(self, pixel: float) -> None:
        super().__init__()
        # three directions at right angles to each other, none of them along an axis
        across = torch.tensor([[2.0, 2, 1], [-2, 1, 2], [1, -2, 2]]) / 3
        waves = [
            across.roll(i, 0) * (2 * math.pi / (pixel * length))
            for i, length in enumerate(WAVELENGTHS)
        ]
        self.register_buffer("waves", torch.cat(waves))

    def forward(self, feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        """As `Style.forward`."""
        with torch.autocast(x.device.type, enabled=False):
            phase = x.float() @ self.waves.T
        return 0.5 + 0.5 * phase.sin().view(len(x), len(WAVELENGTHS), 3).mean(1)


def score(
    frames: Iterable[Frame],
    cameras: Cameras,
    pairs: Pairs,
    distances: Mapping[str, Distance],
    warps: Mapping[str, Warp] = GEOMETRY,
) -> dict[str, dict[Any, dict[str, Any]]]:
    """Compares frames with earlier ones.

    Args:
        frames: in order; none is held longer than the pairs need it.
        cameras: of the frames.
        pairs: by gap, or another name.
        distances: besides the RMSE, by name.
        warps: by name.

    Returns:
        By warp, by gap: the number of "pairs" that count, those "dropped", the mean "coverage" of
        all; by "pictures" the number of their "pairs", the means of their "rmse", "normalised" (see
        `utils.octaves`; None of flat pictures), "misregistration" and ``distances``, and each
        "of_floor", as a multiple of the solid texture's, but not of flat pictures, nor where a
        picture lies below that floor; "below_floor": which one, or None; "doubt": why the numbers
        say nothing, or None.
    """
    needed: dict[int, int] = {}
    for target, source in (pair for found in pairs.values() for pair in found):
        needed[source] = max(target, needed.get(source, 0))
    kept: dict[int, Frame] = {}
    results: dict[str, dict[Any, list[dict[str, Any]]]] = {
        warp: {gap: [] for gap in pairs} for warp in warps
    }
    for frame in frames:
        view = frame.view
        sources = {g: kept[s] for g, found in pairs.items() for t, s in found if t == view}
        for (warp, gap), pair in compare(frame, sources, cameras, distances, warps).items():
            results[warp][gap].append(pair)
        kept = {k: x for k, x in (kept | {view: frame}).items() if needed.get(k, 0) > view}
    return {
        warp: {gap: _summary(found) for gap, found in gaps.items()}
        for warp, gaps in results.items()
    }


@torch.no_grad()
def compare(
    target: Frame,
    sources: Mapping[Any, Frame],
    cameras: Cameras,
    distances: Mapping[str, Distance],
    warps: Mapping[str, Warp] = GEOMETRY,
) -> dict[tuple[str, Any], dict[str, Any]]:
    """Compares a frame with others warped to it.

    Args:
        sources: the others, by gap.

    Returns:
        For each warp and gap "coverage": valid pixels per opaque pixel of the target; "pictures":
        name -> "rmse", "normalised", "misregistration" and ``distances``, of those that both frames
        have; empty where the coverage is too low.
    """
    found: dict[tuple[str, Any], dict[str, Any]] = {}
    found_pixels = {}
    for gap, source in sources.items():
        for name, warp in warps.items():
            if target.view % warp.every:
                continue
            pixel, valid = warp.find(cameras, target, source)
            coverage = float(valid.sum() / target.surface.opaque.sum().clamp(min=1))
            found[name, gap] = {"coverage": coverage, "pictures": {}}
            if coverage >= LEAST_COVERAGE:
                found_pixels[name, gap] = pixel, valid
    for name, picture in target.pictures.items():  # outside: a distance may keep what it saw in it
        for key, (pixel, valid) in found_pixels.items():
            other = sources[key[1]].pictures.get(name)
            if other is None:
                continue
            warped = sample_bilinear(other, pixel)
            found[key]["pictures"][name] = {
                "rmse": masked_rmse(picture, warped, valid),
                "normalised": normalised_error(picture, warped, valid),
                "misregistration": misregistration(picture, valid),
            } | {key: distance(picture, warped, valid) for key, distance in distances.items()}
    return found


def _summary(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the pairs of one gap."""
    counted = [pair["pictures"] for pair in pairs if pair["pictures"]]
    rows: dict[str, dict[str, Any]] = {}
    names = dict.fromkeys(name for pictures in counted for name in pictures)
    for name in sorted(names, key=(TEXTURE, CONSTANT).__contains__):  # these last
        own = [pictures[name] for pictures in counted if name in pictures]
        mean: dict[str, Any] = means(own)
        if mean["misregistration"] < FLAT:
            mean["normalised"] = None
        rows[name] = {"pairs": len(own)} | mean
    floor = rows.get(TEXTURE, {})
    scores = {
        name: row["normalised"] for name, row in rows.items() if row["normalised"] is not None
    }
    least = min(scores, key=scores.get, default=None)
    is_floor = TEXTURE in scores and scores[least] >= FLOOR * scores[TEXTURE]
    for row in rows.values():
        flat = row["normalised"] is None
        keys = [key for key in measured(row) if is_floor and floor[key] and not flat]
        row["of_floor"] = {key: row[key] / floor[key] for key in keys}
    coverage = fmean(pair["coverage"] for pair in pairs) if pairs else None
    return {
        "pairs": len(counted),
        "dropped": len(pairs) - len(counted),
        "coverage": coverage,
        "doubt": _doubt(len(counted), coverage, floor.get("normalised")),
        "below_floor": None if is_floor or TEXTURE not in scores else least,
        "pictures": rows,
    }


def _doubt(counted: int, coverage: float | None, floor: float | None) -> str | None:
    """Why the numbers of a gap say nothing; None: they do."""
    if coverage is None:
        return "no two frames are so far apart"
    if not counted:
        return f"{coverage:.0%} of the pixels meet"
    if floor is not None and floor > UNSURE:
        return f"the warp alone scores {floor:.2f}"
    return None


def measured(row: Mapping[str, Any]) -> list[str]:
    """The measures in a row of `score`."""
    return [key for key in row if key not in ("pairs", "misregistration", "of_floor")]


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


def consistency_table(gaps: Mapping[Any, Mapping[str, Any]]) -> str:
    """What `score` says by one warp as a Markdown table; a gap whose numbers say nothing says why
    instead."""
    every = [row for found in gaps.values() for row in found["pictures"].values()]
    keys = measured(every[0]) if every else ["rmse", "normalised"]
    rows = []
    for gap, found in gaps.items():
        coverage = "n/a" if found["coverage"] is None else f"{found['coverage']:.0%}"
        pairs = f"{found['pairs']} of {found['pairs'] + found['dropped']}"
        if found["doubt"]:
            doubt = f"n/a: {found['doubt']}"
            rows.append([f"{gap}", coverage, pairs, "all", doubt, *[""] * (2 * len(keys) - 1)])
            continue
        for name, row in found["pictures"].items():
            values = [cell for key in keys for cell in (row[key], row["of_floor"].get(key))]
            rows.append([f"{gap}", coverage, f"{row['pairs']}", name, *values])
    headings = [cell for key in keys for cell in (key, "x floor")]
    table = markdown_table(["gap", "coverage", "pairs", "pictures", *headings], rows)
    return "\n\n".join([table, *floor_notes(gaps)])


def floor_notes(gaps: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    """A line for each gap in which the solid texture is no floor."""
    return [
        f"gap {gap}: {found['below_floor']} lies below the solid texture, which is no floor there"
        for gap, found in gaps.items()
        if found["below_floor"] and not found["doubt"]
    ]
