"""Base classes of the terms of the style objective: distances of features, distances of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from losses.masked import Sums
from utils.sums import total_of


class FeatureTerm(nn.Module):
    """A term on one layer of the feature network.

    Images are processed tile by tile: `add_style` is called with each tile of the style image and
    `finish_style` after the last; then `sums` with each tile of a render, and `value` with the
    total of these sums.

    Attributes:
        default_layers: layers that it is taken of, by name or by role, see `FeatureNetwork`,
            unless the objective is told otherwise.
        needs_photo: whether it compares the render with the photo of the same view.
    """

    default_layers: ClassVar[tuple[str, ...]]
    needs_photo: ClassVar[bool] = False

    def add_style(self, features: Tensor) -> None:
        """Adds the features (1, C, h, w) of a tile of the style image."""

    def finish_style(self) -> None:
        """Stores the style's targets as buffers, which follow the module to its device and are not
        saved."""

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        """The contribution of a tile of a render.

        Args:
            features: (B, C, h, w) of the render; h and w may be 0.
            photo: (B, C, h, w) of the photo of the same view; None unless `needs_photo`.
            mask: (B, 1, H, W) in [0, 1], or None for everywhere.
        """
        raise NotImplementedError

    def value(self, sums: Sums) -> Tensor:
        """The term (scalar) from the `sums` over a whole render, value (B, ...) and weight (B,)."""
        raise NotImplementedError

    @staticmethod
    def total(terms: Sequence[FeatureTerm], sums: Sequence[Sums]) -> Tensor:
        """The sum of the values of several layers' terms, which are all of one class."""
        return total_of(term.value(own) for term, own in zip(terms, sums, strict=True))

    def keep(self, name: str, value: Tensor) -> None:
        """Registers a tensor of any shape as a buffer that is not saved."""
        self.register_buffer(name, value, persistent=False)


class PixelTerm(nn.Module):
    """A term on the pixels of the whole render, without a network.

    Args:
        style: (1, 3, H, W) in [0, 1].
        seed: seed of its random numbers, if it draws any.

    Attributes:
        needs_photo: whether it compares the render with the photo of the same view, which `forward`
            then takes as ``photo (B, 3, H, W)``.
    """

    default_layers: ClassVar[tuple[str, ...]] = ()
    needs_photo: ClassVar[bool] = False

    def __init__(self, style: Tensor, seed: int = 0) -> None:
        super().__init__()

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """The term, a scalar.

        Args:
            image: (B, 3, H, W) in [0, 1].
            mask: (B, 1, H, W) in [0, 1], or None for everywhere.
        """
        raise NotImplementedError
