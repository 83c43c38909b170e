import itertools

import pytest
import torch

from features.network import FeatureNetwork
from losses.content import content_loss
from losses.gram import gram_loss, gram_matrix
from losses.nnfm import nnfm_loss, unit_features
from losses.objective import OBJECTIVES, TERMS, StyleObjective, prepare_style
from losses.statistics import channel_statistics, statistics_loss
from utils.errors import UserError

ALL = dict.fromkeys(TERMS, 1.0)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return FeatureNetwork((4, 4, 6, 6, 8), name="tiny")


@pytest.fixture
def style():
    return torch.rand(1, 3, 24, 30, generator=torch.Generator().manual_seed(1))


def object_in(height, width):
    generator = torch.Generator().manual_seed(2)
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 3 : height // 2, width // 2 : width // 2 + 9] = torch.rand(
        height // 2 - height // 3, 9, generator=generator
    )
    return torch.rand(1, 3, height, width, generator=generator), mask


@pytest.mark.parametrize("name", OBJECTIVES)
def test_presets(name, network, style):
    objective = StyleObjective(style, network, OBJECTIVES[name])
    image, mask = object_in(40, 28)
    image.requires_grad_(True)
    terms = objective(image, torch.rand(1, 3, 40, 28), mask)
    assert set(terms) == set(OBJECTIVES[name])
    sum(terms.values()).backward()
    assert image.grad.isfinite().all() and image.grad.any()
    # nothing moves where there is no object
    assert not (image.grad * (mask == 0)).any()


