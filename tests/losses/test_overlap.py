"""Overlap losses: closed forms, what they ignore, and where their gradient goes."""

import math

import pytest
import torch

from losses.overlap import (
    Adversary,
    coral,
    gaussian_kl,
    gaussian_moments,
    kl_of_gaussians,
    mmd,
    sliced_wasserstein,
    support,
)
from losses.registry import OVERLAPS


def cloud(mean, deviations, n=512, seed=0):
    """Samples (n, D) with exactly this mean, and a diagonal covariance with these deviations."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed)).double()
    centre, covariance = gaussian_moments(x)
    x = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (x - centre).T, upper=False
    ).T
    return x * torch.tensor(deviations).double() + torch.tensor(mean).double()


def test_kl_of_gaussians_is_the_textbook_one():
    p, q = gaussian_moments(cloud([0, 0], [1, 2])), gaussian_moments(cloud([3, 0], [2, 1], seed=1))
    # by dimension: ln(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2
    expected = (math.log(2) + (1 + 9) / 8 - 0.5) + (math.log(1 / 2) + 4 / 2 - 0.5)
    assert float(kl_of_gaussians(p, q)) == pytest.approx(expected, rel=1e-6)
    normal = [torch.distributions.MultivariateNormal(m, c) for m, c in (p, q)]
    truth = torch.distributions.kl_divergence(*normal)
    assert float(kl_of_gaussians(p, q)) == pytest.approx(float(truth), rel=1e-6)


def test_symmetric_kl_is_that_of_shifted_gaussians():
    a, b = cloud([0, 0, 0], [1, 1, 1]), cloud([2, 0, 0], [1, 1, 1], seed=1)
    assert float(gaussian_kl(a, b, ridge=0.0)) == pytest.approx(2.0, rel=1e-6)


def test_coral_compares_covariances_alone():
    a, b = cloud([0, 0], [1, 1]), cloud([5, -3], [2, 1], seed=1)
    assert float(coral(a, b)) == pytest.approx(9 / 16, rel=1e-6)


def test_mmd_of_two_points():
    """Every pair of the two distinct points is 1 apart, so half of all squared distances are 1, and
    their mean, the width, is 1/2."""
    a, b = torch.zeros(4, 2), torch.tensor([[1.0, 0.0]]).expand(4, 2)
    kernel = sum(math.exp(-1 / (0.5 * s)) for s in (0.25, 0.5, 1, 2, 4)) / 5
    assert float(mmd(a, b)) == pytest.approx(2 - 2 * kernel, rel=1e-5)


def test_sliced_wasserstein_of_a_shift_in_the_plane():
    """The mean of (shift . direction)^2 over evenly spaced directions is |shift|^2 / 2."""
    a = torch.randn(200, 2).double()
    shift = torch.tensor([0.6, -0.8]).double()
    assert float(sliced_wasserstein(a, a + shift)) == pytest.approx(0.5, rel=1e-6)


def test_sliced_wasserstein_in_more_dimensions_follows_its_generator():
    a, b = torch.randn(64, 8), torch.randn(64, 8)
    first, same, other = (
        float(sliced_wasserstein(a, b, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)
    )
    assert first == same != other


def test_support_is_one_sided_and_blind_to_proportions():
    a = torch.tensor([[0.0, 0], [0, 0], [0, 0], [1, 0]])
    b = torch.tensor([[0.0, 0], [1, 0], [9, 9], [9, 9]])
    assert float(support(a, b)) == 0
    assert float(support(b, a)) == pytest.approx((64 + 81) / 2)
    assert float(mmd(a, b)) > 0.1


@pytest.mark.parametrize("name", sorted(set(OVERLAPS) - {"adversarial"}))
def test_equal_samples_overlap(name):
    x = torch.randn(100, 2)
    assert float(OVERLAPS[name](x, x.clone())) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(set(OVERLAPS) - {"adversarial"}))
def test_descent_brings_a_stretched_copy_back(name):
    """The squared gap of the deviations goes; every loss sees it, coral nothing else."""
    b = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    a = (b * torch.tensor([3.0, 1.0])).requires_grad_()
    optimizer = torch.optim.Adam([a], lr=0.05)
    before = float(OVERLAPS[name](a.detach(), b))
    for _ in range(60):
        optimizer.zero_grad()
        OVERLAPS[name](a, b).backward()
        optimizer.step()
    assert float(OVERLAPS[name](a.detach(), b)) < 0.2 * before


def test_the_adversary_learns_and_the_encoders_get_the_opposite():
    torch.manual_seed(0)
    adversary = Adversary(2)
    a, b = torch.randn(128, 2) + 2, torch.randn(128, 2) - 2
    a.requires_grad_()
    loss = adversary(a, b)
    (reversed_gradient,) = torch.autograd.grad(loss, a, retain_graph=True)
    plain = torch.nn.functional.softplus(-adversary.layers(a)).mean() / 2
    (gradient,) = torch.autograd.grad(plain, a)
    torch.testing.assert_close(reversed_gradient, -gradient)
    optimizer = torch.optim.Adam(adversary.parameters(), lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        adversary(a.detach(), b).backward()
        optimizer.step()
    assert float(adversary(a.detach(), b).detach()) < 0.1 < float(loss.detach())
