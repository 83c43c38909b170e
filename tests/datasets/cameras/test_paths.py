import math
from pathlib import Path

import pytest
import torch

from datasets.cameras.paths import (
    angles_from,
    chosen_views,
    circle_path,
    closed_tour,
    interpolated_path,
    spiral_path,
    turned_towards,
)
from datasets.cameras.poses import look_at, look_at_ball, up_axis
from datasets.cameras.space import NDC, WORLD
from datasets.formats.blender import load_blender as load
from datasets.load import LoadOptions, load_scene
from opt import parse_eval
from utils.errors import UserError


def load_blender(root):
    """The scene with the default options."""
    return load(root, LoadOptions())


SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"

UP = torch.tensor([0.0, 0.0, 1.0])


def check_is_pose(c2w):
    axes = c2w[:, :3]
    torch.testing.assert_close(axes.T @ axes, torch.eye(3), atol=1e-5, rtol=0)
    assert float(torch.linalg.det(axes)) > 0


class TestLookAt:
    def test_known_pose(self):
        pose = look_at(torch.tensor([0.0, -5.0, 0.0]), torch.zeros(3), UP)
        expected = torch.tensor(
            [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, -5.0], [0.0, 1.0, 0.0, 0.0]]
        )
        torch.testing.assert_close(pose, expected)

    def test_looks_at_the_target_upright(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            eye, target = torch.randn(2, 3, generator=generator)
            pose = look_at(eye, target, UP)
            check_is_pose(pose)
            aim = (target - eye) / (target - eye).norm()
            torch.testing.assert_close(-pose[:, 2], aim, atol=1e-5, rtol=0)
            assert abs(float(pose[2, 0])) < 1e-5  # the x axis is level
            assert float(pose[2, 1]) > 0

    @pytest.mark.parametrize("height", [3.0, -3.0])
    def test_along_the_up_axis(self, height):
        pose = look_at(torch.tensor([0.0, 0.0, height]), torch.zeros(3), UP)
        check_is_pose(pose)
        assert float(pose[2, 2]) == math.copysign(1.0, height)

    def test_same_point(self):
        with pytest.raises(ValueError, match="same point"):
            look_at(torch.ones(3), torch.ones(3), UP)


class TestUpAxis:
    def poses(self, up, azimuths, elevation=0.6):
        side = torch.linalg.cross(up, torch.tensor([1.0, 0.0, 0.0]))
        side = side / side.norm()
        front = torch.linalg.cross(side, up)
        return torch.stack(
            [
                look_at(
                    math.cos(elevation) * (math.cos(a) * front + math.sin(a) * side)
                    + math.sin(elevation) * up,
                    torch.zeros(3),
                    up,
                )
                for a in azimuths
            ]
        )

    @pytest.mark.parametrize("azimuths", [(0.0, 1.0), (0.0, 0.8, 1.6), tuple(range(6))])
    def test_level_cameras(self, azimuths):
        """Also from cameras on one side only, whose mean y axis leans backwards."""
        up = torch.tensor([0.6, 0.0, -0.8])
        torch.testing.assert_close(up_axis(self.poses(up, azimuths)), up, atol=0.01, rtol=0)

    def test_single_camera_takes_its_own(self):
        poses = self.poses(UP, [0.3])
        torch.testing.assert_close(up_axis(poses), poses[0, :, 1], atol=1e-4, rtol=0)


class TestCirclePath:
    def test_circle(self, tiny_scene_dir, sphere):
        scene = load_blender(tiny_scene_dir)
        centre = torch.tensor(sphere[0]).float()
        path = circle_path(scene, 12)
        assert len(path) == 12
        assert (path.near, path.far) == (scene.near, scene.far)
        assert path.sizes.tolist() == [[20, 24]] * 12
        view = scene.train[0]
        expected = torch.tensor([view.fx, view.fy, view.cx, view.cy])
        torch.testing.assert_close(path.intrinsics, expected.expand(12, 4))
        arms = path.c2w[:, :, 3] - centre
        torch.testing.assert_close(arms.norm(dim=1), torch.full((12,), 3.0), atol=1e-3, rtol=0)
        heights = torch.stack([v.c2w[:, 3] for v in scene.train])[:, 2] - centre[2]
        elevation = float((heights / 3.0).asin().mean())
        torch.testing.assert_close(
            (arms[:, 2] / 3.0).asin(), torch.full((12,), elevation), atol=5e-3, rtol=0
        )
        # closed and even: every step is as long, the last back to the first as well
        steps = (arms - arms.roll(1, dims=0)).norm(dim=1)
        expected = 2 * 3.0 * math.cos(elevation) * math.sin(math.pi / 12)
        torch.testing.assert_close(steps, torch.full((12,), expected), atol=5e-3, rtol=0)
        start = view.c2w[:2, 3] - centre[:2]
        cosine = (arms[0, :2] @ start) / (arms[0, :2].norm() * start.norm())
        assert float(cosine) > 0.999

    def test_middle_ray_meets_the_look_at_point(self, tiny_scene_dir, sphere):
        path = circle_path(load_blender(tiny_scene_dir), 5)
        path.intrinsics[:, 2:] = torch.tensor([12.5, 10.5])  # the middle of pixel (10, 12)
        rays = path.rays(torch.arange(5), torch.full((5,), 10), torch.full((5,), 12))
        arm = torch.tensor(sphere[0]).float() - rays.origins
        across = arm - (arm * rays.directions).sum(dim=1, keepdim=True) * rays.directions
        assert across.norm(dim=1).max() < 1e-3
        for pose in path.c2w:
            check_is_pose(pose)

    def test_single_view(self, tmp_path, write_scene):
        scene = load_blender(write_scene(tmp_path / "s", counts={"train": 1}))
        path = circle_path(scene, 4)
        assert torch.isfinite(path.c2w).all()
        torch.testing.assert_close(path.c2w[0], scene.train[0].c2w, atol=1e-3, rtol=0)


class TestSpiral:
    def test_of_a_forward_facing_scene(self, tiny_scene_dir):
        scene = load_blender(tiny_scene_dir)
        generator = torch.Generator().manual_seed(0)
        for view in scene.train:
            eye = torch.rand(3, generator=generator) - 0.5
            view.c2w = torch.cat([torch.eye(3), eye[:, None]], dim=1)
        scene.space = NDC.of(scene.train[0])
        path = circle_path(scene, 40)
        assert path.space is scene.space
        assert len(path) == 40
        assert (path.near, path.far) == (scene.near, scene.far)
        eyes = torch.stack([view.c2w[:, 3] for view in scene.train])
        middle = eyes.mean(dim=0)
        reach = (eyes - middle).abs().amax(dim=0)
        target = middle - torch.tensor([0.0, 0.0, 4.0])
        for pose in path.c2w:
            check_is_pose(pose)
            assert ((pose[:, 3] - middle).abs() <= reach + 1e-5).all()
            aim = (target - pose[:, 3]) / (target - pose[:, 3]).norm()
            torch.testing.assert_close(-pose[:, 2], aim, atol=1e-5, rtol=0)
        steps = (path.c2w[:, :, 3] - path.c2w.roll(1, 0)[:, :, 3]).norm(dim=1)
        assert steps.max() < 0.4 * reach.norm()  # closed, without a jump

    def test_elsewhere_it_goes_around_the_first_view(self, tiny_scene_dir, sphere):
        scene = load_blender(tiny_scene_dir)
        path = spiral_path(scene, 40)
        assert path.space is WORLD
        away = (path.c2w[:, :, 3] - scene.train[0].c2w[:, 3]).norm(dim=1)
        assert away.max() < 0.2 * 3.0 * 3**0.5 + 1e-3
        aim = torch.tensor(sphere[0]).float() - path.c2w[:, :, 3]
        cosine = -(aim * path.c2w[:, :, 2]).sum(dim=1) / aim.norm(dim=1)
        assert cosine.min() > 0.99999
        for pose in path.c2w:
            check_is_pose(pose)


class TestInterpolation:
    def test_from_first_to_last(self, tiny_scene_dir):
        scene = load_blender(tiny_scene_dir)
        path = interpolated_path(scene, 90, ["r_1", "4", "r_6"])
        assert len(path) == 90
        assert (path.near, path.far) == (scene.near, scene.far)
        assert path.sizes.tolist() == [[20, 24]] * 90
        for frame, view in ((0, 1), (-1, 6)):
            torch.testing.assert_close(path.c2w[frame], scene.train[view].c2w, atol=1e-5, rtol=0)
        # the middle one lies on the way, between two frames
        steps = (path.c2w[1:, :, 3] - path.c2w[:-1, :, 3]).norm(dim=1)
        nearest = (path.c2w[:, :, 3] - scene.train[4].c2w[:, 3]).norm(dim=1).min()
        assert nearest <= steps.max()
        # as the crow flies, which is a little less than along a bend
        torch.testing.assert_close(steps, steps.mean().expand(89), rtol=0.05, atol=0)
        for pose in path.c2w:
            check_is_pose(pose)

    @pytest.mark.parametrize("names", [(), ("r_0", "r_2", "r_5", "r_0")])
    def test_a_round_has_no_jump(self, tiny_scene_dir, names):
        path = interpolated_path(load_blender(tiny_scene_dir), 60, names)
        steps = (path.c2w - path.c2w.roll(1, dims=0))[:, :, 3].norm(dim=1)
        torch.testing.assert_close(steps, steps.mean().expand(60), rtol=0.05, atol=0)

    def test_lenses_and_sizes_that_differ(self, tiny_scene_dir):
        """Frames are of the first view's size, and show what each view does from top to bottom."""
        scene = load_blender(tiny_scene_dir)
        other = scene.train[1]
        other.image = torch.zeros(40, 60, 3, dtype=torch.uint8)
        other.fx = other.fy = 70.0
        other.cx, other.cy = 32.0, 21.0
        path = interpolated_path(scene, 3, ["0", "1"])
        assert path.sizes.tolist() == [[20, 24]] * 3
        expected = torch.tensor([35.0, 35.0, 13.0, 10.5])
        torch.testing.assert_close(path.intrinsics[2], expected)
        mean = path.intrinsics[[0, 2]].mean(dim=0)
        torch.testing.assert_close(path.intrinsics[1], mean, rtol=0.05, atol=0)

    def test_warp_of_training(self, tiny_scene_dir):
        scene = load_blender(tiny_scene_dir)
        scene.space = NDC.of(scene.train[0])
        scene.train[3].fx *= 2
        first = scene.train[0]
        path = interpolated_path(scene, 4, ["3", "0"])
        assert path.space.scale[:2] == pytest.approx((2 * first.fx / 24, 2 * first.fy / 20))

    def test_names_come_before_numbers(self, tiny_scene_dir):
        views = load_blender(tiny_scene_dir).train
        assert chosen_views(views, ["r_3", "0"]) == [3, 0]
        views[5].name = "0"
        assert chosen_views(views, ["r_3", "0"]) == [3, 5]

    @pytest.mark.parametrize(
        "names, words",
        [
            (["r_1", "r_11"], "--path_views r_11: no training view of that name"),
            (["r_1", "8"], "no number from 0 to 7"),
            (["r_1", "1"], "twice in a row"),
            (["r_1"], "a path needs two views"),
        ],
    )
    def test_mistakes_have_one_line(self, tiny_scene_dir, names, words):
        with pytest.raises(UserError) as caught:
            interpolated_path(load_blender(tiny_scene_dir), 5, names)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_single_view_is_no_way(self, tmp_path, write_scene):
        scene = load_blender(write_scene(tmp_path / "s", counts={"train": 1}))
        with pytest.raises(UserError, match="needs two training views, the scene has 1"):
            interpolated_path(scene, 5)

    def test_the_round_is_the_shortest(self, tiny_scene_dir):
        """Cameras in a ring, in any order, are visited around the ring."""
        views = load_blender(tiny_scene_dir).train
        order = [3, 0, 6, 1, 7, 4, 2, 5]
        for place, view in zip(order, views, strict=True):
            angle = 2 * math.pi * place / 8
            eye = torch.tensor([3 * math.cos(angle), 3 * math.sin(angle), 1.0])
            view.c2w = look_at(eye, torch.zeros(3), UP)
        places = [order[i] for i in closed_tour(views)]
        steps = {(b - a) % 8 for a, b in zip(places, [*places[1:], places[0]], strict=True)}
        assert steps in ({1}, {7})

    def test_what_all_look_at_stays_in_the_picture(self, tiny_scene_dir):
        """Also where photos have it at their border, but not where photos look elsewhere."""
        scene = load_blender(tiny_scene_dir)
        first = scene.train[0]
        seen = math.atan(min(first.width / first.fx, first.height / first.fy) / 2)
        for place, view in enumerate(scene.train):
            angle = 2 * math.pi * place / 8
            eye = torch.tensor([3 * math.cos(angle), 3 * math.sin(angle), 1.0])
            aside = torch.tensor([0.0, 0.0, (-1) ** place * math.tan(0.9 * seen) * eye.norm()])
            view.c2w = look_at(eye, aside, UP)
        c2w = torch.stack([view.c2w for view in scene.train])
        centre, _ = look_at_ball(c2w)
        assert 0.8 * seen < float(angles_from(c2w, centre).max()) < seen
        path = interpolated_path(scene, 60)
        assert float(angles_from(path.c2w, centre).max()) < 0.6 * seen
        for pose in path.c2w:
            check_is_pose(pose)
        plain = scene.train[3].c2w.clone()
        scene.train[3].c2w[:, :3] = plain[:, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
        path = interpolated_path(scene, 60)  # one looks outward: nothing is turned upside down
        assert float(path.c2w[:, 2, 1].min()) > 0
        for view in scene.train[:4]:
            view.c2w[:, :3] = view.c2w[:, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
        path = interpolated_path(scene, 60)
        assert float(angles_from(path.c2w, centre).max()) > 2

    def test_cameras_turn_no_more_than_they_have_to(self):
        target, upright = torch.tensor([0.0, 0.0, -5.0]), torch.eye(3, 4).repeat(3, 1, 1)
        upright[1, 0, 3] = 5 * math.tan(0.02)
        upright[2, 0, 3] = 5 * math.tan(1.2)
        turned = turned_towards(upright, target, 0.4)
        torch.testing.assert_close(turned[0], upright[0])
        torch.testing.assert_close(turned[:, :, 3], upright[:, :, 3])
        angles = angles_from(turned, target)
        assert float(angles[1]) == pytest.approx(0.02, rel=0.01)
        assert float(angles[2]) == pytest.approx(0.4 * math.tanh(3.0), rel=1e-3)
        for pose in turned:
            check_is_pose(pose)

    @pytest.mark.parametrize("name", ["llff_fern", "fox_360"])
    def test_real_scenes(self, name):
        if not (SHARED / name).is_dir():
            pytest.skip("the scene is not there")
        line = ["--ckpt_path", "x", "--root_dir", str(SHARED / name), "--img_wh", "30", "40"]
        scene = load_scene(parse_eval(line))
        for path in (interpolated_path(scene, 60), spiral_path(scene, 60)):
            assert path.space is scene.space
            steps = (path.c2w - path.c2w.roll(1, dims=0))[:, :, 3].norm(dim=1)
            assert steps.max() < 3 * steps.mean()
            for pose in path.c2w:
                check_is_pose(pose)
