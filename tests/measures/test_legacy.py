"""The older script's score against numbers worked out by hand."""

import math

import pytest
import torch

from measures.legacy import legacy_error, splat
from utils.images import pixel_centres


def row(*values):
    """A picture (1, W, 3) of grey pixels."""
    return torch.tensor(values)[None, :, None].expand(-1, -1, 3).contiguous()


def to_the_right(by):
    return lambda a, b: torch.tensor([by, 0.0]).expand(*a.shape[:2], 2)


def test_what_moves_as_the_flow_says_has_no_error():
    assert legacy_error(row(0.2, 0.4, 0.6, 0.8), row(0.0, 0.2, 0.4, 0.6), to_the_right(1.0)) == 0


def test_holes_count_as_no_error():
    """The first two pixels of the second picture get nothing, and their error is lost; the two
    others are 0.3 off each: sqrt(2 * 0.09 / 4)."""
    first, second = row(0.2, 0.2, 0.5, 0.5), row(0.9, 0.9, 0.5, 0.5)
    error = legacy_error(first, second, to_the_right(2.0))
    assert error == pytest.approx(math.sqrt(2 * 0.3**2 / 4))


def test_half_a_pixel_is_spread_over_two():
    """0.5 arrives in pixel 1 from 0 and 1: (0.2 + 0.6) / 2; pixel 0 has the half of 0 alone."""
    moved, total = splat(
        row(0.2, 0.6), pixel_centres(1, 2) + torch.tensor([0.5, 0]), torch.ones(1, 2)
    )
    torch.testing.assert_close(moved, row(0.2, 0.4))
    assert total.tolist() == [[0.5, 1.0]]


def test_what_meets_is_averaged_by_weight():
    pixel = torch.tensor([[[1.5, 0.5], [1.5, 0.5], [9.0, 0.5]]])
    moved, total = splat(row(0.2, 0.6, 1.0), pixel, torch.tensor([[1.0, 3.0, 1.0]]))
    torch.testing.assert_close(moved, row(0.0, 0.5, 0.0))
    assert total.tolist() == [[0.0, 4.0, 0.0]]


def test_the_weight_is_lost_from_an_error_of_one_level_on():
    """Pixels 0 and 1 both move to 1.  The first is 0.5 / 255 off what is there, weight e^-5; the
    second 100 / 255 and weighs e^-10, as it would at one level."""
    level = 1 / 255
    first = row(0.5 + 0.5 * level, 0.5 + 100 * level, 0.3)
    second = row(0.0, 0.5, 0.3)

    def flow(a, b):
        return torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])

    weights = math.exp(-5), math.exp(-10)
    off = (weights[0] * 0.5 + weights[1] * 100) / sum(weights) * level
    assert legacy_error(first, second, flow) == pytest.approx(off / math.sqrt(3), rel=1e-3)


def test_a_flat_colour_wins():
    assert legacy_error(row(0.5, 0.5), row(0.5, 0.5), to_the_right(0.3)) == pytest.approx(
        0, abs=1e-6
    )
