"""Views as the modes of stage 2 want them: small ones, and the patches of one."""

from __future__ import annotations

from collections.abc import Sequence

from datasets.scene import View

LARGEST_POOL = 4  # rays along the side of a pixel of `small`


def shrunk(view: View, shorter: int) -> tuple[View, int]:
    """The view reduced so that averaging k x k of its pixels makes its shorter side about
    ``shorter`` pixels long, and k.

    A small picture of one ray a pixel would miss most of the field and flicker from view to view;
    k x k rays a pixel see what a camera with so few pixels sees.
    """
    pool = max(1, min(LARGEST_POOL, min(view.height, view.width) // shorter))
    scale = min(1.0, shorter * pool / min(view.height, view.width))
    height, width = (max(1, round(n * scale / pool)) * pool for n in (view.height, view.width))
    return view.resized(width, height), pool


def patches(size: tuple[int, int], side: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(top, left), (height, width) of the patches that tile an image in raster order.

    The last row and column of patches are moved inwards where ``side`` does not divide the image,
    and a patch is no larger than the image.
    """
    height, width = size
    rows, columns = min(side, height), min(side, width)
    return [
        ((min(top, height - rows), min(left, width - columns)), (rows, columns))
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]


def in_words(views: Sequence[View]) -> str:
    """How many views there are, and of which size.

    >>> import torch
    >>> view = View(torch.zeros(2, 3, 3), None, torch.eye(3, 4), 1.0, 1.0, 1.5, 1.0, "a")
    >>> in_words([view])
    '1 view of 3x2'
    """
    sizes = {f"{view.width}x{view.height}" for view in views}
    size = sizes.pop() if len(sizes) == 1 else "several sizes"
    return f"{len(views)} view{'s' if len(views) > 1 else ''} of {size}"
