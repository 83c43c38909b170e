"""Data sets of every format, damaged: a scene, or one line."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.load import load_scene
from opt import parse_train
from tests.conftest import write_sphere_scene
from tests.datasets.conftest import Captures
from tests.fuzz.damage import damaged_bytes, damaged_json, damaged_words, one_line_or_fine

POINTS = [(0.1, -0.1, 0.3), (0.3, 0.2, 0.1), (-0.2, -0.3, 0.4), (0.0, 0.1, -0.2)]
COUNTS = {"train": 4, "test": 1}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A whole data set of each format."""
    at = tmp_path_factory.mktemp("fuzz")
    source = write_sphere_scene(at / "source", 12, 10, {"train": 5}, lens={"fl_x": 13.0})
    write_sphere_scene(at / "blender", 12, 10, COUNTS)
    Captures.transforms(source, at / "transforms", k1=0.01)
    data = json.loads((at / "transforms/transforms.json").read_text())
    data["frames"][0]["mask_path"] = "images/r_1.png"
    data["train_filenames"] = [frame["file_path"] for frame in data["frames"][:3]]
    data["test_filenames"] = [data["frames"][4]["file_path"]]
    (at / "transforms/transforms.json").write_text(json.dumps(data))
    Captures.llff(source, at / "llff")
    Captures.colmap(source, at / "colmap", points=POINTS)
    Captures.colmap(source, at / "text", binary=False, points=POINTS)
    return at


def load(root, more=""):
    return load_scene(parse_train(["--stage", "geometry", "--root_dir", str(root), *more.split()]))


def with_file(roots, name, file, content):
    """Loads the data set with ``content`` in the place of one of its files."""
    root = roots / "damaged" / name
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(roots / name, root)
    (root / file).write_bytes(content)
    with one_line_or_fine():
        scene = load(root)
        assert scene.near < scene.far
        for view in (*scene.train, *scene.test):
            assert view.c2w.isfinite().all()
            assert view.fx > 0


@pytest.mark.parametrize("name", ["blender", "transforms", "llff", "colmap", "text"])
def test_whole(roots, name):
    assert len(load(roots / name).train) >= 3


@given(data=st.data())
@pytest.mark.parametrize(
    ("name", "file"), [("blender", "transforms_train.json"), ("transforms", "transforms.json")]
)
def test_transforms(roots, name, file, data):
    tree = json.loads((roots / name / file).read_text())
    with_file(roots, name, file, data.draw(damaged_json(tree)))


@given(data=st.data())
def test_poses_bounds(roots, data):
    file = "poses_bounds.npy"
    good = (roots / "llff" / file).read_bytes()
    with_file(roots, "llff", file, data.draw(damaged_bytes(good)))


@given(data=st.data())
@pytest.mark.parametrize("file", ["cameras", "images", "points3D"])
def test_binary_models(roots, file, data):
    file = f"sparse/0/{file}.bin"
    good = (roots / "colmap" / file).read_bytes()
    with_file(roots, "colmap", file, data.draw(damaged_bytes(good)))


@given(data=st.data())
@pytest.mark.parametrize("file", ["cameras", "images", "points3D"])
def test_text_models(roots, file, data):
    file = f"sparse/0/{file}.txt"
    good = (roots / "text" / file).read_text()
    with_file(roots, "text", file, data.draw(damaged_words(good)))


@given(data=st.data())
def test_images(roots, data):
    good = (roots / "blender/train/r_1.png").read_bytes()
    with_file(roots, "blender", "train/r_1.png", data.draw(damaged_bytes(good)))


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "img_wh": st.sampled_from(["1 1", "7 5", "1 16384", "5 7"]),
        "near": st.sampled_from(["0", "1e-30", "1", "1e9"]),
        "far": st.sampled_from(["1e-6", "1", "1e9"]),
        "hold_out": st.sampled_from(["0", "0.5", "1", "1.5", "2", "1e30", "0.999"]),
        "few_shot": st.sampled_from(["1", "2", "3", "4", "1000000000"]),
        "occluded": st.sampled_from(["left", "right"]),
        "views": st.sampled_from(["0", "r_1 r_2", "9", "r_1 r_1", "-"]),
        "data_perturb": st.sampled_from(["color", "occ", "color occ"]),
        "dataset_name": st.sampled_from(["auto", "blender", "transforms", "llff", "colmap"]),
    },
)


@given(name=st.sampled_from(["blender", "transforms", "llff", "colmap"]), options=OPTIONS)
def test_options_of_data(roots, name, options):
    line = " ".join(f"--{option} {value}" for option, value in options.items())
    with one_line_or_fine():
        load(roots / name, line)
