"""``eval.py --measure`` end to end, on the tiny scene."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import compare, evaluate
from opt import parse_eval, parse_train
from pipeline import train
from tests.conftest import write_sphere_scene
from utils.errors import UserError

CONTROLS = ("unstylised", "painted frame by frame", "solid texture", "flat colour")
OUT = Path("results")


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
    evaluate(parse_eval(f"--ckpt_path ckpts/sphere_{ckpt}.ckpt {more}".split()))
    return json.loads((OUT / f"sphere_{ckpt}/measures.json").read_text())


def test_both_measures_of_a_painted_scene(painted, capsys):
    report = measured("s", "--measure consistency quality --n_frames 40")
    found = report["consistency"]
    assert (found["path"], found["frames"], found["size"]) == ("circle", 40, [48, 40])
    assert found["network"] == report["quality"]["network"]
    near = found["geometry"]["gaps"]["1"]
    assert (near["pairs"], near["dropped"], near["doubt"]) == (13, 0, None)
    rows = near["pictures"]
    assert {*rows} == {"painting", *CONTROLS}
    order = [rows[name]["normalised"] for name in ("solid texture", "painting", CONTROLS[1])]
    assert 0 < order[0] < order[1] < order[2] < 1
    assert rows["flat colour"]["normalised"] is None
    assert rows["painted frame by frame"]["pairs"] == 2
    assert found["warps"][1].startswith("flow (")
    assert {*found[found["warps"][1]]["gaps"]} == {"1", "7", "10"}
    photographs = found["geometry"]["gaps"]["photographs"]
    assert photographs["pairs"] + photographs["dropped"] == 8
    quality = report["quality"]
    assert quality["content_of"] == "photos"
    assert sorted(quality["views"]) == ["000", "001"]
    assert 0 < quality["pictures"]["stylised"]["ssim"] < 1
    assert "gram" in quality["trained_on"]
    text = (OUT / "sphere_s/measures.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert all(part in text for part in ("| painting ", "## Quality", "gram*", "By flow ("))


def test_refit_and_legacy_are_asked_for_by_name(painted, monkeypatch):
    monkeypatch.setattr("measures.refit.STEPS", 60)
    monkeypatch.setattr("measures.refit.RAYS", 512)  # a view has 1920 pixels
    report = measured("s", "--measure refit legacy --n_frames 12")
    assert {"consistency", "quality"}.isdisjoint(report)
    refit = report["refit"]
    assert (refit["train"], refit["held_out"]) == (8, 2)
    # what is consistent can be learned from other views
    pictures = refit["pictures"]
    assert pictures["painting"] > pictures["painted frame by frame"] + 1
    legacy = report["legacy"]["gaps"]
    assert {gap: {*rows} for gap, rows in legacy.items()} == {
        gap: {"painting", "unstylised", "flat colour"} for gap in ("1", "7")
    }
    assert legacy["7"]["flat colour"] < 1e-6 < legacy["7"]["painting"]


def test_two_checkpoints_in_one_table_and_on_one_sheet(painted, capsys):
    shutil.copy("ckpts/sphere_s.ckpt", "ckpts/again.ckpt")
    reports = compare(
        parse_eval(["--compare", "ckpts/sphere_s.ckpt", "ckpts/again.ckpt", "--measure", "quality"])
    )
    place = OUT / "comparison"
    assert list(json.loads((place / "comparison.json").read_text())) == ["sphere_s", "again"]
    text = (place / "comparison.md").read_text()
    assert text.strip() in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    rows = {row[1]: row[2:] for row in rows if len(row) > 2}
    gram = reports["again"]["quality"]["pictures"]["stylised"]["gram"]
    assert rows["sphere_s"] == rows["again"]
    assert rows["again"][0] == f"{gram:.3g}*"
    anchors = ["photograph", "crops of the painting", "the painting in its place"]
    assert list(rows)[2:] == ["sphere_s", "again", *anchors]  # what is the same is there once
    sheet = np.asarray(Image.open(place / "comparison.png"))
    cells = sheet_cells(sheet, rows=3, columns=4)  # the painting, two views and a crop
    assert (cells[0][0] == 255).all()
    photo = Image.open("sphere/test/r_0.png")
    white = Image.new("RGBA", photo.size, "white")
    photo = np.asarray(Image.alpha_composite(white, photo).convert("RGB")).astype(int)
    assert np.abs(cells[0][1] - photo).max() <= 1
    painting = np.asarray(Image.open("painting.png").resize((48, 36), Image.Resampling.BILINEAR))
    for row, name in zip(cells[1:], ("sphere_s", "again"), strict=True):
        assert np.abs(row[0][:36] - painting.astype(int)).max() <= 1
        assert (row[0][36:] == 255).all()
        for cell, view in zip(row[1:], ("000", "001"), strict=False):
            assert (cell == np.asarray(Image.open(place / name / f"{view}.png"))).all()
    with pytest.raises(UserError, match="two files of the same name"):
        compare(parse_eval(["--compare", "ckpts/again.ckpt", "ckpts/again.ckpt"]))
    with pytest.raises(UserError, match="--compare: excludes --ckpt_path"):
        parse_eval(["--compare", "a.ckpt", "--ckpt_path", "b.ckpt"])


def test_each_of_the_compared_needs_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"comparison.ckpt: .*; rename the checkpoint"):
        compare(parse_eval(["--compare", "a.ckpt", "comparison.ckpt"]))
    # two runs' files have the same name, not the same folder: next is that there are none
    with pytest.raises(UserError, match=r"^a/step_3.ckpt: .*no such file"):
        compare(parse_eval(["--compare", "a/step_3.ckpt", "b/step_3.ckpt"]))


def sheet_cells(sheet, rows, columns, height=40, width=48):
    """The pictures (height, width, 3) of a sheet, by row and column."""
    assert sheet.shape == (rows * (16 + height) + 6, columns * (width + 6) + 6, 3)
    lines = [sheet[16 + r * (16 + height) :][:height].astype(int) for r in range(rows)]
    return [[line[:, 6 + c * (width + 6) :][:, :width] for c in range(columns)] for line in lines]


def test_a_sheet_without_photos_and_paintings(painted):
    """Photographic renders stand for the photos; there is no column of paintings."""
    for name in ("sphere", "painting.png"):
        (painted / name).rename(painted / f"hidden_{name}")
    line = "--compare ckpts/sphere_s.ckpt --measure consistency --path circle --n_frames 6"
    compare(parse_eval(line.split()))
    sheet = np.asarray(Image.open(OUT / "comparison/comparison.png"))
    cells = sheet_cells(sheet, rows=2, columns=4)  # three views and a crop
    line = line.replace("--compare ckpts/sphere_s.ckpt --measure consistency", "--ckpt_path {}")
    evaluate(parse_eval(line.format("ckpts/sphere_g.ckpt").split()))
    for cell, painted_cell, view in zip(*cells, ("000", "002", "004", None), strict=True):
        assert (cell != painted_cell).any()
        if view:
            assert (cell == np.asarray(Image.open(OUT / f"sphere_g/{view}.png"))).all()


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
    gaps = found["geometry"]["gaps"]
    assert (found["path"], found["frames"], found["size"]) == ("spiral", 40, [60, 50])
    assert {*gaps["1"]["pictures"]} == {"photo", "solid texture", "flat colour"}
    assert found["left_out"]["photographs"] == "not at hand; give --root_dir"
    with pytest.raises(
        UserError, match=r"--measure quality: .* give a checkpoint of --stage style"
    ):
        measured("g", "--measure quality")
    with pytest.raises(UserError, match=r"--measure refit: needs a painted style"):
        measured("g", "--measure refit")


def test_nothing_is_measured_unasked(painted):
    evaluate(parse_eval(["--ckpt_path", "ckpts/sphere_s.ckpt"]))
    assert (OUT / "sphere_s/metrics.json").is_file()
    assert not list(OUT.rglob("measures.*"))
