"""Voxels: `.vol` as nerf_pl's Unity project reads it, and NPZ."""

import numpy as np
import pytest
import torch

from assets.volume import cube_around, volume_of, write_npz, write_vol
from tests.assets.conftest import BOUNDS, CENTRE, RADIUS, position_colour


def read_vol(path, n):
    """(N, N, N, 4) uint8 of RGBA, indexed by x, y, z: by the letter of nerf_pl's format."""
    index, colour = np.fromfile(path, "<u4").reshape(-1, 2).T
    grid = np.zeros((n, n, n, 4), np.uint8)
    y, x, z = index // (n * n), index // n % n, index % n
    for channel, shift in enumerate((24, 16, 8, 0)):
        grid[x, y, z, channel] = colour >> shift & 255
    return grid


@pytest.fixture
def volume(ball):
    return volume_of(ball, BOUNDS, 30)


def test_the_cube_has_the_longest_edge():
    cube = cube_around(torch.tensor([[0.0, 0, 0], [1, 2, 4]]))
    assert cube.tolist() == [[-1.5, -1, 0], [2.5, 3, 4]]


def test_voxels_are_where_the_ball_is(volume):
    edge = (volume.bounds[1] - volume.bounds[0]) / 30
    place = volume.bounds[0] + (volume.index + 0.5) * edge
    distance = np.linalg.norm(place - CENTRE.numpy(), axis=1)
    assert distance.max() < RADIUS + 0.06
    count = 4 / 3 * np.pi * RADIUS**3 / edge.prod()
    assert (volume.rgba[:, 3] > 127).sum() == pytest.approx(count, rel=0.03)
    colour = position_colour(None, torch.from_numpy(place), None).numpy()
    assert np.abs(volume.rgba[:, :3] / 255 - colour).max() < 0.51 / 255 + 1e-5
    alpha = 1 - np.exp(-volume.density * edge[0])
    assert np.abs(volume.rgba[:, 3] / 255 - alpha).max() < 0.51 / 255 + 1e-5


def test_vol_and_npz_hold_the_same(volume, tmp_path):
    write_vol(tmp_path / "v.vol", volume)
    grid = read_vol(tmp_path / "v.vol", 30)
    assert (grid[tuple(volume.index.T)] == volume.rgba).all()
    assert (grid[..., 3] > 0).sum() == len(volume.index)
    index = np.fromfile(tmp_path / "v.vol", "<u4")[::2].astype(np.int64)
    assert (np.diff(index) > 0).all()
    write_npz(tmp_path / "v.npz", volume)
    with np.load(tmp_path / "v.npz") as file:
        again = np.zeros((30, 30, 30, 4), np.uint8)
        again[tuple(file["index"].T)] = file["rgba"]
        assert (again == grid).all()
        assert int(file["resolution"]) == 30
        assert (file["bounds"] == volume.bounds).all()


def test_an_empty_field_gives_an_empty_volume(ball):
    ball.sampler.grid.set(torch.zeros_like(ball.sampler.grid.occupied))
    assert len(volume_of(ball, BOUNDS, 8).index) == 0
