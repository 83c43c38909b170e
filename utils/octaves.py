"""How wrong a picture is, as a share of how wrong it would be 8 pixels aside: octave by octave, so
that neither less contrast nor less detail makes it better (docs/measures.md)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SHIFT = 8  # pixels of the misregistration
WAVELENGTHS = (6.0, 12.0, 24.0)  # pixels, where the octaves are most sensitive
UNSEEN = 2 / 255  # differences that are always there: of what is fainter nothing can be said
SPLINE = (1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16)


def normalised_error(picture: Tensor, warped: Tensor, mask: Tensor) -> float:
    """Mean over the octaves of ``sqrt((E + n^2) / (S + n^2))``: E is the mean square of ``picture -
    warped`` in the octave, S that of the picture against itself `SHIFT` pixels aside, n `UNSEEN`.

    A linear filter changes E and S of an octave alike, and so does contrast; where an octave has
    nothing left to see the ratio goes to 1, which is the worst.

    Args:
        picture, warped: (H, W, 3) in [0, 1].
        mask: (H, W) bool, not empty.
    """
    rows, columns = (mask.any(side).nonzero() for side in (1, 0))
    box = tuple(slice(int(x[0]), int(x[-1]) + 1) for x in (rows, columns))
    picture, warped, mask = picture[box], warped[box], mask[box]
    error, n = octave_energies(picture - warped, mask)
    aside, n_aside = (
        sum(parts)
        for parts in zip(*(octave_energies(*x) for x in moved(picture, mask)), strict=True)
    )
    squares = (error / n, aside / max(n_aside, 1))
    ratio = [square + UNSEEN**2 for square in squares]
    return float((ratio[0] / ratio[1]).sqrt().mean())


def misregistration(image: Tensor, mask: Tensor, pixels: int = SHIFT) -> float:
    """RMSE of an image (H, W, 3) against itself moved by so many pixels along the rows and along
    the columns, over the places of which both ends are in the mask; 0 where there are none."""
    found = torch.cat([difference[inside] for difference, inside in moved(image, mask, pixels)])
    return float(found.double().square().mean().sqrt()) if len(found) else 0.0


def moved(image: Tensor, mask: Tensor, pixels: int = SHIFT) -> list[tuple[Tensor, Tensor]]:
    """Differences (h, w, 3) of an image from itself moved along the rows and along the columns, and
    where (h, w) both ends are in the mask."""
    return [
        (image[:, pixels:] - image[:, :-pixels], mask[:, pixels:] & mask[:, :-pixels]),
        (image[pixels:] - image[:-pixels], mask[pixels:] & mask[:-pixels]),
    ]


def octave_energies(difference: Tensor, mask: Tensor) -> tuple[Tensor, int]:
    """Energy in each octave of `WAVELENGTHS`: the differences of ever wider blurs (à trous with a
    cubic B-spline, the starlet of Starck & Murtagh), within the mask.  The finest octave, of two to
    four pixels, is left out: interpolation damages it.

    Args:
        difference: (H, W, 3).
        mask: (H, W) bool.

    Returns:
        (3,) float64, sum over the mask of the squares, mean over the channels; pixels in the mask.
    """
    weight = mask.to(difference.dtype)[None]
    now, energies = difference.permute(2, 0, 1) * weight, []
    for level in range(len(WAVELENGTHS) + 1):
        wider = blurred(now, 2**level) / blurred(weight, 2**level).clamp(min=1e-6) * weight
        energies.append((now - wider).double().square().sum() / 3)
        now = wider
    return torch.stack(energies[1:]), int(mask.sum())


def blurred(planes: Tensor, step: int) -> Tensor:
    """Planes (C, H, W) convolved with `SPLINE`, its taps ``step`` pixels apart; 0 outside."""
    for side in (1, 2):
        ends = (0, 0, 2 * step, 2 * step) if side == 1 else (2 * step, 2 * step)
        padded, n = functional.pad(planes, ends), planes.shape[side]
        planes = sum(tap * padded.narrow(side, i * step, n) for i, tap in enumerate(SPLINE))
    return planes
