"""Where the scene is: the visual hull of the alpha masks, the box around it, the range of rays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from datasets.cameras.poses import look_at_ball
from datasets.cameras.rays import Cameras
from datasets.scene import Scene, View
from utils.errors import UserError

COARSEST = 32  # voxels a side at the first level of carving
BOUNDS_RESOLUTION = 64
CHUNK = 1 << 17  # voxels projected at once: a few MB, which stay in the processor's cache
SEEN_SHARE = 0.05  # of the views, and at least two, that have to show a cell
WHOLE_SHARE = 0.9  # a tenth of the views may miss a separate part of the scene
# Pixels of a mask's shorter side, from which on its border is two pixels wide, not one: some tools
# leave out the outermost.
LARGE = 100
MISSING = 4  # of this many, one view more, where masks show something there
UNEXPLAINED = 0.005  # of the masks, that needs no explanation
MASK_SIDE = 64  # pixels of a mask's longer side, when it is asked what explains it
JPEG_NOISE = 12  # 8-bit levels by which JPEG may change a plain background
NEAREST = 0.02  # near is at least this fraction of far


def scene_bounds(views: list[View], plain: Tensor | None = None) -> Tensor:
    """Axis-aligned box of what the views show.

    With alpha: the box of the visual hull, plus one voxel on every side.  Carving starts from the
    cube around the look-at point that holds all cameras, and is repeated once in the box found.
    A view whose border is free of alpha shows the whole object; the larger the share of such
    views, the more views have to see a voxel (`needed_views`), which keeps out of the box what only
    a few cameras see in front of or beyond the object.

    Without alpha, but on a plain background: the same box of what enough views see, none of which
    is carved away.

    Without either: the cube around the look-at point that reaches to the cameras, so that it holds
    as much of what is behind that point as in front of it.

    Args:
        views: training views.
        plain: (3,) in [0, 1], the plain background that those without alpha show around the
            object; None: they show more.

    Returns:
        (2, 3) float32 lower and upper corner.

    Raises:
        UserError: no voxel lies inside all masks, or in sight of enough views.
    """
    c2w = torch.stack([view.c2w for view in views])
    centre, radius = look_at_ball(c2w)
    if plain is None and any(view.alpha is None for view in views):
        return torch.stack([centre - radius, centre + radius])
    radius = max(radius, float((c2w[:, :, 3] - centre).norm(dim=1).max()))
    bounds = torch.stack([centre - radius, centre + radius])
    needed = needed_views(views, bounds, plain)
    resolution = (BOUNDS_RESOLUTION,) * 3
    for _ in range(2):
        kept = visual_hull(views, bounds, resolution, needed).nonzero()
        if len(kept) == 0:
            raise UserError(
                "the alpha masks of the training views have no common object; check the poses and "
                "the focal length, and that not all are taken from one place, or leave the masks "
                "out (--no-hull --no-matte)"
                if any(view.alpha is not None for view in views)
                else "there is nothing that enough of the training views see; check the poses and "
                "the focal length, and that not all are taken from one place"
            )
        size = (bounds[1] - bounds[0]) / BOUNDS_RESOLUTION
        lower = bounds[0] + (kept.amin(dim=0) - 1) * size
        bounds = torch.stack([lower, bounds[0] + (kept.amax(dim=0) + 2) * size])
    return bounds


def near_far(views: list[View], bounds: Tensor) -> tuple[float, float]:
    """Range of ray distances that holds the box, over all cameras.

    Args:
        views: the cameras.
        bounds: (2, 3) corners of the box.

    Returns:
        near, far: scene units; near is at least `NEAREST` of far, also for cameras in the box.
    """
    positions = torch.stack([view.c2w[:, 3] for view in views])
    closest = torch.minimum(torch.maximum(positions, bounds[0]), bounds[1])
    farthest = torch.where(positions > bounds.mean(dim=0), bounds[0], bounds[1])
    near = float((positions - closest).norm(dim=1).min())
    far = float((positions - farthest).norm(dim=1).max())
    return max(near, NEAREST * far), far


def visual_hull(
    views: Sequence[View], bounds: Tensor, resolution: Sequence[int], needed: int = 1
) -> Tensor:
    """Voxels that every view in which they lie shows at least a trace of alpha for.

    A voxel is carved away only if its whole projection lies inside an image and has no alpha
    there, so nothing that is seen is lost; of a view that shows the whole object it may leave the
    image.  A voxel that no view sees is dropped.  Coarse to fine: only the children of kept voxels
    are tested (Laurentini 1994; Szeliski 1993).

    Args:
        views: at least one; those without alpha carve nothing.
        bounds: (2, 3) corners of the grid.
        resolution: voxels along x, y, z.
        needed: views that have to see a voxel, at least 1.

    Returns:
        (R0, R1, R2) bool.
    """
    hull = torch.zeros(tuple(resolution), dtype=torch.bool)
    hull[_carved(views, bounds, resolution, needed)[0].unbind(dim=1)] = True
    return hull


def _carved(
    views: Sequence[View], bounds: Tensor, resolution: Sequence[int], needed: int
) -> tuple[Tensor, Tensor]:
    """The voxels (K, 3) of `visual_hull`, and how many views see each (K,)."""
    shape = torch.tensor(list(resolution))
    voxel = (bounds[1] - bounds[0]).double() / shape
    silhouettes = [_Silhouette.of(view) for view in views]
    levels = max(0, math.ceil(math.log2(int(shape.max()) / COARSEST)))
    index = torch.ones(tuple(-(-shape // (1 << levels))), dtype=torch.bool).nonzero()
    children = torch.ones(2, 2, 2, dtype=torch.bool).nonzero()
    for level in range(levels, -1, -1):
        size = voxel * (1 << level)
        half = (0.5 * size).float()
        kept, counts = [], []
        for part in index.split(CHUNK):
            centres = (bounds[0] + (part + 0.5) * size).float()
            rest, count = _uncarved(centres, half, silhouettes, needed, level == 0)
            kept.append(part[rest])
            counts.append(count)
        index = torch.cat(kept)
        if level:
            index = (2 * index[:, None] + children).reshape(-1, 3)
            index = index[(index < -(-shape // (1 << (level - 1)))).all(dim=1)]
    return index, torch.cat(counts)


def seen_by_several(scene: Scene, shape: Sequence[int]) -> Tensor:
    """The cells of the field's box that enough training views show to say what is there: in front
    of a single camera anything explains its photo.

    Args:
        scene: the scene.
        shape: cells along x, y, z.

    Returns:
        (R0, R1, R2) bool.
    """
    index = torch.ones(tuple(shape), dtype=torch.bool).nonzero()
    size = (scene.box[1] - scene.box[0]) / torch.tensor(list(shape))
    world = scene.space.to_world(scene.box[0] + (index + 0.5) * size)
    cameras = Cameras.within(scene, scene.train)
    counts = [
        sum(cameras.project(view, part)[2].int() for view in range(len(cameras)))
        for part in world.split(CHUNK)
    ]
    needed = min(len(cameras), max(2, math.ceil(SEEN_SHARE * len(cameras))))
    return (torch.cat(counts) >= needed).view(tuple(shape))


def needed_views(views: Sequence[View], bounds: Tensor, plain: Tensor | None = None) -> int:
    """How many of the views have to see a place for the object to be there: the more of them show
    the whole object, the more, for in front of a single camera anything explains its photo.  Fewer
    where masks show a separate part that is outside the others' frames.

    Args:
        views: training views.
        bounds: (2, 3) corners of where to look.
        plain: see `scene_bounds`.
    """
    whole = sum(_shows_whole_object(view, plain) for view in views)
    most = max(1, math.ceil(WHOLE_SHARE * whole))
    least = most - max(1, len(views) // MISSING)
    masked = [view for view in views if view.alpha is not None]
    if least < 2 or not masked:
        return most
    resolution = (BOUNDS_RESOLUTION,) * 3
    index, count = _carved(views, bounds, resolution, least)
    if len(index) == 0:
        return most
    cell = (bounds[1] - bounds[0]) / BOUNDS_RESOLUTION
    centres, total = bounds[0] + (index + 0.5) * cell, 0.0
    unexplained = torch.zeros(most + 1)  # of the masks, where so many views are needed
    cameras = Cameras.of(masked, 0.0, math.inf)
    for number, view in enumerate(masked):
        mask, seen_by = _explained(view, cameras.project(number, centres), count, cell)
        total += float(mask.sum())
        for needed in range(least, most + 1):
            unexplained[needed] += mask[seen_by < needed].sum()
    enough = unexplained <= unexplained[least] + UNEXPLAINED * total
    return max(n for n in range(least, most + 1) if bool(enough[n]))


def _explained(
    view: View, projection: tuple[Tensor, Tensor, Tensor], count: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    """A small version (h, w) of a view's mask; and how many views see, of the voxels that may
    explain each of its pixels, the one that most see (h, w), 0 where there is none.

    Args:
        view: with alpha.
        projection: of the centres of K voxels, see `Cameras.project`.
        count: (K,) how many views see each.
        cell: (3,) edge lengths of a voxel.
    """
    share = min(1.0, MASK_SIDE / max(view.height, view.width))
    height, width = (max(1, round(share * n)) for n in (view.height, view.width))
    mask = (view.alpha > 0).float()[None, None]
    mask = functional.adaptive_avg_pool2d(mask, (height, width))[0, 0]
    pixel, depth, inside = projection
    small = pixel[inside] * torch.tensor([width / view.width, height / view.height])
    column, row = small.long().unbind(1)
    place = row.clamp(max=height - 1) * width + column.clamp(max=width - 1)
    seen_by = torch.zeros(height * width)
    seen_by.scatter_reduce_(0, place, count[inside].float(), "amax")
    # a voxel's centre explains what the voxel covers
    away = float(depth.clamp(min=float(cell.max())).median())
    reach = 1 + math.ceil(share * view.fx * float((cell / 2).norm()) / away)
    seen_by = seen_by.view(1, 1, height, width)
    seen_by = functional.max_pool2d(seen_by, 2 * reach + 1, stride=1, padding=reach)
    return mask, seen_by[0, 0]


def plain_border(view: View, background: Tensor) -> float | None:
    """Share of the pixels along an image's sides that have the colour ``background (3,)``, in
    [0, 1], but for JPEG's noise; None where all of them are masked."""
    edge = _border(view.image).float()
    if view.valid is not None:
        edge = edge[_border(view.valid)]
    if len(edge) == 0:
        return None
    level = (255.0 * background).round()
    return float(((edge - level).abs() <= JPEG_NOISE).all(dim=1).float().mean())


