"""A linear layer with its ReLU in one operation, where the processor multiplies bfloat16 matrices.

There the product is so quick that adding the bias and bending the result afterwards cost as much
as the product itself.  oneDNN does both while the result is still in the registers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


def linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``relu(x @ weight.T + bias)``: ``x (M, I)``, ``weight (O, I)``, ``bias (O,)`` -> (M, O).

    In autocast's type, if it is on; gradients of the weights come in the weights' own.
    """
    if not _is_fused(x):
        return functional.relu(functional.linear(x, weight, bias))
    x = x.to(torch.bfloat16)
    if torch.is_grad_enabled():
        return _LinearReLU.apply(x, weight, bias)
    return _fused(x, weight.to(x.dtype), bias.to(x.dtype))


def precise_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight.T + bias`` in the type of the weights, also under autocast: for outputs that a
    bfloat16 is too coarse for.  Gradients, which are but a mean over samples, in that of ``x``."""
    with torch.autocast(x.device.type, enabled=False):
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.is_grad_enabled():
            return _PreciseLinear.apply(x, weight, bias)
        return functional.linear(x.to(weight.dtype), weight, bias)


@torch.no_grad()
def alarm(x: Tensor, layers: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """() 0, or NaN where a number in ``x`` or in the weights and biases of ReLU ``layers`` is not
    finite, or could grow infinite on its way through them.

    In one operation a layer makes a NaN a 0.  This, added to what follows the last of the layers,
    lets no such 0 pass: a row of ``W x + b`` is at most ``(|W| + |b| + 1) max(|x|, 1)`` long.
    """
    if not _is_fused(x):
        return torch.zeros((), device=x.device)
    norms = torch._foreach_norm([x.flatten(), *(part for layer in layers for part in layer)])
    return (torch.stack([norm.float() for norm in norms]) + 1).prod() * 0


def _is_fused(x: Tensor) -> bool:
    """Whether `linear_relu` of ``x`` is one operation."""
    on = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if on else x.dtype
    return x.device.type == "cpu" and dtype == torch.bfloat16 and fused_exists()


@cache
def fused_exists() -> bool:
    """Whether this PyTorch has the operation that `torch.compile` uses, and the processor bf16."""
    mkldnn = torch.ops.mkldnn
    names = ("_linear_pointwise", "_is_mkldnn_bf16_supported")
    return all(hasattr(mkldnn, name) for name in names) and mkldnn._is_mkldnn_bf16_supported()


def _fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
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
    """Without a second copy of ``x`` for the backward pass."""

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
