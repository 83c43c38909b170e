"""Data sets that are made to hurt: they point out of their folder, or are without end."""

import json

import pytest
from PIL import Image

from datasets.formats.colmap import load_colmap
from datasets.formats.transforms import load_transforms
from datasets.load import LoadOptions
from utils.errors import UserError


def test_a_model_of_gigabytes(tmp_path, captures, source):
    root = captures.colmap(source, tmp_path / "c")
    with (root / "sparse/0/points3D.bin").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(UserError, match=r"points3D\.bin: .*more than 1024 MB"):
        load_colmap(root, LoadOptions())


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "images/../../secret.png"])
@pytest.mark.parametrize("key", ["file_path", "mask_path"])
def test_paths_that_leave_the_folder(tmp_path, captures, source, key, name):
    root = captures.transforms(source, tmp_path / "c")
    Image.new("RGB", (24, 20)).save(tmp_path / "secret.png")
    data = json.loads((root / "transforms.json").read_text())
    data["frames"][3][key] = name
    (root / "transforms.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="is outside of"):
        load_transforms(root, LoadOptions())


def test_a_model_whose_names_leave_the_folder(tmp_path, captures, source):
    root = captures.colmap(source, tmp_path / "c", binary=False)
    path = root / "sparse/0/images.txt"
    path.write_text(path.read_text().replace("r_4.png", "../../secret.png"))
    Image.new("RGB", (24, 20)).save(tmp_path / "secret.png")
    with pytest.raises(UserError, match="is outside of"):
        load_colmap(root, LoadOptions())


def test_links_and_paths_within_may_be_followed(tmp_path, captures, source):
    root = captures.transforms(source, tmp_path / "c")
    (root / "images").rename(tmp_path / "elsewhere")
    (root / "images").symlink_to(tmp_path / "elsewhere")
    data = json.loads((root / "transforms.json").read_text())
    data["frames"][3]["file_path"] = str(root.absolute() / "images/r_3.png")
    (root / "transforms.json").write_text(json.dumps(data))
    assert len(load_transforms(root, LoadOptions()).train) == 8
