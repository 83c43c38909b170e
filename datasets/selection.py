"""Which of the training photos are learned from: few of them, for studies of few views."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from datasets.cameras.poses import around_look_at
from utils.errors import UserError


class Posed(Protocol):
    """What has a name and a pose: a frame or a view."""

    name: str
    c2w: Tensor


PosedT = TypeVar("PosedT", bound=Posed)


@dataclass(frozen=True)
class Selection:
    """Of all training photos those that are kept; the others are never opened, so that no mask and
    no bound of theirs reaches the scene.

    Attributes:
        few_shot: how many to draw; None: all.
        shuffle_seed: of the draw, which is DietNeRF's: the first of a NumPy permutation (Jain et
            al. 2021: of 100 photos with seed 0 the numbers 26, 86, 2, 55, 75, 93, 16 and 73).
        names: which to take, by name or number from 0; (): not by name.
        side: "left" or "right": only those from that half of space, see `seen_from`; drawn from
            these.

    >>> from datasets.formats.frames import Frame
    >>> views = [Frame(None, torch.eye(3, 4), None, str(i)) for i in range(100)]
    >>> [view.name for view in Selection(few_shot=4).of(views)]
    ['26', '86', '2', '55']
    """

    few_shot: int | None = None
    shuffle_seed: int = 0
    names: tuple[str, ...] = ()
    side: str = "none"

    @property
    def takes_all(self) -> bool:
        """Whether nothing is left out."""
        return self.few_shot is None and not self.names and self.side == "none"

    def of(self, frames: Sequence[PosedT]) -> list[PosedT]:
        """The frames that are kept, in the order of the draw or of the names.

        Raises:
            UserError: there are not as many, or none of a name, or none on the side.
        """
        chosen = list(frames)
        if self.names:
            chosen = [chosen[i] for i in dict.fromkeys(_numbers_of(self.names, chosen))]
        if self.side != "none":
            kept = seen_from(torch.stack([frame.c2w for frame in chosen]), self.side)
            chosen = [frame for frame, keep in zip(chosen, kept.tolist(), strict=True) if keep]
        if self.few_shot is None:
            return chosen
        if self.few_shot > len(chosen):
            where = "" if self.side == "none" else f" on the {self.side}"
            raise UserError(
                f"--few_shot {self.few_shot}: training photos{where}: {len(chosen)}; "
                "give a smaller number"
            )
        order = np.random.RandomState(self.shuffle_seed).permutation(len(chosen))
        return [chosen[i] for i in order[: self.few_shot]]


EVERYTHING = Selection()


def seen_from(c2w: Tensor, side: str) -> Tensor:
    """Which cameras stand on one side of the vertical plane through the first camera and the point
    that all look at, as the first camera sees it, which is on both.

    Args:
        c2w: (V, 3, 4) camera-to-world, OpenGL axes.
        side: "left" or "right".

    Returns:
        (V,) bool.
    """
    centre, axes, scale = around_look_at(c2w)
    aside = scale * (c2w[:, :, 3] - centre) @ axes[:, 0]
    slack = 1e-4  # of the cameras' distance: the first one is in the plane
    return aside <= slack if side == "left" else aside >= -slack


def _numbers_of(names: Sequence[str], frames: Sequence[Posed]) -> list[int]:
    known = [frame.name for frame in frames]
    for name in names:
        if name not in known and not (name.isdecimal() and int(name) < len(known)):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the first is {known[0]}"
            raise UserError(
                f"--views {name}: no training photo of that name, and no number from 0 to "
                f"{len(known) - 1}; {hint}"
            )
    return [known.index(name) if name in known else int(name) for name in names]
