"""Styles against their plain twins: heads and decoders, codes, colour maps, blends."""

import json
import math

import pytest
import torch
from torch import nn

from models.mlp import encoded_width, positional_encoding
from models.style import BlendedColours, Decoder, blended, build_style

KINDS = ["nerf", "voxels"]


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def decoder_of(**options):
    torch.manual_seed(0)
    return Decoder(5, [8, 7], 2, **options).double()


def plain(decoder, h, d, code):
    """The whole input (M, C + 15 + n_code) through the layers, one by one."""
    d = d if decoder.view_dependent else torch.zeros_like(d)
    parts = [h, positional_encoding(d, 2)]
    if decoder.n_code:
        parts.append(h.new_zeros(decoder.n_code) if code is None else code)
        parts[-1] = parts[-1].expand(len(h), decoder.n_code)
    x = torch.cat(parts, -1)
    for layer in decoder.mlp.layers:
        x = (x @ layer.weight.T + layer.bias).clamp(min=0)
    return 1 / (1 + torch.exp(-(x @ decoder.mlp.out.weight.T + decoder.mlp.out.bias)))


def inputs_of(n=23, width=5):
    g = torch.Generator().manual_seed(1)
    h = torch.randn(n, width, generator=g, dtype=torch.float64).requires_grad_()
    d = nn.functional.normalize(torch.randn(n, 3, generator=g, dtype=torch.float64), dim=-1)
    return h, d


