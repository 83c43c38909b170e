import pytest
import torch

from features.network import LAYERS, FeatureNetwork
from features.tiles import object_box, tiles_of


@pytest.mark.parametrize("size", [(96, 130), (101, 83), (16, 200), (37, 5), (50, 33)])
@pytest.mark.parametrize("side", [32, 48, 1000])
def test_features_of_the_tiles_are_those_of_the_whole(size, side):
    torch.manual_seed(0)
    network = FeatureNetwork((2, 3, 4, 5, 6)).double()
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    whole = network(image)
    joined = {layer: torch.full_like(whole[layer], torch.nan) for layer in LAYERS}
    for tile in tiles_of(size, None, side):
        parts = network(tile.cut(image))
        for layer in LAYERS:
            stride = 2 ** (int(layer[4]) - 1)
            rows = slice(tile.rows.start // stride, tile.rows.stop // stride)
            columns = slice(tile.columns.start // stride, tile.columns.stop // stride)
            joined[layer][..., rows, columns] = tile.own(parts[layer], layer)
    torch.testing.assert_close(joined, whole, rtol=1e-12, atol=1e-14)


def test_tiles_are_no_larger_than_asked_for():
    tiles = tiles_of((500, 700), (slice(32, 500), slice(0, 640)), 160)
    assert max(t.rows.stop - t.rows.start for t in tiles) <= 160 + 8
    area = sum((t.rows.stop - t.rows.start) * (t.columns.stop - t.columns.start) for t in tiles)
    assert area == 468 * 640


def test_box_holds_the_object():
    mask = torch.zeros(1, 1, 200, 150)
    mask[0, 0, 70:80, 5:40] = 0.01
    rows, columns = object_box(mask)
    assert (rows, columns) == (slice(64, 80), slice(0, 48))
    assert object_box(torch.zeros(1, 1, 5, 5)) is None
