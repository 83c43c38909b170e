"""Depth as floats: the files say what their headers promise."""

import numpy as np
import torch

from utils.depth import write_pfm, write_raw

DEPTH = torch.tensor([[1.5, 2.5, 3.25], [4.0, 5.0, 6.0]])
OPACITY = torch.tensor([[1.0, 0.9, 0.6], [0.5, 0.49, 0.0]])
EXPECTED = [[1.5, 2.5, 3.25], [4.0, 0.0, 0.0]]


def read_pfm(path):
    """(H, W) of a greyscale PFM, rows from the top down."""
    kind, size, scale, data = path.read_bytes().split(b"\n", 3)
    assert kind == b"Pf"
    width, height = map(int, size.split())
    assert float(scale) < 0  # little-endian
    return np.frombuffer(data, "<f4").reshape(height, width)[::-1]


def test_pfm_is_bottom_up(tmp_path):
    write_pfm(tmp_path / "depth.pfm", DEPTH, OPACITY)
    assert read_pfm(tmp_path / "depth.pfm").tolist() == EXPECTED
    assert (tmp_path / "depth.pfm").read_bytes().startswith(b"Pf\n3 2\n-1.0\n")


def test_raw_is_top_down(tmp_path):
    write_raw(tmp_path / "depth.raw", DEPTH, OPACITY)
    assert np.fromfile(tmp_path / "depth.raw", "<f4").reshape(2, 3).tolist() == EXPECTED