def code_of(shape):
    if shape is None:
        return None
    g = torch.Generator().manual_seed(2)
    size = {"one": (4,), "each": (23, 4)}[shape]
    return torch.randn(size, generator=g, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("rows", [7, 1 << 13])
@pytest.mark.parametrize("view_dependent", [True, False])
@pytest.mark.parametrize("shape", [None, "one", "each"])
@pytest.mark.parametrize("with_bottleneck", [True, False])
def test_decoder_is_its_plain_twin(with_bottleneck, shape, view_dependent, rows, gradients):
    """Bottleneck, fixed direction and one code are a part of the first layer; in the twin they are
    a layer and inputs of every sample."""
    decoder = decoder_of(n_code=4, view_dependent=view_dependent, rows=rows)
    bottleneck = nn.Linear(6, 5).double() if with_bottleneck else None
    (h, d), code = inputs_of(width=6 if with_bottleneck else 5), code_of(shape)
    parameters = [h, *decoder.parameters()]
    parameters += list(bottleneck.parameters()) if with_bottleneck else []
    parameters += [] if code is None else [code]
    expected = plain(decoder, bottleneck(h) if with_bottleneck else h, d, code)
    found = decoder(h, d, code, bottleneck)
    assert_close(found, expected)
    assert_close(gradients(found, parameters), gradients(expected, parameters))
    with torch.no_grad():
        assert_close(decoder(h, d, code, bottleneck), expected)


def test_decoder_without_a_code(gradients):
    decoder = decoder_of()
    h, d = inputs_of()
    assert decoder.mlp.layers[0].in_features == 5 + encoded_width(3, 2)
    found, expected, parameters = decoder(h, d), plain(decoder, h, d, None), decoder.parameters()
    assert_close(found, expected)
    parameters = list(parameters)
    assert_close(gradients(found, parameters), gradients(expected, parameters))


@pytest.mark.parametrize("view_dependent", [True, False])
def test_one_code_is_the_same_code_for_every_sample(view_dependent):
    decoder = decoder_of(n_code=4, view_dependent=view_dependent)
    (h, d), code = inputs_of(), code_of("one")
    assert_close(decoder(h, d, code), decoder(h, d, code.expand(len(h), 4)))
    zeros = torch.zeros(4, dtype=torch.float64)
    assert torch.equal(decoder(h, d), decoder(h, d, zeros))
    assert not torch.allclose(decoder(h, d), decoder(h, d, code))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_sample", [False, True])
def test_the_gradient_reaches_the_code_of_a_style(kind, per_sample, make_field, points, gradients):
    field = make_field(kind, n_code=4).double()
    field.style.reset()
    x, d = points(dtype=torch.float64)
    feature = field.geometry.feature(x).detach()
    code = torch.randn(40, 4, dtype=torch.float64) if per_sample else torch.randn(4).double()
    code.requires_grad_()
    decoder = field.style.decoder
    encoded = positional_encoding(d, decoder.n_frequencies)
    h = torch.cat([field.style.head(feature, x), encoded, code.expand(40, 4)], -1)
    for layer in decoder.mlp.layers:
        h = layer(h).relu()
    expected, found = torch.sigmoid(decoder.mlp.out(h)), field.style(feature, x, d, code)
    assert_close(found, expected)
    assert_close(gradients(found, [code]), gradients(expected, [code]))
    assert (gradients(found, [code])[0] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view_dependent", [True, False])
def test_style_is_head_then_decoder(kind, view_dependent, make_field, points, gradients):
    field = make_field(kind, view_dependent=view_dependent).double()
    field.style.reset()
    x, d = points(dtype=torch.float64)
    feature, parameters = field.geometry.feature(x).detach(), list(field.style.parameters())
    found = field.style(feature, x, d)
    one_by_one = field.style.decoder(field.style.head(feature, x), d)
    assert_close(found, one_by_one)
    assert_close(gradients(found, parameters), gradients(one_by_one, parameters))


@pytest.mark.parametrize("kind", KINDS)
def test_without_view_dependence_all_directions_are_one(kind, make_field, points, gradients):
    """As a bias of the first layer it is what it was as an input."""
    field = make_field(kind).double()
    field.style.reset()
    x, d = points(dtype=torch.float64)
    feature, parameters = field.geometry.feature(x).detach(), list(field.style.parameters())
    assert not torch.allclose(field.style(feature, x, d), field.style(feature, x, -d))
    as_input = field.style(feature, x, torch.zeros_like(d))
    of_input = gradients(as_input, parameters)
    field.style.decoder.view_dependent = False
    assert torch.equal(field.style(feature, x, d), field.style(feature, x, -d))
    assert_close(field.style(feature, x, d), as_input)
    assert_close(gradients(field.style(feature, x, d), parameters), of_input)


def test_two_fields_share_a_decoder(make_field, points):
    """Fields with cells of their own and heads of one width: each trains what they share."""
    cells = torch.rand(8, 8, 6) > 0.5
    first, second = make_field("voxels"), make_field("voxels", cells)
    for field in (first, second):
        nn.init.normal_(field.style.head.table)
    second.style.decoder = first.style.decoder
    x, d = points()

    def colours(field):
        return field.style(field.geometry.feature(x), x, d)

    before = [colours(field) for field in (first, second)]
    shared = list(first.style.decoder.parameters())
    apart = [torch.autograd.grad(rgb.sum(), shared, retain_graph=True) for rgb in before]
    sum(rgb.sum() for rgb in before).backward()
    for parameter, a, b in zip(shared, *apart, strict=True):
        torch.testing.assert_close(parameter.grad, a + b)
    assert (second.style.head.table.grad != 0).any()
    with torch.no_grad():
        first.style.decoder.mlp.out.bias += 1
    for field, rgb in zip((first, second), before, strict=True):
        assert (colours(field) > rgb).all()
    both = nn.ModuleList([first.style, second.style])
    tables = first.style.head.table.numel() + second.style.head.table.numel()
    assert sum(p.numel() for p in both.parameters()) == tables + sum(p.numel() for p in shared)


# colour maps, specifications


def test_colour_map_is_part_of_the_style_and_never_wraps(make_field, points):
    field = make_field("nerf")
    x, d = points()
    feature = field.geometry.feature(x)
    before = field.style(feature, x, d)
    matrix, offset = torch.rand(3, 3) * 4, torch.tensor([-0.9, -1.2, -3.0])
    field.style.decoder.set_colour_map(matrix, offset)
    expected = (before @ matrix.T + offset).clamp(0, 1)
    torch.testing.assert_close(field.style(feature, x, d), expected)
    assert ((expected == 0) | (expected == 1)).any()
    assert {"decoder.colour_matrix", "decoder.colour_offset"} <= set(field.style.state_dict())


def test_a_colour_map_that_is_yet_to_be_loaded_is_the_identity():
    h, d = inputs_of()
    assert torch.equal(decoder_of(colour_map=True)(h, d), decoder_of()(h, d))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("nerf", {}),
        ("nerf", {"n_frequencies": 1, "depth": 2, "view_dependent": False}),
        ("nerf", {"n_code": 3, "colour_map": True}),
        ("voxels", {}),
        ("voxels", {"n_features": 5, "n_frequencies": 3, "n_code": 2, "view_dependent": False}),
        ("voxels", {"colour_map": True}),
    ],
)
def test_style_comes_back_from_its_spec_and_state(kind, options, make_field, points):
    field = make_field(kind, **options)
    field.style.reset()
    if options.get("colour_map"):
        field.style.decoder.set_colour_map(torch.rand(3, 3), torch.rand(3))
    spec = field.style.spec()
    assert spec.items() >= {"kind": kind, **options}.items()
    assert json.loads(json.dumps(spec)) == spec
    again = build_style(spec, field.geometry)
    again.load_state_dict(field.style.state_dict())
    assert again.spec() == spec
    x, d = points()
    feature, code = field.geometry.feature(x), torch.randn(spec["n_code"])
    assert torch.equal(again(feature, x, d, code), field.style(feature, x, d, code))


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_set_later_is_in_the_spec(kind, make_field):
    style = make_field(kind).style
    assert not style.spec()["colour_map"]
    style.decoder.set_colour_map(torch.eye(3), torch.zeros(3))
    assert style.spec()["colour_map"]


