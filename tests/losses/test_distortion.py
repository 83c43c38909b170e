"""The distortion of packed samples, against the double sum."""

import torch

from losses.distortion import distortion_loss


def packed(counts, seed=0):
    g = torch.Generator().manual_seed(seed)
    ray = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    s = torch.cat([torch.rand(n, generator=g).sort().values for n in counts])
    return torch.rand(len(ray), generator=g), s, ray


def plain(weights, s, ray, n_rays):
    total = 0.0
    for index in range(n_rays):
        w, at = weights[ray == index], s[ray == index]
        total = total + (w[:, None] * w * (at[:, None] - at).abs()).sum()
    return total / n_rays


def test_value_and_gradient_are_those_of_the_double_sum():
    weights, s, ray = packed([4, 0, 1, 7, 3])
    a, b = (weights.double().requires_grad_() for _ in range(2))
    ours, twin = distortion_loss(a, s, ray, 5), plain(b, s.double(), ray, 5)
    torch.testing.assert_close(ours, twin)
    ours.backward()
    twin.backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_late_rays_are_as_exact_as_early_ones():
    weights, s, ray = packed([20] * 2000)
    last = ray == 1999
    alone = distortion_loss(weights[last], s[last], ray[last] * 0, 1)
    others = distortion_loss(weights[~last], s[~last], ray[~last], 1999)
    together = distortion_loss(weights, s, ray, 2000)
    torch.testing.assert_close(together * 2000, alone + others * 1999, rtol=1e-6, atol=0)


def test_one_place_has_none():
    assert distortion_loss(torch.ones(3), torch.full((3,), 0.4), torch.zeros(3).long(), 1) == 0


def test_no_samples():
    empty = torch.empty(0)
    assert distortion_loss(empty, empty, empty.long(), 4) == 0
