import itertools

import pytest
import torch

from features.network import Layer
from features.tiles import _parts, object_box, step_and_halo, tiles_of
from features.vgg import CONVOLUTIONS, Vgg, convolutions

FIVE = list(convolutions((2, 2, 1), (2, 3, 6)))


def joined_tiles(network, layers, image, side, mask=None):
    """Features of the whole image put together from tiles, and of the whole at once."""
    whole = network(image, layers)
    joined = {layer: torch.full_like(whole[layer], torch.nan) for layer in layers}
    for tile in tiles_of(image.shape[2:], [network.layers[n] for n in layers], side, mask):
        parts = network(tile.crop_with_halo(image), layers)
        for layer in layers:
            stride = network.layers[layer].stride
            rows = slice(tile.rows.start // stride, tile.rows.stop // stride)
            columns = slice(tile.columns.start // stride, tile.columns.stop // stride)
            joined[layer][..., rows, columns] = tile.without_halo(parts[layer], stride)
    return joined, whole


@pytest.mark.parametrize("size", [(96, 130), (101, 83), (16, 200), (37, 5), (50, 33)])
@pytest.mark.parametrize("side", [8, 32, 48, 1000])
def test_features_of_the_tiles_are_those_of_the_whole(size, side):
    network = Vgg(convolutions((2, 2, 1), (2, 4, 6)), "tiny").double()
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    joined, whole = joined_tiles(network, [*FIVE, "relu2_2"], image, side)
    torch.testing.assert_close(joined, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("deepest", ["conv3_3", "relu4_1", "conv4_4", "conv5_1", "relu5_4"])
def test_deep_layers_have_no_seams(deepest):
    network = Vgg(dict.fromkeys(CONVOLUTIONS["vgg19"], 6), "tiny").double()
    for conv in network.convs.values():  # else next to nothing of the image is left in depth
        torch.nn.init.kaiming_normal_(conv.weight)
    image = torch.rand(1, 3, 133, 205, dtype=torch.float64)
    joined, whole = joined_tiles(network, ["conv1_1", deepest], image, 32)
    assert whole[deepest].std() > 0.05
    torch.testing.assert_close(joined, whole, rtol=1e-12, atol=1e-14)


def test_receptive_field_is_what_features_depend_on():
    """Of each layer, exactly the pixels of its cell and halo have a gradient."""
    network = Vgg(dict.fromkeys(CONVOLUTIONS["vgg16"], 1), "tiny").double()
    for conv in network.convs.values():
        conv.weight.data.fill_(0.1)
        conv.bias.data.fill_(1.0)
    image = torch.rand(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    for name in ("conv1_1", "conv2_2", "relu3_1", "conv4_1"):
        layer = network.layers[name]
        i = 128 // layer.stride
        feature = network(image, [name])[name][0, 0, i, i]
        seen = torch.autograd.grad(feature, image)[0][0, 0].nonzero()
        first, last = i * layer.stride - layer.halo, (i + 1) * layer.stride - 1 + layer.halo
        # a max-pooling picks a pixel of each cell, so that the outermost need not take part
        assert seen.min() >= first and seen.max() <= last, name
        if name == "conv1_1":
            assert (seen.min(), seen.max()) == (first, last)
        assert last - first + 1 == layer.receptive_field
    known = {"conv1_2": 5, "conv2_2": 14, "conv3_1": 24, "conv3_3": 40, "conv4_3": 92}
    assert {n: network.layers[n].receptive_field for n in known} == known


def test_halo_is_that_of_the_layers_asked_for():
    layers = Vgg(CONVOLUTIONS["vgg19"], "vgg19").layers
    assert step_and_halo([layers["conv3_1"], layers["conv1_1"]]) == (4, 12)
    assert step_and_halo([layers["conv1_2"]]) == (1, 2)
    assert step_and_halo([layers["conv5_1"]]) == (16, 80)
    assert step_and_halo([]) == (1, 0)
    assert step_and_halo([Layer(8, 6, 1), Layer(8, 4, 7)]) == (12, 12)


def test_parts_cover_and_hold_at_least_a_step():
    for length in range(16, 400):
        for side in (8, 32, 40, 100, 384):
            parts = list(_parts(slice(32, 32 + length), side, 16))
            assert (parts[0].start, parts[-1].stop) == (32, 32 + length)
            assert all(a.stop == b.start for a, b in itertools.pairwise(parts))
            assert all(part.start % 16 == 0 for part in parts)
            assert all(16 <= part.stop - part.start <= max(side, 32) + 16 for part in parts)


def test_tiles_cover_the_object_alone():
    mask = torch.zeros(1, 1, 500, 700)
    mask[..., 33:490, 5:600] = 1
    mask[..., 200:400, 100:420] = 0
    layers = [Layer(8, 4, 10)]
    tiles = tiles_of((500, 700), layers, 100, mask)
    assert max(t.rows.stop - t.rows.start for t in tiles) <= 104
    covered = torch.zeros(500, 700)
    for tile in tiles:
        covered[tile.rows, tile.columns] += 1
    assert covered.max() == 1 and (covered >= mask[0, 0]).all()
    assert covered.sum() < 460 * 600  # the hole is left out
    assert tiles_of((500, 700), layers, 100, torch.zeros_like(mask)) == []


def test_box_holds_the_object():
    mask = torch.zeros(1, 1, 200, 150)
    mask[0, 0, 70:80, 5:40] = 0.01
    assert object_box(mask, 16) == (slice(64, 80), slice(0, 48))
    assert object_box(mask, 4) == (slice(68, 80), slice(4, 40))
    assert object_box(torch.zeros(1, 1, 5, 5), 4) is None
    mask.zero_()[0, 0, 0, 149] = 1
    # 144:150 is less than a step of 16
    assert object_box(mask, 16) == (slice(0, 16), slice(128, 150))
