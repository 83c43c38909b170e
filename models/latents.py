"""The codes of one painting: a distribution, and a code of each training view drawn from it
(StylizedNeRF, Huang et al. 2022, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_CODE = 32
LEAST_VARIANCE = 1e-3


class Latents(nn.Module):
    """A normal distribution N(mean, diag(variance)), and a code per training view.

    Only training looks up the codes of views, by their number in the training set; any other view
    takes the mean, or what `between` makes of its neighbours'.

    Args:
        n_views: F, training views.
        n_code: C, channels.
    """

    def __init__(self, n_views: int, n_code: int = N_CODE) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(n_code), requires_grad=False)
        self.log_variance = nn.Parameter(torch.zeros(n_code), requires_grad=False)
        self.codes = nn.Parameter(torch.zeros(n_views, n_code))

    @torch.no_grad()
    def draw(self, mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> None:
        """Sets the distribution, (C,) both, and draws every view's code from it."""
        self.mean.copy_(mean)
        self.log_variance.copy_(log_variance)
        noise = torch.randn(self.codes.shape, generator=generator)
        self.codes.copy_(mean + (0.5 * log_variance).exp() * noise.to(mean))

    def negative_log_likelihood(self, view: int) -> Tensor:
        """Of a view's code, up to a constant: ``1/2 sum_d (l_d - mean_d)^2 / variance_d``."""
        variance = self.log_variance.exp().clamp(min=LEAST_VARIANCE)
        return 0.5 * ((self.codes[view] - self.mean).square() / variance).sum()

    def between(self, views: Tensor, weights: Tensor, sigma_scale: float) -> Tensor:
        """The code (C,) of a novel view: ``mean + sigma_scale (sum_v weight_v code_v - mean)``.

        Args:
            views: (V,) int64, numbers of training views nearby.
            weights: (V,) with sum 1.
            sigma_scale: 0: the painting's mean, 1: the views' own codes.
        """
        return self.mean + sigma_scale * (weights.to(self.codes) @ self.codes[views] - self.mean)
