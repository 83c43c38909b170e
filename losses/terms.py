"""What every term of the style objective is: a distance of features or a distance of pixels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from losses.masked import Sums


class FeatureTerm(nn.Module):
    """A term that looks at one layer of the feature network.

    It sees images tile by tile: `add_style` is called with each tile of the style image and
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
        """Take in the features (1, C, h, w) of a tile of the style image."""

    def finish_style(self) -> None:
        """Keep what is needed of the style image as buffers, which follow the module to its
        device; they are not saved."""

    def sums(self, features: Tensor, photo: Tensor | None, mask: Tensor | None) -> Sums:
        """The contribution of a tile of a render.

        Args:
            features: (B, C, h, w) of the render; h and w may be 0.
            photo: (B, C, h, w) of the photo of the same view; None unless `needs_photo`.
            mask: (B, 1, H, W) in [0, 1], or None for everywhere.
        """
        raise NotImplementedError

    def value(self, sums: Sums) -> Tensor:
        """The term, a scalar, of the sums over a whole render."""
        raise NotImplementedError

    def keep(self, name: str, value: Tensor) -> None:
        """Make ``value`` a buffer that is not saved."""
        self.register_buffer(name, value, persistent=False)


class PixelTerm(nn.Module):
    """A term that looks at the pixels of the whole render, without a network.

    Args:
        style: (1, 3, H, W) in [0, 1].
        seed: of whatever it draws at random.
    """

    default_layers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, style: Tensor, seed: int = 0) -> None:
        super().__init__()

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """The term, a scalar.

        Args:
            image: (B, 3, H, W) in [0, 1].
            mask: (B, 1, H, W) in [0, 1], or None for everywhere.
        """
        raise NotImplementedError
