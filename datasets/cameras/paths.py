"""Camera paths worked out from the training cameras: a circle around what they look at, a spiral,
or a smooth path from one to the next."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from datasets.cameras.poses import look_at, look_at_ball, perpendicular, up_axis
from datasets.cameras.rays import Cameras
from datasets.cameras.spline import CameraSpline
from datasets.scene import Scene, View
from utils.errors import UserError

TURNS = 2  # of the spiral, in which it moves forwards and back once
FOCUS = 4.0  # depth that the spiral's cameras look at, in distances of the near plane
SPIRAL_QUANTILE = 0.9  # share of the training cameras within the spiral's width
SPIRAL_RADIUS = 0.2  # around a single camera, in distances of what it looks at
KEYFRAMES = 8  # training views along a path for which none are named
SUBJECT_SHARE = 0.8  # of the photos that show what all look at, for a path to keep it in sight
SUBJECT_WITHIN = 0.6  # of the angle from a picture's middle to its nearer border
ROTATION_WEIGHT = 0.1  # of a turn on the spot against the same turn about the scene's centre


def circle_path(scene: Scene, n_frames: int) -> Cameras:
    """A closed circle around the look-at point, at the training cameras' mean distance and mean
    elevation, starting on the side of the first training view.

    Forward-facing scenes (NDC) have no other side: they get `spiral_path`.

    Args:
        scene: its training cameras give the circle; the first gives intrinsics and image size.
        n_frames: frames in one turn; the first is not repeated at the end.

    Returns:
        ``n_frames`` cameras with the scene's near and far.
    """
    if scene.space.forward_facing:
        return spiral_path(scene, n_frames)
    c2w = torch.stack([view.c2w for view in scene.train])
    centre, _ = look_at_ball(c2w)
    up = up_axis(c2w)
    offsets = c2w[:, :, 3] - centre
    distances = offsets.norm(dim=1)
    elevation = float(torch.asin(((offsets @ up) / distances).clamp(-1.0, 1.0)).mean())
    start = perpendicular(offsets[0], up)
    aside = torch.linalg.cross(up, start)
    angle = torch.arange(n_frames) * (2.0 * math.pi / n_frames)
    level = angle.cos()[:, None] * start + angle.sin()[:, None] * aside
    directions = math.cos(elevation) * level + math.sin(elevation) * up
    poses = [look_at(eye, centre, up) for eye in centre + distances.mean() * directions]
    return _cameras(scene, poses)


def spiral_path(scene: Scene, n_frames: int) -> Cameras:
    """A closed spiral whose cameras all look at one point (Mildenhall et al. 2019).

    In a forward-facing scene (NDC), where all cameras look along -z from around the origin, it
    goes around all of them.  Elsewhere it goes around the first training view, and looks at what
    the cameras look at.

    Args:
        scene: its training cameras give the width; the first gives intrinsics and image size.
        n_frames: frames until it closes; the first is not repeated at the end.

    Returns:
        ``n_frames`` cameras with the scene's near and far, warped if the scene is.
    """
    c2w = torch.stack([view.c2w for view in scene.train])
    if scene.space.forward_facing:
        positions = c2w[:, :, 3]
        middle, axes, up = positions.mean(dim=0), torch.eye(3), torch.tensor([0.0, 1.0, 0.0])
        radii = torch.quantile((positions - middle).abs(), SPIRAL_QUANTILE, dim=0)
        target = middle - torch.tensor([0.0, 0.0, FOCUS])
    else:
        target, _ = look_at_ball(c2w)
        middle, up = c2w[0, :, 3], up_axis(c2w)
        axes = look_at(middle, target, up)[:, :3]
        radii = SPIRAL_RADIUS * (target - middle).norm().expand(3)
    angle = torch.arange(n_frames) * (2.0 * math.pi * TURNS / n_frames)
    spiral = torch.stack([angle.cos(), -angle.sin(), -(angle / TURNS).sin()], dim=1)
    positions = middle + (spiral * radii) @ axes.T
    return _cameras(scene, [look_at(eye, target, up) for eye in positions])


def interpolated_path(scene: Scene, n_frames: int, names: Sequence[str] = ()) -> Cameras:
    """A smooth path through training views, at constant speed.

    Args:
        scene: the scene.
        n_frames: frames of the whole path.
        names: of training views, or their numbers from 0, in order; the first one again at the end
            closes the path.  None: a closed path through views that are spread evenly, see
            `closed_tour`; where most photos show what they all look at, that stays in the picture
            between them too.

    Returns:
        ``n_frames`` cameras with the scene's near and far, in the image size of the first view.

    Raises:
        UserError: an unknown view, or too few.
    """
    views = scene.train
    stops = chosen_views(views, names) if names else closed_tour(views)
    closed = not names
    if len(stops) > 2 and stops[0] == stops[-1]:
        stops, closed = stops[:-1], True
    if len(stops) < 2:
        raise UserError(
            f"--path interpolate: needs two training views, the scene has {len(views)}; "
            "take --path circle or spiral"
        )
    c2w = torch.stack([views[i].c2w for i in stops])
    lens = torch.tensor([_lens_in_size_of(views[i], views[stops[0]]) for i in stops])
    poses, intrinsics = through_keyframes(scene, c2w, lens, n_frames, closed)
    first = views[stops[0]]
    if not names:
        everywhere = torch.stack([view.c2w for view in views])
        centre, _ = look_at_ball(everywhere)
        seen = math.atan(min(first.width / first.fx, first.height / first.fy) / 2)
        shown = float((angles_from(everywhere, centre) < seen).float().mean()) > SUBJECT_SHARE
        # a path that looks away from it on the way would be turned upside down
        if shown and float(angles_from(poses, centre).max()) < math.pi / 2:
            poses = turned_towards(poses, centre, SUBJECT_WITHIN * seen)
    return cameras_in(scene, poses, intrinsics, first.height, first.width)


def angles_from(c2w: Tensor, target: Tensor) -> Tensor:
    """(N,) radians between the axes of cameras ``c2w (N, 3, 4)`` and the direction to ``target``
    (3,)."""
    ahead, towards = -c2w[:, :, 2], target - c2w[:, :, 3]
    aside = torch.linalg.cross(ahead, towards).norm(dim=1)
    return torch.atan2(aside, (ahead * towards).sum(dim=1))


def turned_towards(c2w: Tensor, target: Tensor, most: float) -> Tensor:
    """The cameras ``c2w (N, 3, 4)``, with ``target (3,)`` in front of them, turned about where they
    are so that it is less than ``most`` radians from their axes: hardly where it is near to them,
    and smoothly."""
    angle = angles_from(c2w, target)
    turn = angle - most * (angle / most).tanh()
    axis = functional.normalize(torch.linalg.cross(-c2w[:, :, 2], target - c2w[:, :, 3]), dim=1)
    turns = Rotation.from_rotvec((turn[:, None] * axis).double().numpy()).as_matrix()
    axes = torch.from_numpy(turns).to(c2w) @ c2w[:, :, :3]
    return torch.cat([axes, c2w[:, :, 3:]], dim=2)


def through_keyframes(
    scene: Scene, c2w: Tensor, intrinsics: Tensor, n_frames: int, closed: bool
) -> tuple[Tensor, Tensor]:
    """A smooth curve through cameras, at constant speed.

    Args:
        scene: its training cameras say how far a turn on the spot counts.
        c2w: (K, 3, 4) camera-to-world of at least two cameras, scene units.
        intrinsics: (K, 4) pixels, of images of one size.
        n_frames: N, from one end to the other, or once around.
        closed: whether it goes on from the last camera to the first.

    Returns:
        (N, 3, 4) camera-to-world and (N, 4) intrinsics.
    """
    _, radius = look_at_ball(torch.stack([view.c2w for view in scene.train]))
    spline = CameraSpline(c2w, intrinsics, _knots(c2w, ROTATION_WEIGHT * radius, closed))
    return spline.at(spline.evenly(n_frames, ROTATION_WEIGHT * radius))


def chosen_views(views: Sequence[View], names: Sequence[str]) -> list[int]:
    """The numbers of the views that ``names`` give: by name, else by number from 0.

    Raises:
        UserError: there is no such view, or the same twice in a row.
    """
    known = [view.name for view in views]
    chosen = []
    for name in names:
        if name not in known and not (name.isdecimal() and int(name) < len(known)):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the first is {known[0]}"
            raise UserError(
                f"--path_views {name}: no training view of that name, and no number from 0 to "
                f"{len(known) - 1}; {hint}"
            )
        chosen.append(known.index(name) if name in known else int(name))
        if len(chosen) > 1 and chosen[-1] == chosen[-2]:
            raise UserError(f"--path_views {name}: the same view twice in a row; leave one out")
    if len(chosen) < 2:
        raise UserError(f"--path_views {' '.join(names)}: a path needs two views; name more")
    return chosen


def closed_tour(views: Sequence[View]) -> list[int]:
    """At most `KEYFRAMES` views that are spread evenly, in the order of the shortest closed tour.

    Views from unusually high or low are left out: a path over the top turns upside down.
    """
    c2w = torch.stack([view.c2w for view in views])
    centre, radius = look_at_ball(c2w)
    height = (c2w[:, :, 3] - centre) @ up_axis(c2w)
    usual = (height - height.median()).abs().argsort(stable=True)[: max(KEYFRAMES, len(views) // 2)]
    usual = usual.sort().values
    # where a camera is and where it looks, so that views from one position differ, too
    features = torch.cat([c2w[usual, :, 3] / radius, c2w[usual, :, 2]], dim=1)
    stops = [0]
    while len(stops) < min(KEYFRAMES, len(usual)):
        apart = torch.cdist(features, features[stops]).amin(dim=1)
        if float(apart.max()) < 1e-6:
            break
        stops.append(int(apart.argmax()))
    lengths = torch.cdist(features[stops], features[stops])
    tours = torch.tensor([(0, *rest, 0) for rest in itertools.permutations(range(1, len(stops)))])
    shortest = tours[lengths[tours[:, :-1], tours[:, 1:]].sum(dim=1).argmin()]
    return [int(usual[stops[i]]) for i in shortest[:-1]]


def cameras_in(scene: Scene, c2w: Tensor, intrinsics: Tensor, height: int, width: int) -> Cameras:
    """Cameras that see the scene as its training cameras do, with the same range and space.

    Args:
        scene: the scene.
        c2w: (N, 3, 4) camera-to-world, scene units.
        intrinsics: (N, 4) fx, fy, cx, cy in pixels.
        height, width: of all images, pixels.
    """
    sizes = torch.tensor([[height, width]]).repeat(len(c2w), 1)
    return Cameras(c2w, intrinsics, sizes, scene.near, scene.far, scene.space)


def _cameras(scene: Scene, poses: list[Tensor]) -> Cameras:
    """Cameras at the poses (3, 4) with the first training view's intrinsics."""
    first = scene.train[0]
    lens = torch.tensor([[first.fx, first.fy, first.cx, first.cy]]).repeat(len(poses), 1)
    return cameras_in(scene, torch.stack(poses), lens, first.height, first.width)


def _lens_in_size_of(view: View, other: View) -> tuple[float, float, float, float]:
    """Intrinsics with which ``view`` shows as much from top to bottom in images of ``other``'s size
    as in its own; pixels keep their shape."""
    scale = other.height / view.height
    x, y = view.cx - view.width / 2, view.cy - view.height / 2
    centre = (other.width / 2 + scale * x, other.height / 2 + scale * y)
    return scale * view.fx, scale * view.fy, *centre


def _knots(c2w: Tensor, radius: float, closed: bool) -> np.ndarray:
    """Knots for `CameraSpline`, apart by the root of the distance: a curve without loops and
    overshooting (centripetal, Yuksel et al. 2011)."""
    following = c2w.roll(-1, dims=0)
    length = (following - c2w)[:, :, 3].norm(dim=1)
    # of a rotation by an angle the trace is 1 + 2 cos(angle)
    trace = (c2w[:, :, :3] * following[:, :, :3]).sum(dim=(1, 2))
    angle = ((trace - 1.0) / 2.0).clamp(-1.0, 1.0).acos()
    apart = torch.maximum(length, radius * angle).clamp(min=1e-6).double().sqrt().numpy()
    return np.concatenate([[0.0], np.cumsum(apart if closed else apart[:-1])])
