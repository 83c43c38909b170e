"""Distances of pictures and features against closed forms."""

import math

import pytest
import torch

from measures.distances import (
    HISTOGRAM_WIDTH,
    PLACES,
    frechet_distance,
    gram_distance,
    histogram_distance,
    luminance_ssim,
    rgb_uv_histogram,
    sliced_wasserstein,
    structure_distance,
)
from utils.metrics import ssim


@pytest.fixture
def rows():
    """(200, 3) features, double."""
    return torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def whitened(rows):
    """The rows with mean 0 and covariance 1 to rounding."""
    centred = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    return centred @ (vectors / values.sqrt())


def test_gram_distance_by_hand():
    a, b = torch.tensor([[1.0, 0], [1, 2]]), torch.tensor([[2.0, 0]])
    # Gram matrices [[1, 1], [1, 2]] and [[4, 0], [0, 0]]
    assert gram_distance(a, b) == pytest.approx((9 + 1 + 1 + 4) / 4)
    assert gram_distance(a, a.repeat(5, 1)) == 0


def test_frechet_distance_of_gaussians(rows):
    unit = whitened(rows)
    scale, shift = unit.new_tensor([2.0, 0.5, 3.0]), unit.new_tensor([1.0, -2.0, 0.5])
    expected = float((scale - 1).square().sum() + shift.square().sum())
    assert frechet_distance(unit, unit * scale + shift) == pytest.approx(expected)
    assert frechet_distance(unit * scale + shift, unit) == pytest.approx(expected)
    assert frechet_distance(unit, unit.flip(0)) == pytest.approx(0, abs=1e-9)
    # covariances that do not commute: tr (S_a S_b)^(1/2) by the general square root
    turn = torch.linalg.qr(rows[:3]).Q
    a, b = unit * scale, unit * scale.flip(0) @ turn
    product = (a.T @ a / 200) @ (b.T @ b / 200)
    root = torch.linalg.eigvals(product).real.sqrt().sum()
    assert frechet_distance(a, b) == pytest.approx(float(2 * scale.square().sum() - 2 * root))


def test_sliced_wasserstein_of_a_translation(rows):
    shift = rows.new_tensor([0.3, -0.4, 1.2])
    found = sliced_wasserstein(rows, rows + shift, n_directions=4000)
    assert found == pytest.approx(float(shift.square().sum()) / 3, rel=0.05)
    assert sliced_wasserstein(rows, rows.flip(0)) == 0
    assert sliced_wasserstein(rows, rows.repeat_interleave(2, 0)) < 1e-3
    # on a line it is the Wasserstein distance itself, whatever the directions
    a, b = torch.tensor([[0.0], [4.0]]), torch.tensor([[5.0], [2.0]])
    assert sliced_wasserstein(a, b) == pytest.approx((2**2 + 1**2) / 2)


def test_histogram_of_one_colour():
    histogram = rgb_uv_histogram(torch.tensor([[0.5, 0.25, 0.125]]).repeat(7, 1))
    assert float(histogram.sum()) == pytest.approx(1)

    def kernel(ratio, index):
        centre = -3 + 6 * index / 63
        return 1 / (1 + ((math.log(ratio) - centre) / HISTOGRAM_WIDTH) ** 2)

    # red against green and against blue; green against red and against blue
    plane = float(histogram[0, 38, 46] / histogram[0, 40, 40])
    expected = kernel(2, 38) * kernel(4, 46) / (kernel(2, 40) * kernel(4, 40))
    assert plane == pytest.approx(expected, rel=1e-3)
    other = float(histogram[1, 24, 38] / histogram[1, 30, 30])
    expected = kernel(0.5, 24) * kernel(2, 38) / (kernel(0.5, 30) * kernel(2, 30))
    assert other == pytest.approx(expected, rel=1e-3)


def test_histogram_distance_knows_colours_alone():
    red, blue = torch.tensor([[0.8, 0.1, 0.1]]), torch.tensor([[0.1, 0.1, 0.8]])
    assert histogram_distance(red, red.repeat(9, 1) / 2) < 1e-3  # as red, half as bright
    assert 0.8 < histogram_distance(red, blue) <= 1
    half = histogram_distance(torch.cat([red, blue]), blue)
    # of two histograms that hardly overlap: |sqrt(1/2) - 1|^2 + 1/2 = 2 - sqrt 2
    assert half == pytest.approx(math.sqrt((2 - math.sqrt(2)) / 2), abs=0.08)
    assert histogram_distance(torch.cat([red, blue]), red) == pytest.approx(half)


def test_structure_distance_by_hand():
    # cosines [[1, 0], [0, 1]] and all 1, of whatever length the features are
    a, b = torch.tensor([[2.0, 0], [0, 300]]), torch.tensor([[1e-3, 0], [1, 0]])
    assert structure_distance(a, b) == structure_distance(b, a) == pytest.approx(2 / 4)
    assert structure_distance(1e6 * a, b) == pytest.approx(2 / 4)
    opposite = torch.tensor([[1.0, 0], [-1, 0]])
    assert structure_distance(opposite, b) == pytest.approx(2 * 2 / 4)


def test_structure_is_what_resembles_what(rows):
    features = 10 * rows
    assert structure_distance(features, features) == 0
    turn = torch.linalg.qr(rows[:3]).Q  # another style, all similarities as before
    assert structure_distance(features, features @ turn) == pytest.approx(0, abs=1e-9)
    assert structure_distance(features, features.flip(0)) > 0.1
    many = features.repeat(-(-(PLACES + 1) // len(features)), 1)
    assert structure_distance(many, many @ turn) == pytest.approx(0, abs=1e-9)


def test_luminance_ssim_counts_the_mask():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(40, 30, 1, generator=generator).expand(-1, -1, 3)
    b = (a + 0.2 * torch.randn(40, 30, 1, generator=generator)).clamp(0, 1)
    mask = torch.ones(40, 30, dtype=torch.bool)
    assert luminance_ssim(a, b, mask) == pytest.approx(ssim(a, b), rel=1e-5)  # grey: each channel's
    half = torch.cat([b[:20], a[20:]])
    mask[:26] = False  # with half a window between
    assert luminance_ssim(a, half, mask) == pytest.approx(1)
    assert luminance_ssim(a, half, ~mask) < 0.95
    hue = torch.zeros(40, 30, 3)  # a change of hue that leaves the luminance as it is
    hue[..., 0], hue[..., 1] = 0.1 * 0.587, -0.1 * 0.299
    mask[:] = True
    assert luminance_ssim(a * 0.5 + 0.2, a * 0.5 + 0.2 + hue, mask) == pytest.approx(1, abs=1e-5)
