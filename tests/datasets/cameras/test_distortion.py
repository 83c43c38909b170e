import math

import numpy as np
import pytest
import torch

from datasets.cameras.distortion import MODELS, distort, is_ideal, undistort, undistorted_zoom

POINT = (0.42, -0.31)
# model: coefficients, and where pycolmap 4.2.1 images the point (over the focal length)
REFERENCE = {
    "SIMPLE_PINHOLE": ((), (0.420000000000, -0.310000000000)),
    "PINHOLE": ((), (0.420000000000, -0.310000000000)),
    "SIMPLE_RADIAL": ((0.05,), (0.425722500000, -0.314223750000)),
    "RADIAL": ((-0.1, 0.03), (0.409490628750, -0.302243083125)),
    "OPENCV": ((0.06, -0.08, 0.01, -0.02), (0.409261990000, -0.303371945000)),
    "OPENCV_FISHEYE": ((0.03, -0.02, 0.01, -0.004), (0.389400743627, -0.287414834582)),
    "FULL_OPENCV": (
        (0.1, -0.05, 0.01, -0.02, 0.03, 0.2, -0.1, 0.05),
        (0.395295758507, -0.293063536041),
    ),
    "FOV": ((0.7,), (0.418503436436, -0.308895393560)),
    "SIMPLE_RADIAL_FISHEYE": ((0.04,), (0.390667893764, -0.288350112064)),
    "RADIAL_FISHEYE": ((0.04, -0.03), (0.390045760063, -0.287890918141)),
    "THIN_PRISM_FISHEYE": (
        (0.03, -0.02, 0.01, -0.01, 0.02, 0.01, 0.005, -0.004),
        (0.383098472274, -0.282228592494),
    ),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        (0.03, -0.02, 0.01, 0.004, -0.003, 0.002, 0.01, -0.02, 0.003, -0.002, 0.004, 0.001),
        (0.399854243255, -0.296656959277),
    ),
    "SIMPLE_DIVISION": ((-0.15,), (0.404107158140, -0.298269569103)),
    "DIVISION": ((0.1,), (0.432114777829, -0.318941859826)),
    "SIMPLE_FISHEYE": ((), (0.387084092733, -0.285704925589)),
    "FISHEYE": ((), (0.387084092733, -0.285704925589)),
    "EUCM": ((0.4, 1.2), (0.395934341021, -0.292237251706)),
}


@pytest.mark.parametrize("model", REFERENCE)
def test_agrees_with_colmap(model):
    coefficients, expected = REFERENCE[model]
    assert len(coefficients) == MODELS[model][2]
    found = distort(model, coefficients, torch.tensor(POINT, dtype=torch.double))
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


def test_every_model_is_checked():
    assert MODELS.keys() - REFERENCE.keys() == {"TRANSFORMS"}


def test_transforms_is_opencv_with_two_more_terms():
    xy = torch.tensor([POINT, (0.1, 0.5)], dtype=torch.double)
    four, six = (0.03, -0.02, 0.01, 0.004), (0.03, -0.02, 0.01, 0.004, 0.0, 0.0)
    assert torch.equal(distort("OPENCV", four, xy), distort("TRANSFORMS", six, xy))
    square = xy.square().sum(1, keepdim=True)
    found = distort("TRANSFORMS", (0, 0, 0, 0, 0.2, -0.1), xy)
    torch.testing.assert_close(found, xy * (1 + 0.2 * square**3 - 0.1 * square**4))


def test_the_axis_of_a_fisheye_is_finite_and_still():
    centre = torch.zeros(2)
    for model, (coefficients, _) in REFERENCE.items():
        assert distort(model, coefficients, centre).tolist() == [0, 0]


def test_ideal_lenses():
    assert is_ideal("PINHOLE", ())
    assert is_ideal("SIMPLE_RADIAL", (0.0,))
    assert not is_ideal("SIMPLE_RADIAL", (0.1,))
    assert not is_ideal("OPENCV_FISHEYE", (0.0,) * 4)


LENS = (70.0, 72.0, 47.0, 41.0)
SIZE = (96, 80)
PATTERN = [
    ("SIMPLE_RADIAL", (-0.12,)),
    ("SIMPLE_RADIAL", (0.15,)),
    ("OPENCV", (-0.12, 0.05, 0.004, -0.003)),
    ("OPENCV_FISHEYE", (0.02, -0.01, 0.0, 0.0)),
    ("FOV", (0.8,)),
]


def pattern(x, y):
    """A smooth picture over ideal image positions."""
    return 0.5 + 0.25 * np.sin(9 * x) + 0.25 * np.cos(7 * y)


def distorted_image(model, coefficients):
    """What the lens sees of `pattern`: each pixel's ideal position by fixed-point iteration."""
    row, column = np.meshgrid(np.arange(SIZE[1]) + 0.5, np.arange(SIZE[0]) + 0.5, indexing="ij")
    target = np.stack([(column - LENS[2]) / LENS[0], (row - LENS[3]) / LENS[1]], axis=-1)
    target = torch.from_numpy(target)
    ideal = target.clone()
    for _ in range(200):
        ideal = ideal + 0.7 * (target - distort(model, coefficients, ideal))
    return torch.from_numpy(pattern(*ideal.numpy().transpose(2, 0, 1)))[..., None].float()


@pytest.mark.parametrize(("model", "coefficients"), PATTERN)
def test_an_undistorted_image_is_a_pinholes(model, coefficients):
    image, zoom = undistort(distorted_image(model, coefficients), model, coefficients, LENS)
    row, column = np.meshgrid(np.arange(SIZE[1]) + 0.5, np.arange(SIZE[0]) + 0.5, indexing="ij")
    x, y = (column - LENS[2]) / (zoom * LENS[0]), (row - LENS[3]) / (zoom * LENS[1])
    assert np.abs(image[..., 0].numpy() - pattern(x, y)).max() < 0.01


def test_zoom_leaves_no_blank_corner_and_wastes_little():
    barrel = undistorted_zoom("SIMPLE_RADIAL", (-0.2,), LENS, SIZE)
    assert barrel < 1
    pincushion = undistorted_zoom("SIMPLE_RADIAL", (0.15,), LENS, SIZE)
    assert pincushion > 1
    corner = torch.tensor([-LENS[2] / LENS[0], -LENS[3] / LENS[1]]) / pincushion
    source = distort("SIMPLE_RADIAL", (0.15,), corner) * torch.tensor(LENS[:2])
    assert 0.9 < float((-source / torch.tensor(LENS[2:])).max()) <= 1.001


def test_what_folds_over_is_cut_off():
    """Beyond r = 1 / sqrt(0.9) this lens images outer points further in."""
    zoom = undistorted_zoom("SIMPLE_RADIAL", (-0.3,), (30.0, 30.0, 48.0, 40.0), SIZE)
    assert math.hypot(48, 40) / 30 / zoom < 1 / math.sqrt(0.9)
