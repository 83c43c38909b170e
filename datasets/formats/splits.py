"""Which views are kept from training, for validation and test."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch

from datasets.formats.frames import Frame
from utils.errors import UserError

log = logging.getLogger(__name__)

HOLD_OUT = 8  # one of so many, as is usual for real captures
Entry = TypeVar("Entry")


def split_frames(
    root_dir: Path, frames: list[Frame], hold_out: float = HOLD_OUT
) -> dict[str, list[Frame]]:
    """Training frames, and the others, which serve as validation and as test.

    Args:
        root_dir: for messages.
        frames: in the capture's order.
        hold_out: n >= 2 keeps every n-th from the first on, a number below 1 that fraction of the
            frames, evenly spread, and 0 the single one nearest to the middle of the cameras.

    Raises:
        UserError: ``hold_out`` is something else.
    """
    count = len(frames)
    if hold_out == 0:
        held = {_most_central(frames)}
    elif 0 < hold_out < 1:
        number = min(max(1, round(hold_out * count)), count)
        held = {math.floor((i + 0.5) * count / number) for i in range(number)}
    elif hold_out >= 2 and hold_out == int(hold_out):
        held = set(range(0, count, int(hold_out))) if count >= hold_out else set()
    else:
        raise UserError(
            f"--hold_out {hold_out:g}: give a whole number from 2 on (every n-th view is kept for "
            "test), a fraction below 1, or 0 (the view nearest to the middle)"
        )
    if not held or len(held) == count:
        log.warning("%s: few views; one of the training views is used for test", root_dir)
        middle = [frames[count // 2]]
        return {"train": frames, "val": middle, "test": middle}
    train, test = _divided(frames, held)
    return {"train": train, "val": test, "test": test}


def _divided(entries: Sequence[Entry], held: set[int]) -> tuple[list[Entry], list[Entry]]:
    """Those not in ``held``, and those in it."""
    kept = [entry for i, entry in enumerate(entries) if i not in held]
    return kept, [entry for i, entry in enumerate(entries) if i in held]


def _most_central(frames: Sequence[Frame]) -> int:
    eyes = torch.stack([frame.c2w[:, 3] for frame in frames])
    return int((eyes - eyes.mean(dim=0)).norm(dim=1).argmin())
