"""The distortion loss, against the double sum of the paper."""

import torch

from losses.distortion import distortion_loss


def plain(weights, x, delta, ray, n_rays):
    total = weights.new_zeros(())
    for index in range(n_rays):
        of_ray = (ray == index).nonzero()[:, 0]
        w, s = weights[of_ray], x[of_ray]
        apart = torch.cdist(s, s)
        total = total + (w[:, None] * w * apart).sum() + (w.square() * delta[of_ray]).sum() / 3
    return total / n_rays


def packed_rays():
    """Four rays, the second and the last without samples, straight lines from different places."""
    torch.manual_seed(0)
    ray = torch.tensor([0] * 5 + [2] * 7)
    t = torch.rand(12, dtype=torch.double).sort().values
    t = torch.cat([t[:5], t[5:]])
    origins, directions = torch.randn(2, 4, 3, dtype=torch.double)
    x = origins[ray] + t[:, None] * directions[ray]
    weights = torch.rand(12, dtype=torch.double, requires_grad=True)
    return weights, x, torch.rand(12, dtype=torch.double) / 10, ray, 4


def test_value_and_gradient_of_the_double_sum():
    arguments = packed_rays()
    fast, slow = distortion_loss(*arguments), plain(*arguments)
    assert torch.allclose(fast, slow, rtol=1e-12)
    gradients = [torch.autograd.grad(loss, arguments[0])[0] for loss in (fast, slow)]
    assert torch.allclose(*gradients, rtol=1e-10)


def test_one_thin_wall_has_none_and_two_have_their_distance():
    x = torch.tensor([[0.0, 0, 0], [0, 0, 3]])
    ray, delta = torch.zeros(2, dtype=torch.int64), torch.zeros(2)
    assert distortion_loss(torch.tensor([1.0, 0]), x, delta, ray, 1) == 0
    assert distortion_loss(torch.tensor([0.5, 0.5]), x, delta, ray, 1) == 2 * 0.25 * 3


def test_the_rest_of_a_ray_counts_where_it_ends():
    """As one more sample of each ray, behind the others on the same line, does."""
    weights, x, delta, ray, n = packed_rays()
    weights = (weights / 20).detach().requires_grad_()
    ends = torch.stack([x[4] + 3 * (x[4] - x[0]), x[0], x[11] + 2 * (x[11] - x[5]), x[5]])
    loss = distortion_loss(weights, x, delta, ray, n, ends)
    order = torch.tensor([0, 1, 2, 3, 4, 12, 5, 6, 7, 8, 9, 10, 11, 13])
    left = torch.stack([1 - weights[:5].sum(), 1 - weights[5:].sum()])
    more = (
        torch.cat(pair)[order]
        for pair in ((weights, left), (x, ends[[0, 2]]), (delta, delta.new_zeros(2)))
    )
    slow = plain(*more, torch.cat([ray, torch.tensor([0, 2])])[order], n)
    assert torch.allclose(loss, slow, rtol=1e-12)
    gradients = [torch.autograd.grad(value, weights)[0] for value in (loss, slow)]
    assert torch.allclose(*gradients, rtol=1e-10)


def test_rays_without_samples():
    none = torch.zeros(0)
    loss = distortion_loss(none, torch.zeros(0, 3), none, torch.zeros(0, dtype=torch.int64), 3)
    assert loss == 0
