import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.cameras.rays import Cameras
from datasets.cameras.space import THICKNESS, WORLD
from datasets.formats.llff import load_llff as load
from datasets.load import LoadOptions
from utils.errors import UserError
from utils.images import read_image


def load_llff(root, **options):
    """The scene with these `LoadOptions`."""
    return load(root, LoadOptions(**options))


IDENTITY = np.eye(3)
HEADER = b"\x93NUMPY\x01\x00\x0a\x00%b\n"  # of an .npy file
FERN = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "llff_fern"


def row(pose, height=20, width=24, focal=26.0, near=2.0, far=9.0):
    """A row of poses_bounds.npy of a (3, 4) OpenGL pose."""
    right, up, back, eye = np.asarray(pose).T
    matrix = np.stack([-up, right, back, eye, [height, width, focal]], axis=1)
    return np.concatenate([matrix.ravel(), [near, far]])


def write_forward(root, count=10, turn=IDENTITY, shift=(5.0, -3.0, 2.0), scale=1.0):
    """Cameras side by side on a grid, tilted a little, all looking along -z of the axes ``turn``;
    one image per camera."""
    (root / "images").mkdir(parents=True)
    rows = []
    for i in range(count):
        angle = 0.03 * math.sin(i)
        tilt = np.array(
            [
                [math.cos(angle), 0, math.sin(angle)],
                [0, 1, 0],
                [-math.sin(angle), 0, math.cos(angle)],
            ]
        )
        eye = scale * (turn @ [0.3 * (i % 4), 0.2 * (i // 4), 0.05 * math.cos(i)] + shift)
        rows.append(row(np.column_stack([turn @ tilt, eye]), near=2 * scale, far=9 * scale))
        image = np.full((20, 24, 3), 20 * i, np.uint8)
        Image.fromarray(image).save(root / "images" / f"p_{i:02d}.png")
    np.save(root / "poses_bounds.npy", np.array(rows))
    return root


class TestForward:
    def test_is_ndc_by_itself(self, tmp_path):
        scene = load_llff(write_forward(tmp_path / "s"))
        assert scene.space.forward_facing
        assert [v.name for v in scene.test] == ["p_00", "p_08"]
        assert len(scene.train) == 8
        view = scene.train[0]
        assert [view.fx, view.fy, view.cx, view.cy] == [26, 26, 12, 10]

    def test_poses_surround_the_origin_and_look_along_minus_z(self, tmp_path):
        turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        scene = load_llff(write_forward(tmp_path / "s", turn=turn), hold_out=0)
        c2w = torch.stack([v.c2w for v in (*scene.train, *scene.test)])
        assert c2w[:, :, 3].mean(dim=0).abs().max() < 1e-5
        assert (c2w[:, 2, 2] > 0.99).all()
        assert (c2w[:, 1, 1] > 0.99).all()

    def test_nearest_content_is_a_third_beyond_the_near_plane_whatever_the_scale(self, tmp_path):
        small = load_llff(write_forward(tmp_path / "a"))
        large = load_llff(write_forward(tmp_path / "b", scale=70.0))
        for a, b in zip(small.train, large.train, strict=True):
            torch.testing.assert_close(a.c2w, b.c2w, atol=1e-5, rtol=0)
        x = torch.stack([v.c2w[:, 3] for v in small.train])[:, 0]
        scale = float(x.max() - x.min()) / 0.9  # which the cameras are apart in the file
        nearest = scale * 2.0  # its depth in the file
        assert nearest == pytest.approx(4 / 3, rel=0.01)
        # the near plane, at -1 of warped space, is three quarters of the way there
        warped = small.space.from_world(torch.tensor([[0, 0, -nearest], [0, 0, -0.75 * nearest]]))
        assert warped[:, 2].tolist() == pytest.approx([-0.5 * THICKNESS, -THICKNESS], rel=0.04)

    def test_what_is_nearest_is_so_of_all_views(self, tmp_path):
        """One view that sees something at half the depth: all cameras are twice as far apart."""
        usual = load_llff(write_forward(tmp_path / "a"))
        root = write_forward(tmp_path / "b")
        table = np.load(root / "poses_bounds.npy")
        table[4, 15] = 1.0
        np.save(root / "poses_bounds.npy", table)
        for a, b in zip(usual.train, load_llff(root).train, strict=True):
            torch.testing.assert_close(2 * a.c2w[:, 3], b.c2w[:, 3])

    def test_warped_rays_fill_the_bounds(self, tmp_path):
        scene = load_llff(write_forward(tmp_path / "s"))
        cameras = Cameras.within(scene, scene.train)
        for i in range(len(cameras)):
            rays = cameras.view_rays(i)
            for point in (rays.origins, rays.origins + rays.far[:, None] * rays.directions):
                assert (point >= scene.bounds[0] - 1e-4).all()
                assert (point <= scene.bounds[1] + 1e-4).all()
        assert scene.bounds[:, 2].tolist() == pytest.approx([-THICKNESS, THICKNESS], abs=0.01)
        assert scene.near == 0
        assert 2 * THICKNESS <= scene.far < 2.6

    def test_the_view_nearest_to_the_centre(self, tmp_path):
        scene = load_llff(write_forward(tmp_path / "s"), hold_out=0)
        eyes = torch.stack([v.c2w[:, 3] for v in (*scene.train, *scene.test)]).norm(dim=1)
        assert len(scene.test) == 1
        assert int(eyes.argmin()) == len(eyes) - 1

    def test_masks_are_not_used_in_warped_space(self, tmp_path):
        root = write_forward(tmp_path / "s")
        for path in (root / "images").iterdir():
            Image.new("RGBA", (24, 20), (9, 9, 9, 0)).save(path)
        scene = load_llff(root)
        assert not scene.has_alpha
        assert (scene.train[0].image == 255).all()


class TestAround:
    def test_centred_on_what_the_cameras_look_at(self, tmp_path, captures, source, sphere):
        root = captures.llff(source, tmp_path / "s")
        scene = load_llff(root)
        assert scene.space is WORLD
        c2w = torch.stack([v.c2w for v in (*scene.train, *scene.test)])
        assert c2w[:, :, 3].norm(dim=1).tolist() == pytest.approx([1.0] * 10, abs=1e-4)
        to_origin = -c2w[:, :, 3]
        assert ((-c2w[:, :, 2] * to_origin).sum(1) > 0.9999).all()
        assert (c2w[:, 2, 1] > 0).all()  # upright
        assert scene.near == pytest.approx(2 / 3, rel=1e-3)
        assert 5 / 3 < scene.far < 5 / 3 * 1.3
        # around the sphere, which is at the origin, and no farther than the cameras
        radius = sphere[1] / 3.0
        assert (scene.bounds[0] < -radius).all() and (scene.bounds[0] >= -1.0).all()
        assert (scene.bounds[1] > radius).all() and (scene.bounds[1] <= 1.0).all()

    def test_asked_for(self, tmp_path, captures, source):
        root = write_forward(tmp_path / "s")
        assert not load_llff(root, spheric_poses=True).space.forward_facing

    def test_forward_of_cameras_around_is_refused(self, tmp_path, captures, source):
        root = captures.llff(source, tmp_path / "s")
        with pytest.raises(UserError, match="does not face the way"):
            load_llff(root, spheric_poses=False)


class TestSizes:
    @pytest.mark.parametrize(
        ("img_wh", "folder"),
        [
            (None, 1),
            ((24, 20), 1),
            ((20, 16), 1),
            ((12, 10), 2),
            ((6, 5), 4),
            ((4, 3), 4),
            ((48, 40), 1),
        ],
    )
    def test_the_smallest_that_is_large_enough(
        self, tmp_path, captures, source, monkeypatch, img_wh, folder
    ):
        root = captures.llff(source, tmp_path / "s", factors=(1, 2, 4))
        read = []

        def spy(path, *options):
            read.append(path)
            return read_image(path, *options)

        monkeypatch.setattr("datasets.formats.frames.read_image", spy)
        scene = load_llff(root, img_wh=img_wh)
        name = "images" if folder == 1 else f"images_{folder}"
        assert {path.parent.name for path in read} == {name}
        view = scene.train[0]
        width, height = img_wh or (24, 20)
        assert (view.width, view.height) == (width, height)
        assert view.fx == pytest.approx(26 * width / 24)
        assert view.cy == pytest.approx(height / 2)

    def test_the_full_size_may_be_missing(self, tmp_path, captures, source):
        root = captures.llff(source, tmp_path / "s", factors=(2, 4))
        view = load_llff(root).train[0]
        assert (view.width, view.fx) == (12, 13)

    def test_jpeg_in_capitals(self, tmp_path, captures, source):
        assert load_llff(captures.llff(source, tmp_path / "s", extension=".JPG")).train[0].fx == 26


class TestErrors:
    def check(self, root, *parts, **options):
        with pytest.raises(UserError) as error:
            load_llff(root, **options)
        assert "\n" not in str(error.value)
        for part in parts:
            assert part in str(error.value)

    @pytest.mark.parametrize(
        ("change", "part"),
        [
            (lambda t: t[:, :16], "is (10, 16); it has to be (images, 17)"),
            (lambda t: t.ravel(), "is (170,); it has to be (images, 17)"),
            (lambda t: t[:0], "has no rows"),
            (lambda t: t * math.nan, "NaN"),
            (lambda t: t.astype(str), "has no rows, or NaN"),
            (lambda t: np.where(np.arange(17) == 16, 1.0, t), "no near and far above 0"),
            (lambda t: np.where(np.arange(17) == 15, 0.0, t), "no near and far above 0"),
            (lambda t: np.where(np.arange(17) == 14, -1.0, t), "focal length is not above 0"),
            (lambda t: np.where(np.arange(17) < 3, 0.0, t), "row 0: pose has no rotation"),
            # fuzzing: was infinite in single precision, and a traceback
            (lambda t: np.where(np.arange(17) == 13, -1e270, t), "row 0: pose has a position"),
            (lambda t: t[:9], "has 10 images, but"),
        ],
    )
    def test_table(self, tmp_path, change, part):
        root = write_forward(tmp_path / "s")
        table = np.load(root / "poses_bounds.npy")
        np.save(root / "poses_bounds.npy", change(table))
        self.check(root, "poses_bounds.npy", part)

    @pytest.mark.parametrize(
        "content", [b"", b"hello", b"PK\3\4 and no archive", HEADER % b"{'a': (", None]
    )
    def test_file(self, tmp_path, content):
        root = write_forward(tmp_path / "s")
        path = root / "poses_bounds.npy"
        path.write_bytes(path.read_bytes()[:300] if content is None else content)
        self.check(root, str(path), "not readable as an array")

    def test_a_pickle_is_not_opened(self, tmp_path):
        root = write_forward(tmp_path / "s")
        np.save(root / "poses_bounds.npy", np.array([{}]), allow_pickle=True)
        self.check(root, "not readable as an array")

    def test_no_file(self, tmp_path):
        self.check(tmp_path, "poses_bounds.npy: no such file")

    def test_no_images(self, tmp_path):
        root = write_forward(tmp_path / "s")
        for path in (root / "images").iterdir():
            path.unlink()
        self.check(root, "has no images in images/ or images_N/")

    def test_an_image_without_pose(self, tmp_path):
        root = write_forward(tmp_path / "s")
        Image.new("RGB", (24, 20)).save(root / "images" / "z.png")
        self.check(root, "has 11 images, but", "10 poses", "--dataset_name colmap")

    def test_several_fields_of_view(self, tmp_path):
        root = write_forward(tmp_path / "s")
        table = np.load(root / "poses_bounds.npy")
        table[3, 14] = 40
        np.save(root / "poses_bounds.npy", table)
        self.check(root, "several fields of view", "--spheric_poses")
        assert load_llff(root, spheric_poses=True).train[2].fx == 40

    def test_images_of_another_shape(self, tmp_path):
        root = write_forward(tmp_path / "s")
        Image.new("RGB", (20, 20)).save(root / "images" / "p_03.png")
        self.check(root, "p_03.png: is 20x20, which is not the shape", "24x20")

    @pytest.mark.parametrize("hold_out", [1, 1.5, 8.5])
    def test_hold_out(self, tmp_path, hold_out):
        self.check(write_forward(tmp_path / "s"), "--hold_out", hold_out=hold_out)


@pytest.mark.skipif(not FERN.is_dir(), reason="the data set is not here")
def test_fern():
    scene = load_llff(FERN, img_wh=(126, 94))
    assert scene.space.forward_facing
    assert len(scene.train) == 17
    assert len(scene.test) == 3
    assert scene.train[0].name == "image001"
    assert scene.train[0].fx == pytest.approx(3260.526 * 126 / 4032, rel=1e-4)
    assert 2 * THICKNESS < scene.far < 1.2
