"""Photos with differing exposure: a map of colour for each of them, in training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AffineAppearance(nn.Module):
    """What each photo's exposure and white balance made of the scene's colour, ``A_v c + b_v``:
    an affine map per view, as in Urban Radiance Fields (Rematas et al. 2022); NeRF in the Wild
    (Martin-Brualla et al. 2021) learns a network's input per view for the same end.

    Photos alone do not tell field and maps apart: the colours ``G c`` with the maps ``A_v G^-1``
    make the same pictures, for any ``G``, so that a dark field with bright maps fits as well.
    Therefore the maps are ``(I, 0) + D_v - mean(D)``: their mean over the views is the identity,
    whatever the parameters ``D`` are.  It holds at every step, needs no weight, and says which
    scene is meant, the one without any map: ``mean_v(A_v c + b_v) = c``, each colour as the photos
    show it on average.

    Args:
        n_views: training views V.
        background: (3,) colour that the photos were laid over by their alpha.  That was after they
            had been exposed: it is the same in all of them, and only what covers it is mapped.
            None for photos without alpha, of which all is mapped.
    """

    def __init__(self, n_views: int, background: Tensor | None = None) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(n_views, 3, 4))
        self.register_buffer("background", background, persistent=False)

    def departures(self) -> Tensor:
        """(V, 3, 4) the maps ``A_v | b_v``, less the identity."""
        return self.raw - self.raw.mean(0)

    def gains(self) -> Tensor:
        """(V,) how many times brighter than the average photo each view shows a medium grey.

        One number for matrix and offset, which little contrast in a scene does not tell apart.
        """
        grey = self.raw.new_tensor([0.5, 0.5, 0.5, 1.0])
        return 1 + (self.departures() @ grey).mean(1) / 0.5

    def forward(self, rgb: Tensor, opacity: Tensor, view: Tensor) -> Tensor:
        """Colours as the photos of ``view`` show them; to the bit ``rgb`` before any training.

        Args:
            rgb: (N, 3) rendered over the background.
            opacity: (N,) of the same pixels.
            view: (N,) int64 number of the training view.

        Returns:
            (N, 3).
        """
        exposed, cover = rgb, torch.ones_like(opacity)
        if self.background is not None:
            exposed, cover = rgb - (1 - opacity)[:, None] * self.background, opacity
        # colours times coverage, and coverage: what an affine map of a part of a pixel is linear in
        partial = torch.cat([exposed, cover[:, None]], 1)
        # not a matrix product, which autocast would round to half precision
        return rgb + (self.departures()[view] * partial[:, None]).sum(-1)
