import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.cameras.poses import look_at, look_at_ball
from datasets.hull import near_far, needed_views, scene_bounds, visual_hull
from datasets.scene import View

UP = torch.tensor([0.0, 0.0, 1.0])


def directions(count):
    """Unit vectors spread evenly over the sphere (Fibonacci lattice)."""
    i = torch.arange(count) + 0.5
    z = 1 - 2 * i / count
    angle = i * math.pi * (3 - math.sqrt(5))
    level = (1 - z**2).sqrt()
    return torch.stack([level * angle.cos(), level * angle.sin(), z], dim=1)


def ball_view(eye, target, balls, size=(60, 70), focal=75.0, alpha=True):
    """A view of white balls ((centre, radius), ...); alpha wherever a pixel's centre is covered."""
    height, width = size
    c2w = look_at(eye, target, UP)
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    local = np.stack([column - width / 2, height / 2 - row, -focal * np.ones_like(row)], axis=-1)
    ray = torch.from_numpy(local).float() @ c2w[:, :3].T
    ray = ray / ray.norm(dim=-1, keepdim=True)
    mask = torch.zeros(height, width, dtype=torch.bool)
    for centre, radius in balls:
        arm = torch.as_tensor(centre) - eye
        along = ray @ arm
        mask |= ((arm @ arm - along**2) < radius**2) & (along > 0)
    image = torch.full((height, width, 3), 255, dtype=torch.uint8)
    cover = mask.byte() * 255 if alpha else None
    return View(image, cover, c2w, focal, focal, width / 2, height / 2, "v")


def orbit(count, balls, target=(0.0, 0.0, 0.0), distance=4.0, **options):
    target = torch.tensor(target)
    return [ball_view(target + distance * d, target, balls, **options) for d in directions(count)]