def test_terms_are_the_weighted_functions(network, style):
    weights = {"gram": 2.0, "nnfm": 3.0, "statistics": 4.0, "content": 5.0}
    layers = {"gram": ["conv1_1", "conv2_1"], "statistics": ["conv2_1"]}
    objective = StyleObjective(style[0], network, weights, layers)
    image, photo = torch.rand(2, 1, 3, 20, 16)
    terms = objective(image, photo)
    ours, theirs, photos = network(image), network(style), network(photo)
    expected = {
        "gram": sum(2 * gram_loss(ours[n], gram_matrix(theirs[n])) for n in layers["gram"]),
        "nnfm": 3 * nnfm_loss(ours["conv3_1"], unit_features(theirs["conv3_1"])),
        "statistics": 4 * statistics_loss(ours["conv2_1"], *channel_statistics(theirs["conv2_1"])),
        "content": 5 * content_loss(ours["conv2_2"], photos["conv2_2"]),
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


@pytest.mark.parametrize(("height", "width"), [(96, 130), (101, 83), (64, 64)])
def test_looking_at_the_object_alone_changes_nothing(network, style, height, width, monkeypatch):
    network, style = network.double(), style.double()
    image, mask = (x.double() for x in object_in(height, width))
    objective = StyleObjective(style, network, ALL)
    content = torch.rand_like(image)

    def terms_and_gradient():
        leaf = image.clone().requires_grad_(True)
        terms = objective(leaf, content, mask)
        sum(terms.values()).backward()
        return terms, leaf.grad

    quick = terms_and_gradient()
    everything = (slice(0, height), slice(0, width))
    monkeypatch.setattr("losses.objective.object_box", lambda mask: everything)
    torch.testing.assert_close(quick, terms_and_gradient(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("height", "width"), [(96, 130), (101, 83), (64, 64), (33, 200)])
@pytest.mark.parametrize("masked", [True, False])
def test_tiles_change_nothing(network, style, height, width, masked):
    """Value and gradient of the whole image, however it is cut, for every term."""
    network, style = network.double(), style.double()
    image, mask = (x.double() for x in object_in(height, width))
    photo = torch.rand_like(image)
    mask = mask if masked else None
    whole = StyleObjective(style, network, ALL)
    leaf = image.clone().requires_grad_(True)
    terms = whole(leaf, photo, mask)
    sum(terms.values()).backward()
    for tile in (1000, 48, 32):
        tiled = StyleObjective(style, network, ALL, tile=tile)
        terms_of_tiles, gradient = tiled.gradient(image, photo, mask)
        assert list(terms_of_tiles) == list(terms)
        torch.testing.assert_close(terms_of_tiles, terms, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-10, atol=1e-14)


def test_tiles_in_single_precision(network, style):
    image, _ = object_in(100, 90)
    photo = torch.rand_like(image)
    _, whole = StyleObjective(style, network, ALL).gradient(image, photo)
    _, tiled = StyleObjective(style, network, ALL, tile=32).gradient(image, photo)
    assert (tiled - whole).norm() <= 1e-5 * whole.norm()


def test_a_large_painting_keeps_a_bounded_bank(network, monkeypatch):
    monkeypatch.setattr("losses.terms.LARGEST_BANK", 50)
    style = torch.rand(3, 64, 80)
    bank = StyleObjective(style, network, {"nnfm": 1.0}).parts["nnfm conv3_1"].bank
    assert bank.shape == (50, 8)
    # spread over all 16 x 20 places of the painting
    everything = unit_features(network(style[None], ["conv3_1"])["conv3_1"])
    places = [int((everything - row).norm(dim=1).argmin()) for row in bank]
    assert places[0] == 0 and places[-1] == 319
    assert max(b - a for a, b in itertools.pairwise(places)) <= 7


def test_the_background_has_no_say(network, style):
    image, mask = object_in(48, 40)
    mask = (mask > 0).float()
    objective = StyleObjective(style, network, ALL)
    on_white = objective(image * mask + 1 - mask, image, mask)
    torch.testing.assert_close(on_white, objective(image * mask, image, mask))


def test_render_equal_to_style_costs_nothing(network, style):
    objective = StyleObjective(style, network, {**ALL, "tv": 0})
    terms = objective(style, style)
    for term, value in terms.items():
        assert value.item() == pytest.approx(0, abs=1e-6), term


def test_empty_mask_is_free_of_cost_and_gradient(network, style):
    objective = StyleObjective(style, network, ALL)
    image = torch.rand(1, 3, 16, 20, requires_grad=True)
    mask = torch.zeros(1, 1, 16, 20)
    terms = objective(image, image, mask)
    sum(terms.values()).backward()
    assert set(terms) == set(TERMS)
    assert all(value.item() == 0 for value in terms.values())
    assert not image.grad.any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_images_have_finite_gradients(network, value):
    objective = StyleObjective(torch.full((1, 3, 20, 20), value), network, ALL)
    image = torch.full((1, 3, 16, 20), value, requires_grad=True)
    sum(objective(image, image).values()).backward()
    assert image.grad.isfinite().all()


def test_terms_without_weight_are_left_out(style):
    weights = {"swd": 1.0, "tv": 0.5, "gram": 0.0, "content": 0}
    objective = StyleObjective(style, None, weights)
    image = torch.rand(1, 3, 16, 20)
    assert not objective.needs_photo
    assert list(objective(image)) == ["tv", "swd"]


def test_nothing_is_learnt_or_saved_of_the_style(network, style):
    objective = StyleObjective(style, network, ALL)
    assert not any(p.requires_grad for p in objective.parameters())
    assert all(key.startswith("network.") for key in objective.state_dict())


def test_gradient(network, style):
    objective = StyleObjective(style.double(), network.double(), ALL)
    image = torch.rand(1, 3, 8, 9, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(1, 1, 8, 9, dtype=torch.float64)
    content = torch.rand_like(image)
    assert torch.autograd.gradcheck(
        lambda x: sum(objective(x, content, mask).values()), image, atol=1e-6
    )


@pytest.mark.parametrize(
    "weights", [{"gramm": 1.0}, {"gram": -1.0}, {"gram": float("nan")}, {"gram": 0.0}, {}]
)
def test_wrong_weights(network, style, weights):
    with pytest.raises(UserError, match="style"):
        StyleObjective(style, network, weights)


def test_wrong_use(network, style):
    with pytest.raises(ValueError, match="need a feature network"):
        StyleObjective(style, None, {"gram": 1.0})
    with pytest.raises(ValueError, match=r"\(1, 1, 24, 30\)"):
        StyleObjective(style[0, :1], network, {"gram": 1.0})
    with pytest.raises(ValueError, match="content takes one layer"):
        StyleObjective(style, network, ALL, {"content": ["conv1_1", "conv2_2"]})
    objective = StyleObjective(style, network, ALL)
    with pytest.raises(ValueError, match="photo"):
        objective(torch.rand(1, 3, 16, 20))
    with pytest.raises(ValueError, match=r"photo \(1, 3, 16, 21\)"):
        objective(torch.rand(1, 3, 16, 20), torch.rand(1, 3, 16, 21))
    with pytest.raises(ValueError, match=r"\(1, 3, 3, 20\)"):
        objective(torch.rand(1, 3, 3, 20))
    with pytest.raises(ValueError, match=r"\(1, 1, 16, 21\)"):
        objective(torch.rand(1, 3, 16, 20), torch.rand(1, 3, 16, 20), torch.ones(1, 1, 16, 21))


@pytest.mark.parametrize(("shape", "expected"), [((40, 60), (20, 30)), ((90, 30), (60, 20))])
def test_style_is_resized_by_its_shorter_side(shape, expected):
    image = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    small = prepare_style(image, 20)
    assert small.shape == (1, 3, *expected)
    assert small.min() >= 0 and small.max() <= 1
    torch.testing.assert_close(prepare_style(image.float() / 255, 20), small)


def test_style_keeps_its_mean_and_does_not_alias():
    stripes = torch.zeros(64, 64, 3)
    stripes[::2] = 1
    torch.testing.assert_close(
        prepare_style(stripes, 8), torch.full((1, 3, 8, 8), 0.5), atol=0.02, rtol=0
    )


def test_style_of_wrong_shape():
    with pytest.raises(ValueError, match=r"\(8, 8, 4\)"):
        prepare_style(torch.zeros(8, 8, 4), 4)
    with pytest.raises(ValueError, match="0"):
        prepare_style(torch.zeros(8, 8, 3), 0)