def _border(image: Tensor) -> Tensor:
    """The pixels along the sides of an image (H, W, ...), in one list."""
    return torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])


def _shows_whole_object(view: View, plain: Tensor | None = None) -> bool:
    if view.alpha is None:
        return plain is not None and plain_border(view, plain) == 1.0
    margin = 1 if min(view.alpha.shape) < LARGE else 2
    inner = view.alpha[margin:-margin, margin:-margin].count_nonzero()
    return bool(inner > 0 and inner == view.alpha.count_nonzero())


@dataclass
class _Silhouette:
    """A view's camera and the running sums of its mask, for exact counts over rectangles.

    Attributes:
        w2c: (3, 3) world-to-camera rotation.
        centre: (3,) the camera's position.
        fx, fy, cx, cy: intrinsics in pixels.
        height, width: pixels.
        sums: ((H + 1) * (W + 1),) int32, number of pixels above and left that have alpha or are not
            valid, or None.
        whole: whether it shows the whole object.
    """

    w2c: Tensor
    centre: Tensor
    fx: float
    fy: float
    cx: float
    cy: float
    height: int
    width: int
    sums: Tensor | None
    whole: bool

    @classmethod
    def of(cls, view: View) -> _Silhouette:
        sums = None
        if view.alpha is not None:
            traces = view.alpha > 0
            if view.valid is not None:
                traces = traces | ~view.valid  # what was not seen carves nothing
            counts = traces.int().cumsum(0, dtype=torch.int32)
            counts = counts.cumsum(1, dtype=torch.int32)
            sums = functional.pad(counts, (1, 0, 1, 0)).flatten()
        return cls(
            torch.linalg.inv(view.c2w[:, :3]),
            view.c2w[:, 3],
            *(view.fx, view.fy, view.cx, view.cy),
            *(view.height, view.width, sums),
            _shows_whole_object(view),
        )

    def test(self, centres: Tensor, half: Tensor, finest: bool) -> tuple[Tensor, Tensor]:
        """Which voxels are (partly) in view, and which are not carved away.

        Args:
            centres: (3, N) of the voxels.
            half: (3,) half their size.
            finest: whether no smaller ones will be tested.  Larger ones that leave an image may
                hold something far beyond it.

        Returns:
            seen, uncarved: (N,) bool each.
        """
        shift = (self.w2c @ self.centre).tolist()
        x, y, z = (
            row[0] * centres[0] + row[1] * centres[1] + row[2] * centres[2] - origin
            for row, origin in zip(self.w2c.tolist(), shift, strict=True)
        )
        dx, dy, dz = (self.w2c.abs() @ half).tolist()
        depth, right, down = -z, x * self.fx, y * -self.fy
        seen = depth + dz > 0
        low, high, within = [], [], depth > dz
        # behind the camera there is no projection: any finite number does
        ahead = (depth - dz).clamp(min=1e-9)
        for offset, spread, middle, length in (
            (right, dx * self.fx, self.cx, self.width),
            (down, dy * self.fy, self.cy, self.height),
        ):
            # the planes through the camera and the image's edges, which hold behind it as well
            seen = seen & (offset + spread + middle * depth + abs(middle) * dz > 0)
            rest = length - middle
            seen = seen & (offset - spread - rest * depth - abs(rest) * dz < 0)
            # of (offset +- spread) / (depth +- dz), the largest departure from offset / depth
            position = offset / (ahead + dz)
            margin = (spread + position.abs() * dz) / ahead
            first, last = position + middle - margin, position + middle + margin
            if not (finest and self.whole):
                within = within & (first >= 0) & (last <= length)
            low.append(first.floor().clamp(0, length))
            high.append(last.ceil().clamp(0, length))
        if self.sums is None:
            return seen, torch.ones_like(seen)
        return seen, ~(seen & within & (self._count(low, high) == 0))

    def _count(self, low: list[Tensor], high: list[Tensor]) -> Tensor:
        """Pixels with alpha in the rectangles of columns and rows ``low .. high`` (exclusive)."""
        left, right = low[0].int(), high[0].int()
        top, bottom = (side.int() * (self.width + 1) for side in (low[1], high[1]))
        # index_select is ten times as fast as indexing here
        inner = self.sums.index_select(0, bottom + right) + self.sums.index_select(0, top + left)
        return inner - self.sums.index_select(0, top + right).add_(
            self.sums.index_select(0, bottom + left)
        )


def _uncarved(
    centres: Tensor, half: Tensor, silhouettes: list[_Silhouette], needed: int, finest: bool
) -> tuple[Tensor, Tensor]:
    """Indices of the voxels that no silhouette carves away and at least ``needed`` ones see, and
    how many see each."""
    index = torch.arange(len(centres))
    centres = centres.T.contiguous()
    alive = torch.ones(len(index), dtype=torch.bool)
    count = torch.zeros(len(index), dtype=torch.int32)
    for silhouette in silhouettes:
        seen, uncarved = silhouette.test(centres, half, finest)
        alive &= uncarved
        count += seen
        if int(alive.sum()) < 0.8 * len(alive):  # compacting costs more than a few idle tests
            rest = alive.nonzero()[:, 0]
            index, count = index.index_select(0, rest), count.index_select(0, rest)
            centres = centres.index_select(1, rest)
            alive = torch.ones(len(index), dtype=torch.bool)
    kept = alive & (count >= needed)
    return index[kept], count[kept]
