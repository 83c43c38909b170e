"""Several reports in one table."""

import pytest
import torch

from measures.comparison import comparison_text
from measures.consistency import TEXTURE, path_pairs, score
from tests.measures.test_consistency import N, noisy, plane_cameras, plane_frames


def report(sigma, texture=lambda p: p):
    """A style with so much noise, and the controls."""
    noise = noisy(sigma, torch.Generator().manual_seed(2))
    cameras = plane_cameras(N)
    frames = plane_frames(cameras, 1, wave=noise, texture=texture)
    gaps = score(frames, cameras, path_pairs(N), {})["geometry"]
    legacy = {1: {"wave": sigma, "flat colour": 0.0}}
    consistency = {"warps": ["geometry"], "geometry": {"gaps": gaps}}
    return {"style": "wave", "consistency": consistency, "legacy": {"gaps": legacy}}


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def test_a_row_for_each_and_controls_once_where_they_are_the_same():
    reports = {"a": report(0.05), "b": report(0.1), "c": report(0.1, lambda p: p**2)}
    rows = [row for row in cells(comparison_text(reports)) if row and row[0] == "1"]
    names = [row[2] for row in rows[:5]]
    assert names == ["a", "b", "c", TEXTURE, f"{TEXTURE} (c)"]
    rmse = reports["b"]["consistency"]["geometry"]["gaps"][1]["pictures"]["wave"]["rmse"]
    assert rows[1][3] == f"{rmse:.3g}"
    assert [row[1:] for row in rows[5:]] == [
        ["a", "0.05"],
        ["b", "0.1"],
        ["c", "0.1"],
        ["flat colour", "0"],
    ]


def test_what_says_nothing_says_so_in_its_row():
    reports = {"a": report(0.05), "b": report(0.05)}
    gap = reports["b"]["consistency"]["geometry"]["gaps"][7]
    gap |= {"pictures": {}, "coverage": 0.03, "doubt": "3% of the pixels meet"}
    rows = [row for row in cells(comparison_text(reports)) if row and row[0] == "7"]
    said = {row[2]: row[3] for row in rows}
    assert said["b"] == "n/a: 3% of the pixels meet"
    assert float(said["a"]) == pytest.approx(0.05 * 2**0.5, rel=0.1)
    assert len(rows) == 3
