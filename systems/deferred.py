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
from torch import Tensor, nn

from utils.chunks import Chunks
from utils.team import ALONE, Team

Render = Callable[[slice], Tensor]
Terms = dict[str, Tensor]
ImageGradient = Callable[[Tensor], tuple[Terms, Tensor]]


def deferred_backward(
    render: Render,
    n: int,
    chunks: Chunks,
    image_gradient: ImageGradient,
    parameters: Sequence[nn.Parameter],
    team: Team = ALONE,
) -> Terms:
    """Adds the gradient of a loss of all pixels together to that of ``parameters``.

    What fits into one chunk is rendered once, its graph kept.

    Args:
        render: slice of pixels -> (n, 3) colours, differentiable; a pure function; or (n, 6) of two
            images.
        n: number of pixels.
        chunks: how many pixels' graphs are in memory at a time.
        image_gradient: colours (n, 3) -> named terms, and the gradient (n, 3) of their sum.
        parameters: what the colours depend on.
        team: processes that share the pixels; each gets the gradient through its own.

    Returns:
        The terms.
    """

    def at_once() -> Terms:
        colours = render(slice(0, n))
        terms, gradient = image_gradient(colours.detach())
        add_gradient(colours, parameters, gradient)
        return terms

    if team.size == 1 and chunks.fit(n):
        try:
            return at_once()
        except torch.OutOfMemoryError:
            if n <= 1:
                raise
        chunks.shrink(n)
    own = team.part(n)
    with torch.no_grad():
        parts = chunks.over(own, render)
    colours = torch.cat([*parts, render(slice(0, 0)).detach()])
    if team.size > 1:
        mine, colours = colours, colours.new_zeros(n, colours.shape[1])
        colours[own] = mine
        team.add(colours)
    terms, gradient = image_gradient(colours)
    chunks.over(own, lambda part: add_gradient(render(part), parameters, gradient[part]))
    return terms


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
