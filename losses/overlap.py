"""Losses that make the features of two encoders overlap, on samples (N, D) and (M, D) of either.

All but `support` compare whole distributions, so they also match how much there is of each
material; `support` only asks that what is in the one is found in the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNELS = 5
DIRECTIONS = 16
RIDGE = 1e-3  # added to variances, of features with a variance of about 1


def gaussian_moments(x: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of samples ``x (N, D)``; ``ridge`` is added to variances."""
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / len(x) + ridge * torch.eye(x.shape[1]).to(x)


def kl_of_gaussians(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
    """KL(p || q) of two Gaussians, each by mean (D,) and covariance (D, D):
    ``(ln(det Q / det P) - D + tr(Q^-1 P) + (q - p)^T Q^-1 (q - p)) / 2``."""
    (p_mean, p_cov), (q_mean, q_cov) = p, q
    p_root, q_root = torch.linalg.cholesky(p_cov), torch.linalg.cholesky(q_cov)
    logs = 2 * (q_root.diagonal().log().sum() - p_root.diagonal().log().sum())
    inner = torch.linalg.solve_triangular(q_root, p_root, upper=False).square().sum()
    shift = torch.linalg.solve_triangular(q_root, (q_mean - p_mean)[:, None], upper=False)
    return (logs - len(p_mean) + inner + shift.square().sum()) / 2


def gaussian_kl(a: Tensor, b: Tensor, ridge: float = RIDGE) -> Tensor:
    """Symmetric divergence of the Gaussians with the samples' moments: the mean of the two KLs."""
    p, q = gaussian_moments(a, ridge), gaussian_moments(b, ridge)
    return (kl_of_gaussians(p, q) + kl_of_gaussians(q, p)) / 2


def coral(a: Tensor, b: Tensor) -> Tensor:
    """``|C_a - C_b|_F^2 / (4 D^2)`` of the covariances (Sun and Saenko, Deep CORAL, 2016)."""
    difference = gaussian_moments(a)[1] - gaussian_moments(b)[1]
    return difference.square().sum() / (4 * a.shape[1] ** 2)


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, biased, under the mean of five Gaussian kernels whose
    squared widths are the mean squared distance times 1/4, 1/2, 1, 2, 4 (Long et al., Deep
    Adaptation Networks, 2015)."""
    blocks = [(x[:, None] - y).square().sum(-1) for x, y in ((a, a), (b, b), (a, b))]
    total = sum(n * x.detach().sum() for n, x in zip((1, 1, 2), blocks, strict=True))
    width = (total / (len(a) + len(b)) ** 2).clamp(min=1e-12)
    first, second, between = (_kernels(block / width).mean() for block in blocks)
    return first + second - 2 * between


def _kernels(squared: Tensor) -> Tensor:
    """Mean of the kernels of squared distances in units of the mean one; each is the square of the
    next wider."""
    kernel = torch.exp(-squared / 2 ** (KERNELS // 2))
    total = kernel
    for _ in range(KERNELS - 1):
        kernel = kernel * kernel
        total = total + kernel
    return total / KERNELS


def sliced_wasserstein(
    a: Tensor, b: Tensor, generator: torch.Generator | None = None, n_directions: int = DIRECTIONS
) -> Tensor:
    """Squared 2-Wasserstein distance, mean over directions: evenly spaced ones in the plane, else
    random ones (Rabin et al. 2011).

    Args:
        a, b: (N, D), as many of each.
        generator: of the random directions.
        n_directions: how many.
    """
    d = a.shape[1]
    if d == 2:
        angle = torch.arange(n_directions) * (torch.pi / n_directions)
        directions = torch.stack([angle.cos(), angle.sin()])
    else:
        directions = functional.normalize(torch.randn(d, n_directions, generator=generator), dim=0)
    directions = directions.to(a)
    return ((a @ directions).sort(0).values - (b @ directions).sort(0).values).square().mean()


def support(a: Tensor, b: Tensor) -> Tensor:
    """``mean_i min_j |a_i - b_j|^2``: how far what is in ``a`` is from anything in ``b``; what else
    is in ``b``, and how much of it, does not matter."""
    nearest = torch.cdist(a.detach(), b.detach()).argmin(1)
    return (a - b[nearest]).square().sum(1).mean()


class Adversary(nn.Module):
    """A discriminator of the two encoders, whose gradient reaches them reversed (Ganin and
    Lempitsky 2015): it learns to tell them apart, they learn not to be told apart.

    Args:
        n_features: D.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Cross-entropy of telling ``a (N, D)`` from ``b (M, D)``; log 2 where it cannot."""
        first, second = (self.layers(_Reversed.apply(x)) for x in (a, b))
        return (functional.softplus(-first).mean() + functional.softplus(second).mean()) / 2


class _Reversed(torch.autograd.Function):
    """The identity, with a reversed gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # noqa: ANN001
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # noqa: ANN001
        return -grad
