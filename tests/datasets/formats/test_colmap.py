import logging

import numpy as np
import pytest
import torch

from datasets.cameras.distortion import MODELS
from datasets.formats.colmap import load_colmap as load
from datasets.formats.colmap_model import NAMES
from datasets.load import LoadOptions
from utils.errors import UserError


def load_colmap(root, **options):
    """The scene with these `LoadOptions`."""
    return load(root, LoadOptions(**options))


POINTS = [(0.1, -0.1, 0.3), (0.3, 0.2, 0.1), (-0.2, -0.3, 0.4), (0.0, 0.1, -0.2)]


class TestModels:
    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("name", [name for name in NAMES if name in MODELS])
    def test_every_camera_model(self, tmp_path, captures, source, name, binary):
        further = tuple(0.01 for _ in range(MODELS[name][2]))
        root = captures.colmap(source, tmp_path / "c", binary, model=(name, further))
        view = load_colmap(root).train[0]
        assert view.fx == view.fy
        assert 0.8 * 26 - 0.01 <= view.fx <= 1.5 * 26
        assert (view.cx, view.cy) == (12, 10)

    @pytest.mark.parametrize("binary", [True, False])
    def test_refused(self, tmp_path, captures, source, binary):
        root = captures.colmap(source, tmp_path / "c", binary, model=("EQUIRECTANGULAR", ()))
        for path in root.glob("sparse/0/cameras.*"):
            if binary:
                path.write_bytes(path.read_bytes()[:48])
            else:
                path.write_text("7 EQUIRECTANGULAR 24 20 24 20\n")
        with pytest.raises(UserError, match="camera 7: its model EQUIRECTANGULAR is not known"):
            load_colmap(root)

    def test_the_largest(self, tmp_path, captures, source, caplog):
        root = tmp_path / "c"
        for number, count in enumerate((3, 10, 4)):
            captures.colmap(source, root, number != 1, folder=f"sparse/{number}", count=count)
        with caplog.at_level(logging.WARNING):
            scene = load_colmap(root)
        assert len(scene.train) + len(scene.test) == 10
        assert "1: the model with 10 images is used, not 0: 3, 2: 4" in caplog.text

    def test_range_from_the_points(self, tmp_path, captures, source):
        stray = [(100.0, 100.0, 100.0)]  # seen by no camera
        scene = load_colmap(captures.colmap(source, tmp_path / "c", points=POINTS + stray))
        eyes = torch.stack([v.c2w[:, 3] for v in (*scene.train, *scene.test)])
        distances = torch.cdist(eyes, torch.tensor(POINTS))
        assert scene.near == pytest.approx(0.9 * float(distances.min()), rel=1e-4)
        assert scene.far == pytest.approx(1.1 * float(distances.max()), rel=1e-4)

    def test_without_points(self, tmp_path, captures, source):
        root = captures.colmap(source, tmp_path / "c")
        (root / "sparse/0/points3D.bin").unlink()
        scene = load_colmap(root)
        assert 0 < scene.near < scene.far


class TestImages:
    def test_without_pose_are_listed(self, tmp_path, captures, source, caplog):
        with caplog.at_level(logging.WARNING):
            scene = load_colmap(captures.colmap(source, tmp_path / "c", count=8))
        assert len(scene.train) + len(scene.test) == 8
        assert "2 images have no pose, left out: r_8.png, r_9.png" in caplog.text

    def test_missing_are_listed(self, tmp_path, captures, source, caplog):
        root = captures.colmap(source, tmp_path / "c")
        (root / "images/r_4.png").unlink()
        with caplog.at_level(logging.WARNING):
            scene = load_colmap(root)
        assert len(scene.train) + len(scene.test) == 9
        assert "1 images are missing, left out: r_4.png" in caplog.text

    def test_in_folders(self, tmp_path, captures, source):
        root = captures.colmap(source, tmp_path / "c", binary=False)
        path = root / "sparse/0/images.txt"
        path.write_text(path.read_text().replace("r_4.png", "a b/r_4.png"))
        (root / "images/a b").mkdir()
        (root / "images/r_4.png").rename(root / "images/a b/r_4.png")
        scene = load_colmap(root)
        found = {view.name: view for view in (*scene.train, *scene.test)}
        expected = captures.read(source)[2]
        assert found.keys() == {name for name, _, _ in expected}
        for name, pose, image in expected:
            torch.testing.assert_close(found[name].c2w, torch.tensor(pose).float())
            assert np.array_equal(found[name].image, image)

    def test_sizes(self, tmp_path, captures, source):
        root = captures.colmap(source, tmp_path / "c")
        views = captures.read(source)[2]
        for path in (root / "images").iterdir():
            path.unlink()
        captures.images(root, views, factors=(2,))
        scene = load_colmap(root)
        assert (scene.train[0].width, scene.train[0].fx) == (12, 13)
        scene = load_colmap(root, img_wh=(6, 5))
        assert (scene.train[0].width, scene.train[0].fx) == (6, 6.5)