def test_nerf_style_has_the_papers_size(make_field):
    """Bottleneck, one hidden layer of 128 that sees the direction, and the colour."""
    count = sum(p.numel() for p in make_field("nerf", depth=1).style.parameters())
    assert count == 256 * 256 + 256 + (256 + 27) * 128 + 128 + 128 * 3 + 3


@pytest.mark.parametrize("kind", KINDS)
def test_reset_draws_anew(kind, make_field):
    style = make_field(kind).style
    before = [p.clone() for p in style.parameters()]
    style.reset()
    assert not any(map(torch.equal, style.parameters(), before))
    for layer in (m for m in style.modules() if isinstance(m, nn.Linear)):
        limit = math.sqrt(6 / sum(layer.weight.shape))
        assert 0.9 * limit < layer.weight.abs().max() <= limit
        assert (layer.bias == 0).all()
    if kind == "voxels":
        assert abs(float(style.head.table.detach().std()) - 0.1) < 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every_patch", [False, True])
def test_groups_hold_every_parameter_once_at_rates_in_proportion(kind, every_patch, make_field):
    style = make_field(kind).style
    usual, asked = (style.parameter_groups(lr, every_patch) for lr in (None, 0.02))
    found = [p for group in usual for p in group["params"]]
    assert len(found) == len(list(style.parameters()))
    assert {id(p) for p in found} == {id(p) for p in style.parameters()}
    assert max(group["lr"] for group in asked) == pytest.approx(0.02)
    ratios = [a["lr"] / u["lr"] for a, u in zip(asked, usual, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))


# blends


@pytest.fixture
def three_styles(make_field, points):
    """``three_styles(kind)``: styles of one field, and their colours of some samples."""

    def make(kind):
        field = make_field(kind)
        styles = [build_style(field.style.spec(), field.geometry) for _ in range(3)]
        for style in styles:
            style.reset()
        x, d = points()
        feature = field.geometry.feature(x).detach()
        return styles, lambda style: style(feature, x, d)

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_blend_of_one_is_that_style_to_the_bit(kind, three_styles):
    (first, second, third), colours = three_styles(kind)
    assert torch.equal(colours(blended([first, second], [1, 0])), colours(first))
    assert torch.equal(colours(blended([first, second, third], [0, 0, 1])), colours(third))
    torch.testing.assert_close(colours(BlendedColours([first, second], [1, 0])), colours(first))
    assert not torch.equal(colours(first), colours(third))


@pytest.mark.parametrize("kind", KINDS)
def test_a_blend_of_equals_is_each_of_them(kind, three_styles):
    (first, _, _), colours = three_styles(kind)
    assert torch.equal(colours(blended([first, first], [0.5, 0.5])), colours(first))
    whole = BlendedColours([first, first], [0.5, 0.5])
    torch.testing.assert_close(colours(whole), colours(first))


