"""``eval.py --measure`` end to end, on the tiny scene."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import evaluate
from opt import parse_eval, parse_train
from pipeline import train
from tests.conftest import write_sphere_scene
from utils.errors import UserError

OUT = Path("results/blender/sphere")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a painted scene: ckpts/sphere_g.ckpt and ckpts/sphere_s.ckpt."""
    folder = tmp_path_factory.mktemp("trained")
    write_sphere_scene(folder / "sphere", 48, 40)
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((64, 48)).save(folder / "painting.png")
    common = "--root_dir sphere --field voxels --voxel_resolution 24"
    first = f"--stage geometry {common} --batch_size 512 --max_steps 60 --suffix g"
    second = f"--stage style {common} --style_dir painting.png --features own --max_steps 3"
    second += " --suffix s --ckpt_path ckpts/sphere_g.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (first, second):
            train(parse_train(line.split()))
    return folder


@pytest.fixture
def painted(trained, tmp_path, monkeypatch):
    """A working directory with a copy of it."""
    shutil.copytree(trained, tmp_path / "at")
    monkeypatch.chdir(tmp_path / "at")
    return tmp_path / "at"


def measured(ckpt, more):
    evaluate(parse_eval(f"--ckpt_path ckpts/sphere_{ckpt}.ckpt --gif_name g {more}".split()))
    return json.loads((OUT / "measures.json").read_text())


def test_both_measures_of_a_painted_scene(painted, capsys):
    report = measured("s", "--measure consistency quality --n_frames 40")
    found = report["consistency"]
    assert (found["path"], found["frames"], found["size"]) == ("circle", 40, [48, 40])
    assert found["network"] == report["quality"]["network"]
    near = found["gaps"]["1"]
    assert near["pairs"] + near["dropped"] == 39
    assert near["pairs"] > 0
    rows = near["pictures"]
    assert list(rows) == ["painting", "unstylised", "solid texture", "flat colour"]
    assert 0 < rows["solid texture"]["normalised"] < rows["painting"]["normalised"] < 1
    assert rows["flat colour"]["normalised"] is None
    quality = report["quality"]
    assert quality["content_of"] == "photos"
    assert sorted(quality["views"]) == ["000", "001"]
    assert 0 < quality["pictures"]["stylised"]["ssim"] < 1
    assert "gram" in quality["trained_on"]
    text = (OUT / "measures.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert all(part in text for part in ("| 1   | painting", "## Quality", "gram*"))


def test_without_photos_the_photographic_colours_stand_for_them(painted):
    (painted / "sphere").rename(painted / "hidden")
    report = measured("s", "--measure quality --path circle --n_frames 2")
    assert "consistency" not in report
    quality = report["quality"]
    assert (quality["content_of"], len(quality["views"])) == ("photographic renders", 2)
    assert quality["pictures"]["photograph"]["ssim"] == pytest.approx(1)


def test_photographic_colours_have_consistency_and_no_quality(painted):
    found = measured("g", "--measure consistency --path spiral --n_frames 40 --img_wh 60 50")
    found = found["consistency"]
    assert (found["path"], found["frames"], found["size"]) == ("spiral", 40, [60, 50])
    assert list(found["gaps"]["1"]["pictures"]) == ["photo", "solid texture", "flat colour"]
    with pytest.raises(
        UserError, match=r"--measure quality: .* give a checkpoint of --stage style"
    ):
        measured("g", "--measure quality")


def test_nothing_is_measured_unasked(painted):
    evaluate(parse_eval(["--ckpt_path", "ckpts/sphere_s.ckpt", "--gif_name", "g"]))
    assert (OUT / "metrics.json").is_file()
    assert not list(OUT.glob("measures.*"))
