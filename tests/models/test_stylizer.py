"""The 2D stylisation network against its plain twin, and its files."""

import pytest
import torch
from torch import nn

from features.registry import load_features
from models.image_decoders import (
    OWN_DECODER,
    decoder_state,
    layer_of,
    load_stylizer,
    write_decoder,
)
from models.stylizer import ImageDecoder, Manner, Moments, Statistics, Stylizer, map_statistics
from utils.errors import UserError

CHANNELS = {"conv1_1": 4, "conv1_2": 4, "conv2_1": 6, "conv2_2": 6, "conv3_1": 8}


def test_changed_features_have_the_paintings_statistics():
    features = torch.randn(1, 5, 9, 7, dtype=torch.float64) * 3 + 1
    style = Statistics(torch.randn(5), torch.rand(5) + 0.5)
    changed = map_statistics(features, Moments.of(features).statistics(), style)
    torch.testing.assert_close(changed.mean((0, 2, 3)).float(), style.mean, rtol=1e-4, atol=1e-4)
    std = changed.flatten(2).std(2, unbiased=False)[0].float()
    torch.testing.assert_close(std, style.std, rtol=1e-4, atol=1e-4)


def test_moments_of_parts_add_up_and_keep_to_the_mask():
    features = torch.randn(1, 3, 8, 6)
    halves = Moments.of(features[..., :3]) + Moments.of(features[..., 3:])
    for found, whole in zip(halves.statistics(), Moments.of(features).statistics(), strict=True):
        torch.testing.assert_close(found, whole)
    mask = torch.zeros(1, 1, 8, 6)
    mask[..., 3:] = 1
    within = Moments.of(features, mask).statistics()
    torch.testing.assert_close(within.mean, features[..., 3:].mean((0, 2, 3)))


def test_decoder_is_its_plain_twin():
    """The layers that AdaIN's decoder at relu3_1 consists of, in order."""
    torch.manual_seed(0)
    decoder = ImageDecoder(CHANNELS)
    one, two, three, four, five = decoder.convs
    up = nn.Upsample(scale_factor=2, mode="nearest")

    def padded(conv):
        return nn.Sequential(nn.ReflectionPad2d(1), conv)

    plain = nn.Sequential(
        *(padded(one), nn.ReLU(), up, padded(two), nn.ReLU(), padded(three), nn.ReLU(), up),
        *(padded(four), nn.ReLU(), padded(five)),
    )
    widths = [(c.in_channels, c.out_channels) for c in decoder.convs]
    assert widths == [(8, 6), (6, 6), (6, 4), (4, 4), (4, 3)]
    x = torch.randn(2, 8, 5, 3)
    torch.testing.assert_close(decoder(x), plain(x))


@pytest.mark.parametrize("size", [(37, 50), (4, 5), (3, 2), (64, 48)])
def test_any_size_of_image(size):
    network = load_features("own", layers=["relu3_1"])
    stylizer = Stylizer(network, ImageDecoder.of(network))
    image = torch.rand(1, 3, *size)
    own = stylizer.features(image)
    for patches in (False, True):
        found = stylizer(image, Moments.of(own).statistics(), Manner.of(own, patches))
        assert found.shape == image.shape


def test_a_crop_in_whole_cells_is_painted_like_the_whole():
    """So that the decoder is trained on what it is used for."""
    torch.manual_seed(0)
    network = load_features("own", layers=["relu3_1"])
    stylizer = Stylizer(network, ImageDecoder.of(network))
    image = torch.rand(1, 3, 160, 176)
    content = Moments.of(stylizer.features(image)).statistics()
    style = Manner(Statistics(content.mean + 0.1, content.std * 1.3))
    whole, crop = (
        stylizer(image, content, style),
        stylizer(image[..., 8:152, 12:172], content, style),
    )
    inner = 24  # 10 pixels of the encoder, in whole cells, and 10 of the decoder
    torch.testing.assert_close(
        crop[..., inner:-inner, inner:-inner],
        whole[..., 8:152, 12:172][..., inner:-inner, inner:-inner],
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_painting_in_its_own_manner_is_what_it_was():
    """Each patch of it is its own nearest one."""
    network = load_features("own", layers=["relu3_1"])
    stylizer = Stylizer(network, ImageDecoder.of(network))
    image = torch.rand(1, 3, 48, 56)
    features = stylizer.features(image)
    manner = Manner.of(features)
    nearest = stylizer.matched(manner.features.float(), manner)
    assert torch.equal(nearest.flatten(), torch.arange(nearest.numel(), dtype=torch.int32))
    same = stylizer.changed(features, manner.statistics, manner, nearest)
    # patches are kept in half precision
    torch.testing.assert_close(same, features, rtol=1e-3, atol=1e-3 * float(features.max()))


def test_decoders_files(tmp_path):
    network = load_features("own", layers=["relu3_1"])
    decoder = ImageDecoder.of(network)
    write_decoder(decoder, tmp_path / "d.pth")
    loaded = load_stylizer("own", None, tmp_path / "d.pth")
    assert loaded.layer == "relu3_1"
    for a, b in zip(decoder.parameters(), loaded.decoder.parameters(), strict=True):
        assert torch.equal(a, b)
    assert layer_of(decoder_state(decoder), "vgg19", tmp_path) == "relu3_1"
    torch.save({"x": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: not a 2D decoder"):
        load_stylizer("own", None, tmp_path / "other.pth")
    wide = {f"conv{i}.{n}": torch.zeros(3) for i in (1, 2, 3, 4, 5) for n in ("weight", "bias")}
    torch.save(wide, tmp_path / "wide.pth")
    with pytest.raises(UserError, match="is this another network"):
        load_stylizer("own", None, tmp_path / "wide.pth")
    with pytest.raises(UserError, match="no such file"):
        load_stylizer("own", None, tmp_path / "none.pth")


def test_the_built_in_decoder_rebuilds_colours_and_forms():
    """The committed weights, on textures and palettes that they were not trained on: eight
    pixels together to a fifth of their variance."""
    from features.procedural_textures import make_bank
    from features.texture_encoder import draw_batch

    assert OWN_DECODER.stat().st_size < 500_000
    images, _ = draw_batch(
        make_bank(16, 2, seed=77), 16, torch.Generator().manual_seed(5), per_palette=1
    )
    stylizer = load_stylizer("own", None, None)
    with torch.no_grad():
        rebuilt = stylizer.decode(stylizer.features(images), tuple(images.shape[2:]))
    coarse, found = (nn.functional.avg_pool2d(x, 8) for x in (images, rebuilt))
    variance = (coarse - coarse.mean((0, 2, 3), keepdim=True)).square().mean()
    assert (found - coarse).square().mean() < 0.2 * variance
