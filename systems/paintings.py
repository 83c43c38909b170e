"""The paintings of a run: files, names, statistics of their features, and codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from losses.style_image import prepare_style
from models.checkpoint import style_name
from models.style_vae import fit_style_vae
from models.stylizer import Moments
from utils.checkpoint import digest
from utils.images import read_painting

CROPS = 64  # of each painting, whose statistics its distribution of codes is learned from
LEAST_CROP = 0.4  # of a painting's sides
VAE_STEPS = 300


@dataclass(frozen=True)
class Painting:
    """One painting.

    Attributes:
        name: of its style.
        file: that it was read from.
        rgb: (H, W, 3) uint8.
        digest: of its pixels.
    """

    name: str
    file: Path
    rgb: Tensor
    digest: str

    def image(self, size: int) -> Tensor:
        """(1, 3, h, w) in [0, 1], its shorter side ``size`` pixels long."""
        return prepare_style(self.rgb, size)


def read_paintings(files: list[Path]) -> list[Painting]:
    """All of them, or the first that cannot be read is named.

    Two files whose names differ in their extension alone keep it in their styles' names.

    Raises:
        UserError: a file is damaged, or called like the photographic colours.
    """
    stems = [style_name(file) for file in files]
    paintings = []
    for file, stem in zip(files, stems, strict=True):
        rgb = torch.from_numpy(read_painting(file))
        name = stem if stems.count(stem) == 1 else file.name
        paintings.append(Painting(name, file, rgb, digest({"rgb": rgb})))
    return paintings


@torch.no_grad()
def part_statistics(features: Tensor, generator: torch.Generator) -> Tensor:
    """Statistics of a painting's features (1, C, h, w) and those of `CROPS` parts of it, as rows
    (1 + CROPS, 2 C).

    Args:
        generator: draws the parts.
    """
    rows = [Moments.of(features).statistics().vector()]
    for _ in range(CROPS):
        share = LEAST_CROP + (1 - LEAST_CROP) * torch.rand(2, generator=generator)
        sides = [
            max(1, int(s * n)) for s, n in zip(share.tolist(), features.shape[2:], strict=True)
        ]
        room = [n - side + 1 for n, side in zip(features.shape[2:], sides, strict=True)]
        at = [int(torch.randint(n, (), generator=generator)) for n in room]
        part = features[:, :, at[0] : at[0] + sides[0], at[1] : at[1] + sides[1]]
        rows.append(Moments.of(part).statistics().vector())
    return torch.stack(rows)


@torch.no_grad()
def code_distributions(rows: list[Tensor], seed: int) -> list[tuple[Tensor, Tensor]]:
    """Mean and log variance (C,) of the codes of each painting.

    Args:
        rows: statistics (N, 2 C) of each painting, the whole one first, and parts of it.
        seed: of the autoencoder's training.
    """
    vae = fit_style_vae(torch.cat(rows).cpu(), VAE_STEPS, seed)
    return [vae.encode(of_one[0].cpu()) for of_one in rows]
