"""The control for consistency: frames painted one by one in 2D."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.colour_transfer import fit_colour_transfer
from losses.objective import StyleObjective
from measures.views import painting_of
from opt import TrainOptions
from systems.style import make_objective, network_of, term_weights

STEPS = 8
RATE = 0.05  # of Adam, on colours in [0, 1]


class FramePainter:
    """Paints single pictures: their pixels themselves are optimised with the objective that a style
    was trained on, from the picture in the painting's colours on (after Gatys et al. 2016).  Each
    frame finds a pattern of its own, however alike the frames are.

    Args:
        run: options of the run that trained the style.
        device: to compute on.
        size: pixels of the pictures' shorter side, for a start.

    Raises:
        UserError: the painting or the network is gone.
    """

    def __init__(self, run: TrainOptions, device: torch.device, size: int) -> None:
        self.run, self.device = run, device
        self.painting = painting_of(run)
        self.network = network_of(run)
        self._objectives: dict[int, StyleObjective] = {}
        self.objective(size)

    def objective(self, size: int) -> StyleObjective:
        """The run's, for pictures with a shorter side of ``size`` pixels."""
        if size not in self._objectives:
            weights = term_weights(self.run)
            found = make_objective(self.run, weights, self.network, self.painting, size)
            self._objectives[size] = found.to(self.device)
        return self._objectives[size]

    @torch.enable_grad()
    def __call__(self, picture: Tensor, mask: Tensor) -> Tensor:
        """A picture (H, W, 3) in [0, 1], painted in the ``mask (H, W)``."""
        if not mask.any():
            return picture
        objective, start = self.objective(min(mask.shape)), picture
        if self.run.colour_transfer:
            palette = self.painting.reshape(-1, 3).to(picture) / 255
            transfer = fit_colour_transfer(picture[mask], palette)
            start = torch.where(mask[..., None], transfer.apply(picture).clamp(0, 1), picture)
        start = start.permute(2, 0, 1)[None].contiguous()
        pixels, inside = start.clone(), mask[None, None].to(start)
        optimizer = torch.optim.Adam([pixels], RATE)
        for _ in range(STEPS):
            _, pixels.grad = objective.gradient(pixels.clone(), start, inside)
            optimizer.step()
            pixels.clamp_(0, 1)
        return pixels[0].permute(1, 2, 0)
