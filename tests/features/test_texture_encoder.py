"""Our own feature network: the committed file, what it can tell apart, and its training script."""

import pytest
import torch

from features.procedural_textures import FAMILIES, colourise, make_bank, random_palettes
from features.texture_encoder import (
    CHANNELS,
    LAYERS,
    WEIGHTS,
    TrainingHeads,
    contrast,
    draw_batch,
    gram_matrices,
    load,
    main,
    normalise_activations,
    save,
    train,
)
from features.vgg import Vgg

FRESH_SEED = 20_000  # of textures the training has not seen


@pytest.fixture(scope="module")
def network():
    return load()


@pytest.fixture(scope="module")
def bank():
    return make_bank(kinds=64, per_kind=1, seed=FRESH_SEED)


@pytest.fixture(scope="module")
def crops(bank):
    return draw_batch(bank, 64, torch.Generator().manual_seed(1))


def test_file_is_small_finite_and_of_the_right_shapes():
    assert WEIGHTS.stat().st_size < 500_000
    state = torch.load(WEIGHTS, weights_only=True)
    expected = {key: value.shape for key, value in Vgg(CHANNELS, "own").convs.state_dict().items()}
    assert {key: value.shape for key, value in state.items()} == expected
    assert list(state)[:2] == ["conv1_1.weight", "conv1_1.bias"]
    for value in state.values():
        assert value.dtype == torch.float16
        assert value.isfinite().all()


def test_mean_activations_are_about_one(network, bank):
    images = draw_batch(bank, 64, torch.Generator().manual_seed(1), per_palette=1)[0]
    for layer, feature in network(images, LAYERS).items():
        means = feature.relu().mean((0, 2, 3))
        assert means.mean() == pytest.approx(1.0, abs=0.25), layer
        assert ((means > 0.3) & (means < 3)).float().mean() > 0.9, layer


@pytest.mark.parametrize("layer", LAYERS)
def test_gram_matrices_tell_textures_apart(network, crops, layer):
    first, second = gram_matrices(network(crops[0], [layer])[layer]).chunk(2)
    distance = torch.cdist(first, second)
    same = distance.diagonal()[:, None]
    other = ~torch.eye(len(distance), dtype=torch.bool)
    assert (same < distance)[other].float().mean() > 0.9


def test_gram_matrices_tell_structures_of_one_palette_apart(network, bank):
    palette = random_palettes(1, torch.Generator().manual_seed(3)).expand(64, -1, -1)
    image = colourise(bank.structure, palette, torch.zeros(64))
    first, second = image[..., :48, :48], image[..., 48:, 48:]
    grams = [gram_matrices(network(crop, ["conv3_1"])["conv3_1"]) for crop in (first, second)]
    distance = torch.cdist(*grams)
    other = ~torch.eye(64, dtype=torch.bool)
    assert (distance.diagonal()[:, None] < distance)[other].float().mean() > 0.9


def test_textures_are_a_function_of_the_seed():
    first, again, other = (make_bank(kinds=8, per_kind=2, size=32, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first.structure, again.structure)
    assert not torch.equal(first.structure, other.structure)
    assert first.kind.tolist() == [kind for kind in range(8) for _ in range(2)]


@pytest.mark.parametrize("family", range(len(FAMILIES)))
def test_no_texture_is_flat(family):
    shape, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    for _ in range(3):
        maps = FAMILIES[family](2, 48, shape, generator)
        assert maps.shape == (2, 2, 48, 48)
        assert (maps[:, 0].flatten(1).std(1) > 0.02).all()
        assert not torch.equal(maps[0], maps[1])


def test_colourise_looks_the_palette_up():
    structure = torch.tensor([0, 127.5, 255]).view(1, 1, 1, 3).repeat(1, 2, 1, 1)
    palette = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    image = colourise(structure, palette, torch.zeros(1))
    assert image.shape == (1, 3, 1, 3)
    torch.testing.assert_close(image[0, 0, 0], torch.tensor([0.0, 0.5, 1.0]))
    assert image[0, 1:].eq(0).all()


def test_contrast_is_lower_when_partners_agree():
    torch.manual_seed(0)
    crop = {layer: torch.randn(6, 4, 8, 8) * torch.rand(6, 4, 1, 1) * 3 for layer in LAYERS}
    aligned = {layer: torch.cat([x, x]) for layer, x in crop.items()}
    mixed = {layer: torch.cat([x, x.roll(1, 0)]) for layer, x in crop.items()}
    assert contrast(aligned) < contrast(mixed)


def test_normalising_changes_the_scale_and_nothing_else():
    torch.manual_seed(0)
    network, images = Vgg(CHANNELS, "own"), torch.rand(4, 3, 32, 32)
    before = network(images, LAYERS)
    normalise_activations(network, images)
    for layer, feature in network(images, LAYERS).items():
        alive = before[layer].relu().mean((0, 2, 3)) > 1e-6
        torch.testing.assert_close(
            feature.relu().mean((0, 2, 3))[alive], torch.ones(int(alive.sum())), rtol=1e-3, atol=0
        )
        cosine = torch.nn.functional.cosine_similarity(
            feature.flatten(2), before[layer].flatten(2), 2
        )
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-3)


def test_every_head_sends_a_gradient_to_every_layer_below():
    network, heads = Vgg(CHANNELS, "own").requires_grad_(True), TrainingHeads(8)
    features = network(torch.rand(4, 3, 32, 32), LAYERS)
    heads.classification(features, torch.arange(4)).backward(retain_graph=True)
    heads.reconstruction(features, torch.rand(4, 3, 32, 32)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_two_steps_of_training_repeat_and_save(tmp_path):
    bank = make_bank(kinds=8, per_kind=2, size=72)
    networks = [train(bank, steps=2, count=4, report_every=0) for _ in range(2)]
    for path, network in zip((tmp_path / "a.pth", tmp_path / "b.pth"), networks, strict=True):
        save(network, path)
        assert not any(parameter.requires_grad for parameter in network.parameters())
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pth", "b.pth"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.pth", "b.pth"]


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--out", "/no/such/folder/file.pth"]])
def test_bad_options_end_with_one_line(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["texture_encoder", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
