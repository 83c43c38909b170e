"""Depth maps: colours in order and range, and files that agree with their headers."""

import numpy as np
import torch
from PIL import Image

from utils.depth import VIRIDIS, depth_to_colour, write_depth_png16, write_pfm, write_raw

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


def read_depth_png16(path) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of the file's documented scale: distances, and where there is something."""
    with Image.open(path) as image:
        assert image.mode == "I;16"
        value = np.asarray(image).astype(np.float64)
        near, far = float(image.info["near"]), float(image.info["far"])
    return near + (value - 1) / 65534 * (far - near), value > 0


def test_ends_and_knots_have_the_colours_of_the_table():
    depth = torch.linspace(2, 6, 9)[None]
    colour = depth_to_colour(depth, torch.ones(1, 9), 2, 6)
    assert colour.dtype == np.uint8
    assert colour[0].tolist() == [list(c) for c in VIRIDIS]
    beyond = depth_to_colour(torch.tensor([[0.0, 99.0]]), torch.ones(1, 2), 2, 6)
    assert beyond[0].tolist() == [list(VIRIDIS[0]), list(VIRIDIS[-1])]


def test_farther_is_lighter_everywhere():
    depth = torch.linspace(0, 1, 200)[None]
    colour = depth_to_colour(depth, torch.ones_like(depth), 0, 1)
    lightness = colour[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()


def test_nothing_is_white_and_edges_fade():
    depth = torch.tensor([[3.0, torch.nan], [torch.inf, 2.0]])
    opacity = torch.tensor([[0.0, 0.0], [0.0, 0.5]])
    colour = depth_to_colour(depth, opacity, 2, 6)
    assert (colour[0] == 255).all()
    assert (colour[1, 0] == 255).all()
    assert abs(colour[1, 1] - (255 + np.array(VIRIDIS[0])) / 2).max() <= 0.5


def test_png16_round_trip(tmp_path):
    generator = torch.Generator().manual_seed(0)
    depth = 2 + 4 * torch.rand(13, 17, generator=generator)
    opacity = torch.rand(13, 17, generator=generator)
    depth[0, 0], opacity[0, 0] = torch.nan, 0
    write_depth_png16(tmp_path / "d.png", depth, opacity, 2, 6)
    read, solid = read_depth_png16(tmp_path / "d.png")
    assert (solid == (opacity >= 0.5).numpy()).all()
    step = 4 / 65534
    assert abs(read - depth.numpy())[solid].max() <= 0.51 * step


def test_png16_ends(tmp_path):
    depth = torch.tensor([[1.0, 2.0, 6.0, 9.0]])
    write_depth_png16(tmp_path / "d.png", depth, torch.ones(1, 4), 2, 6)
    with Image.open(tmp_path / "d.png") as image:
        assert np.asarray(image)[0].tolist() == [1, 1, 65535, 65535]
