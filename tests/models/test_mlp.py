"""The network against its plain twin: layers, skip, blocks, one-operation layers, the guard."""

import pytest
import torch
from torch.nn import functional

import models.mlp
from models.mlp import (
    MLP,
    encoded_width,
    fused_exists,
    in_blocks,
    linear_relu,
    nan_guard,
    positional_encoding,
    precise_linear,
)

TYPES = [torch.float32, torch.bfloat16]
FUSED = pytest.mark.skipif(
    not fused_exists(torch.bfloat16), reason="not in one operation on this processor"
)


def test_positional_encoding_is_the_formula():
    x = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    parts = [x]
    for k in range(3):
        parts += [(2**k * x).sin(), (2**k * x).cos()]
    assert torch.allclose(positional_encoding(x, 3), torch.cat(parts, -1))
    assert positional_encoding(x, 3).shape[-1] == encoded_width(2, 3)
    assert positional_encoding(x, 0) is x


def test_high_frequencies_are_as_precise_as_their_angles():
    """Cosines are sines of a shifted angle, which is rounded once more."""
    x = torch.linspace(-torch.pi, torch.pi, 999)[:, None]
    found = positional_encoding(x, 10).double()
    exact = positional_encoding(x.double(), 10)
    rounding = 2**9 * torch.pi * torch.finfo(torch.float32).eps
    assert (found - exact).abs().max() < 1.5 * rounding


# the whole network


def network(skip=None, encode=None, rows=1 << 13, n_in=5):
    torch.manual_seed(0)
    return MLP([n_in, 8, 9, 7, 2], skip, encode, rows).double()


def plain(mlp, x, skip, first=None):
    """(output, last hidden layer), written out."""
    h = x
    for i, layer in enumerate(mlp.layers):
        if i == skip:
            h = torch.cat([x, h], -1)
        weight, bias = (layer.weight, layer.bias) if first is None or i else first
        h = (h @ weight.T + bias).clamp(min=0)
    return h @ mlp.out.weight.T + mlp.out.bias, h


def rows_of(n, width=5):
    g = torch.Generator().manual_seed(3)
    return torch.randn(n, width, generator=g, dtype=torch.float64).requires_grad_()


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [7, 1 << 13])
@pytest.mark.parametrize("skip", [None, 1, 2])
def test_mlp_is_its_plain_twin(skip, rows, gradients):
    """In values and gradients, whole and in blocks, the last of which is not full."""
    mlp, x = network(skip, rows=rows), rows_of(40)
    inputs = [x, *mlp.parameters()]
    expected, hidden = plain(mlp, x, skip)
    found = mlp(x)
    assert_close(found, expected)
    assert_close(gradients(found, inputs), gradients(expected, inputs))
    both = mlp.with_hidden(x)
    assert_close(both, (expected, hidden))
    joint = torch.cat(both, 1), torch.cat([expected, hidden], 1)
    assert_close(*(gradients(out, inputs) for out in joint))
    assert_close(mlp.hidden(x), hidden)
    with torch.no_grad():
        assert_close(mlp(x), expected)
        assert_close(mlp.with_hidden(x), (expected, hidden))


def test_skip_concatenates_the_input_before_what_came_of_it():
    mlp = MLP([2, 3, 4, 1], skip=1)
    assert mlp.layers[1].in_features == 5
    with torch.no_grad():
        mlp.layers[1].weight[:, 2:] = 0  # the input is all that is left
    x = torch.randn(6, 2)
    alone = functional.relu(functional.linear(x, mlp.layers[1].weight[:, :2], mlp.layers[1].bias))
    torch.testing.assert_close(mlp.hidden(x), alone)


@pytest.mark.parametrize("rows", [7, 1 << 13])
def test_encode_makes_the_input_of_several(rows, gradients):
    def encode(a, b):
        return torch.cat([a, b.sin()], -1)

    mlp = network(1, encode, rows)
    a, b = rows_of(40, 2), rows_of(40, 3)
    inputs = [a, b, *mlp.parameters()]
    expected, _ = plain(mlp, encode(a, b), 1)
    assert_close(mlp(a, b), expected)
    assert_close(gradients(mlp(a, b), inputs), gradients(expected, inputs))


@pytest.mark.parametrize("rows", [7, 1 << 13])
def test_first_takes_the_place_of_the_first_layer(rows, gradients):
    """Here a linear map of something narrower, multiplied in."""
    mlp, narrow = network(rows=rows), rows_of(40, 3)
    torch.manual_seed(4)
    matrix = torch.randn(5, 3, dtype=torch.float64).requires_grad_()
    layer = mlp.layers[0]
    found = mlp(narrow, first=(layer.weight @ matrix, layer.bias))
    expected, _ = plain(mlp, narrow @ matrix.T, None)
    inputs = [narrow, matrix, *mlp.parameters()]
    assert_close(found, expected)
    assert_close(gradients(found, inputs), gradients(expected, inputs))


def test_no_rows_through_the_network():
    assert network()(rows_of(0)).shape == (0, 2)


def test_the_output_is_precise_under_autocast():
    torch.manual_seed(0)
    mlp = MLP([5, 8, 2])
    with torch.autocast("cpu", torch.bfloat16):
        out, hidden = mlp.with_hidden(torch.randn(30, 5))
    assert hidden.dtype == torch.bfloat16
    assert out.dtype == torch.float32
    exact = functional.linear(hidden.float(), mlp.out.weight, mlp.out.bias)
    torch.testing.assert_close(out, exact)


