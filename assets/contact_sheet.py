"""Pictures of several methods side by side: a row for each, columns of views, and a crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from utils.images import read_image, resize, to_uint8

COLUMNS = 4  # views, at most
LARGEST = 240  # pixels, of a view's longer side on the sheet
MARGIN, LABEL = 6, 16  # pixels, between pictures, and of the line above a row


def contact_sheet(rows: Mapping[str, Sequence[Path]]) -> Tensor:
    """A sheet of pictures.

    Args:
        rows: by the method's name its views, all in the same order; what others have and one has
            not is left out.  Views of another size than the first method's are brought to it.

    Returns:
        (H, W, 3) uint8: for each method a line with its name, then at most `COLUMNS` views, evenly,
        and the middle of the first of them at full size or, of small pictures, twice that.
    """
    count = min(len(views) for views in rows.values())
    chosen = list(range(0, count, -(-count // COLUMNS)))
    pictures = {
        name: [torch.from_numpy(read_image(views[i])[0]).float() / 255 for i in chosen]
        for name, views in rows.items()
    }
    first = next(iter(pictures.values()))[0]
    height, width = first.shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    small = round(width * scale), round(height * scale)
    zoom = 1 if scale < 1 else 2
    shown = small[0] // zoom, small[1] // zoom
    top, left = (height - shown[1]) // 2, (width - shown[0]) // 2
    strips = []
    for name, views in pictures.items():
        views = [resize(view, width, height) for view in views]
        crop = views[0][top : top + shown[1], left : left + shown[0]]
        crop = crop.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
        crop = functional.pad(crop, (0, 0, 0, small[0] - zoom * shown[0]), value=1.0)
        crop = torch.cat([crop, torch.ones(small[1] - zoom * shown[1], small[0], 3)])
        cells = [resize(view, *small) for view in views]
        gap = torch.ones(small[1], MARGIN, 3)
        strip = torch.cat([x for cell in [*cells, crop] for x in (gap, cell)] + [gap], 1)
        strips += [_label(name, strip.shape[1]), to_uint8(strip)]
    return torch.cat([*strips, torch.full((MARGIN, strips[0].shape[1], 3), 255).byte()])


def _label(name: str, width: int) -> Tensor:
    """A white line (LABEL, width, 3) uint8 with a name in it."""
    line = Image.new("RGB", (width, LABEL), "white")
    ImageDraw.Draw(line).text((MARGIN, 2), name, fill="black")
    return torch.frombuffer(bytearray(line.tobytes()), dtype=torch.uint8).view(LABEL, width, 3)
