"""Encoders: unit vectors of pictures of any size, and the line where one is not at hand."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from features.efficientnet import EfficientNetLite0, SameConv
from features.efficientnet import load as load_efficientnet
from features.registry import ENCODERS
from features.semantic import load_encoder
from utils.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "weights" / "efficientnet-lite0-57934424.pth"


def random_efficientnet():
    torch.manual_seed(0)
    return EfficientNetLite0().eval().requires_grad_(False)


@pytest.mark.parametrize("size", [20, 75, 300])
def test_unit_vectors_of_any_size(size):
    encoder = load_encoder("own")
    image = torch.rand(2, 3, size, size, requires_grad=True)
    vectors = encoder(image)
    assert vectors.shape == (2, 256)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2))
    (vectors[0] @ vectors[1]).backward()
    assert image.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in encoder.parameters())


def test_our_own_tells_a_texture_from_a_plain_wall():
    encoder = load_encoder("own")
    stripes = (torch.arange(96) // 4 % 2).float().expand(1, 3, 96, 96)
    shifted = stripes.roll(3, dims=3)
    wall = torch.full_like(stripes, 0.5)
    a, b, c = (encoder(x)[0] for x in (stripes, shifted, wall))
    assert a @ b > a @ c + 0.02


@pytest.mark.parametrize(("n", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (9, 5, 2), (8, 5, 1)])
def test_padding_is_tensorflows(n, kernel, stride):
    """Every output is the sum of the pixels of its window, whose first is at ``stride i - before``;
    of an odd padding the larger half is at the end."""
    conv = SameConv(1, 1, kernel, stride)
    conv.weight.data.fill_(1.0)
    x = torch.arange(1.0, n * n + 1).view(1, 1, n, n)
    outputs = -(-n // stride)
    before = max((outputs - 1) * stride + kernel - n, 0) // 2
    padded = torch.zeros(n + 2 * kernel, n + 2 * kernel)
    padded[kernel : kernel + n, kernel : kernel + n] = x[0, 0]
    for i in range(outputs):
        for j in range(outputs):
            top, left = kernel + stride * i - before, kernel + stride * j - before
            window = padded[top : top + kernel, left : left + kernel]
            assert float(conv(x)[0, 0, i, j].detach()) == pytest.approx(float(window.sum()))


def test_weights_survive_a_file(tmp_path):
    network = random_efficientnet()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(load_encoder(str(tmp_path / "w.pth"))(image), network(image))


def test_other_and_damaged_weights_are_refused(tmp_path):
    state = random_efficientnet().state_dict()
    state["_conv_head.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"_conv_head\.weight is missing or of another shape"):
        load_efficientnet(tmp_path / "w.pth")
    state = random_efficientnet().state_dict()
    state["_bn1.bias"][3] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match="NaN"):
        load_efficientnet(tmp_path / "w.pth")


@pytest.mark.skipif(not SHARED.is_file(), reason="needs EfficientNet-Lite0's weights")
def test_trained_weights_classify():
    """The classifier of the file, on our features, is as sure of a picture as of its mirror image,
    and unsure of noise: paddings, strides and normalisation are those it was trained with."""
    encoder = load_encoder(str(SHARED))
    x = torch.linspace(-1, 1, 224)
    disc = ((x[:, None] ** 2 + x**2) < 0.4).float().expand(1, 3, 224, 224) * 0.8 + 0.1
    lit = disc * torch.tensor([1.0, 0.5, 0.1]).view(1, 3, 1, 1) * (1 - 0.3 * x)
    same = encoder(lit)[0] @ encoder(lit.flip(3))[0]
    noise = encoder(lit)[0] @ encoder(torch.rand(1, 3, 224, 224))[0]
    assert same > 0.8 > noise + 0.2


@pytest.mark.parametrize("option", ["--semantic", "--directional_encoder"])
@pytest.mark.parametrize("name", ["clip", "dino", "efficientnet"])
def test_a_missing_encoder_names_the_option_and_the_ways_out(name, option, monkeypatch):
    package = {"clip": "open_clip", "dino": "timm"}.get(name)
    if package:
        monkeypatch.setitem(sys.modules, package, None)
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install .*own$") as caught:
        load_encoder(name, option)
    line = str(caught.value)
    assert line.startswith(f"{option} {name}: ") and "\n" not in line
    assert {word for word in line.split() if word.startswith("--")} == {option}


def test_an_unknown_name():
    with pytest.raises(
        UserError, match="--semantic klip: no such encoder or file; take one of clip"
    ):
        load_encoder("klip")
    assert set(ENCODERS) == {"clip", "dino", "efficientnet", "own"}