@pytest.mark.parametrize("grad", [False, True])
def test_in_blocks_is_the_function_of_all_rows(grad):
    seen = []

    def function(x, y):
        seen.append(len(x))
        return x * y, x.sum(-1)

    x, y = torch.randn(2, 17, 3)
    with torch.set_grad_enabled(grad):
        product, total = in_blocks(function, 5, x, y)
    assert seen == [5, 5, 5, 5]
    assert torch.equal(product, x * y)
    assert torch.equal(total, x.sum(-1))


# a layer and its ReLU in one operation


def layer(n_in=63, n_out=40, rows=500):
    torch.manual_seed(0)
    x = torch.randn(rows, n_in).to(torch.bfloat16).requires_grad_()
    weight = (torch.randn(n_out, n_in) / n_in**0.5).requires_grad_()
    return x, weight, torch.randn(n_out).requires_grad_()


def outcome(function, *inputs):
    """Value and gradients."""
    with torch.autocast("cpu", torch.bfloat16):
        out = function(*inputs)
    torch.manual_seed(1)
    return out, torch.autograd.grad(out, inputs, torch.randn(out.shape).to(out.dtype))


def relative(found, exact):
    found, exact = found.detach().double(), exact.detach().double()
    return float((found - exact).norm() / exact.norm())


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="no bfloat16 in this processor"
)
def test_the_operation_exists_where_it_can():
    assert all(fused_exists(dtype) for dtype in TYPES)


@pytest.mark.parametrize("n_in", [12, 27, 63, 256, 319])
def test_linear_relu_is_a_linear_layer_and_a_relu(n_in):
    inputs = layer(n_in)
    out, gradients = outcome(linear_relu, *inputs)
    plain, exact = outcome(lambda *a: functional.relu(functional.linear(*a)), *inputs)
    assert out.dtype == plain.dtype == torch.bfloat16
    assert relative(out, plain) < 1e-3
    for found, expected, given in zip(gradients, exact, inputs, strict=True):
        assert found.dtype == given.dtype
        assert relative(found, expected) < 5e-3


def test_linear_relu_without_a_graph_is_that_with_one():
    inputs = layer()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        alone = linear_relu(*inputs)
    assert torch.equal(alone, outcome(linear_relu, *inputs)[0])


def test_no_rows_are_no_rows():
    out, gradients = outcome(linear_relu, *layer(rows=0))
    assert out.shape == (0, 40)
    assert all((g == 0).all() for g in gradients)


def test_precise_linear_rounds_nothing_on_the_way_out():
    inputs = layer()
    out, gradients = outcome(precise_linear, *inputs)
    exact, expected = outcome(
        lambda x, w, b: functional.linear(x.double(), w.double(), b.double()), *inputs
    )
    assert out.dtype == torch.float32
    assert relative(out, exact) < 1e-6
    for found, right, given in zip(gradients, expected, inputs, strict=True):
        assert found.dtype == given.dtype
        assert relative(found, right) < 5e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_stays_full(dtype):
    inputs = [v.detach().to(dtype).requires_grad_() for v in layer()]
    plain = functional.relu(functional.linear(*inputs))
    found = linear_relu(*inputs)
    torch.testing.assert_close(found, plain)
    grad = torch.randn_like(plain)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(plain, inputs, grad)
    )
    assert torch.equal(precise_linear(*inputs), functional.linear(*inputs))


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 5e-3), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_a_field_is_the_same_without_the_operation(
    kind, dtype, most, make_field, points, monkeypatch
):
    field = make_field(kind)
    field.style.reset()
    x, d = points(400)

    def run():
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            density, feature = field.geometry(x)
            rgb = field.style(feature, x, d)
        parameters = list(field.parameters())
        gradients = torch.autograd.grad(((rgb - x) ** 2).sum() + density.sum(), parameters)
        return torch.cat([density, rgb.flatten()]), torch.cat([g.flatten() for g in gradients])

    fast = run()
    monkeypatch.setattr(models.mlp, "fused_exists", lambda dtype: False)
    for found, plain in zip(fast, run(), strict=True):
        assert relative(found, plain) < most


# NaN


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, pytest.param(1e30, marks=FUSED)])
@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_no_bad_number_is_hidden_by_a_relu(kind, bad, dtype, make_field, points):
    """The operation makes a NaN a 0; 1e30 is finite, but not what the next layers make of it."""
    x, d = points(9)
    for name in [name for name, _ in make_field(kind).named_parameters()]:
        field = make_field(kind)
        field.get_parameter(name).data.fill_(bad)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            density, feature = field.geometry(x)
            rgb = field.style(feature, x, d)
        after_relu = name == "geometry.raw" or ".mlp.out." in name
        assert (after_relu and bad > 0) or not (
            density.isfinite().all() and rgb.isfinite().all()
        ), name


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("which", [0, 1])
def test_no_bad_input_is_hidden_by_a_relu(which, dtype):
    torch.manual_seed(0)
    mlp = MLP([5, 8, 8, 2], encode=lambda a, b: torch.cat([a, b], -1))
    inputs = [torch.randn(6, 2), torch.randn(6, 3)]
    inputs[which][4, 1] = torch.nan
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        assert not mlp(*inputs)[4].isfinite().any()
        assert not mlp.with_hidden(*inputs)[0][4].isfinite().any()


def test_the_guard_is_zero_for_what_is_finite():
    x, weight, bias = layer(8, 8, 20)
    with torch.autocast("cpu", torch.bfloat16):
        guard = nan_guard(x, [(weight, bias)] * 8)
    assert guard.shape == ()
    assert guard == 0
    assert not guard.requires_grad


@FUSED
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_the_guard_sees_a_single_number(place, bad):
    parts = [part.detach().float() for part in layer(8, 8, 20)]
    parts[place].view(-1)[5] = bad
    x, weight, bias = parts
    with torch.autocast("cpu", torch.bfloat16):
        assert nan_guard(x, [(weight, bias)]).isnan()
