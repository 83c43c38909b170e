"""The terms that look through the feature network, each on one layer: what it keeps of the style,
what it adds up over the places of a render, and its value as a function of those sums."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from losses.content import content_distance, content_sums
from losses.gram import gram_distance, gram_of, gram_sums
from losses.masked import Sums
from losses.nnfm import nnfm_distance, nnfm_sums, unit_features
from losses.statistics import moment_sums, statistics_distance, statistics_of

LARGEST_BANK = 1 << 14  # style features to look for neighbours in, evenly spread over the painting


class LayerTerm(nn.Module):
    """Base of the terms.  It is shown the style tile by tile with `look`, until `settle` is called;
    from then on it judges renders.

    Args:
        layer: whose features it looks at.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.seen: Sums | None = None

    def look(self, features: Tensor) -> None:
        """Takes in the features (1, C, h, w) of a tile of the style."""

    def settle(self) -> None:
        """Keeps what it needs of the style, as buffers that follow the module to its device."""

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        """What a tile of the render contributes.

        Args:
            features: (B, C, h, w) of the render.
            photo: (B, C, h, w) of the photo of the same view, or None.
            mask: (B, 1, H, W) in [0, 1], or None for everywhere.
        """
        raise NotImplementedError

    def value(self, sums: Sums) -> Tensor:
        """The term (), of the sums over the whole render."""
        raise NotImplementedError

    def shape(self, batch: int, channels: int) -> tuple[int, ...]:
        """Shape of the sums' value."""
        raise NotImplementedError

    def nothing(self, like: Tensor, channels: int) -> Sums:
        """The sums over no place at all, for renders ``like (B, ...)``."""
        shape = self.shape(len(like), channels)
        return Sums(like.new_zeros(shape), like.new_zeros(shape[0]))

    def _add(self, new: Sums) -> None:
        old = self.seen
        self.seen = new if old is None else Sums(old.value + new.value, old.weight + new.weight)

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)


class GramTerm(LayerTerm):
    """Distance of Gram matrices."""

    def look(self, features: Tensor) -> None:
        self._add(gram_sums(features))

    def settle(self) -> None:
        self._keep("gram", gram_of(self.seen))

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        return gram_sums(features, mask)

    def value(self, sums: Sums) -> Tensor:
        return gram_distance(sums, self.gram)

    def shape(self, batch: int, channels: int) -> tuple[int, ...]:
        return batch, channels, channels


class NnfmTerm(LayerTerm):
    """Distance to the nearest of the style's features."""

    def __init__(self, layer: str) -> None:
        super().__init__(layer)
        self.rows: list[Tensor] = []

    def look(self, features: Tensor) -> None:
        self.rows.append(unit_features(features))

    def settle(self) -> None:
        rows = torch.cat(self.rows)
        self.rows = []
        spread = torch.linspace(0, len(rows) - 1, min(len(rows), LARGEST_BANK))
        self._keep("bank", rows[spread.round().long().to(rows.device)])

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        return nnfm_sums(features, self.bank, mask)

    def value(self, sums: Sums) -> Tensor:
        return nnfm_distance(sums)

    def shape(self, batch: int, channels: int) -> tuple[int, ...]:
        return (1,)


class StatisticsTerm(LayerTerm):
    """Distance of means and standard deviations."""

    def __init__(self, layer: str) -> None:
        super().__init__(layer)
        self.centre: Tensor | None = None

    def look(self, features: Tensor) -> None:
        if self.centre is None:
            self.centre = features.mean(dim=(2, 3))
        self._add(moment_sums(features, self.centre))

    def settle(self) -> None:
        mean, std = statistics_of(self.seen, self.centre)
        self._keep("mean", mean)
        self._keep("std", std)

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        return moment_sums(features, self.mean, mask)

    def value(self, sums: Sums) -> Tensor:
        return statistics_distance(sums, self.mean, self.std)

    def shape(self, batch: int, channels: int) -> tuple[int, ...]:
        return batch, 2, channels


class ContentTerm(LayerTerm):
    """Distance to the photo; knows nothing of the style."""

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        return content_sums(features, photo, mask)

    def value(self, sums: Sums) -> Tensor:
        return content_distance(sums)

    def shape(self, batch: int, channels: int) -> tuple[int, ...]:
        return batch, channels


LAYER_TERMS: dict[str, type[LayerTerm]] = {
    "gram": GramTerm,
    "nnfm": NnfmTerm,
    "statistics": StatisticsTerm,
    "content": ContentTerm,
}
