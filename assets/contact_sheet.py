"""Pictures of several methods side by side: a row for each with its painting, columns of views, and
a crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from utils.images import resize, to_uint8

COLUMNS = 4  # views, at most
LARGEST = 240  # pixels, of a view's longer side on the sheet
MARGIN, LABEL = 6, 16  # pixels, between pictures, and of the line above a row


@dataclass(frozen=True)
class Row:
    """A row of a sheet.

    Attributes:
        name: of the method.
        views: (H, W, 3) uint8 each; at least one.
        painting: (H, W, 3) uint8, or None: its place stays empty.
    """

    name: str
    views: Sequence[Tensor]
    painting: Tensor | None = None


def shown_of(count: int) -> list[int]:
    """Which of ``count`` views are on a sheet: at most `COLUMNS`, evenly."""
    return list(range(0, count, -(-count // COLUMNS)))


def contact_sheet(rows: Sequence[Row]) -> Tensor:
    """A sheet of pictures.

    Args:
        rows: one or more, all with the same views.  Views of another size than the first row's are
            brought to it.

    Returns:
        (H, W, 3) uint8: for each row a line with its name, then its painting, if any row has one,
        its views, and the middle of the first of them at full size or, of small pictures, twice
        that.
    """
    height, width = rows[0].views[0].shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    small = round(width * scale), round(height * scale)
    zoom = 1 if scale < 1 else 2
    shown = small[0] // zoom, small[1] // zoom
    top, left = (height - shown[1]) // 2, (width - shown[0]) // 2
    gap = torch.ones(small[1], MARGIN, 3)
    painted = any(row.painting is not None for row in rows)
    strips = []
    for row in rows:
        views = [resize(view.float() / 255, width, height) for view in row.views]
        crop = views[0][top : top + shown[1], left : left + shown[0]]
        crop = crop.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
        cells = [_fitted(row.painting, *small)] if painted else []
        cells += [resize(view, *small) for view in views] + [_filled(crop, *small)]
        strip = torch.cat([x for cell in cells for x in (gap, cell)] + [gap], 1)
        strips += [_label(row.name, strip.shape[1]), to_uint8(strip)]
    return torch.cat([*strips, torch.full((MARGIN, strips[0].shape[1], 3), 255).byte()])


def _fitted(picture: Tensor | None, width: int, height: int) -> Tensor:
    """The whole picture (H, W, 3) uint8 in a white (height, width, 3); None: white alone."""
    if picture is None:
        return torch.ones(height, width, 3)
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(side * scale)) for side in (picture.shape[1], picture.shape[0]))
    return _filled(resize(picture.float() / 255, *size), width, height)


def _filled(picture: Tensor, width: int, height: int) -> Tensor:
    """A picture (H, W, 3) in [0, 1] with white to its right and below it, as (height, width, 3)."""
    right, below = width - picture.shape[1], height - picture.shape[0]
    return functional.pad(picture, (0, 0, 0, right, 0, below), value=1.0)


def _label(name: str, width: int) -> Tensor:
    """A white line (LABEL, width, 3) uint8 with a name in it."""
    line = Image.new("RGB", (width, LABEL), "white")
    ImageDraw.Draw(line).text((MARGIN, 2), name, fill="black")
    return torch.frombuffer(bytearray(line.tobytes()), dtype=torch.uint8).view(LABEL, width, 3)
