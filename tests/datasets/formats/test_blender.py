import json
import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.cameras.rays import Cameras
from datasets.cameras.space import WORLD
from datasets.formats.blender import load_blender as load
from datasets.load import LoadOptions
from utils.errors import UserError

TRAIN = "transforms_train.json"


def load_blender(root, **options):
    """The scene with these `LoadOptions`."""
    return load(root, LoadOptions(**options))


def edit(root, change, name=TRAIN):
    """Apply ``change(data)`` to a transforms file."""
    data = json.loads((root / name).read_text())
    change(data)
    (root / name).write_text(json.dumps(data))


def check_rays(scene, sphere):
    """The camera model agrees with the images, but for what JPEG loses: a ray meets the sphere
    where, and only where, its pixel is covered, and the pixel's colour tells the normal there."""
    centre, radius = torch.tensor(sphere[0]).float(), sphere[1]
    cameras = Cameras.within(scene, scene.train)
    for i, view in enumerate(scene.train):
        rays = cameras.view_rays(i)
        arm = rays.origins - centre
        along = -(arm * rays.directions).sum(dim=1)
        miss = (arm + along[:, None] * rays.directions).norm(dim=1)
        image = view.image.reshape(-1, 3).float() / 255
        assert (image[miss > 1.15 * radius] > 0.95).all()
        inside = miss < 0.7 * radius
        assert inside.sum() > 10
        distance = along - (radius**2 - miss**2).clamp(min=0).sqrt()
        normal = (arm + distance[:, None] * rays.directions) / radius
        assert (image - (0.5 + 0.4 * normal))[inside].abs().max() < 0.05
        if view.alpha is not None:
            alpha = view.alpha.flatten()
            assert (alpha[miss > 1.15 * radius] == 0).all()
            assert (alpha[miss < 0.85 * radius] == 255).all()