class TestErrors:
    def check(self, root, *parts):
        with pytest.raises(UserError) as error:
            load_colmap(root)
        assert "\n" not in str(error.value)
        for part in parts:
            assert part in str(error.value)

    def test_no_model(self, tmp_path):
        (tmp_path / "sparse").mkdir()
        self.check(tmp_path, "has no COLMAP model", "sparse/0")

    @pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
    @pytest.mark.parametrize("kept", [0, 4, 0.5, 0.98])
    def test_cut_short(self, tmp_path, captures, source, name, kept):
        root = captures.colmap(source, tmp_path / "c", points=POINTS)
        path = root / f"sparse/0/{name}.bin"
        data = path.read_bytes()
        path.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
        self.check(root, str(path), "damaged or cut short")

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("cameras", "7 PINHOLE 24"),
            ("cameras", "7 PINHOLE 24 20 26 26 x 10"),
            ("images", "3 1 0 0 0 0 0"),
            ("images", "\x00\xff"),
            ("points3D", "1 a b c"),
            ("points3D", "1 0 0 5 1 2 3 0.5\n2 0 0"),
        ],
    )
    def test_damaged_text(self, tmp_path, captures, source, name, text):
        root = captures.colmap(source, tmp_path / "c", binary=False)
        path = root / f"sparse/0/{name}.txt"
        path.write_text(text + "\n", encoding="latin-1")
        self.check(root, f"sparse/0/{name}.txt", "damaged or cut short")

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("7 PINHOLE 24 20 26 26 12", "PINHOLE has 3 parameters"),
            ("7 PINHOLE 24 20 nan 26 12 10", "has NaN"),
            ("7 PINHOLE 0 20 26 26 12 10", "size or focal length of 0"),
            ("7 BOX 24 20 26 26 12 10", "model BOX is not known; convert it to one of SIMPLE_PIN"),
            ("8 PINHOLE 24 20 26 26 12 10", "has the camera 7, which is not among the cameras"),
        ],
    )
    def test_wrong_cameras(self, tmp_path, captures, source, text, part):
        root = captures.colmap(source, tmp_path / "c", binary=False)
        (root / "sparse/0/cameras.txt").write_text(text + "\n")
        self.check(root, "sparse/0", part)

    def test_pose_of_nan(self, tmp_path, captures, source):
        root = captures.colmap(source, tmp_path / "c", binary=False)
        path = root / "sparse/0/images.txt"
        lines = path.read_text().split("\n")
        lines[1] = "3 nan 0 0 0 0 0 0 7 r_0.png"
        path.write_text("\n".join(lines))
        self.check(root, "r_0.png has NaN in its pose")

    def test_nothing_registered(self, tmp_path, captures, source):
        root = captures.colmap(source, tmp_path / "c", count=0)
        self.check(root, "has no registered images")

    def test_no_images(self, tmp_path, captures, source):
        root = captures.colmap(source, tmp_path / "c")
        for path in (root / "images").iterdir():
            path.unlink()
        self.check(root, "has no images in images/")

    def test_images_under_other_names(self, tmp_path, captures, source):
        root = captures.colmap(source, tmp_path / "c")
        for path in (root / "images").iterdir():
            path.rename(path.with_stem(f"x{path.stem}"))
        self.check(root, "has none of the 10 images", "r_0.png")


def test_the_model_of_another_writer(tmp_path, captures, source):
    """pycolmap reads what the tests write, and writes what the loader reads."""
    pycolmap = pytest.importorskip("pycolmap")
    root = captures.colmap(source, tmp_path / "c", binary=False)
    reference = load_colmap(root)
    for path in (root / "sparse/0").iterdir():
        path.rename(tmp_path / path.name)
    pycolmap.Reconstruction(tmp_path).write(root / "sparse/0")
    scene = load_colmap(root)
    for a, b in zip(reference.train, scene.train, strict=True):
        torch.testing.assert_close(a.c2w, b.c2w, atol=1e-6, rtol=0)
        assert a.fx == b.fx
    assert np.isclose(scene.near, reference.near)
