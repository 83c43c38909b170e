"""How far two pictures are from each other in style and in content: pure functions of pixels, and
of features as rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from losses.sliced_wasserstein import quantile_table
from utils.images import LUMA
from utils.metrics import ssim_map

HISTOGRAM_BINS = 64
HISTOGRAM_EDGE = 3.0  # log-chroma runs from -3 to 3
HISTOGRAM_WIDTH = 0.02  # of the inverse-quadratic kernel
DARKEST = 1e-6  # added to colours before their logarithm
PLACES = 4096  # of a picture, at most, between which its self-similarity is taken


def gram_distance(a: Tensor, b: Tensor) -> float:
    """Mean squared difference of the Gram matrices ``F^T F / N`` (Gatys et al. 2016).

    Args:
        a, b: (N, C) and (M, C) features, one row a place.
    """
    gram_a, gram_b = (f.T @ f / len(f) for f in (a.double(), b.double()))
    return float((gram_a - gram_b).square().mean())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two Gaussians that have the means and covariances of features,
    ``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``; of the features of one picture each it is
    the single-image Fréchet distance (SinGAN, Shaham et al. 2019).

    Args:
        a, b: (N, C) and (M, C) features, one row a place.
    """
    (mean_a, cov_a), (mean_b, cov_b) = (_moments(f.double()) for f in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # S_a S_b has the eigenvalues of this symmetric matrix
    product = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * product
    return max(float(distance), 0.0)


def sliced_wasserstein(a: Tensor, b: Tensor, n_directions: int = 128, seed: int = 0) -> float:
    """Squared 2-Wasserstein distance of features projected to a line, mean over random directions
    (Rabin et al. 2011).

    Args:
        a, b: (N, C) and (M, C) features, one row a place; of the longer one as many quantiles are
            taken as the shorter has rows.
        n_directions: unit vectors, the same for equal ``seed``.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_directions, a.shape[1], generator=generator, dtype=torch.float64)
    directions = functional.normalize(directions, dim=1).to(a.device)
    count = min(len(a), len(b))
    lines = [quantile_table(directions @ f.double().T, count) for f in (a, b)]
    return float((lines[0] - lines[1]).square().mean())


def histogram_distance(a: Tensor, b: Tensor) -> float:
    """Hellinger distance of RGB-uv histograms, ``|sqrt(H_a) - sqrt(H_b)|_2 / sqrt(2)`` (HistoGAN,
    Afifi et al. 2021): 0 for equal colours, 1 for colours that have nothing in common.

    Args:
        a, b: (N, 3) and (M, 3) colours in [0, 1].
    """
    roots = [rgb_uv_histogram(colours).sqrt() for colours in (a, b)]
    return float((roots[0] - roots[1]).norm() / 2**0.5)


def rgb_uv_histogram(colours: Tensor) -> Tensor:
    """Histogram of log-chroma, weighted by intensity (Afifi et al. 2021): for each channel c,
    ``u = log(c / d)``, ``v = log(c / e)`` with the other two channels d and e.

    Args:
        colours: (N, 3) in [0, 1].

    Returns:
        (3, 64, 64) not negative; its sum is 1.
    """
    colours = colours.double()
    intensity = colours.norm(dim=1)
    logs = (colours + DARKEST).log()
    bins = torch.linspace(
        -HISTOGRAM_EDGE,
        HISTOGRAM_EDGE,
        HISTOGRAM_BINS,
        dtype=torch.float64,
        device=colours.device,
    )
    planes = []
    for own, first, second in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        u, v = (
            1 / (1 + ((logs[:, own, None] - logs[:, other, None] - bins) / HISTOGRAM_WIDTH) ** 2)
            for other in (first, second)
        )
        planes.append((u * intensity[:, None]).T @ v)
    histogram = torch.stack(planes)
    return histogram / histogram.sum().clamp(min=DARKEST)


def structure_distance(content: Tensor, picture: Tensor) -> float:
    """How differently the places of a picture resemble each other: the mean absolute difference of
    the cosines between the features of all pairs of places, in [0, 2] (self-similarity as content,
    Kolkin et al., STROTSS, 2019).  Cosines, since the softmax of products in CFSD (Wang & Xu 2023)
    is flat for the features of one network and saturates for those of another.

    Args:
        content, picture: (N, C) features of the same places; of more than `PLACES` every so many.
    """
    step = -(-len(content) // PLACES)
    one, other = (functional.normalize(f[::step].double(), dim=1) for f in (content, picture))
    return float((one @ one.T - other @ other.T).abs().mean())


def luminance_ssim(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Structural similarity (Wang et al. 2004) of luminance, mean over the pixels in the mask whose
    whole window lies inside the image.

    Args:
        a, b: (H, W, 3) in [0, 1].
        mask: (H, W) bool; where no such pixel is in it, all of them count.
    """
    grey = [(image.double() @ image.new_tensor(LUMA).double())[..., None] for image in (a, b)]
    values = ssim_map(*grey)[..., 0]
    edge = (len(mask) - len(values)) // 2
    counted = mask[edge : mask.shape[0] - edge, edge : mask.shape[1] - edge]
    return float(values[counted].mean() if counted.any() else values.mean())


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of features (N, C)."""
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / len(features)
