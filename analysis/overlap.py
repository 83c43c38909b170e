"""How much the features of encoders overlap, in numbers."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from matplotlib.patches import Ellipse
from torch import Tensor

from analysis.features import MASK, Analysis, Plane
from analysis.maps import COLOURS, draw_density, panels_of
from losses.overlap import gaussian_moments, kl_of_gaussians, sliced_wasserstein, support

NEAREST = 4096  # points of either encoder between which nearest ones are looked for
RIDGE = 1e-9


def overlap(analysis: Analysis) -> dict[str, Any]:
    """Measures and draws the overlap of every two encoders.

    Returns:
        The numbers.

    Raises:
        UserError: there is one encoder.
    """
    features = {name: analysis.features(name) for name in analysis.encoders}
    plane = Plane.of(features)
    pairs = list(combinations(features, 2))
    numbers = {f"{a} - {b}": overlap_of(features[a], features[b]) for a, b in pairs}
    figure, panels = panels_of(max(1, len(pairs)), plane)
    for panel, (a, b) in zip(panels, pairs, strict=False):
        found = numbers[f"{a} - {b}"]
        for index, name in enumerate((a, b)):
            flat, colour = plane.flat(features[name]), COLOURS[index]
            draw_density(panel, flat, plane, colour, name)
            panel.add_patch(ellipse_of(flat, colour))
        panel.set_title(f"KL {found['kl_forward']:.3g} forward, {found['kl_backward']:.3g} back")
        panel.legend(loc="upper right", fontsize=8)
    path = analysis.directory / "overlap.png"
    figure.savefig(path, dpi=120)
    return {
        "files": [str(path)],
        "mask": MASK,
        "points": {name: len(own) for name, own in features.items()},
        "kl": "of Gaussians with the features' means and covariances, in all features, in nats: it "
        "does not see whether features of one mean and covariance lie in different places",
        "noise": "'within' has the same numbers between two halves of one encoder's features, of "
        "different pixels: less than that cannot be told from 0",
        "pairs": numbers,
        "within": {name: overlap_of(*halves_of(own)) for name, own in features.items()},
        **plane.state(),
    }


def overlap_of(a: Tensor, b: Tensor) -> dict[str, float]:
    """Measures of two encoders' features (N, D) and (M, D).

    Returns:
        "kl_forward" KL(a || b), "kl_backward" KL(b || a) and "kl_symmetric", their mean; of
        features in units of their common deviation: "sliced_wasserstein", squared, and
        "support_forward", "support_backward": mean squared distance of a's to the nearest of b's,
        and of b's to a's.
    """
    p, q = gaussian_moments(a, RIDGE), gaussian_moments(b, RIDGE)
    forward, backward = float(kl_of_gaussians(p, q)), float(kl_of_gaussians(q, p))
    n = min(len(a), len(b))
    scale = torch.cat([a[:n], b[:n]]).std(0).clamp(min=1e-9)
    a, b = a[:n] / scale, b[:n] / scale
    distance = sliced_wasserstein(a, b, torch.Generator().manual_seed(0))
    return {
        "kl_forward": forward,
        "kl_backward": backward,
        "kl_symmetric": (forward + backward) / 2,
        "sliced_wasserstein": float(distance),
        "support_forward": float(support(a[:NEAREST], b[:NEAREST])),
        "support_backward": float(support(b[:NEAREST], a[:NEAREST])),
    }


def halves_of(features: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second half of features (N, D), which come from different rays."""
    return features[: len(features) // 2], features[len(features) // 2 :]


def ellipse_of(flat: Tensor, colour: Any) -> Ellipse:
    """The two-sigma ellipse of points (N, 2)."""
    mean, covariance = gaussian_moments(flat)
    values, vectors = torch.linalg.eigh(covariance)
    angle = torch.rad2deg(torch.atan2(vectors[1, 1], vectors[0, 1]))
    long, short = (4 * float(v.clamp(min=0).sqrt()) for v in values.flip(0))
    return Ellipse(
        mean.tolist(), long, short, angle=float(angle), fill=False, color=colour, linestyle="--"
    )
