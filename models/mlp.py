"""The fully connected network of NeRF, its positional encoding, and what makes it fast on a CPU.

Three things are different from a list of `nn.Linear` and `nn.ReLU`, each with the plain form as its
twin in the tests:

* `in_blocks`: rows pass through the whole network some thousands at a time, so that the layers'
  outputs stay in the processor's cache.
* `linear_relu`: a layer and its ReLU are one fused operation; two separate ones would take twice as
  long in bfloat16, half as long again or more in single precision.
* `nan_guard`: the fused operation turns a NaN into a 0; the guard restores the NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

Tensors = tuple[Tensor, ...]
LayerWeights = tuple[Tensor, Tensor]  # weight (O, I) and bias (O,)


def encoded_width(width: int, n_frequencies: int) -> int:
    """Channels that `positional_encoding` makes of ``width`` input channels."""
    return width * (1 + 2 * n_frequencies)


def positional_encoding(x: Tensor, n_frequencies: int) -> Tensor:
    """``[x, sin(2^0 x), cos(2^0 x), ..., sin(2^(L-1) x), cos(2^(L-1) x)]`` (Mildenhall et al. 2020,
    eq. 4, with the raw input and without the factor pi).

    Args:
        x: (..., D).
        n_frequencies: L; 0 gives x itself.

    Returns:
        (..., D * (1 + 2 L)).

    >>> positional_encoding(torch.zeros(5, 3), n_frequencies=10).shape
    torch.Size([5, 63])
    """
    if n_frequencies == 0:
        return x
    phases, frequencies = _waves(x.shape[-1], n_frequencies, x.device, x.dtype)
    # cosines are sines of a shifted angle: all of them at once
    repeated = torch.cat([x] * (2 * n_frequencies), dim=-1)
    return torch.cat([x, torch.addcmul(phases, repeated, frequencies).sin_()], dim=-1)


@cache
def _waves(width: int, n: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Phases and frequencies (2 n width,) of the sines and cosines of ``width`` channels."""
    phases = torch.tensor([0, torch.pi / 2], dtype=dtype).repeat_interleave(width).repeat(n)
    frequencies = 2.0 ** torch.arange(n, dtype=dtype).repeat_interleave(2 * width)
    return phases.to(device), frequencies.to(device)


