"""Nearest-neighbour feature matching (NNFM; Zhang et al., ARF: Artistic Radiance Fields, ECCV 2022,
eq. 3): each feature of the render is compared with the most similar feature of the style."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.masked import Sums, check_features, flatten_positions, mask_like
from losses.terms import FeatureTerm

# most style features that are searched, spread evenly over the painting
MAX_STYLE_FEATURES = 1 << 12
# size of the block of the similarity matrix in memory, independent of render and style
_BLOCK_BYTES = 64 * 2**20
# added under the root of the norm, so that zero features have a gradient
_NORM_FLOOR = 1e-8
# of the distances within a painting of one flat colour, whose features are all alike
_LEAST_UNIT = 0.01


def unit_features(features: Tensor) -> Tensor:
    """Features as rows of unit length.

    Args:
        features: (B, C, h, w).

    Returns:
        (B h w, C).

    Raises:
        ValueError: for wrong shapes.
    """
    check_features(features)
    return _unit(flatten_positions(features).flatten(0, 1))


def _unit(rows: Tensor) -> Tensor:
    return rows / (rows.square().sum(dim=1, keepdim=True) + _NORM_FLOOR).sqrt()


@torch.no_grad()
def nearest_neighbours(queries: Tensor, bank: Tensor) -> Tensor:
    """For each query the row of the bank with the largest cosine similarity, block by block.

    Args:
        queries: (N, C), rows of unit length.
        bank: (M, C), rows of unit length.

    Returns:
        (N,) int64 rows of the bank.
    """
    block = max(1, _BLOCK_BYTES // (bank.shape[0] * queries.element_size()))
    # argmax takes 3 times as long
    parts = [(part @ bank.T).max(dim=1).indices for part in queries.split(block)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def nnfm_sums(
    features: Tensor, style_bank: Tensor, mask: Tensor | None = None, threshold: float = 0.05
) -> Sums:
    """Cosine distances to the nearest style features, summed over the positions in the mask.

    Args:
        features: (B, C, h, w) of the render.
        style_bank: (M, C), `unit_features` of the style.
        mask: (B, 1, H, W) in [0, 1], or None for everywhere.
        threshold: positions with a mask at or below it are ignored.

    Returns:
        value (1,), weight (1,), over the whole batch.

    Raises:
        ValueError: for wrong shapes.
    """
    weight = mask_like(features, mask).flatten()
    if style_bank.dim() != 2 or style_bank.shape[1] != features.shape[1]:
        raise ValueError(
            f"style_bank {tuple(style_bank.shape)} does not fit features {tuple(features.shape)}"
        )
    inside = (weight > threshold).nonzero().squeeze(1)
    weight = weight[inside]
    rows = _unit(flatten_positions(features).flatten(0, 1)[inside].to(weight.dtype))
    neighbours = style_bank[nearest_neighbours(rows, style_bank)]
    distance = 1 - (rows * neighbours).sum(dim=1)
    return Sums((distance * weight).sum()[None], weight.sum()[None])


def nnfm_distance(sums: Sums) -> Tensor:
    """Mean cosine distance (scalar, in [0, 2]) from `nnfm_sums`; scaled down if the total weight is
    below 1."""
    return sums.value[0] / sums.weight[0].clamp_min(1)


def nnfm_loss(
    features: Tensor, style_bank: Tensor, mask: Tensor | None = None, threshold: float = 0.05
) -> Tensor:
    """NNFM loss (scalar) of features (B, C, h, w) within a mask (B, 1, H, W); for the other
    arguments see `nnfm_sums`."""
    return nnfm_distance(nnfm_sums(features, style_bank, mask, threshold))


def mean_distance(style_bank: Tensor) -> Tensor:
    """Mean cosine distance (scalar) of all pairs of rows of ``style_bank (M, C)``, of unit length:
    ``1 - |mean|^2``."""
    return 1 - style_bank.mean(dim=0).square().sum()


class NnfmTerm(FeatureTerm):
    """Distance to the nearest style features, as a multiple of that of any two style features:
    how far features are from each other differs from network to network."""

    default_layers = ("matching",)

    def __init__(self) -> None:
        super().__init__()
        self.style_rows: list[Tensor] = []

    def add_style(self, features: Tensor) -> None:
        self.style_rows.append(unit_features(features))

    def finish_style(self) -> None:
        rows = torch.cat(self.style_rows)
        self.style_rows = []
        spread = torch.linspace(0, len(rows) - 1, min(len(rows), MAX_STYLE_FEATURES))
        self.keep("style_bank", rows[spread.round().long().to(rows.device)])
        self.keep("unit", mean_distance(self.style_bank).clamp_min(_LEAST_UNIT))

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        return nnfm_sums(features, self.style_bank, mask)

    def value(self, sums: Sums) -> Tensor:
        return nnfm_distance(sums) / self.unit
