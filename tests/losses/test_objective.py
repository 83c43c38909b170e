import itertools
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from features.network import FeatureNetwork, Layer
from features.tiles import tiles_of
from features.vgg import Vgg, convolutions
from losses.content import content_loss
from losses.gram import gram_loss, gram_matrix
from losses.masked import Sums
from losses.nnfm import mean_distance, nnfm_loss, unit_features
from losses.objective import StyleObjective
from losses.registry import OBJECTIVES, TERMS, Term, layers_needed
from losses.statistics import channel_statistics, statistics_loss
from losses.terms import FeatureTerm
from utils.errors import UserError

ALL = dict.fromkeys(TERMS.keys() - {"directional"}, 1.0)  # that has a test file of its own


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Vgg(convolutions((2, 2, 1), (4, 6, 8)), name="tiny")


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


@pytest.mark.parametrize("name", OBJECTIVES.keys() - {"directional"})
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
    ours, theirs, photos = (network(x, list(network.convs)) for x in (image, style, photo))
    bank = unit_features(theirs["conv3_1"])
    expected = {
        "gram": sum(2 * gram_loss(ours[n], gram_matrix(theirs[n])) for n in layers["gram"]),
        "nnfm": 3 * nnfm_loss(ours["conv3_1"], bank) / mean_distance(bank),
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
    monkeypatch.setattr("features.tiles.object_box", lambda mask, step: everything)
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


@pytest.mark.parametrize(
    ("height", "width", "deepest", "masked"),
    [
        (133, 93, "conv4_1", True),
        (51, 151, "relu4_1", False),
        (133, 93, "conv5_1", True),
        (149, 101, "relu5_1", True),
        (51, 151, "conv5_1", False),
    ],
)
def test_tiles_of_deep_layers_change_nothing(height, width, deepest, masked):
    channels = convolutions((2, 2, 4, 4, 1), (3, 3, 4, 4, 4))
    network = Vgg(channels, name="tiny").double()
    style = torch.rand(1, 3, 70, 55, dtype=torch.float64)
    layers = {name: ["conv2_1", deepest] for name in ("gram", "nnfm", "statistics", "content")}
    weights = dict.fromkeys(layers, 1.0)
    image, photo = torch.rand(2, 1, 3, height, width, dtype=torch.float64)
    mask = torch.zeros_like(image[:, :1])
    mask[..., height // 9 : -9, width // 8 :].uniform_()
    mask = mask if masked else None
    whole = StyleObjective(style, network, weights, layers)
    leaf = image.clone().requires_grad_(True)
    terms = whole(leaf, photo, mask)
    sum(terms.values()).backward()
    assert all(value > 0 for value in terms.values()) and leaf.grad.any()
    for tile in (32, 40):
        tiled = StyleObjective(style, network, weights, layers, tile=tile)
        assert len(tiles_of((height, width), tiled.geometry.values(), tile, mask)) > 2
        terms_of_tiles, gradient = tiled.gradient(image, photo, mask)
        torch.testing.assert_close(terms_of_tiles, terms, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-10, atol=1e-14)


def test_an_object_in_the_last_columns():
    """Fewer pixels than a stride are left there, and the deepest layer has no position of their
    own."""
    torch.manual_seed(0)
    network = Vgg(convolutions((2, 2, 1), (4, 6, 8)), name="tiny").double()
    image = torch.rand(1, 3, 40, 50, dtype=torch.float64)
    mask = torch.zeros(1, 1, 40, 50, dtype=torch.float64)
    mask[..., 10:20, 48:] = 1
    objective = StyleObjective(torch.rand(1, 3, 24, 30).double(), network, ALL)
    leaf = image.clone().requires_grad_(True)
    terms = objective(leaf, image, mask)
    sum(terms.values()).backward()
    tiled, gradient = objective.gradient(image, image, mask)
    torch.testing.assert_close(tiled, terms, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-10, atol=1e-14)
    assert terms["gram"] > 0


class Pair:
    """Two processes in one: tiles are shared and what the other adds up is recorded."""

    size = 2

    def __init__(self, rank, others):
        self.rank, self.others, self.added = rank, others, []

    def share(self, items):
        return items[self.rank :: 2]

    def add(self, *tensors):
        for tensor in tensors:
            self.added.append(tensor.detach().clone())
            if self.others:
                tensor.add_(self.others[len(self.added) - 1])


def test_processes_share_the_tiles(network, style):
    """The first pass learns each process's own sums, the second has those of the other added."""
    network, style = network.double(), style.double()
    image, photo = torch.rand(2, 1, 3, 71, 90, dtype=torch.float64)
    mask = torch.zeros_like(image[:, :1])
    mask[..., 10:60, 20:].uniform_()
    objective = StyleObjective(style, network, ALL)
    terms, gradient = objective.gradient(image, photo, mask)
    sums = [Pair(rank, None) for rank in (0, 1)]
    for team in sums:
        objective.gradient(image, photo, mask, team)
    n = len(sums[0].added) - 1  # the gradient is the last; it depends on the sums of both
    first = [Pair(rank, [*sums[1 - rank].added[:n], torch.zeros(())]) for rank in (0, 1)]
    for team in first:
        objective.gradient(image, photo, mask, team)
    both = [
        objective.gradient(
            image, photo, mask, Pair(rank, [*sums[1 - rank].added[:n], first[1 - rank].added[n]])
        )
        for rank in (0, 1)
    ]
    assert any(torch.count_nonzero(total) for total in sums[1].added[:n])
    for others_terms, others_gradient in both:
        torch.testing.assert_close(others_terms, terms, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(others_gradient, gradient, rtol=1e-10, atol=1e-14)


def test_a_process_without_a_tile_contributes_zero(network, style):
    image, mask = object_in(48, 40)
    objective = StyleObjective(style, network, ALL)
    idle, busy = Pair(1, None), Pair(0, None)
    idle.share = lambda items: []
    objective.gradient(image, image, mask, idle)
    objective.gradient(image, image, mask, busy)
    assert [t.shape for t in idle.added] == [t.shape for t in busy.added]
    assert [t.dtype for t in idle.added] == [t.dtype for t in busy.added]
    assert not any(t.any() for t in idle.added)


def test_tiles_in_single_precision(network, style):
    image, _ = object_in(100, 90)
    photo = torch.rand_like(image)
    _, whole = StyleObjective(style, network, ALL).gradient(image, photo)
    _, tiled = StyleObjective(style, network, ALL, tile=32).gradient(image, photo)
    assert (tiled - whole).norm() <= 1e-5 * whole.norm()


def test_a_large_painting_keeps_a_bounded_bank(network, monkeypatch):
    monkeypatch.setattr("losses.nnfm.MAX_STYLE_FEATURES", 50)
    style = torch.rand(3, 64, 80)
    objective = StyleObjective(style, network, {"nnfm": 1.0})
    bank = objective.feature_terms["nnfm"]["conv3_1"].style_bank
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
        assert value.item() == pytest.approx(0, abs=1e-5), term


def test_empty_mask_is_free_of_cost_and_gradient(network, style):
    objective = StyleObjective(style, network, ALL)
    image = torch.rand(1, 3, 16, 20, requires_grad=True)
    mask = torch.zeros(1, 1, 16, 20)
    terms = objective(image, image, mask)
    sum(terms.values()).backward()
    assert set(terms) == set(ALL)
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


def test_layers_are_those_of_the_terms_with_a_weight():
    assert layers_needed({"swd": 1.0, "tv": 1.0}) == []
    assert layers_needed({"nnfm": 1.0, "content": 1.0, "gram": 0.0}) == ["matching", "content"]
    assert layers_needed(OBJECTIVES["gram"]) == ["statistics", "content"]


def test_a_term_of_several_layers_is_their_sum(network, style):
    image = torch.rand(1, 3, 20, 16)
    terms = [
        StyleObjective(style, network, {"nnfm": 2.0}, {"nnfm": layers})(image)["nnfm"]
        for layers in (["conv2_1"], ["relu3_1"], ["conv2_1", "relu3_1"])
    ]
    torch.testing.assert_close(terms[0] + terms[1], terms[2])


class Brightness(FeatureTerm):
    """Mean of the features; what a new term has to define."""

    default_layers = ("conv1_2",)

    def sums(self, features, photo, mask):
        return Sums(features.sum(dim=(1, 2, 3)), features.new_ones(len(features)))

    def value(self, sums):
        return sums.value.sum()


def test_a_new_term_is_a_class_and_a_line(network, style, monkeypatch):
    line = Term("losses.brightness:Brightness", "brightness")
    monkeypatch.setitem(sys.modules, "losses.brightness", SimpleNamespace(Brightness=Brightness))
    monkeypatch.setitem(TERMS, "brightness", line)
    assert layers_needed({"brightness": 1.0}) == ["conv1_2"]
    image = torch.rand(1, 3, 40, 44)
    objective = StyleObjective(style, network, {"brightness": 2.0}, tile=16)
    terms, gradient = objective.gradient(image)
    expected = 2 * network(image, ["conv1_2"])["conv1_2"].sum()
    torch.testing.assert_close(terms, {"brightness": expected})
    assert gradient.any()


def test_tables_and_options_without_pytorch():
    """`--help` must not wait for PyTorch, and has an option for every term."""
    code = (
        "import sys, opt\n"
        "from losses.registry import TERMS\n"
        "options = opt.options_of(opt.TrainOptions)\n"
        "assert all(f'{name}_weight' in options for name in TERMS)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
    with pytest.raises(ValueError, match=r"tiny has no layers \['conv4_1'\]"):
        StyleObjective(style, network, ALL, {"nnfm": ["conv4_1"]})
    with pytest.raises(ValueError, match="style must be at least 4x4"):
        StyleObjective(style[..., :3], network, {"gram": 1.0})
    objective = StyleObjective(style, network, ALL)
    with pytest.raises(ValueError, match="photo"):
        objective(torch.rand(1, 3, 16, 20))
    with pytest.raises(ValueError, match=r"photo \(1, 3, 16, 21\)"):
        objective(torch.rand(1, 3, 16, 20), torch.rand(1, 3, 16, 21))
    with pytest.raises(ValueError, match=r"\(1, 3, 3, 20\)"):
        objective(torch.rand(1, 3, 3, 20))
    with pytest.raises(ValueError, match=r"\(1, 1, 16, 21\)"):
        objective(torch.rand(1, 3, 16, 20), torch.rand(1, 3, 16, 20), torch.ones(1, 1, 16, 21))


class Blocks(FeatureNetwork):
    """A network that is no VGG: two layers with names of their own."""

    def __init__(self):
        super().__init__()
        self.name = "blocks"
        self.layers = {"fine": Layer(4, 2, 0), "coarse": Layer(6, 4, 0)}
        self.roles = {"statistics": ["fine", "coarse"], "matching": ["coarse"], "content": ["fine"]}
        self.fine, self.coarse = torch.nn.Conv2d(3, 4, 2, 2), torch.nn.Conv2d(4, 6, 2, 2)
        self.requires_grad_(False)

    def forward(self, image, layers):
        fine = self.fine(image)
        found = {"fine": fine, "coarse": self.coarse(fine)}
        return {name: found[name] for name in layers}


def test_any_network_serves_that_says_what_its_layers_are_for():
    weights = {"gram": 1.0, "nnfm": 1.0, "content": 1.0}
    objective = StyleObjective(torch.rand(3, 24, 20), Blocks(), weights, tile=8)
    image, photo = torch.rand(2, 1, 3, 17, 22)
    whole = image.clone().requires_grad_()
    terms = objective(whole, photo)
    assert terms.keys() == weights.keys()
    sum(terms.values()).backward()
    _, gradient = objective.gradient(image, photo)
    torch.testing.assert_close(gradient, whole.grad, rtol=1e-4, atol=1e-7)
