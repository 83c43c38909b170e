"""PSNR and SSIM against values worked out another way, LPIPS with a network of random weights."""

import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from utils.metrics import ALEXNET_SMALLEST, ImageMetrics, Lpips, MissingLpips, psnr, ssim


def images(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(height, width, 3, generator=generator)
    b = (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    return a, b


def plain_ssim(a: np.ndarray, b: np.ndarray, window: int) -> float:
    """SSIM by the formula of Wang et al. 2004, on the pixels with a whole window."""
    place = np.arange(window) - window // 2
    weight = np.exp(-(place**2) / (2 * 1.5**2))
    weight /= weight.sum()

    def blur(x):
        return correlate1d(correlate1d(x, weight, axis=0), weight, axis=1)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * mean_a * mean_b + c1) * (2 * both + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    edge = window // 2
    return value[edge : a.shape[0] - edge, edge : a.shape[1] - edge].mean()


def test_psnr_of_a_known_difference():
    black = torch.zeros(5, 7, 3)
    assert psnr(black, black + 0.1) == pytest.approx(20, abs=1e-5)
    assert psnr(black, black + 1) == 0
    assert psnr(black, black) == math.inf


@pytest.mark.parametrize(
    "size, window", [((20, 31), 11), ((11, 11), 11), ((10, 30), 9), ((3, 8), 3), ((2, 2), 1)]
)
def test_ssim_is_the_formula(size, window):
    a, b = images(*size)
    want = plain_ssim(a.double().numpy(), b.double().numpy(), window)
    assert ssim(a, b) == pytest.approx(want, abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)


def test_equal_images_have_ssim_one():
    a, _ = images(16, 16)
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert ssim(torch.zeros(12, 12, 3), torch.zeros(12, 12, 3)) == 1


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_are_checked(metric):
    with pytest.raises(ValueError, match="expected two"):
        metric(torch.zeros(4, 5, 3), torch.zeros(5, 4, 3))
    with pytest.raises(ValueError, match="expected two"):
        metric(torch.zeros(3, 4, 5), torch.zeros(3, 4, 5))


def alexnet_features():
    """AlexNet's convolutions as torchvision has them, with random weights."""
    layers, width = [], 3
    for out, kernel, stride, padding, pooled in (
        (64, 11, 4, 2, True),
        (192, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (256, 3, 1, 1, False),
        (256, 3, 1, 1, True),
    ):
        layers += [torch.nn.Conv2d(width, out, kernel, stride, padding), torch.nn.ReLU()]
        layers += [torch.nn.MaxPool2d(3, 2)] if pooled else []
        width = out
    return torch.nn.Sequential(*layers)


@pytest.fixture
def torchvision(monkeypatch, tmp_path):
    """A stand-in for torchvision: the name of its AlexNet's file, which is in the cache."""
    # first, while torchmetrics, which is imported here, sees the real one
    monkeypatch.setattr("torchmetrics.image.lpip._TORCHVISION_AVAILABLE", True)
    models = ModuleType("torchvision.models")
    url = "https://example.org/models/alexnet-0.pth"
    models.AlexNet_Weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=url))
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = tmp_path / "checkpoints" / "alexnet-0.pth"
    weights.parent.mkdir()
    weights.touch()
    name = "torchmetrics.functional.image.lpips._get_tv_model_features"
    torch.manual_seed(0)
    features = alexnet_features()
    monkeypatch.setattr(name, lambda *_: features)
    return weights


def test_lpips_where_its_network_is(torchvision):
    a, b = images(40, ALEXNET_SMALLEST)
    metrics = ImageMetrics("cpu", ALEXNET_SMALLEST)
    assert metrics.left_out == {}
    assert metrics(a, a)["lpips"] == 0
    found = metrics(a, b)
    assert found.keys() == {"psnr", "ssim", "lpips"}
    assert 0 < found["lpips"] < metrics(a, 1 - a)["lpips"]
    assert metrics(a, b) == found == metrics(b, a)


def test_lpips_is_left_out_where_something_is_missing(torchvision, monkeypatch):
    def reason(smallest=64):
        with pytest.raises(MissingLpips) as missing:
            Lpips("cpu", smallest)
        assert ImageMetrics("cpu", smallest).left_out == {"lpips": str(missing.value)}
        return str(missing.value)

    assert "31 pixels" in reason(ALEXNET_SMALLEST - 1)

    def damaged(*_):
        raise EOFError

    name = "torchmetrics.functional.image.lpips._get_tv_model_features"
    monkeypatch.setattr(name, damaged)
    assert "alexnet-0.pth is damaged" in reason()
    torchvision.unlink()
    assert f"{torchvision} is missing; fetch it once with: python -c" in reason()
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert "torchvision cannot be imported" in reason()
    assert "pip install torchvision" in reason()


def test_what_is_not_valid_does_not_count(monkeypatch):
    photo, picture = torch.rand(2, 24, 20, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(24, 20, dtype=torch.bool)
    valid[5:12, 3:9] = False
    other = photo.clone()
    other[5:12, 3:9] = 0.25
    metrics = ImageMetrics("cpu", 20)
    first, second = metrics(picture, photo, valid), metrics(picture, other, valid)
    assert first == second
    assert first["psnr"] == pytest.approx(psnr(picture[valid][None], photo[valid][None]))
    assert first["psnr"] != metrics(picture, photo)["psnr"]
