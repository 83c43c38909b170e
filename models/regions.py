"""Several styles of one field at once, each in a part of space."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

LEAST = 1e-3  # share of a style below which it is not computed


class RegionColours(nn.Module):
    """The mean of several styles' colours, by shares that depend on the position alone: a region is
    the same in all views.  Each style is rendered in its own painting's mean code.

    Args:
        styles: K styles of the same field.
        shares: (K, R0, R1, R2) on the vertices of an even grid, with sum 1 over K.
        bounds: (2, 3) corners of that grid in the field's space; beyond it is as at its border.
    """

    def __init__(self, styles: Sequence[nn.Module], shares: Tensor, bounds: Tensor) -> None:
        super().__init__()
        self.styles = nn.ModuleList(styles)
        self.reads_features = any(style.reads_features for style in styles)
        self.register_buffer("shares", shares)
        self.register_buffer("bounds", bounds)

    def forward(self, feature: Tensor, x: Tensor, d: Tensor, code: Tensor | None = None) -> Tensor:
        """As `Style.forward`; a code would be one painting's, and is not used."""
        shares = self.at(x)
        rgb = x.new_zeros(len(x), 3)
        for style, share in zip(self.styles, shares.unbind(1), strict=True):
            here = (share > LEAST).nonzero()[:, 0]
            own = style(feature[here], x[here], d[here])
            rgb = rgb.index_add(0, here, (share[here, None] * own).to(rgb))
        return rgb

    def at(self, x: Tensor) -> Tensor:
        """Shares (M, K) at positions (M, 3)."""
        low, high = self.bounds.to(x)
        place = (2 * (x - low) / (high - low) - 1).flip(-1)[None, None, None]  # last axis first
        found = functional.grid_sample(
            self.shares.to(x)[None], place, padding_mode="border", align_corners=True
        )
        return found[0, :, 0, 0].T
