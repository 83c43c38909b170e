"""Views as the modes of stage 2 want them: small ones, and the patches of one."""

from __future__ import annotations

from datasets.scene import View
from utils.images import resize, to_uint8

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
    if (height, width) == (view.height, view.width):
        return view, pool
    image = resize(view.image.float() / 255, width, height)
    valid = view.valid
    if valid is not None:
        # a pixel is as valid as all that went into it
        valid = resize(valid[..., None].float(), width, height)[..., 0] > 1 - 1e-5
    sx, sy = width / view.width, height / view.height
    small = View(
        to_uint8(image),
        None,
        view.c2w,
        view.fx * sx,
        view.fy * sy,
        view.cx * sx,
        view.cy * sy,
        view.name,
        valid,
    )
    return small, pool


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
