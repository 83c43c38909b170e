"""Colour transfer: matches mean and covariance of one set of colours to those of another, as ARF
does before stylising (Zhang et al. 2022, sec. 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# a colour direction with less variance is noise, and is amplified no more than one with this
# variance: of colours in [0, 1] about the square of an 8-bit step, of logits, which such a step
# changes at least four times as much, less than it
_VARIANCE_FLOOR = 1e-5


@dataclass
class ColourTransfer:
    """The affine map of colours c -> matrix c + offset.

    Attributes:
        matrix: (3, 3).
        offset: (3,).
    """

    matrix: Tensor
    offset: Tensor

    def apply(self, colours: Tensor) -> Tensor:
        """Maps colours; without clamping, so that the map stays affine.

        Args:
            colours: (..., 3).

        Returns:
            (..., 3) of the same dtype, on the same device.

        Raises:
            ValueError: the last dimension is not 3.
        """
        if colours.dim() == 0 or colours.shape[-1] != 3:
            raise ValueError(f"colours must be (..., 3), got {tuple(colours.shape)}")
        return colours @ self.matrix.to(colours).T + self.offset.to(colours)


def fit_colour_transfer(source: Tensor, target: Tensor) -> ColourTransfer:
    """The affine map that takes the source's mean and covariance to the target's,
    A = S_t^(1/2) S_s^(-1/2), b = mean_t - A mean_s, with symmetric roots.

    The amplification of a direction is bounded: a source of one flat colour is mapped to the
    target's mean.  The bound is meant for colours in [0, 1], or in a unit in which they vary more,
    such as their logits.

    Args:
        source: (N, 3) colours, N >= 1.
        target: (M, 3) colours, M >= 1; in the same unit or in another one, which the map then
            leads to.

    Returns:
        The map, with the dtype and device of ``source``.

    Raises:
        ValueError: for wrong shapes.

    >>> source, target = torch.rand(500, 3), 0.5 + 0.2 * torch.rand(500, 3)
    >>> mapped = fit_colour_transfer(source, target).apply(source)
    >>> torch.allclose(mapped.mean(0), target.mean(0), atol=1e-4)
    True
    """
    for name, colours in (("source", source), ("target", target)):
        if colours.dim() != 2 or colours.shape[1] != 3 or colours.shape[0] == 0:
            raise ValueError(f"{name} must be (N, 3), N >= 1, got {tuple(colours.shape)}")
    source_mean, source_covariance = _moments(source)
    target_mean, target_covariance = _moments(target)
    whiten = _symmetric_power(source_covariance, -0.5, floor=_VARIANCE_FLOOR)
    matrix = _symmetric_power(target_covariance, 0.5, floor=0.0) @ whiten
    offset = target_mean - matrix @ source_mean
    return ColourTransfer(matrix.to(source), offset.to(source))


def _moments(colours: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3) in float64 on the CPU, where eigh is accurate."""
    colours = colours.detach().to("cpu", torch.float64)
    mean = colours.mean(dim=0)
    centred = colours - mean
    return mean, centred.T @ centred / colours.shape[0]


def _symmetric_power(matrix: Tensor, power: float, floor: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(floor).pow(power)) @ vectors.T