class MLP(nn.Module):
    """Hidden layers with ReLUs, and a last layer without: ``widths[0] -> ... -> widths[-1]``.

    The last layer is computed in single precision even under autocast: bfloat16 has too few digits
    for densities and colours.

    Args:
        widths: channels of the encoded input, of every hidden layer, and of the output.
        skip: index (from 0) of the hidden layer whose input is the encoded input concatenated with
            the previous layer's output; None: no skip connection.
        encode: maps the arguments of `forward` to one tensor of encoded inputs; None: `forward`
            takes one tensor, used as it is.
        rows: rows per block on a CPU, see `in_blocks`.

    >>> trunk = MLP([63, *[256] * 8, 1], skip=4)
    >>> trunk(torch.zeros(5, 63)).shape
    torch.Size([5, 1])
    """

    def __init__(
        self,
        widths: Sequence[int],
        skip: int | None = None,
        encode: Callable[..., Tensor] | None = None,
        rows: int = 1 << 13,
    ) -> None:
        super().__init__()
        self.skip = skip
        self.encode = encode or (lambda x: x)
        self.rows = rows
        n_in, *hidden, n_out = widths
        inputs = [n_in, *hidden[:-1]]
        if skip is not None:
            inputs[skip] += n_in
        self.layers = nn.ModuleList(map(nn.Linear, inputs, hidden))
        self.out = nn.Linear(hidden[-1], n_out)

    def forward(self, *inputs: Tensor, first: LayerWeights | None = None) -> Tensor:
        """Runs the network.

        Args:
            inputs: arguments of ``encode``, tensors with M rows each.
            first: weight and bias that replace those of the first layer.  A caller uses it to fold
                in an input that is the same for all rows, or a preceding linear layer.

        Returns:
            (M, widths[-1]).
        """
        layers = self._layers(first)
        (out,) = in_blocks(lambda *x: self._run(layers, x)[:1], self.rows, *inputs)
        return _guarded(out, inputs, layers)

    def with_hidden(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The output (M, widths[-1]) and the last hidden layer (M, widths[-2])."""
        layers = self._layers(None)
        out, hidden = in_blocks(lambda *x: self._run(layers, x), self.rows, *inputs)
        return _guarded(out, inputs, layers), hidden

    def hidden(self, *inputs: Tensor) -> Tensor:
        """The last hidden layer (M, widths[-2]); without the NaN guard: a NaN in the inputs or the
        weights may come out as 0."""
        layers = self._layers(None)
        return in_blocks(lambda *x: (self._hidden(layers, x),), self.rows, *inputs)[0]

    def _layers(self, first: LayerWeights | None) -> list[LayerWeights]:
        layers = [(layer.weight, layer.bias) for layer in self.layers]
        return layers if first is None else [first, *layers[1:]]

    def _hidden(self, layers: list[LayerWeights], inputs: Tensors) -> Tensor:
        x = h = self.encode(*inputs)
        for i, (weight, bias) in enumerate(layers):
            if i == self.skip:
                h = torch.cat([x.to(h.dtype), h], -1)
            h = linear_relu(h, weight, bias)
        return h

    def _run(self, layers: list[LayerWeights], inputs: Tensors) -> tuple[Tensor, Tensor]:
        h = self._hidden(layers, inputs)
        return precise_linear(h, self.out.weight, self.out.bias), h


def in_blocks(network: Callable[..., Tensors], rows: int, *inputs: Tensor) -> Tensors:
    """``network(*inputs)``, on a CPU for ``rows`` rows at a time.

    Args:
        network: treats every row independently, so that blocks give the same results as all rows
            at once.
        inputs: tensors (M, ...).

    Returns:
        The network's tensors (M, ...).
    """
    n = len(inputs[0])
    if inputs[0].is_cuda or n <= rows:
        return network(*inputs)
    blocks = zip(*(_split(x, rows) for x in inputs), strict=True)
    if torch.is_grad_enabled():
        parts = [network(*block) for block in blocks]
        return tuple(torch.cat(results)[:n] for results in zip(*parts, strict=True))
    results: Tensors = ()
    for start, block in zip(range(0, n, rows), blocks, strict=True):
        parts = network(*block)
        if not results:
            results = tuple(part.new_empty(n, *part.shape[1:]) for part in parts)
        for whole, part in zip(results, parts, strict=True):
            whole[start : start + rows] = part[: n - start]
    return results


def _split(x: Tensor, rows: int) -> list[Tensor]:
    """Blocks of ``rows`` rows of ``x``, the last padded with zeros: the first matrix product of a
    new size costs more."""
    *whole, last = x.split(rows)
    return [*whole, functional.pad(last, (0, 0, 0, rows - len(last)))]


def linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``relu(x @ weight.T + bias)``: ``x (M, I)``, ``weight (O, I)``, ``bias (O,)`` -> (M, O).

    Computed in autocast's dtype where autocast is on; the weights' gradients have the weights'
    dtype.
    """
    dtype = _product_dtype(x)
    if not _is_fused(x.device, dtype):
        return functional.relu(functional.linear(x, weight, bias))
    x = x.to(dtype)
    if torch.is_grad_enabled():
        return _LinearReLU.apply(x, weight, bias)
    return _fused(x, weight.to(dtype), bias.to(dtype))


def precise_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight.T + bias`` in the dtype of the weights, even under autocast.

    The gradients, which average over many rows, are computed in the dtype of ``x``.

    Args:
        x: (M, I).
        weight: (O, I).
        bias: (O,).

    Returns:
        (M, O).
    """
    with torch.autocast(x.device.type, enabled=False):
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.is_grad_enabled():
            return _PreciseLinear.apply(x, weight, bias)
        return functional.linear(x.to(weight.dtype), weight, bias)


def _guarded(out: Tensor, inputs: Sequence[Tensor], layers: Sequence[LayerWeights]) -> Tensor:
    """``out``, or NaN if the fused operations may have lost one."""
    x = inputs[0]
    return out + nan_guard(inputs, layers) if _is_fused(x.device, _product_dtype(x)) else out


@torch.no_grad()
def nan_guard(inputs: Sequence[Tensor], layers: Sequence[LayerWeights]) -> Tensor:
    """Scalar: 0 if every value is finite and the bound on the output's norm is finite too,
    otherwise NaN.

    The bound: the norm of a row of ``W x + b`` is at most ``(|W| + |b| + 1) max(|x|, 1)``.

    Args:
        inputs: tensors of any shape.
        layers: weight (O, I) and bias (O,) of each layer.
    """
    x = inputs[0]
    if not _is_fused(x.device, _product_dtype(x)):
        return torch.zeros((), device=x.device)
    parts = [part for layer in layers for part in layer]
    norms = torch._foreach_norm([*(x.flatten() for x in inputs), *parts])
    return (torch.stack([norm.float() for norm in norms]) + 1).prod() * 0


def _product_dtype(x: Tensor) -> torch.dtype:
    """Of the products of ``x`` with weights."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _is_fused(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `linear_relu` runs as one fused operation."""
    return device.type == "cpu" and fused_exists(dtype)


@cache
def fused_exists(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has oneDNN's fused linear layer, which `torch.compile` uses, and the
    processor multiplies matrices of this type by it."""
    mkldnn = torch.ops.mkldnn
    if not (hasattr(mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()):
        return False
    if dtype == torch.bfloat16:
        return hasattr(mkldnn, "_is_mkldnn_bf16_supported") and mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


def _fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # with a weight of some columns of a larger one oneDNN takes a thousand times as long
    weight = weight.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu", [], "")


class _LinearReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN001
        rounded = weight.to(x.dtype)
        out = _fused(x, rounded, bias.to(x.dtype))
        ctx.save_for_backward(x, rounded, out)
        ctx.dtype = weight.dtype
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
        x, weight, out = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            grad @ weight if of_x else None,
            (grad.T @ x).to(ctx.dtype) if of_weight else None,
            grad.sum(0).to(ctx.dtype) if of_bias else None,
        )


class _PreciseLinear(torch.autograd.Function):
    """`precise_linear` that saves ``x`` in its own dtype, not a second copy in the weights'."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN001
        ctx.save_for_backward(x, weight)
        return functional.linear(x.to(weight.dtype), weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rounded = grad.to(x.dtype)
        return (
            rounded @ weight.to(x.dtype) if of_x else None,
            (rounded.T @ x).to(weight.dtype) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )
