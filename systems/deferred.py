"""Deferred back-propagation (ARF, Zhang et al. 2022, section 4.3), exact.

The loss of a whole image needs all of its pixels; their graphs together need more memory than
there is.  So: render without a graph, take the loss's gradient with respect to the pixels, and
send it through the field chunk by chunk.  Rendering is a function of fixed samples, so the chunks
render the very pixels that the gradient belongs to, and the sum of their gradients is the whole
image's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Shade = Callable[[slice], Tensor]
ImageLoss = Callable[[Tensor], dict[str, Tensor]]


def chunks_of(n: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` that cover ``range(n)``."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def deferred_backward(
    shade: Shade, chunks: Sequence[slice], image_loss: ImageLoss
) -> tuple[dict[str, Tensor], Tensor]:
    """Accumulates the gradient of ``sum(image_loss(pixels))`` in the parameters behind ``shade``.

    Args:
        shade: slice of pixels -> (n, 3) colours, differentiable; a pure function.
        chunks: slices that cover the image in order.
        image_loss: pixels (N, 3) -> named scalars whose sum is the loss.

    Returns:
        The detached terms, and the image (N, 3) they were computed of.
    """
    with torch.no_grad():
        pixels = torch.cat([shade(chunk) for chunk in chunks])
    pixels.requires_grad_()
    terms = image_loss(pixels)
    (gradient,) = torch.autograd.grad(sum(terms.values()), pixels)
    for chunk in chunks:
        part = gradient[chunk]
        if part.any():
            colours = shade(chunk)
            if colours.requires_grad:
                colours.backward(part)
    return {name: value.detach() for name, value in terms.items()}, pixels.detach()