class TestVariations:
    def test_rgba(self, tiny_scene_dir, sphere):
        scene = load_blender(tiny_scene_dir)
        assert [len(s) for s in (scene.train, scene.val, scene.test)] == [8, 2, 2]
        view = scene.train[3]
        assert view.image.shape == (20, 24, 3)
        assert view.image.dtype == view.alpha.dtype == torch.uint8
        assert view.c2w.shape == (3, 4)
        assert view.c2w.dtype == torch.float32
        assert view.fx == view.fy == pytest.approx(12 / math.tan(0.45))
        assert (view.cx, view.cy, view.name) == (12, 10, "r_3")
        assert scene.name == "sphere"
        assert scene.has_alpha
        assert scene.space is WORLD
        assert scene.background.tolist() == [1, 1, 1]
        check_rays(scene, sphere)

    @pytest.mark.parametrize(
        "options",
        [
            {"width": 20, "height": 31},
            {"extension": ".jpg", "mode": "RGB"},
            {"extension": ".jpeg", "mode": "RGB"},
            {"extension": ".JPG", "mode": "RGB", "named_extension": ".JPG"},
            {"extension": ".png", "mode": "RGB"},
            {"extension": ".png", "named_extension": ".png"},
            {"prefix": ""},
            {"prefix": "", "named_extension": ".png"},
            {"prefix": ".\\"},
            {"counts": {"train": 1, "val": 1, "test": 1}},
            {"lens": {"fl_x": 26.0, "fl_y": 22.0}},
            {"lens": {"fl_x": 26.0}},
            {"lens": {"fl_x": 26.0, "fl_y": 22.0, "cx": 12.0, "cy": 10.0, "w": 24, "h": 20}},
        ],
        ids=str,
    )
    def test_writing(self, tmp_path, write_scene, sphere, options):
        scene = load_blender(write_scene(tmp_path / "s", **options))
        assert scene.has_alpha == (options.get("mode") is None)
        assert len(scene.train) == options.get("counts", {"train": 8})["train"]
        check_rays(scene, sphere)

    def test_given_name_comes_before_an_appended_extension(self, tmp_path, write_scene, sphere):
        root = write_scene(tmp_path / "s", named_extension=".png")
        for image in (root / "train").iterdir():
            Image.new("RGB", (9, 9)).save(image.with_name(image.name + ".png"))
        check_rays(load_blender(root), sphere)

    def test_intrinsics_of_a_frame_win(self, tiny_scene_dir):
        edit(tiny_scene_dir, lambda d: d["frames"][2].update(fl_x=30, fl_y=31, cx=11, cy=9.5))
        train = load_blender(tiny_scene_dir).train
        assert [train[2].fx, train[2].fy, train[2].cx, train[2].cy] == [30, 31, 11, 9.5]
        assert train[1].fx == pytest.approx(12 / math.tan(0.45))

    def test_intrinsics_declared_for_a_larger_image(self, tiny_scene_dir):
        lens = {"fl_x": 100.0, "fl_y": 90.0, "cx": 50.0, "cy": 36.0, "w": 96, "h": 80}
        edit(tiny_scene_dir, lambda d: d.update(lens))
        view = load_blender(tiny_scene_dir).train[0]
        assert [view.fx, view.fy, view.cx, view.cy] == [25, 22.5, 12.5, 9]

    def test_declared_shape_may_be_rounded(self, tiny_scene_dir):
        edit(tiny_scene_dir, lambda d: d.update(w=97, h=79))
        assert load_blender(tiny_scene_dir).train[0].width == 24

    def test_both_angles(self, tiny_scene_dir):
        edit(tiny_scene_dir, lambda d: d.update(camera_angle_y=0.5))
        assert load_blender(tiny_scene_dir).train[0].fy == pytest.approx(10 / math.tan(0.25))

    @pytest.mark.parametrize("img_wh", [(48, 40), (16, 22), (24, 20), (9, 25)])
    def test_img_wh_scales_the_intrinsics_by_axis(self, tiny_scene_dir, sphere, img_wh):
        scene = load_blender(tiny_scene_dir, img_wh=img_wh)
        view = scene.train[0]
        assert (view.width, view.height) == img_wh
        focal = 12 / math.tan(0.45)
        assert view.fx == pytest.approx(focal * img_wh[0] / 24)
        assert view.fy == pytest.approx(focal * img_wh[1] / 20)
        assert (view.cx, view.cy) == pytest.approx((img_wh[0] / 2, img_wh[1] / 2))
        if min(img_wh) > 15:
            check_directions(scene, load_blender(tiny_scene_dir), sphere)

    def test_img_wh_makes_sizes_equal(self, tiny_scene_dir, sphere):
        path = tiny_scene_dir / "train" / "r_3.png"
        plain = load_blender(tiny_scene_dir)
        Image.open(path).resize((48, 40)).save(path)
        scene = load_blender(tiny_scene_dir, img_wh=(24, 20))
        assert scene.train[3].fx == pytest.approx(scene.train[0].fx)
        assert scene.train[3].image.shape == (20, 24, 3)
        check_directions(scene, plain, sphere)

    def test_pose_of_three_rows_and_scaled_axes(self, tiny_scene_dir, sphere):
        def change(data):
            for frame in data["frames"]:
                matrix = np.array(frame["transform_matrix"])[:3]
                matrix[:, :3] *= 2.5
                frame["transform_matrix"] = matrix.tolist()

        edit(tiny_scene_dir, change)
        check_rays(load_blender(tiny_scene_dir), sphere)

    def test_background(self, tiny_scene_dir):
        scene = load_blender(tiny_scene_dir, background=(0.2, 0.4, 0.6))
        for view in (*scene.train, *scene.val, *scene.test):
            assert (view.image[view.alpha == 0] == torch.tensor([51, 102, 153])).all()
        assert scene.background.tolist() == pytest.approx([0.2, 0.4, 0.6])

    def test_hidden_black_leaves_no_fringe(self, tmp_path, write_scene):
        """Green hidden by nothing, black under alpha 0: resized, all is between green and white."""
        root = write_scene(tmp_path / "s", width=48, height=40)
        for path in root.glob("*/*.png"):
            rgba = np.array(Image.open(path))
            rgba[..., :3] = np.where(rgba[..., 3:] > 0, (40, 200, 80), 0)
            Image.fromarray(rgba).save(path)
        for view in load_blender(root, img_wh=(17, 13)).train:
            alpha = view.alpha[..., None].float() / 255
            mix = alpha * torch.tensor([40.0, 200.0, 80.0]) + (1 - alpha) * 255
            assert ((alpha > 0) & (alpha < 1)).any()
            assert (view.image.float() - mix).abs().max() < 1.5

    def test_opaque_alpha_is_no_mask(self, tmp_path, write_scene):
        root = write_scene(tmp_path / "s", mode="RGB")
        for path in root.glob("*/*.png"):
            Image.open(path).convert("RGBA").save(path)
        scene = load_blender(root)
        assert all(v.alpha is None for v in (*scene.train, *scene.val, *scene.test))

    def test_one_opaque_view_keeps_its_alpha(self, tiny_scene_dir):
        path = tiny_scene_dir / "train" / "r_0.png"
        Image.open(path).convert("RGB").convert("RGBA").save(path)
        assert load_blender(tiny_scene_dir).has_alpha

    def test_equal_stems_get_their_folders(self, tiny_scene_dir):
        shutil.copytree(tiny_scene_dir / "train", tiny_scene_dir / "more")

        def change(data):
            data["frames"][1]["file_path"] = "more/r_0"

        edit(tiny_scene_dir, change)
        names = [view.name for view in load_blender(tiny_scene_dir).train]
        assert names[:3] == ["train_r_0", "more_r_0", "r_2"]

    def test_perturbs_training_views_alone(self, tiny_scene_dir):
        plain = load_blender(tiny_scene_dir)
        scene = load_blender(tiny_scene_dir, data_perturb=["color", "occ"])
        pairs = zip(plain.train, scene.train, strict=True)
        same = [torch.equal(a.image, b.image) for a, b in pairs]
        assert same == [True] + [False] * 7
        for split in ("val", "test"):
            for a, b in zip(getattr(plain, split), getattr(scene, split), strict=True):
                assert torch.equal(a.image, b.image)

    def test_order_is_kept(self, tmp_path, write_scene):
        root = write_scene(tmp_path / "s", counts={"train": 25, "val": 1, "test": 1})
        names = [view.name for view in load_blender(root).train]
        assert names == [f"r_{i}" for i in range(25)]


