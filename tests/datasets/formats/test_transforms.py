import json
import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.formats.transforms import load_transforms as load
from datasets.load import LoadOptions
from utils.errors import UserError


def load_transforms(root, **options):
    """The scene with these `LoadOptions`."""
    return load(root, LoadOptions(**options))


def edit(root, change):
    """Apply ``change(data)`` to the transforms file."""
    path = root / "transforms.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return root


def orient(path, orientation):
    """Gives an image file an EXIF orientation; returns its pixels as they are stored."""
    image = Image.open(path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return np.array(image)


@pytest.fixture
def root(tmp_path, captures, source):
    """Ten frames, 24 x 20 pixels, with shared intrinsics."""
    return captures.transforms(source, tmp_path / "capture")


class TestLenses:
    def test_shared_then_per_frame(self, root):
        edit(root, lambda d: d["frames"][1].update(fl_x=30, cx=11.5))
        first, second = load_transforms(root).train[:2]
        assert [first.fx, first.fy, first.cx, first.cy] == [30, 26, 11.5, 10]
        assert [second.fx, second.fy, second.cx, second.cy] == [26, 26, 12, 10]

    def test_instant_ngp_angles_alone(self, root):
        def change(data):
            for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
                data.pop(key)
            data.update(camera_angle_x=0.9, camera_angle_y=0.7)

        view = load_transforms(edit(root, change)).train[0]
        assert (view.fx, view.fy) == pytest.approx((12 / math.tan(0.45), 10 / math.tan(0.35)))
        assert (view.cx, view.cy) == (12, 10)

    def test_upright_and_wide_images_keep_their_own_size(self, root):
        def change(data):
            frame = data["frames"][2]
            frame.update(w=20, h=24, cx=10, cy=12)
            Image.new("RGB", (20, 24)).save(root / frame["file_path"])

        views = load_transforms(edit(root, change)).train
        assert [(v.width, v.height) for v in views[:3]] == [(24, 20), (20, 24), (24, 20)]
        assert (views[1].fx, views[1].cx, views[1].cy) == (26, 10, 12)

    def test_a_size_asked_for_is_turned_for_upright_images(self, root):
        self.test_upright_and_wide_images_keep_their_own_size(root)
        views = load_transforms(root, img_wh=(12, 10)).train
        assert [(v.width, v.height) for v in views[:3]] == [(12, 10), (10, 12), (12, 10)]
        assert (views[1].fx, views[1].fy, views[1].cx, views[1].cy) == (13, 13, 5, 6)

    def test_photos_turned_by_exif(self, root):
        """COLMAP passes over EXIF: the file's size decides which way the image is taken."""
        stored = orient(root / "images" / "r_1.png", 6)
        assert torch.equal(load_transforms(root).train[0].image, torch.from_numpy(stored))
        turned = {"w": 20, "h": 24, "cx": 10, "cy": 12}
        edit(root, lambda d: d["frames"][1].update(turned))
        view = load_transforms(root).train[0]
        assert torch.equal(view.image, torch.from_numpy(np.rot90(stored, -1).copy()))

    def test_photos_upside_down_by_exif(self, root):
        stored = orient(root / "images" / "r_1.png", 3)
        assert torch.equal(load_transforms(root).train[0].image, torch.from_numpy(stored))

    @pytest.mark.parametrize(
        ("entries", "model"),
        [
            ({"k1": -0.1, "k2": 0.02, "p1": 0.003, "p2": -0.002}, "TRANSFORMS"),
            ({"k1": -0.1, "camera_model": "OPENCV"}, "TRANSFORMS"),
            ({"k1": 0.05, "camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE"),
            ({"k1": 0.05, "is_fisheye": True}, "OPENCV_FISHEYE"),
            ({"k1": 0.05, "k5": 0.01, "camera_model": "FULL_OPENCV"}, "FULL_OPENCV"),
        ],
    )
    def test_distortion_is_taken_out(self, root, monkeypatch, entries, model):
        used = []

        def spy(image, name, coefficients, lens):
            used.append((name, coefficients[0], lens))
            return image, 1.25

        monkeypatch.setattr("datasets.formats.frames.undistort", spy)
        view = load_transforms(edit(root, lambda d: d.update(entries))).train[0]
        assert used[0] == (model, entries["k1"], (26, 26, 12, 10))
        assert (view.fx, view.cx) == (32.5, 12)

    def test_no_distortion_changes_no_pixel(self, root):
        zero = dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0)
        plain = load_transforms(root).train[0]
        view = load_transforms(edit(root, lambda d: d.update(zero))).train[0]
        assert torch.equal(plain.image, view.image)

    def test_other_sizes_beside(self, tmp_path, captures, source):
        root = captures.transforms(source, tmp_path / "c", factors=(1, 2, 4))
        for path in (root / "images_2").iterdir():
            Image.new("RGB", (12, 10), (9, 8, 7)).save(path.with_suffix(".jpg"))
            path.unlink()
        view = load_transforms(root, img_wh=(11, 9)).train[0]
        assert (view.image.float().mean(dim=(0, 1)) - torch.tensor([9.0, 8, 7])).abs().max() < 2
        assert view.fx == pytest.approx(26 * 11 / 24)

    def test_folders_of_two_cameras_are_not_two_sizes(self, root):
        def change(data):
            for i, frame in enumerate(data["frames"]):
                new = root / f"cam_{1 + i % 2}" / "0.png"
                if i < 2:
                    new.parent.mkdir()
                    (root / frame["file_path"]).rename(new)
                    frame["file_path"] = str(new.relative_to(root))

        views = load_transforms(edit(root, change), img_wh=(12, 10), hold_out=0.1)
        names = {v.name for v in (*views.train, *views.test)}
        assert {"cam_1_0", "cam_2_0"} <= names


def ignore(root, names=("r_1",), size=(24, 20), box=(3, 4, 9, 11)):
    """Gives frames a mask (nerfstudio's mask_path) that is black in ``box``: left, top, right,
    bottom."""
    (root / "masks").mkdir(exist_ok=True)

    def change(data):
        for frame in data["frames"]:
            name = frame["file_path"].rpartition("/")[2]
            if name.removesuffix(".png") in names:
                mask = Image.new("L", size, 255)
                mask.paste(0, box)
                mask.save(root / "masks" / name)
                frame["mask_path"] = f"masks/{name}"

    return edit(root, change)


class TestMasks:
    def test_black_is_ignored(self, root):
        views = load_transforms(ignore(root)).train
        assert [v.name for v in views if v.valid is not None] == ["r_1"]
        expected = torch.ones(20, 24, dtype=torch.bool)
        expected[4:11, 3:9] = False
        assert torch.equal(views[0].valid, expected)
        assert views[0].alpha is None

    @pytest.mark.parametrize("alpha", [False, True])
    @pytest.mark.parametrize(
        ("options", "lens"),
        [
            ({"img_wh": (12, 10)}, {}),
            ({"img_wh": (17, 13)}, {}),
            ({"img_wh": (40, 33)}, {}),
            ({}, {"k1": -0.1, "p1": 0.01}),
            ({"img_wh": (19, 16)}, {"k1": 0.08, "camera_model": "OPENCV_FISHEYE"}),
        ],
    )
    def test_nothing_of_what_is_ignored_gets_into_a_valid_pixel(self, root, options, lens, alpha):
        """Resized and undistorted: whatever is painted there, the valid pixels are the same."""
        edit(ignore(root), lambda d: d.update(lens))
        path, seen = root / "images" / "r_1.png", []
        image = Image.open(path).convert("RGBA")
        if alpha:
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        for colour in ((255, 0, 0, 255), (0, 255, 99, 40)):
            image.paste(colour, (3, 4, 9, 11))
            (image if alpha else image.convert("RGB")).save(path)
            seen.append(load_transforms(root, **options).train[0])
        a, b = seen
        assert 0.5 < a.valid.float().mean() < 1
        assert torch.equal(a.valid, b.valid)
        assert torch.equal(a.image[a.valid], b.image[a.valid])
        if alpha:
            assert torch.equal(a.alpha[a.valid], b.alpha[a.valid])
        assert not torch.equal(a.image, b.image)

    def test_a_mask_of_half_the_size(self, root):
        view = load_transforms(ignore(root, size=(12, 10), box=(2, 2, 4, 5))).train[0]
        assert not view.valid[4:10, 4:8].any()
        assert view.valid.float().mean() > 0.8

    def test_one_mask_for_all(self, root):
        names = [f"r_{i}" for i in range(10)]
        scene = load_transforms(ignore(root, names))
        assert all(view.valid is not None for view in (*scene.train, *scene.test))

    def test_missing(self, root):
        (ignore(root) / "masks" / "r_1.png").unlink()
        with pytest.raises(UserError, match=r"masks/r_1\.png: no such file, the mask of r_1\.png"):
            load_transforms(root)

    def test_of_another_shape(self, root):
        with pytest.raises(UserError, match=r"r_1\.png: is 20x24, which is not the shape.*24x20"):
            load_transforms(ignore(root, size=(20, 24)))

    def test_that_is_no_image(self, root):
        (ignore(root) / "masks" / "r_1.png").write_text("white")
        with pytest.raises(UserError, match=r"masks/r_1\.png: not a readable image"):
            load_transforms(root)

    def test_without_a_name(self, root):
        edit(root, lambda d: d["frames"][1].update(mask_path=1))
        with pytest.raises(UserError, match=r"frame 1 .*: mask_path is 1; name the mask's image"):
            load_transforms(root)


class TestSplits:
    def test_every_eighth(self, root):
        scene = load_transforms(root)
        assert [v.name for v in scene.test] == ["r_0", "r_8"]
        assert scene.val == scene.test
        assert len(scene.train) == 8

    @pytest.mark.parametrize(
        ("hold_out", "names"),
        [(0.1, ["r_5"]), (0.2, ["r_2", "r_7"]), (5, ["r_0", "r_5"]), (0.01, ["r_5"])],
    )
    def test_by_a_number(self, root, hold_out, names):
        scene = load_transforms(root, hold_out=hold_out)
        assert [v.name for v in scene.test] == names
        assert len(scene.train) == 10 - len(names)

    def test_by_lists(self, root):
        lists = {
            "train_filenames": [f"images/r_{i}.png" for i in range(6)],
            "val_filenames": ["images/r_6.png"],
            "test_filenames": ["images/r_8.png", "images/r_9.png"],
        }
        scene = load_transforms(edit(root, lambda d: d.update(lists)))
        names = [[v.name for v in s] for s in (scene.train, scene.val, scene.test)]
        assert names == [[f"r_{i}" for i in range(6)], ["r_6"], ["r_8", "r_9"]]

    def test_by_a_list_of_test_alone(self, root):
        scene = load_transforms(edit(root, lambda d: d.update(test_filenames=["images/r_3.png"])))
        assert [v.name for v in scene.val] == [v.name for v in scene.test] == ["r_3"]
        assert len(scene.train) == 9

    def test_few_frames_are_shared(self, root, caplog):
        scene = load_transforms(edit(root, lambda d: d.update(frames=d["frames"][:3])))
        assert len(scene.train) == 3
        assert [v.name for v in scene.test] == ["r_1"]
        assert "one of the training views is used" in caplog.text


class TestMissing:
    def test_left_out_and_named(self, root, caplog):
        for i in (2, 5):
            (root / "images" / f"r_{i}.png").unlink()
        with caplog.at_level(logging.WARNING):
            scene = load_transforms(root)
        assert len(scene.train) + len(scene.test) == 8
        assert [r.getMessage() for r in caplog.records] == [
            f"{root / 'transforms.json'}: 2 images are missing, left out: "
            "images/r_2.png, images/r_5.png"
        ]

    def test_none_there(self, root):
        for path in (root / "images").iterdir():
            path.unlink()
        with pytest.raises(UserError, match=r"none of its 10 images is there.*r_0\.png"):
            load_transforms(root)


class TestRange:
    def test_the_files(self, root):
        scene = load_transforms(edit(root, lambda d: d.update(near=0.5, far=7.5)))
        assert (scene.near, scene.far) == (0.5, 7.5)
        scene = load_transforms(root, near=1.0)
        assert (scene.near, scene.far) == (1.0, 7.5)

    def test_from_the_cameras(self, root, sphere):
        scene = load_transforms(root)
        assert 0 < scene.near < 3 < scene.far
        centre, radius = torch.tensor(sphere[0]).float(), sphere[1]
        assert (scene.bounds[0] < centre - radius).all()
        assert (scene.bounds[1] > centre + radius).all()


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "part"),
        [
            (lambda d: d.update(camera_model="EQUIRECTANGULAR"), "'EQUIRECTANGULAR' is not known"),
            (lambda d: d.update(camera_model=3), "camera_model 3 is not known"),
            (lambda d: d.update(k1=math.nan), "k1 is nan; it has to be a finite number"),
            (lambda d: d.update(k1="much"), "k1 is 'much'"),
            (lambda d: d.update(near=3, far=2), "near 3 and far 2 are no range"),
            (lambda d: d.update(test_filenames="r_0"), "test_filenames is not a list"),
            (lambda d: d.pop("fl_x"), "frame 0 (images/r_0.png): no focal length"),
            (lambda d: d["frames"][4].pop("transform_matrix"), "frame 4 (images/r_4.png): has no"),
            (lambda d: d.update(frames=[]), "has no frames"),
            (lambda d: d["frames"][4].update(mask_path=3), "mask_path is 3; name the mask's image"),
            (lambda d: d["frames"][4].update(mask_path="m" * 5000), "5000 characters long"),
            (
                lambda d: d.update(test_filenames=[f["file_path"] for f in d["frames"]]),
                "leave no training image",
            ),
        ],
    )
    def test_file(self, root, change, part):
        with pytest.raises(UserError) as error:
            load_transforms(edit(root, change))
        assert str(root / "transforms.json") in str(error.value)
        assert part in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_mask_of_an_impossible_name(self, root):
        edit(root, lambda d: d["frames"][4].update(mask_path="m" * 300))
        with pytest.raises(UserError, match="no such file, the mask of r_4"):
            load_transforms(root)

    def test_half_written(self, root):
        path = root / "transforms.json"
        path.write_text(path.read_text()[:900])
        with pytest.raises(UserError, match="not readable as JSON"):
            load_transforms(root)

    def test_damaged_image(self, root):
        path = root / "images" / "r_4.png"
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(UserError, match=r"r_4\.png: not a readable image"):
            load_transforms(root)

    def test_sizes_that_differ_without_a_word(self, root):
        edit(root, lambda d: [d.pop(key) for key in ("w", "h", "cx", "cy")])
        Image.new("RGB", (30, 20)).save(root / "images" / "r_3.png")
        with pytest.raises(UserError, match="give one size with --img_wh"):
            load_transforms(root)
