"""Gradients that are added up piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def add_gradient(
    values: Tensor, parameters: Sequence[nn.Parameter], gradient: Tensor | None = None
) -> None:
    """Adds the gradient of ``values`` to that of the parameters: all of it or, where the memory
    runs out, nothing.  (`Tensor.backward` may have added a part of it by then.)

    Args:
        values: a loss, or anything of which the loss's ``gradient`` is known.
        parameters: what ``values`` may depend on.
        gradient: of the loss with respect to ``values``, in their shape; None for the loss itself.
    """
    found = torch.autograd.grad(values, parameters, gradient, allow_unused=True)
    for parameter, new in zip(parameters, found, strict=True):
        if new is not None:
            parameter.grad = new if parameter.grad is None else parameter.grad.add_(new)