def check_directions(scene, original, sphere):
    """In a resized image the mean ray of the covered pixels still goes through the sphere's centre,
    and as large a share of the pixels is covered."""
    centre = torch.tensor(sphere[0]).float()
    cameras = Cameras.within(scene, scene.train)
    for i, view in enumerate(scene.train):
        alpha = view.alpha.flatten().float() / 255
        mean = (cameras.view_rays(i).directions * alpha[:, None]).sum(dim=0)
        aim = centre - view.c2w[:, 3]
        sine = torch.linalg.cross(mean / mean.norm(), aim / aim.norm()).norm()
        assert math.degrees(float(sine)) < 0.1
        share = float(original.train[i].alpha.float().mean()) / 255
        assert float(alpha.mean()) == pytest.approx(share, rel=0.02)


class TestRange:
    def test_near_far_and_bounds_hold_the_sphere(self, tiny_scene_dir, sphere):
        scene = load_blender(tiny_scene_dir)
        assert 0.5 < scene.near < 2.3
        assert 3.7 < scene.far < 5.5
        lower, upper = sphere[0] - sphere[1], sphere[0] + sphere[1]
        assert (scene.bounds[0].numpy() <= lower).all()
        assert (scene.bounds[1].numpy() >= upper).all()

    def test_given_values_win(self, tiny_scene_dir):
        scene = load_blender(tiny_scene_dir, near=1.25, far=9.0)
        assert (scene.near, scene.far) == (1.25, 9.0)
        assert load_blender(tiny_scene_dir, near=1.25).far == load_blender(tiny_scene_dir).far

    def test_scale_of_the_scene_is_followed(self, tiny_scene_dir):
        """No constant of one data set: all lengths times 50, all results times 50."""
        small = load_blender(tiny_scene_dir)

        def change(data):
            for frame in data["frames"]:
                for row in frame["transform_matrix"][:3]:
                    row[3] *= 50

        edit(tiny_scene_dir, change)
        large = load_blender(tiny_scene_dir)
        torch.testing.assert_close(large.bounds, 50 * small.bounds, rtol=1e-3, atol=0.05)
        assert large.near == pytest.approx(50 * small.near, rel=1e-3)
        assert large.far == pytest.approx(50 * small.far, rel=1e-3)


