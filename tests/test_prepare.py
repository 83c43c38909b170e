"""Photos -> transforms.json: all but structure from motion itself runs without pycolmap."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import prepare
from datasets.cameras.rays import Cameras
from datasets.capture import Solved, solve, upright_copies, write_capture
from datasets.formats.colmap_model import read_model
from datasets.formats.transforms import load_transforms
from datasets.load import LoadOptions
from utils.errors import UserError

FOX = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "fox_360" / "images_2"


class TestInput:
    @pytest.mark.parametrize(
        ("count", "words"), [(0, "has no photos"), (2, "has 2 photos, too few")]
    )
    def test_too_few(self, tmp_path, count, words):
        for i in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
        with pytest.raises(UserError, match=words):
            prepare.prepare(tmp_path, tmp_path / "out")

    def test_no_folder(self, tmp_path):
        with pytest.raises(UserError, match="no such directory"):
            prepare.prepare(tmp_path / "none")

    def test_no_pycolmap(self, tmp_path, monkeypatch, capsys):
        for i in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
        monkeypatch.setitem(sys.modules, "pycolmap", None)
        monkeypatch.setattr(sys, "argv", ["prepare.py", str(tmp_path)])
        with pytest.raises(SystemExit) as exit:
            prepare.main()
        assert exit.value.code == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: pycolmap: cannot be imported")
        assert error.endswith("pip install -r requirements-capture.txt")
        assert (Path(__file__).resolve().parents[1] / "requirements-capture.txt").is_file()

    def test_photos_are_not_replaced(self, tmp_path):
        (tmp_path / "images").mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), (i, 2 * i, 99)).save(tmp_path / "images" / f"{i}.png")
        before = {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()}
        with pytest.raises(UserError, match="give --output_dir"):
            prepare.prepare(tmp_path / "images", tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        after = {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()}
        assert after == before

    def test_name(self):
        assert prepare.name_of(Path("a/fox")) == "fox"
        assert prepare.name_of(Path("a/fox/images_2")) == "fox"
        assert prepare.name_of(Path("a/fox/Photos")) == "fox"


def test_copies_are_upright_and_in_one_folder_per_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    (tmp_path / "b").mkdir()
    photos = [tmp_path / name for name in ("a.jpg", "b/a.jpg", "c.png", "d.jpg")]
    Image.new("RGB", (30, 20), (200, 0, 0)).save(photos[0], exif=exif)
    Image.new("RGB", (20, 30)).save(photos[1])
    Image.new("RGBA", (30, 20)).save(photos[2])
    photos[3].write_bytes(b"no photo")
    copies, unreadable = upright_copies(photos, tmp_path / "work")
    assert list(copies) == ["20x30/a_0.jpg", "20x30/a_1.jpg", "30x20/c.jpg"]
    assert list(copies.values()) == photos[:3]
    assert unreadable == [photos[3]]
    copy = Image.open(tmp_path / "work" / "20x30/a_0.jpg")
    assert copy.size == (20, 30)
    assert copy.getexif().get(0x0112) is None
    assert copy.getexif()[0x010F] == "maker"


@pytest.fixture
def solved(tmp_path, write_scene):
    """A model of 8 of 10 photos of the sphere, as COLMAP would have written it."""
    from scipy.spatial.transform import Rotation

    source = write_scene(tmp_path / "source", counts={"train": 10}, lens={"fl_x": 26.0})
    frames = json.loads((source / "transforms_train.json").read_text())["frames"]
    model = tmp_path / "model"
    model.mkdir()
    (model / "cameras.txt").write_text("1 SIMPLE_RADIAL 24 20 26 12 10 0.0\n")
    lines, photos = [], {}
    for i, frame in enumerate(frames):
        name = f"24x20/r_{i}.jpg"
        photos[name] = source / f"{frame['file_path']}.png"
        pose = np.array(frame["transform_matrix"])
        turn = (pose[:3, :3] * (1, -1, -1)).T
        x, y, z, w = Rotation.from_matrix(turn).as_quat()
        numbers = (i + 1, w, x, y, z, *(-turn @ pose[:3, 3]), 1, name)
        lines += [" ".join(map(str, numbers)), ""]
    (model / "images.txt").write_text("\n".join(lines[:16]) + "\n")
    (model / "points3D.txt").write_text("1 0.1 -0.1 0.3 0 0 0 0.5\n2 0.3 0.2 0.1 0 0 0 0.5\n")
    return Solved(read_model(model), photos, 0.5, [8, 2])


def test_written_scene(tmp_path, solved, sphere):
    file = write_capture(solved, tmp_path / "out")
    assert file == tmp_path / "out" / "transforms.json"
    assert sorted(path.name for path in file.parent.iterdir()) == ["images", "transforms.json"]
    scene = load_transforms(tmp_path / "out", LoadOptions(hold_out=0))
    views = [*scene.train, *scene.test]
    assert sorted(view.name for view in views) == [f"r_{i}" for i in range(8)]
    c2w = torch.stack([view.c2w for view in views])
    # what is looked at is the origin, at distance 1, and up is up
    assert c2w[:, :, 3].norm(dim=1).tolist() == pytest.approx([1.0] * 8, abs=1e-4)
    assert (c2w[:, 2, 1] > 0.5).all()
    assert c2w[:, 2, 0].abs().max() < 1e-4
    assert views[0].fx == 26
    assert 0.5 < scene.near < 1 < scene.far < 1.6
    # the sphere, which they look at, is where its pixels are
    cameras = Cameras.within(scene, views)
    radius = sphere[1] / 3.0
    for i, view in enumerate(views):
        rays = cameras.view_rays(i)
        miss = torch.linalg.cross(rays.origins, rays.directions).norm(dim=1)
        white = (view.image.reshape(-1, 3) > 240).all(dim=1)
        assert white[miss > 1.2 * radius].all()
        assert not white[miss < 0.8 * radius].any()


def test_report(solved, capsys):
    prepare.report(solved)
    text = capsys.readouterr().out
    assert "8 of 10 photos registered, mean error 0.50 pixels" in text
    assert "not registered: r_8.png, r_9.png" in text
    assert "unconnected groups (8 + 2)" in text
    assert "add photos from viewpoints between" in text


def test_tried_again_with_more_features(tmp_path, solved, monkeypatch):
    asked = []

    def attempt(photos, work, features):
        asked.append(features)
        return solved if features == 8192 else None

    monkeypatch.setattr("datasets.capture.attempt", attempt)
    assert solve(solved.photos, tmp_path) is solved
    assert asked == [2048, 8192]
    monkeypatch.setattr("datasets.capture.attempt", lambda *_: None)
    with pytest.raises(UserError, match="no two could be matched"):
        solve(solved.photos, tmp_path)


def test_whole_run_with_another_solver(tmp_path, solved, monkeypatch, capsys):
    monkeypatch.setattr("prepare.import_pycolmap", lambda: None)
    monkeypatch.setattr("prepare.solve", lambda copies, work: solved)
    photos = tmp_path / "fox"
    photos.mkdir()
    for path in solved.photos.values():
        shutil.copy(path, photos)
    monkeypatch.chdir(tmp_path)
    assert prepare.prepare(photos) == Path("data/fox")
    assert (
        "next: python pipeline.py --stage geometry --root_dir data/fox" in capsys.readouterr().out
    )
    assert Path("data/fox/transforms.json").is_file()


def test_ten_photos_of_the_fox(tmp_path):
    pytest.importorskip("pycolmap")
    if not FOX.is_dir():
        pytest.skip("the data set is not here")
    photos = tmp_path / "fox"
    photos.mkdir()
    for path in sorted(FOX.iterdir())[:10]:
        shutil.copy(path, photos)
    scene = load_transforms(prepare.prepare(photos, tmp_path / "out"), LoadOptions(hold_out=0))
    assert len(scene.train) + len(scene.test) == 10
    assert scene.train[0].fx == pytest.approx(715, rel=0.1)
