"""Where surfaces are likely, before anything is trained: plane-sweep stereo between neighbouring
photos (Collins 1996).

Along the ray of each pixel of a photo, places are judged by how alike the neighbouring photos show
them; that makes a probability for each place of being what the pixel shows.  Over all rays, a
place's opacity is the share of those that end there, of those that get there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from datasets.cameras.rays import Cameras
from datasets.scene import Scene, View
from utils.images import sample_bilinear

LONGEST = 128  # pixels of an image's longer side, at most: no fewer than there are vertices
REFERENCES = 24  # views whose rays are followed, at most
NEIGHBOURS = 6  # of them that are compared, at most
WINDOW = 5  # pixels of a side of the patches that are compared
NOISE = 0.02  # difference of colours, in [0, 1], that makes a place e times less likely
SHOWN = 0.3  # least share of a patch that a neighbour has to show
REACHED = 0.05  # rays that have to get to a place, for its density to be known
MOST = 0.999  # opacity of a cell
PATIENCE = 2.0  # seconds, before progress is shown
TINY = 1e-6  # guards divisions by 0
UNLIKE = 9.0  # stands for the difference from what a neighbour does not show


def stereo_density(scene: Scene, shape: Sequence[int]) -> Tensor:
    """Density that photos agree on.

    Args:
        scene: with at least one training view; photos of all that is there, without masks.
        shape: vertices along x, y, z of an even grid over the field's box.

    Returns:
        Densities ``shape``, per unit of the field's space; 0 where nothing is known.
    """
    views = [_small(view) for view in scene.train]
    cameras = Cameras.within(scene, views)
    size = torch.tensor(list(shape))
    cell = (scene.box[1] - scene.box[0]) / (size - 1)
    step = float(cell.min())
    ends, reaches = torch.zeros(2, math.prod(shape)).unbind()
    count = min(REFERENCES, len(views))
    chosen = torch.linspace(0, len(views) - 1, count).round().long().tolist()
    for number in tqdm(chosen, desc="stereo", unit="view", delay=PATIENCE):
        x, likely = _ends(scene, cameras, views, number, step)
        index = ((x - scene.box[0]) / cell).round().long().clamp(min=0)
        index = torch.minimum(index, size - 1)
        vertex = (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2]
        # of a ray, what has not ended before
        arrives = (1 - (likely.cumsum(0) - likely)) * (likely.sum(0) > 0)
        ends.index_add_(0, vertex, likely.flatten())
        reaches.index_add_(0, vertex, arrives.flatten())
    opacity = (ends / reaches.clamp(min=TINY)).clamp(max=MOST) * (reaches > REACHED)
    return (-torch.log1p(-opacity) / step).view(*shape)


def _small(view: View) -> View:
    share = min(1.0, LONGEST / max(view.width, view.height))
    return view.resized(*(max(1, round(n * share)) for n in (view.width, view.height)))


def _ends(
    scene: Scene, cameras: Cameras, views: Sequence[View], number: int, step: float
) -> tuple[Tensor, Tensor]:
    """Where the rays of a small view may end.

    Args:
        number: of the view.
        step: from one place on a ray to the next, units of the field's space, about.

    Returns:
        Positions (D * h * w, 3) of D places on each ray, in the field's space, and the probability
        (D, h * w) of each; all 0 on a ray that no neighbour shows.
    """
    own = views[number]
    rays = cameras.view_rays(number).clip(scene.box)
    march, ray = rays.march(), torch.arange(len(rays))
    length = (march.far - march.near).clamp(min=0)
    n_places = max(2, math.ceil(float(length.median()) / step))
    s = march.near[:, None] + length[:, None] * ((torch.arange(n_places) + 0.5) / n_places)
    x = rays.points(ray.repeat(n_places), march.distance(ray, s).T.flatten())
    world = scene.space.to_world(x)
    differences = [
        _difference(own, views[other], *cameras.project(other, world)[::2])
        for other in _neighbours(cameras, number)
    ]
    if not differences:
        return x, torch.zeros(n_places, len(ray))
    # hidden in some of them, a place is still shown by others
    difference = torch.stack(differences).sort(0).values
    known = difference < UNLIKE
    counted = (known.sum(0) + 1) // 2
    best = torch.where(known, difference, 0).cumsum(0)
    best = best.gather(0, (counted - 1).clamp(min=0)[None])[0] / counted.clamp(min=1)
    usable = counted > 0
    if own.valid is not None:
        usable = usable & own.valid.flatten()
    likely = torch.where(usable, -best / NOISE, -torch.inf).softmax(0)
    return x, torch.where(usable, likely, 0)


def _difference(own: View, other: View, pixel: Tensor, inside: Tensor) -> Tensor:
    """(D, h * w) mean difference of colours of the patches around the pixels of a view, at D places
    on each ray, from those that another shows there; `UNLIKE` where it does not.

    Args:
        pixel: (D * h * w, 2) where the other view shows each place.
        inside: (D * h * w,) whether it does.
    """
    shape = (1, -1, own.height, own.width)
    if other.valid is not None:
        column, row = pixel.long().unbind(-1)
        column, row = column.clamp(0, other.width - 1), row.clamp(0, other.height - 1)
        inside = inside & other.valid[row, column]
    colours = sample_bilinear(other.image.float() / 255, pixel)
    colours = colours.view(-1, own.height * own.width, 3)
    difference = (colours - own.image.view(-1, 3) / 255).abs().mean(-1).view(shape)
    inside = inside.view(shape)
    share = _mean_around(inside.float())
    mean = _mean_around(torch.where(inside, difference, 0)) / share.clamp(min=TINY)
    return torch.where(share > SHOWN, mean, UNLIKE).flatten(2)[0]


def _mean_around(values: Tensor) -> Tensor:
    """(1, D, h, w) means over windows of ``values (1, D, h, w)``, of what of them is inside."""
    return functional.avg_pool2d(values, WINDOW, 1, WINDOW // 2, count_include_pad=False)


def _neighbours(cameras: Cameras, view: int) -> list[int]:
    """The cameras nearest to one, in place and direction."""
    position, backward = cameras.c2w[:, :, 3], cameras.c2w[:, :, 2]
    spread = (position - position.mean(0)).norm(dim=1).mean().clamp(min=TINY)
    away = (position - position[view]).norm(dim=1) / spread
    turned = 1 - (backward * backward[view]).sum(1)
    order = (away + turned).argsort(stable=True).tolist()
    return [other for other in order if other != view][:NEIGHBOURS]