class TestMissingSplits:
    @pytest.mark.parametrize(("missing", "other"), [("val", "test"), ("test", "val")])
    def test_one_stands_in_for_the_other(self, tmp_path, write_scene, caplog, missing, other):
        counts = {"train": 20, "val": 2, "test": 2}
        del counts[missing]
        root = write_scene(tmp_path / "s", counts=counts)
        with caplog.at_level(logging.WARNING):
            scene = load_blender(root)
        assert len(scene.train) == 20
        assert getattr(scene, missing) == getattr(scene, other)
        assert [r.getMessage() for r in caplog.records] == [
            f"{root}: no {missing} split; the {other} views are used"
        ]

    def test_both_are_taken_from_training(self, tmp_path, write_scene):
        scene = load_blender(write_scene(tmp_path / "s", counts={"train": 20}))
        assert [view.name for view in scene.test] == ["r_0", "r_8", "r_16"]
        assert scene.val == scene.test
        assert len(scene.train) == 17
        assert not {view.name for view in scene.train} & {"r_0", "r_8", "r_16"}

    @pytest.mark.parametrize("count", [1, 2, 7])
    def test_few_views_are_shared(self, tmp_path, write_scene, caplog, count):
        scene = load_blender(write_scene(tmp_path / "s", counts={"train": count}))
        assert len(scene.train) == count
        for split in (scene.val, scene.test):
            assert [view.name for view in split] == [f"r_{count // 2}"]
        assert "one of the training views is used" in caplog.text

    def test_shared_view_is_not_perturbed(self, tmp_path, write_scene):
        root = write_scene(tmp_path / "s", counts={"train": 3})
        plain, scene = load_blender(root), load_blender(root, data_perturb=["occ"])
        assert torch.equal(scene.val[0].image, plain.val[0].image)
        assert not torch.equal(scene.train[1].image, plain.train[1].image)


def set_frame(**entries):
    return lambda data: data["frames"][1].update(entries)


def drop(*keys):
    def change(data):
        for key in keys:
            data.pop(key)

    return change


def drop_of_frame(key):
    return lambda data: data["frames"][1].pop(key)


def set_matrix(change):
    """Change of the second frame's matrix, given as a function of the array."""

    def apply(data):
        matrix = np.array(data["frames"][1]["transform_matrix"])
        data["frames"][1]["transform_matrix"] = change(matrix).tolist()

    return apply


def at(row, column, value):
    def change(matrix):
        matrix[row, column] = value
        return matrix

    return change


