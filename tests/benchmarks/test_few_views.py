"""The table of few views: what is on in which line, and mean and spread over the draws."""

import json

import pytest

from benchmarks.experiments import few_views


def test_each_way_has_what_its_name_says():
    for field in few_views.CONFIGS:
        off, on = map(list, few_views.FREE[field])
        assert off != on
        semantic = ["--semantic", "own"]
        found = {way: few_views.words_of(field, way, "own") for way in few_views.WAYS}
        assert found == {
            "plain": off,
            "network-free": on,
            "semantic": off + semantic,
            "all": on + semantic,
        }


def test_mean_spread_and_the_worst_draw():
    draws = [{"psnr": p, "ssim": 0.8, "seconds": 60.0} for p in (20.0, 22.0, 24.0)]
    line = few_views.table([{"views": "8", "field": "nerf", "way": "all", "draws": draws}])
    cells = [cell.strip() for cell in line.splitlines()[-1].strip("|").split("|")]
    assert cells == ["8", "nerf", "all", "22 ± 2", "0.8 ± 0", "n/a", "20.00", "60 s"]


@pytest.mark.slow
def test_quick_runs_one_cell(tmp_path, tiny_scene_dir):
    few_views.main(["--root_dir", str(tiny_scene_dir), "--quick", "--out", str(tmp_path)])
    (row,) = json.loads((tmp_path / "few_views.json").read_text())
    assert (row["views"], row["field"], row["way"]) == ("4", "voxels", "all")
    assert 0 < row["draws"][0]["psnr"] < 60
    assert "| 4 " in (tmp_path / "few_views.md").read_text()
