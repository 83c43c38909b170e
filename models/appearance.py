"""Photos with differing exposure: a learned affine colour map per photo, in training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AffineAppearance(nn.Module):
    """Models each photo's exposure and white balance by an affine map of the scene's colours,
    ``A_v c + b_v``, as in Urban Radiance Fields (Rematas et al. 2022); NeRF in the Wild
    (Martin-Brualla et al. 2021) uses a latent code per view for the same purpose.

    Photos alone do not determine field and maps: the colours ``G c`` with the maps ``A_v G^-1``
    give the same images for any ``G``, so a dark field with bright maps fits equally well.
    Therefore the maps are ``(I, 0) + D_v - mean(D)``: their mean over the views is the identity for
    any parameters ``D``, at every step and without a regularisation weight.  The field's colours
    are thus those of the average photo: ``mean_v(A_v c + b_v) = c``.

    Args:
        n_views: training views V.
        background: (3,) colour that photos with alpha were composited over.  It was added after the
            exposure, so it is the same in all photos and only the foreground is mapped.  None: the
            photos have no alpha, and all of each photo is mapped.
    """

    def __init__(self, n_views: int, background: Tensor | None = None) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(n_views, 3, 4))
        self.register_buffer("background", background, persistent=False)

    def departures(self) -> Tensor:
        """(V, 3, 4) the maps ``A_v | b_v``, less the identity."""
        return self.raw - self.raw.mean(0)

    def gains(self) -> Tensor:
        """(V,) brightness of a medium grey in each view, relative to the average photo.

        One number for matrix and offset, which a scene of low contrast does not distinguish.
        """
        grey = self.raw.new_tensor([0.5, 0.5, 0.5, 1.0])
        return 1 + (self.departures() @ grey).mean(1) / 0.5

    def forward(self, rgb: Tensor, opacity: Tensor, view: Tensor) -> Tensor:
        """Colours as they appear in the photos of ``view``; before any training exactly ``rgb``.

        Args:
            rgb: (N, 3) rendered over the background.
            opacity: (N,) of the same pixels.
            view: (N,) int64 index of the training view.

        Returns:
            (N, 3).
        """
        exposed, cover = rgb, torch.ones_like(opacity)
        if self.background is not None:
            exposed, cover = rgb - (1 - opacity)[:, None] * self.background, opacity
        # the mapped colour of a partly covered pixel is linear in premultiplied colour and coverage
        partial = torch.cat([exposed, cover[:, None]], 1)
        # not a matrix product, which autocast would round to half precision
        return rgb + (self.departures()[view] * partial[:, None]).sum(-1)
