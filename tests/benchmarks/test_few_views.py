"""The table of few views: what is on in which line, and mean and spread over the draws."""

import json

import pytest

from benchmarks.experiments import few_views
from utils.errors import UserError


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


def test_what_a_table_has_is_not_learned_again(tmp_path, monkeypatch):
    done = []

    def learned(options, views, field, way, draw):
        done.append((views, way, draw))
        return {"psnr": 20.0 + draw, "ssim": 0.8, "seconds": 1.0}

    monkeypatch.setattr(few_views, "learned", learned)
    words = ["--root_dir", str(tmp_path), "--out", str(tmp_path / "out"), "--fields", "voxels"]
    few_views.main([*words, "--views", "8", "--ways", "plain", "--draws", "2"])
    few_views.main([*words, "--views", "8", "--ways", "plain", "all", "--draws", "3"])
    plain, everything = [("8", "plain", i) for i in range(3)], [("8", "all", i) for i in range(3)]
    assert done == plain + everything
    content = json.loads((tmp_path / "out" / "few_views.json").read_text())
    assert [len(row["draws"]) for row in content["rows"]] == [3, 3]
    with pytest.raises(UserError, match="--max_steps None, not 9; give another --out"):
        few_views.main([*words, "--max_steps", "9"])
    assert len(done) == 6


@pytest.mark.slow
def test_quick_runs_one_cell(tmp_path, tiny_scene_dir):
    few_views.main(["--root_dir", str(tiny_scene_dir), "--quick", "--out", str(tmp_path)])
    (row,) = json.loads((tmp_path / "few_views.json").read_text())["rows"]
    assert (row["views"], row["field"], row["way"]) == ("4", "voxels", "all")
    assert 0 < row["draws"][0]["psnr"] < 60
    assert row["draws"][0]["seconds"] > 0
    assert "| 4 " in (tmp_path / "few_views.md").read_text()
