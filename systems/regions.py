"""Parts of space for styles: boxes, or masks in the training views, which are made one with the
frozen geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.cameras.rays import Cameras
from datasets.scene import Scene, View
from models.checkpoint import Checkpoint
from models.regions import RegionColours
from models.renderer import Renderer
from systems.frozen import FrozenGeometry
from systems.style import IMAGE_SUFFIXES
from utils.errors import UserError
from utils.images import read_image, resize

CELLS = 96  # of the grid of shares, along the longest side
SEAM = 3  # vertices over which a region's border is blurred, twice


@dataclass(frozen=True)
class Region:
    """Where a style is to be seen.

    Attributes:
        style: its name.
        box: (2, 3) world corners, or None.
        masks: folder of images that are white where it is, named like training views, or None.
    """

    style: str
    box: Tensor | None = None
    masks: Path | None = None


def read_regions(words: Sequence[str], checkpoint: Checkpoint) -> list[Region]:
    """The regions of ``NAME=X,Y,Z,X,Y,Z`` (a box: lower corner, then upper) and ``NAME=FOLDER``.

    Raises:
        UserError: not of this form, an unknown style, or no such folder.
    """
    regions = []
    for word in words:
        name, equals, place = word.rpartition("=")
        if not equals:
            raise UserError(f"--regions {word}: give NAME=FOLDER or NAME=X,Y,Z,X,Y,Z")
        try:
            _, name = checkpoint.chosen(None, name)
        except UserError as error:
            reason = str(error).removeprefix(f"--style {name}: ")
            raise UserError(f"--regions {word}: the style {name} is {reason}") from None
        try:
            box = torch.tensor([float(x) for x in place.split(",")])
        except ValueError:
            if not Path(place).is_dir():
                raise UserError(
                    f"--regions {word}: no folder {place}; give one of masks, or a box X,Y,Z,X,Y,Z"
                ) from None
            regions.append(Region(name, masks=Path(place)))
            continue
        if len(box) != 6 or not bool((box[:3] < box[3:]).all()):
            raise UserError(
                f"--regions {word}: give the box's lower x, y, z, then its upper ones, larger each"
            )
        regions.append(Region(name, box=box.view(2, 3)))
    return regions


@torch.no_grad()
def with_regions(
    renderer: Renderer, checkpoint: Checkpoint, field: str, scene: Scene, regions: Sequence[Region]
) -> None:
    """Gives a renderer's field other styles in some regions; elsewhere it keeps its own.

    Args:
        renderer: of the field called ``field``, on its device.
        checkpoint: with the regions' styles.
        scene: with the training views' cameras.
        regions: where several overlap, each has its share.

    Raises:
        UserError: a folder has no mask of a training view.
    """
    bounds = renderer.bounds
    sides = bounds[1] - bounds[0]
    counts = (sides / sides.max() * CELLS).ceil().long().clamp(min=1).tolist()
    steps = [torch.linspace(0, 1, n + 1, device=bounds.device) for n in counts]
    points = bounds[0] + sides * torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
    others = torch.stack([
        _inside(region.box, scene.space.to_world(points.view(-1, 3)).view_as(points))
        if region.box is not None
        else _voted(region, renderer, scene, points)
        for region in regions
    ])  # fmt: skip
    others = _blurred(others)
    others = others / others.sum(0).clamp(min=1)
    shares = torch.cat([1 - others.sum(0, keepdim=True), others])
    geometry = renderer.field.geometry
    styles: list[nn.Module] = [renderer.field.style]
    styles += [checkpoint.style(field, region.style, geometry).to(bounds) for region in regions]
    renderer.field.style = RegionColours(styles, shares, bounds.clone()).requires_grad_(False)


def _inside(box: Tensor, world: Tensor) -> Tensor:
    low, high = box.to(world)
    return ((world >= low) & (world <= high)).all(-1).float()


def _voted(region: Region, renderer: Renderer, scene: Scene, points: Tensor) -> Tensor:
    """(R0, R1, R2) the mean of a region's masks over what each vertex adds to their pixels, which
    minimises the squared difference from the masks of each sample's share; where no mask sees
    anything, as nearby."""
    found = [(view, _mask_of(region, view)) for view in scene.train]
    found = [(view, mask) for view, mask in found if mask is not None]
    if not found:
        raise UserError(
            f"--regions {region.style}={region.masks}: no mask of a training view; name them like "
            f"these, for example {scene.train[0].name}.png"
        )
    shape, views = points.shape[:3], [view for view, _ in found]
    frozen = FrozenGeometry(renderer, Cameras.within(scene, views).to(points.device), 0.0)
    votes = points.new_zeros(2, points[..., 0].numel())
    low, high = points[0, 0, 0], points[-1, -1, -1]
    last = torch.tensor(shape, device=points.device) - 1
    for index, (_, mask) in enumerate(found):
        own, mask = frozen.view(index), mask.to(points.device).flatten()
        counts = own.first.diff()
        ray = torch.repeat_interleave(torch.arange(len(own), device=counts.device), counts)
        x = own.rays(slice(0, len(own))).points(ray, own.t)
        cell = ((x - low) / (high - low) * last).round().long().clamp(min=0).minimum(last)
        number = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
        yes = own.weights * mask[own.places][ray]
        votes.index_add_(1, number, torch.stack([yes, own.weights]))
    votes = votes.view(2, *shape)
    share = votes[0] / votes[1].clamp(min=1e-9)
    known = votes[1] > 1e-4
    reach = 1
    while not bool(known.all()) and reach < 2 * max(shape):
        yes, seen = _pooled(torch.stack([share * known, known.float()]), 2 * reach + 1)
        share = torch.where(known, share, yes / seen.clamp(min=1e-9))
        known, reach = known | (seen > 1e-6), 2 * reach
    return share


def _mask_of(region: Region, view: View) -> Tensor | None:
    """(H, W) in [0, 1], of the view's size; None where there is none."""
    files = (region.masks / f"{view.name}{suffix}" for suffix in IMAGE_SUFFIXES)
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    image = torch.from_numpy(read_image(file)[0]).float() / 255
    return resize(image, view.width, view.height).mean(-1).clamp(0, 1)


def _blurred(shares: Tensor) -> Tensor:
    return _pooled(_pooled(shares, SEAM), SEAM)


def _pooled(volumes: Tensor, width: int) -> Tensor:
    """(K, R0, R1, R2) means over cubes of a side, fewer vertices at the border; axis by axis, which
    takes a time that grows with the side instead of its cube."""
    for axis in range(3):
        sides = [width if axis == i else 1 for i in range(3)]
        padding = [side // 2 for side in sides]
        volumes = functional.avg_pool3d(
            volumes[None], sides, stride=1, padding=padding, count_include_pad=False
        )[0]
    return volumes