class TestErrors:
    def check(self, root, *parts, **options):
        with pytest.raises(UserError) as error:
            load_blender(root, **options)
        message = str(error.value)
        assert "\n" not in message
        for part in parts:
            assert part in message

    @pytest.mark.parametrize(
        ("change", "part"),
        [
            (drop("frames"), "has no frames"),
            (lambda d: d.update(frames=[]), "has no frames"),
            (lambda d: d.update(frames={"a": 1}), "has no frames"),
            (lambda d: d["frames"].insert(1, 3), "frame 1: not an object"),
            (drop_of_frame("file_path"), "frame 1: has no file_path"),
            (set_frame(file_path=7), "frame 1: file_path is 7; name its image"),
            (set_frame(file_path=""), "frame 1: file_path is 0 characters long"),
            (set_frame(file_path="a" * 5000), "frame 1: file_path is 5000 characters long"),
            (set_frame(file_path="a" * 300), "is missing"),
            (set_frame(file_path="a\0b"), "is missing"),
            (set_frame(file_path="./train/none"), "is missing, as is and with .png .jpg .jpeg"),
            (set_frame(file_path="/"), "frame 1 (/): / is outside of"),
            (drop_of_frame("transform_matrix"), "has no transform_matrix"),
            (set_frame(transform_matrix="x"), "not a matrix of numbers"),
            (set_frame(transform_matrix=[[1, 2], [3]]), "not a matrix of numbers"),
            (set_frame(transform_matrix={"a": 1}), "not a matrix of numbers"),
            (set_frame(transform_matrix=[[10**400] * 4] * 4), "not a matrix of numbers"),
            (set_frame(transform_matrix=[1.0] * 16), "has to be 4x4 or 3x4"),
            (set_matrix(lambda m: m[:, :3]), "has to be 4x4 or 3x4"),
            (set_matrix(lambda m: m.T), "is it transposed?"),
            (set_matrix(at(0, 3, math.nan)), "NaN or infinite"),
            (set_matrix(at(1, 1, math.inf)), "NaN or infinite"),
            (set_matrix(at(slice(0, 3), 1, 0.0)), "no rotation"),
            (set_matrix(lambda m: m @ np.diag([1, 1, -1, 1])), "no rotation"),
            (set_matrix(lambda m: m @ (np.eye(4) + np.eye(4, k=1) * 0.1)), "no rotation"),
            (drop("camera_angle_x"), "no focal length"),
            (lambda d: d.update(camera_angle_x=0), "camera_angle_x is 0; it has to be above 0"),
            (lambda d: d.update(camera_angle_x=-1.0), "camera_angle_x is -1.0"),
            (lambda d: d.update(camera_angle_x=4.0), "below pi"),
            (lambda d: d.update(camera_angle_x=math.nan), "camera_angle_x is nan"),
            (lambda d: d.update(camera_angle_x="wide"), "camera_angle_x is 'wide'"),
            (lambda d: d.update(fl_x=math.inf), "fl_x is inf"),
            (lambda d: d.update(fl_x=10**400), "fl_x is 1000"),
            (lambda d: d.update(fl_x=20, fl_y=0), "fl_y is 0"),
            (lambda d: d.update(cx=math.nan), "cx is nan"),
            (set_frame(w=0), "w is 0"),
        ],
    )
    def test_transforms_file(self, tiny_scene_dir, change, part):
        edit(tiny_scene_dir, change)
        self.check(tiny_scene_dir, str(tiny_scene_dir / TRAIN), part)

    @pytest.mark.parametrize("name", [TRAIN, "transforms_val.json", "transforms_test.json"])
    @pytest.mark.parametrize("text", ["", "{", "[1, 2", "\xff\xfe", "[" * 200_000])
    def test_broken_json(self, tiny_scene_dir, name, text):
        (tiny_scene_dir / name).write_text(text, encoding="latin-1")
        self.check(tiny_scene_dir, str(tiny_scene_dir / name), "not readable as JSON")

    @pytest.mark.parametrize("text", ["[]", "3", "null"])
    def test_json_of_another_kind(self, tiny_scene_dir, text):
        (tiny_scene_dir / TRAIN).write_text(text)
        self.check(tiny_scene_dir, str(tiny_scene_dir / TRAIN), "has no frames")

    def test_byte_order_mark_is_no_error(self, tiny_scene_dir):
        path = tiny_scene_dir / TRAIN
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert len(load_blender(tiny_scene_dir).train) == 8

    def test_no_training_file(self, tiny_scene_dir):
        (tiny_scene_dir / TRAIN).unlink()
        self.check(tiny_scene_dir, str(tiny_scene_dir / TRAIN), "no such file")

    @pytest.mark.parametrize("split", ["train", "val", "test"])
    def test_truncated_image(self, tiny_scene_dir, split):
        path = tiny_scene_dir / split / "r_1.png"
        path.write_bytes(path.read_bytes()[:200])
        self.check(tiny_scene_dir, str(path), "not a readable image")

    def test_missing_image_names_what_was_tried(self, tiny_scene_dir):
        (tiny_scene_dir / "test" / "r_1.png").unlink()
        self.check(
            tiny_scene_dir,
            "transforms_test.json: frame 1 (./test/r_1)",
            str(tiny_scene_dir / "test" / "r_1"),
            ".png .jpg .jpeg",
        )

    def test_nothing_but_transparent_images(self, tiny_scene_dir):
        for path in (tiny_scene_dir / "train").iterdir():
            Image.new("RGBA", (24, 20)).save(path)
        self.check(tiny_scene_dir, str(tiny_scene_dir), "all training images are transparent")

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_sizes_that_differ(self, tiny_scene_dir, split):
        path = tiny_scene_dir / split / "r_1.png"
        Image.open(path).resize((25, 20)).save(path)
        first = tiny_scene_dir / "train" / "r_0.png"
        self.check(
            tiny_scene_dir, f"{path}: is 25x20", f"{first} is 24x20", "give one size with --img_wh"
        )

    def test_declared_shape_is_another(self, tiny_scene_dir):
        edit(tiny_scene_dir, lambda d: d.update(w=20, h=24))
        self.check(tiny_scene_dir, "r_0.png: is 24x20", "declared w and h, 20x24")

    @pytest.mark.parametrize("img_wh", [(0, 20), (24, 0), (-24, 20)])
    def test_img_wh(self, tiny_scene_dir, img_wh):
        self.check(tiny_scene_dir, "--img_wh", "at least 1 pixel", img_wh=img_wh)

    @pytest.mark.parametrize(
        "options",
        [
            {"near": 3.0, "far": 3.0},
            {"near": 4.0, "far": 3.0},
            {"near": 100.0},
            {"far": 0.0},
            {"near": -1.0},
            {"far": math.nan},
            {"near": math.inf},
        ],
        ids=str,
    )
    def test_near_far(self, tiny_scene_dir, options):
        self.check(tiny_scene_dir, "--near" if "near" in options else "--far", **options)

    def test_perturbation(self, tiny_scene_dir):
        self.check(tiny_scene_dir, "--data_perturb: 'blur' is unknown", data_perturb=["blur"])

    def test_masks_without_a_common_object(self, tmp_path, write_scene):
        root = write_scene(tmp_path / "s", lens={"fl_x": 15.0})
        image = Image.new("RGBA", (24, 20))
        image.putpixel((1, 10), (255, 255, 255, 255))
        image.save(root / "train" / "r_0.png")
        self.check(root, "no common object", "check the poses")


@pytest.mark.parametrize("name", ["blender_lego_400"])
def test_bounds_of_a_real_data_set(name):
    root = Path(__file__).resolve().parents[3].parent / "shared" / "data" / name
    if not root.is_dir():
        pytest.skip("the data set is not here")
    scene = load_blender(root, img_wh=(100, 100))
    expected = torch.tensor([[-0.65, -1.2, -0.55], [0.65, 1.2, 1.05]])
    assert (scene.bounds - expected).abs().max() < 0.15
    assert 2.0 < scene.near < 2.6
    assert 5.2 < scene.far < 6.0