@pytest.mark.parametrize("kind", KINDS)
def test_blended_averages_the_parameters(kind, three_styles):
    styles, colours = three_styles(kind)
    before = [[p.clone() for p in style.parameters()] for style in styles]
    mean = blended(styles, [0.2, 0.3, 0.5])
    for found, a, b, c in zip(mean.parameters(), *before, strict=True):
        torch.testing.assert_close(found, 0.2 * a + 0.3 * b + 0.5 * c)
    assert mean.spec() == styles[0].spec()
    with torch.no_grad():
        for parameter in mean.parameters():
            parameter.zero_()
    for style, old in zip(styles, before, strict=True):
        assert all(map(torch.equal, style.parameters(), old))
    assert (colours(mean) == 0.5).all()


def test_blended_reads_the_lattice_of_its_field(three_styles):
    """A copy of it would take as much memory again, and stay behind when the field is moved."""
    (first, second, _), _ = three_styles("voxels")
    assert blended([first, second], [0.5, 0.5]).head._lattice[0] is first.head._lattice[0]


def test_blended_averages_colour_maps(three_styles):
    (first, second, third), _ = three_styles("nerf")
    matrices, offsets = torch.rand(2, 3, 3), torch.rand(2, 3)
    second.decoder.set_colour_map(matrices[0], offsets[0])
    third.decoder.set_colour_map(matrices[1], offsets[1])
    mean = blended([first, second, third], [0.2, 0.3, 0.5])
    matrix = 0.2 * torch.eye(3) + 0.3 * matrices[0] + 0.5 * matrices[1]
    torch.testing.assert_close(mean.decoder.colour_matrix, matrix)
    torch.testing.assert_close(mean.decoder.colour_offset, 0.3 * offsets[0] + 0.5 * offsets[1])
    assert first.decoder.colour_matrix is None
    assert torch.equal(second.decoder.colour_matrix, matrices[0])


def test_a_blend_of_one_is_that_style_also_with_a_map(three_styles):
    (first, second, _), colours = three_styles("nerf")
    second.decoder.set_colour_map(torch.rand(3, 3), torch.rand(3))
    torch.testing.assert_close(colours(blended([first, second], [1, 0])), colours(first))
    assert torch.equal(colours(blended([first, second], [0, 1])), colours(second))


@pytest.mark.parametrize("weights", [[1, 0], [0, 1]])
def test_a_blend_of_one_is_that_style_whatever_depends_on_the_view(weights, three_styles):
    styles, colours = three_styles("nerf")
    styles = styles[:2]
    styles[0].decoder.view_dependent = False
    one = styles[weights.index(1)]
    torch.testing.assert_close(colours(blended(styles, weights)), colours(one))


@pytest.mark.parametrize("kind", KINDS)
def test_blended_colours_are_the_mean_of_logits(kind, three_styles, gradients):
    styles, colours = three_styles(kind)
    whole = BlendedColours(styles, [0.2, 0.3, 0.5])
    a, b, c = map(colours, styles)
    expected = torch.sigmoid(0.2 * a.logit() + 0.3 * b.logit() + 0.5 * c.logit())
    torch.testing.assert_close(colours(whole), expected)
    parameters = list(whole.parameters())
    assert len(parameters) == 3 * len(list(styles[0].parameters()))
    torch.testing.assert_close(
        gradients(colours(whole), parameters), gradients(expected, parameters)
    )


def test_blended_colours_pass_the_code_on(make_field, points):
    field = make_field("nerf", n_code=3)
    style = field.style
    x, d = points()
    feature, code = field.geometry.feature(x), torch.randn(3)
    mean = BlendedColours([style, style], [0.5, 0.5])
    torch.testing.assert_close(mean(feature, x, d, code), style(feature, x, d, code))


@pytest.mark.parametrize("blend", [blended, BlendedColours])
@pytest.mark.parametrize(("n", "weights"), [(2, [1.0]), (1, [0.5, 0.5]), (0, [])])
def test_a_blend_wants_a_weight_for_each(blend, n, weights, make_field):
    style = make_field("voxels").style
    with pytest.raises(ValueError, match=f"{n} styles, {len(weights)} weights"):
        blend([style] * n, weights)
