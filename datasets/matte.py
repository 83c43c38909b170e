"""Masks from photos of an object on a plain background, where the files have none."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from datasets.scene import View

SAME = 1  # 8-bit levels by which the background may differ from its colour
DISTINCT = 24  # from it, of a pixel that is surely the object's
UNKNOWN = 128  # alpha of what may be either


def cut_out(view: View, background: Tensor) -> View:
    """The view with an alpha channel made from its colours.

    Background, alpha 0, is what has the plain colour and is connected with the image's sides: what
    has that colour inside of the object may be the object.  Surely the object, alpha 255, is what
    differs clearly, and so do its eight neighbours.  All else is in between.

    Args:
        view: without alpha.
        background: (3,) in [0, 1].
    """
    level = (255.0 * background).round()
    distance = (view.image.float() - level).abs().amax(dim=2)
    outside = reached_from_sides(distance <= SAME)
    distinct = (distance > DISTINCT).float()[None, None]
    inside = -functional.max_pool2d(-distinct, 3, stride=1, padding=1)[0, 0] > 0
    alpha = torch.full(outside.shape, UNKNOWN, dtype=torch.uint8)
    alpha[inside] = 255
    alpha[outside] = 0
    return replace(view, alpha=alpha)


def reached_from_sides(free: Tensor) -> Tensor:
    """The pixels of ``free (H, W) bool`` that are connected with the image's sides by steps to a
    free pixel above, below, left or right; (H, W) bool."""
    free = functional.pad(free, [1] * 4, value=True)  # everything outside of the image is free
    reached = functional.pad(torch.zeros_like(free[1:-1, 1:-1]), [1] * 4, value=True)
    before = -1
    while before != (before := int(reached.count_nonzero())):
        reached = _along_rows(free, reached)
        reached = _along_rows(free.T, reached.T).T
    return reached[1:-1, 1:-1]


def _along_rows(free: Tensor, reached: Tensor) -> Tensor:
    """Whole runs of free pixels in a row with a pixel that is reached."""
    # a run goes on from the end of a row to the next one's start: the frame is reached anyway
    run = (~free).flatten().cumsum(0)
    hit = torch.zeros(int(run[-1]) + 1, dtype=torch.bool)
    hit[run[reached.flatten()]] = True
    return hit[run].view(free.shape) & free
