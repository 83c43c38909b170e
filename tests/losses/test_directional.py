"""The directional term: what it is 0 for, what it leaves alone, and the two ways to say a style."""

import pytest
import torch
from torch.nn import functional

from losses.directional import Directional, cut_outs, embedded, mean_embedding
from losses.objective import StyleObjective
from tests.encoders import StandIn


@pytest.fixture
def encoder():
    return StandIn().double().requires_grad_(False)


def pictures(height, width):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, 1, 3, height, width, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("size", [(40, 40), (37, 53), (53, 37), (9, 8), (1, 1)])
def test_cut_outs_cover_the_image_and_stay_in_it(size):
    for whole in (True, False):
        covered = torch.zeros(size, dtype=torch.bool)
        for top, left, side in cut_outs(*size):
            assert top + side <= size[0]
            assert left + side <= size[1]
            if (side == min(size)) == whole or min(size) == 1:
                covered[top : top + side, left : left + side] = True
        assert covered.all()


def test_the_value_is_the_cosine_of_the_ways(encoder):
    image, photo = pictures(32, 32)
    source, target = torch.randn(2, 16, dtype=torch.float64)
    squares = cut_outs(32, 32)
    ways = (embedded(encoder, image, squares) - embedded(encoder, photo, squares))[:, 0]
    # the floor under the root shortens the cosine a little
    norms = (ways.square().sum(1) + 1e-4).sqrt()
    expected = (1 - ways @ functional.normalize(target - source, dim=0) / norms).mean()
    value = Directional(encoder, target, source)(image, None, photo)
    torch.testing.assert_close(value, expected)


def test_what_looks_like_the_painting_is_best(encoder):
    photo, painting = pictures(32, 32)
    painting = painting * 0.3 + 0.6
    term = Directional(encoder, mean_embedding(encoder, painting))
    towards = [float(term(photo.lerp(painting, share), None, photo)) for share in (0, 0.5, 1)]
    assert towards[0] == pytest.approx(1)
    assert towards[0] > towards[1] > towards[2]
    assert float(term(photo.lerp(painting, -0.3), None, photo)) > 1


def test_the_gradient_is_right_and_none_outside_of_the_mask(encoder):
    image, photo = pictures(12, 10)
    mask = torch.zeros(1, 1, 12, 10, dtype=torch.float64)
    mask[..., 2:9, 3:8] = 0.7
    term = Directional(encoder, torch.randn(16, dtype=torch.float64))
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: term(x, mask, photo), image)
    (gradient,) = torch.autograd.grad(term(image, mask, photo), image)
    assert gradient.any()
    assert not (gradient * (mask == 0)).any()
    assert term(image, mask * 0, photo).item() == 0


def test_the_objective_takes_it_beside_others(encoder):
    image, photo = pictures(32, 24)
    mask = torch.ones(1, 1, 32, 24, dtype=torch.float64)
    style = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    term = Directional(encoder, *torch.randn(2, 16, dtype=torch.float64))
    weights = {"directional": 2.0, "tv": 0.5}
    objective = StyleObjective(style, None, weights, made={"directional": term})
    terms, gradient = objective.gradient(image, photo, mask)
    torch.testing.assert_close(terms["directional"], 2 * term(image, mask, photo))
    leaf = image.clone().requires_grad_()
    whole = sum(objective(leaf, photo, mask).values())
    torch.testing.assert_close(gradient, torch.autograd.grad(whole, leaf)[0])
    with pytest.raises(ValueError, match="photo"):
        objective.gradient(image, None, mask)
