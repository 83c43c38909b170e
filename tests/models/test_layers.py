"""Layers in one operation against their plain twins."""

import pytest
import torch
from torch.nn import functional

import models.layers
from models.layers import fused_exists, linear_relu, precise_linear
from models.nerf import NerfField
from models.voxels import VoxelField
from utils.machine import has_fast_bfloat16

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


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


@pytest.mark.skipif(not has_fast_bfloat16("cpu"), reason="no bfloat16 in this processor")
def test_the_operation_exists_where_it_pays():
    assert fused_exists()


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


def field_of(kind):
    torch.manual_seed(0)
    active = torch.ones(4, 4, 4, dtype=torch.bool)
    return NerfField(BOUNDS) if kind == "nerf" else VoxelField(active, BOUNDS)


FUSED = pytest.mark.skipif(not fused_exists(), reason="not in one operation on this processor")


@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, pytest.param(1e30, marks=FUSED)])
@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_no_bad_number_is_hidden_by_a_relu(kind, bad):
    """The operation makes a NaN a 0; 1e30 is finite, but not what the next layers make of it."""
    x = torch.rand(9, 3) * 2 - 1
    for name in [name for name, _ in field_of(kind).named_parameters()]:
        field = field_of(kind)
        parameter = field.get_parameter(name)
        parameter.data.fill_(bad)
        with torch.autocast("cpu", torch.bfloat16):
            density, feature = field.geometry(x)
            rgb = field.style(feature, x, x)
        after_relu = any(head in name for head in ("raw", "density", "rgb"))
        assert (after_relu and bad > 0) or not (
            density.isfinite().all() and rgb.isfinite().all()
        ), name


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
def test_full_precision_is_left_alone(dtype):
    x, weight, bias = (v.detach().to(dtype).requires_grad_() for v in layer())
    plain = functional.relu(functional.linear(x, weight, bias))
    assert torch.equal(linear_relu(x, weight, bias), plain)
    assert torch.equal(precise_linear(x, weight, bias), functional.linear(x, weight, bias))


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_a_field_is_the_same_without_the_operation(kind, monkeypatch):
    field = field_of(kind)
    field.style.reset()
    x = torch.rand(400, 3) * 2 - 1
    d = functional.normalize(x, dim=1)

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            density, feature = field.geometry(x)
            rgb = field.style(feature, x, d)
        parameters = list(field.parameters())
        gradients = torch.autograd.grad(((rgb - x) ** 2).sum() + density.sum(), parameters)
        return torch.cat([density, rgb.flatten()]), torch.cat([g.flatten() for g in gradients])

    fast = run()
    monkeypatch.setattr(models.layers, "fused_exists", lambda: False)
    for found, plain in zip(fast, run(), strict=True):
        assert relative(found, plain) < 5e-3