def grid(bounds, resolution):
    """Voxel centres (R0, R1, R2, 3)."""
    axes = [
        bounds[0, i] + (torch.arange(n) + 0.5) * (bounds[1, i] - bounds[0, i]) / n
        for i, n in enumerate(resolution)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


BALL = torch.tensor([0.2, -0.1, 0.1])
BOX = torch.tensor([[-1.0, -1.2, -1.1], [1.4, 1.0, 1.3]])


class TestVisualHull:
    @pytest.mark.parametrize("resolution", [(16, 16, 16), (64, 64, 64), (33, 50, 97)])
    def test_ball_is_held_and_little_more(self, resolution):
        hull = visual_hull(orbit(40, [(BALL, 0.6)]), BOX, resolution)
        assert hull.shape == resolution
        assert hull.dtype == torch.bool
        distance = (grid(BOX, resolution) - BALL).norm(dim=-1)
        assert hull[distance < 0.6].all()
        voxel = float(((BOX[1] - BOX[0]) / torch.tensor(resolution)).norm())
        pixel = 4.0 / 75
        assert not hull[distance > 0.6 + 1.1 * voxel + 2 * pixel].any()

    def test_coarse_to_fine_equals_every_voxel_on_its_own(self):
        """A 64-voxel grid, carved over two levels, against its eight 32-voxel octants, carved
        directly."""
        views = orbit(12, [(BALL, 0.6), ((-0.5, 0.3, -0.4), 0.2)])
        whole = visual_hull(views, BOX, (64, 64, 64))
        direct = torch.zeros_like(whole)
        middle = BOX.mean(dim=0)
        for corner in torch.ones(2, 2, 2).nonzero():
            lower = torch.where(corner == 0, BOX[0], middle)
            part = visual_hull(views, torch.stack([lower, lower + (middle - BOX[0])]), (32,) * 3)
            x, y, z = (slice(32 * c, 32 * c + 32) for c in corner.tolist())
            direct[x, y, z] = part
        assert 0 < direct.sum() < 0.3 * direct.numel()
        assert (whole != direct).sum() <= 3  # rounding

    def test_thin_things_are_not_lost(self):
        """A ball less than a pixel wide, where a pixel shows it, keeps its voxel at every level."""
        views = orbit(20, [])
        for view in views:
            local = view.c2w[:, :3].T @ (BALL - view.c2w[:, 3])
            column = int(view.fx * local[0] / -local[2] + view.cx)
            row = int(view.cy - view.fy * local[1] / -local[2])
            view.alpha[row, column] = 1  # the faintest trace
        hull = visual_hull(views, BOX, (128, 128, 128))
        index = ((BALL - BOX[0]) / (BOX[1] - BOX[0]) * 128).long()
        assert hull[tuple(index)]
        assert hull.sum() < 600

    def test_views_carve_only_what_they_show(self):
        """A view that looks past the ball leaves it; voxels that no view sees are dropped."""
        eye = torch.tensor([4.0, 0.0, 0.0])
        towards = ball_view(eye, BALL, [(BALL, 0.3)])
        past = ball_view(eye, torch.tensor([4.0, 9.0, 0.0]), [])
        away = ball_view(eye, torch.tensor([9.0, 0.0, 0.0]), [])
        expected = visual_hull([towards], BOX, (32, 32, 32))
        assert expected.any()
        assert torch.equal(visual_hull([towards, past, away], BOX, (32, 32, 32)), expected)
        assert not visual_hull([away], BOX, (32, 32, 32)).any()

    def test_edge_of_the_image_carves_nothing(self):
        """A ball just out of the frame: voxels that stick into the frame are partly unseen."""
        eye, radius = torch.tensor([4.0, 0.0, 0.0]), 0.3
        towards = orbit(10, [(BALL, radius)])
        turned = (
            ball_view(eye, torch.tensor([0.0, y / 100, 0.0]), [(BALL, radius)])
            for y in range(150, 400)
        )
        past = next(view for view in turned if not view.alpha.any())
        alone, both = (visual_hull(v, BOX, (20, 20, 20)) for v in (towards, [*towards, past]))
        inside = (grid(BOX, (20, 20, 20)) - BALL).norm(dim=-1) < radius + 0.05
        assert torch.equal(alone[inside], both[inside])
        assert both[inside].all()

    def test_needed_views(self):
        """Of two balls one is out of sight of the narrow second view."""
        eye = torch.tensor([0.0, -9.0, 0.0])
        left, right = torch.tensor([-0.5, 0.0, 0.0]), torch.tensor([0.9, 0.0, 0.0])
        balls = [(left, 0.2), (right, 0.2)]
        views = [
            ball_view(eye, torch.tensor([0.2, 0.0, 0.0]), balls, focal=150.0),
            ball_view(eye, left, balls, focal=600.0),
        ]
        centres = grid(BOX, (32, 32, 32))
        in_left, in_right = ((centres - c).norm(dim=-1) < 0.2 for c in (left, right))
        either = visual_hull(views, BOX, (32, 32, 32))
        assert either[in_left].all()
        assert either[in_right].all()
        both = visual_hull(views, BOX, (32, 32, 32), needed=2)
        assert both[in_left].all()
        assert not both[in_right].any()

    def test_camera_inside_the_grid(self):
        eye = torch.tensor([0.0, -0.8, 0.1])
        target = torch.tensor([0.2, 0.6, 0.1])
        hull = visual_hull([ball_view(eye, target, [(target, 0.2)])], BOX, (32, 32, 32))
        centres = grid(BOX, (32, 32, 32))
        assert hull[(centres - target).norm(dim=-1) < 0.2].all()
        behind = (centres - eye) @ (target - eye) / (target - eye).norm() < -0.1
        assert not hull[behind].any()

    def test_without_alpha_the_common_sight_is_kept(self):
        hull = visual_hull(orbit(6, [], alpha=False), BOX, (20, 20, 20))
        assert hull.all()

    def test_what_is_ignored_carves_nothing(self):
        """A mask over half of the ball in one view: without it that half would be gone."""
        bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
        views = orbit(12, [(BALL, 0.6)])
        whole = visual_hull(views, bounds, (32, 32, 32))
        views[3].alpha[:, :35] = 0
        assert visual_hull(views, bounds, (32, 32, 32)).sum() < 0.8 * whole.sum()
        views[3].valid = torch.arange(70).expand(60, 70) >= 35
        again = visual_hull(views, bounds, (32, 32, 32))
        assert (again | ~whole).all()
        assert again.sum() < 1.1 * whole.sum()


class TestSceneBounds:
    @pytest.mark.parametrize("distance", [0.04, 4.0, 400.0])
    def test_box_around_the_ball_at_any_scale(self, distance):
        unit = distance / 4.0
        centre = BALL * unit
        bounds = scene_bounds(orbit(40, [(centre, 0.6 * unit)], distance=distance))
        margin = torch.stack([centre - bounds[0], bounds[1] - centre]) / unit - 0.6
        assert (margin > 0).all()
        assert (margin < 0.25).all()

    def test_away_from_the_origin(self):
        target = (7.0, -3.0, 5.0)
        bounds = scene_bounds(orbit(40, [(torch.tensor(target), 0.6)], target=target))
        assert (bounds.mean(dim=0) - torch.tensor(target)).abs().max() < 0.1
        assert (bounds[1] - bounds[0]).max() < 1.7

    def test_few_views_stay_near_the_ball(self):
        bounds = scene_bounds(orbit(6, [(BALL, 0.6)]))
        assert (bounds[0] < BALL - 0.6).all()
        assert (bounds[1] > BALL + 0.6).all()
        assert (bounds[1] - bounds[0]).max() < 3.5

    @pytest.mark.parametrize("focal", [60.0, 90.0])
    @pytest.mark.parametrize("count", [3, 4, 5])
    def test_what_sticks_out_of_whole_views_is_carved_too(self, count, focal):
        """Or else shells along the borders of their images remain, and with them a box as large as
        the cameras' distance."""
        views = orbit(count, [(BALL, 0.6)], focal=focal)
        bounds = scene_bounds(views)
        hull = visual_hull(views, bounds, (64, 64, 64), needed_views(views, bounds))
        distance = (grid(bounds, (64, 64, 64)) - BALL).norm(dim=-1)
        assert (bounds[1] - bounds[0]).max() < 1.3 * 1.2 and distance[hull].max() < 0.9

    @pytest.mark.parametrize(("count", "missing"), [(4, 1), (6, 1), (8, 1), (8, 2)])
    def test_a_separate_part_outside_a_few_frames_is_kept(self, count, missing):
        """Photos of which one or two miss a small ball beside a large one, which all show."""
        part = BALL + torch.tensor([0.3, 0.2, 1.2])
        balls = [(BALL, 0.6), (part, 0.25)]
        views = orbit(count, balls, target=BALL.tolist())
        for index in range(count // 2, count // 2 + missing):
            eye = BALL + 4.0 * directions(count)[index]
            top = int(ball_view(eye, BALL, balls[:1]).alpha.any(1).nonzero()[0]) - 1
            view = views[index]
            image, alpha, cy = view.image[top:], view.alpha[top:], view.cy - top
            views[index] = replace(view, image=image, alpha=alpha, cy=cy)
            assert alpha.any() and not alpha[0].any()
        bounds = scene_bounds(views)
        hull = visual_hull(views, bounds, (64, 64, 64), needed_views(views, bounds))
        centres = grid(bounds, (64, 64, 64))
        inside = (centres - part).norm(dim=-1) < 0.22
        assert (bounds[1] > part + 0.25).all() and inside.any() and hull[inside].all()
        assert needed_views(orbit(count, balls[:1]), bounds) == math.ceil(0.9 * count)

    @pytest.mark.parametrize("empty", [0, 1])
    def test_object_larger_than_the_images(self, empty):
        """No view shows all of the ball, so what only some views show belongs to it as well; also
        where masks leave out the outermost pixels, as some tools do."""
        balls, size = [(torch.zeros(3), 2.5)], (120, 140) if empty else (60, 70)
        views = orbit(30, balls, focal=2.0 * size[0], size=size)
        for view in views if empty else []:
            for side in (view.alpha, view.alpha.T):
                side[0] = side[-1] = 0
        bounds = scene_bounds(views)
        assert (bounds[0] < -2.2).all()
        assert (bounds[1] > 2.2).all()

    def test_part_that_some_views_miss(self):
        balls = [(torch.zeros(3), 0.5), (torch.tensor([1.5, 0.0, 0.0]), 0.3)]
        bounds = scene_bounds(orbit(40, balls))
        assert float(bounds[1, 0]) > 1.8
        assert float(bounds[0, 0]) > -0.8

    def test_without_alpha_it_reaches_to_the_cameras(self):
        target = torch.tensor([1.0, 2.0, 3.0])
        bounds = scene_bounds(orbit(20, [], target=target.tolist(), distance=2.5, alpha=False))
        torch.testing.assert_close(bounds, torch.stack([target - 2.5, target + 2.5]))


class TestLookAtBall:
    def test_inward(self):
        target = torch.tensor([1.0, -2.0, 0.5])
        poses = torch.stack([look_at(target + 3 * d, target, UP) for d in directions(9)])
        centre, radius = look_at_ball(poses)
        torch.testing.assert_close(centre, target, atol=1e-4, rtol=0)
        assert radius == pytest.approx(3.0, rel=1e-4)

    @pytest.mark.parametrize("converging", [True, False])
    def test_forward_facing(self, converging):
        """Where side-by-side cameras look at a point it is found; else the guess is in front."""
        eyes = torch.tensor([[x, y, 0.0] for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0)])
        aim = torch.tensor([0.0, 0.0, -6.0])
        poses = torch.stack([look_at(e, aim if converging else e + aim, UP) for e in eyes])
        centre, radius = look_at_ball(poses)
        if converging:
            torch.testing.assert_close(centre, aim, atol=1e-4, rtol=0)
        else:
            assert centre[:2].abs().max() < 1e-4
            assert -8 < float(centre[2]) < -2
        assert 2 < radius < 8

    def test_axes_that_meet_behind_the_cameras(self):
        poses = torch.stack([look_at(d, 2 * d, UP) for d in directions(30) if d[0] > 0.3])
        centre, radius = look_at_ball(poses)
        assert float(centre[0]) > 0.6
        assert radius > 1.0

    def test_panorama(self):
        poses = torch.stack([look_at(d, 2 * d, UP) for d in directions(50)])
        centre, radius = look_at_ball(poses)
        assert centre.norm() < 0.1
        assert radius > 2.0

    def test_single_camera(self):
        pose = look_at(torch.tensor([0.0, -3.0, 4.0]), torch.zeros(3), UP)[None]
        centre, radius = look_at_ball(pose)
        torch.testing.assert_close(centre, torch.zeros(3), atol=1e-5, rtol=0)
        assert radius == pytest.approx(5.0)

    def test_single_camera_at_the_origin(self):
        centre, radius = look_at_ball(torch.eye(4)[None, :3])
        assert centre.tolist() == [0, 0, -1]
        assert radius == 1.0


class TestNearFar:
    def test_outside(self):
        views = [
            ball_view(torch.tensor(eye), torch.zeros(3), [])
            for eye in ([5.0, 0.0, 0.0], [0.0, 0.0, -4.0])
        ]
        near, far = near_far(views, torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
        assert near == pytest.approx(3.0)
        assert far == pytest.approx(math.sqrt(36 + 1 + 1))

    def test_inside_near_is_a_small_fraction_of_far(self):
        views = [ball_view(torch.tensor([0.5, 0.0, 0.0]), torch.ones(3), [])]
        near, far = near_far(views, torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
        assert far == pytest.approx(math.sqrt(1.5**2 + 2))
        assert 0 < near < 0.05 * far
