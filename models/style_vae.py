"""The variational autoencoder of style statistics, which gives each painting the distribution of
its codes (StylizedNeRF, Huang et al. 2022, section 3.3)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.latents import N_CODE

WIDTH = 512
KL_WEIGHT = 0.1
BATCH, RATE = 64, 1e-3


class StyleVae(nn.Module):
    """Statistics of a painting's features <-> a normal distribution of codes.

    Args:
        n_in: numbers of a painting: mean and deviation of each channel.
        n_code: channels of a code.
    """

    def __init__(self, n_in: int, n_code: int = N_CODE) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(n_in))
        self.register_buffer("scale", torch.ones(n_in))
        self.encoder = _layers([n_in, *[WIDTH] * 3, 2 * n_code])
        self.decoder = _layers([n_code, *[WIDTH] * 3, n_in])

    def encode(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """``(..., n_in)`` -> mean and log variance of the code, (..., n_code) both."""
        return self.encoder((statistics - self.centre) / self.scale).chunk(2, -1)

    def loss(self, statistics: Tensor, generator: torch.Generator) -> Tensor:
        """Squared error of the reconstruction, summed over channels, plus `KL_WEIGHT` times the
        divergence from the standard normal distribution; means over the rows (B, n_in)."""
        mean, log_variance = self.encode(statistics)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        rebuilt = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        error = (rebuilt - (statistics - self.centre) / self.scale).square().sum(-1)
        return (error + KL_WEIGHT * divergence(mean, log_variance)).mean()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence (...) of N(mean, exp(log_variance)), (..., C) both, from N(0, 1):
    ``-1/2 sum (1 + log var - mean^2 - var)``."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)


def fit_style_vae(statistics: Tensor, steps: int, seed: int, n_code: int = N_CODE) -> StyleVae:
    """An autoencoder of the rows (N, n_in) of ``statistics``, the same for the same seed.

    Channels are normalised first: those that vary little between paintings tell them apart as well.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = StyleVae(statistics.shape[1], n_code)
    generator = torch.Generator().manual_seed(seed)
    vae.centre.copy_(statistics.mean(0))
    vae.scale.copy_(statistics.std(0, unbiased=False).clamp(min=1e-4))
    optimizer = torch.optim.Adam(vae.parameters(), lr=RATE, fused=True)
    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(len(statistics), (BATCH,), generator=generator)
            optimizer.zero_grad()
            vae.loss(statistics[rows], generator).backward()
            optimizer.step()
    return vae.requires_grad_(False)


def _layers(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
