"""Volume rendering against closed forms."""

import math

import pytest
import torch
from torch import nn

from datasets.cameras.rays import Rays
from models.hierarchical import stratified
from models.render import (
    Samples,
    composite,
    compositing_weights,
    drop_faint_samples,
    median_depth,
    render,
    segment_sum,
)


class Slabs(nn.Module):
    """Slabs across z: (from, to, density, colour), the analytic field of these tests."""

    def __init__(self, *slabs):
        super().__init__()
        self.slabs = slabs
        self.style = self._style

    def _inside(self, x):
        z = x[:, 2]
        return [(z > a) & (z < b) for a, b, _, _ in self.slabs]

    def geometry(self, x):
        density = sum(
            m * s[2] for m, s in zip(self._inside(x), self.slabs, strict=True)
        ) + torch.zeros_like(x[:, 0])
        return density, x

    def _style(self, feature, x, d, code):
        colour = torch.zeros_like(x)
        for mask, slab in zip(self._inside(x), self.slabs, strict=True):
            colour[mask] = torch.tensor(slab[3], dtype=x.dtype)
        return colour


def rays_along_z(n, far=4.0, dtype=torch.float64):
    origins = torch.zeros(n, 3, dtype=dtype)
    directions = torch.tensor([0.0, 0, 1], dtype=dtype).expand(n, 3)
    return Rays(origins, directions, torch.zeros(n, dtype=dtype), torch.full((n,), far).to(dtype))


def dense_samples(rays, n):
    t = stratified(rays.near, rays.far, n, None)
    delta = ((rays.far - rays.near) / n)[:, None].expand_as(t)
    ray = torch.arange(len(rays))[:, None].expand_as(t)
    return Samples(ray.flatten(), t.flatten(), delta.flatten(), len(rays))


def test_homogeneous_slab_has_the_closed_form():
    rays = rays_along_z(3)
    field = Slabs((1.0, 2.0, 1.7, (0.2, 0.5, 0.9)))
    rendering = render(field, rays, dense_samples(rays, 400))
    opacity = 1 - math.exp(-1.7)
    expected = opacity * torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(
        rendering.opacity, torch.full((3,), opacity).double(), rtol=1e-7, atol=0
    )
    torch.testing.assert_close(rendering.rgb, expected.expand(3, 3), rtol=1e-7, atol=0)
    # mean free path inside the slab: integral of t 1.7 exp(-1.7 (t - 1)) over 1..2
    depth = (1 + 1 / 1.7 - math.exp(-1.7) * (2 + 1 / 1.7)) / opacity
    torch.testing.assert_close(rendering.depth, torch.full((3,), depth).double(), rtol=2e-5, atol=0)


def test_two_slabs_the_first_hides_the_second():
    rays = rays_along_z(2)
    field = Slabs((0.5, 1.0, 2.0, (1.0, 0.0, 0.0)), (2.0, 3.0, 3.0, (0.0, 1.0, 0.0)))
    rendering = render(field, rays, dense_samples(rays, 800))
    first = 1 - math.exp(-1.0)
    second = math.exp(-1.0) * (1 - math.exp(-3.0))
    expected = torch.tensor([first, second, 0.0], dtype=torch.float64)
    torch.testing.assert_close(rendering.rgb[0], expected, rtol=1e-6, atol=1e-9)
    assert rendering.opacity[0] == pytest.approx(1 - math.exp(-4.0), rel=1e-6)


def test_weights_of_many_rays_do_not_lose_digits():
    """A running sum over all rays in single precision would spoil the last rays."""
    n, per_ray = 2000, 32
    generator = torch.Generator().manual_seed(0)
    density = torch.rand(n * per_ray, generator=generator) * 1000
    ray = torch.arange(n).repeat_interleave(per_ray)
    samples = Samples(ray, torch.zeros(n * per_ray), torch.full((n * per_ray,), 0.01), n)
    weights = compositing_weights(density, samples)
    optical = (density * 0.01).double().view(n, per_ray)
    before = optical.cumsum(1) - optical
    expected = torch.exp(-before) * (1 - torch.exp(-optical))
    torch.testing.assert_close(weights.view(n, per_ray).double(), expected, rtol=1e-4, atol=1e-7)


def test_weights_and_gradient_equal_their_plain_twin():
    """Also of rays without a sample, at the beginning, in between and at the end."""
    g = torch.Generator().manual_seed(0)
    ray = torch.randint(1, 9, (60,), generator=g).sort().values
    ray = ray[ray != 4]
    delta = torch.rand(len(ray), generator=g, dtype=torch.float64)
    density = (3 * torch.rand(len(ray), generator=g, dtype=torch.float64)).requires_grad_()
    found = compositing_weights(density, Samples(ray, delta, delta, 10))
    plain = torch.zeros(len(ray), dtype=torch.float64)
    for i in range(len(ray)):
        before = (density * delta)[(ray == ray[i]) & (torch.arange(len(ray)) < i)].sum()
        alone = torch.zeros(len(ray), dtype=torch.float64).index_fill(0, torch.tensor(i), 1.0)
        plain = plain + alone * (-before).exp() * (1 - (-density[i] * delta[i]).exp())
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=0)
    upstream = torch.randn(len(ray), generator=g, dtype=torch.float64)
    gradients = [torch.autograd.grad(w, density, upstream)[0] for w in (found, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_weights_gradient():
    ray = torch.tensor([0, 0, 0, 2, 2])
    delta = torch.tensor([0.3, 0.2, 0.5, 0.1, 0.9], dtype=torch.float64)
    density = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.2], dtype=torch.float64, requires_grad=True)
    samples = Samples(ray, torch.zeros_like(delta), delta, 3)
    assert torch.autograd.gradcheck(lambda s: compositing_weights(s, samples), density)


@pytest.mark.parametrize("shape", [(7,), (7, 3)])
def test_segment_sum_equals_its_twin_forward_and_backward(shape):
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    segment = torch.tensor([0, 0, 1, 3, 3, 3, 3])
    plain = torch.stack([values[segment == k].sum(0) for k in range(5)])
    assert torch.allclose(segment_sum(values, segment, 5), plain)
    assert torch.autograd.gradcheck(lambda v: segment_sum(v, segment, 5), values)


def test_threshold_leaves_out_only_what_cannot_matter():
    rays = rays_along_z(4)
    field = Slabs((1.0, 2.0, 5.0, (0.2, 0.5, 0.9)))
    samples = dense_samples(rays, 300)
    exact = render(field, rays, samples)
    fast = render(field, rays, samples, threshold=1e-4)
    assert (exact.rgb - fast.rgb).abs().max() < 300 * 1e-4
    assert torch.equal(exact.opacity, fast.opacity)
    assert torch.equal(exact.depth, fast.depth)


def test_rays_without_samples_show_nothing():
    rays = rays_along_z(3)
    samples = dense_samples(rays, 8)
    samples = samples.take((samples.ray_index == 1).nonzero()[:, 0])
    rendering = render(Slabs((0.0, 4.0, 50.0, (1.0, 0.0, 0.0))), rays, samples)
    for values in (rendering.rgb, rendering.depth, rendering.opacity):
        assert (values[[0, 2]] == 0).all()
    assert rendering.rgb[1, 0] > 0.99


def test_known_geometry_is_not_asked_for():
    rays = rays_along_z(3)
    field = Slabs((1.0, 2.0, 1.7, (0.2, 0.5, 0.9)))
    samples = dense_samples(rays, 50)
    expected = render(field, rays, samples)
    geometry = field.geometry(rays.points(samples.ray_index, samples.t))
    field.geometry = None
    found = render(field, rays, samples, geometry=geometry)
    assert torch.equal(found.rgb, expected.rgb)
    assert torch.equal(found.weights, expected.weights)


class CodeAsColour(Slabs):
    """A style that shows the code it is given."""

    def _style(self, feature, x, d, code):
        return code.expand(len(x), 3)


@pytest.mark.parametrize("threshold", [0.0, 1e-3])
def test_codes_are_of_all_rays_or_one_for_each(threshold):
    rays = rays_along_z(4)
    field = CodeAsColour((1.0, 2.0, 5.0, None))
    samples = dense_samples(rays, 60)
    codes = torch.rand(4, 3, dtype=torch.float64)
    each = render(field, rays, samples, codes, threshold=threshold)
    torch.testing.assert_close(each.rgb, each.opacity[:, None] * codes)
    one = render(field, rays, samples, codes[2], threshold=threshold)
    torch.testing.assert_close(one.rgb, one.opacity[:, None] * codes[2])


def test_composite_is_the_weighted_sum():
    """What is left out is taken over, in proportion, by what is kept."""
    samples = Samples(torch.tensor([0, 0, 0, 2]), torch.arange(1.0, 5), torch.ones(4), 3)
    weights, rgb = torch.tensor([0.1, 0.4, 0.3, 0.5]), torch.rand(4, 3)
    whole = composite(rgb, weights, samples)
    expected = torch.stack(
        [(weights[:3, None] * rgb[:3]).sum(0), torch.zeros(3), weights[3] * rgb[3]]
    )
    torch.testing.assert_close(whole.rgb, expected)
    torch.testing.assert_close(whole.opacity, torch.tensor([0.8, 0.0, 0.5]))
    torch.testing.assert_close(whole.depth, torch.tensor([(0.1 + 0.8 + 0.9) / 0.8, 0.0, 4.0]))
    keep = torch.tensor([1, 2, 3])
    part = composite(rgb[keep], weights, samples, keep)
    torch.testing.assert_close(part.rgb[0], (0.4 * rgb[1] + 0.3 * rgb[2]) * 0.8 / 0.7)
    assert torch.equal(part.opacity, whole.opacity)
    assert torch.equal(part.depth, whole.depth)


def test_gradients_near_the_eye_are_scaled_and_nothing_else_changes():
    """Against the plain twin: each sample's gradient times (t / distance)^2, up to 1."""
    t = torch.tensor([0.5, 1.0, 3.0])
    rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]]), torch.zeros(1), torch.ones(1) * 9)
    samples = Samples(torch.zeros(3).long(), t, torch.full((3,), 0.2), 1)

    class Leaves(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.density = torch.nn.Parameter(torch.tensor([0.3, 0.5, 2.0]))
            self.rgb = torch.nn.Parameter(torch.full((3, 3), 0.4))
            self.geometry = lambda x: (self.density * 1, x)
            self.style = lambda feature, x, d, code: self.rgb * 1

    found = {}
    for distance in (None, 2.0):
        field = Leaves()
        picture = render(field, rays, samples, scale_gradients_within=distance)
        picture.rgb.square().sum().backward()
        found[distance] = picture.rgb.detach(), field.density.grad, field.rgb.grad
    scale = torch.tensor([0.0625, 0.25, 1.0])
    assert torch.equal(found[2.0][0], found[None][0])
    torch.testing.assert_close(found[2.0][1], found[None][1] * scale)
    torch.testing.assert_close(found[2.0][2], found[None][2] * scale[:, None])


@pytest.mark.parametrize("share", [0.0, 0.03, 0.4])
def test_rays_drop_their_faintest_samples(share):
    generator = torch.Generator().manual_seed(0)
    ray = torch.randint(50, (600,), generator=generator).sort().values
    weights = torch.rand(600, generator=generator) ** 4
    weights[ray == 7] *= 1e-6  # a ray that hardly shows anything
    weights[::9] = 0
    kept = drop_faint_samples(weights, ray, 52, share)
    assert torch.equal(kept, kept.sort().values)
    for i in range(52):
        mine = (ray == i).nonzero()[:, 0].tolist()
        allowed = share * max(share, float(weights[mine].sum()))
        lost, left = 0.0, []
        for j in sorted(mine, key=lambda j: float(weights[j])):
            lost += float(weights[j])
            if lost > allowed:
                left.append(j)
        assert sorted(left) == [k for k in kept.tolist() if ray[k] == i]


def test_median_depth_is_where_half_of_the_light_is_stopped():
    rays = rays_along_z(3)
    samples = dense_samples(rays, 400)
    # a homogeneous slab from 1 on: half of what it stops, 1 - exp(-2 s), lies before this depth
    weights = compositing_weights(
        Slabs((1, 3, 2.0, (1, 1, 1))).geometry(rays.points(samples.ray_index, samples.t))[0],
        samples,
    )
    expected = 1 - math.log(1 - (1 - math.exp(-4)) / 2) / 2
    torch.testing.assert_close(
        median_depth(weights, samples), torch.full((3,), expected).double(), atol=1e-4, rtol=0
    )


def test_median_depth_is_never_between_two_surfaces():
    samples = Samples(
        torch.tensor([0, 0, 2, 2, 2]),
        torch.tensor([1.0, 5.0, 1.0, 5.0, 9.0]),
        torch.full((5,), 0.1),
        4,
    )
    weights = torch.tensor([0.3, 0.5, 0.4, 0.1, 0.1])
    # the second weighs 0.5 and half of it all, 0.4, lies a fifth into it; a ray without samples: 0
    expected = torch.tensor([4.97, 0.0, 1.0 + (0.3 / 0.4 - 0.5) * 0.1, 0.0])
    torch.testing.assert_close(median_depth(weights, samples), expected)
    assert median_depth(torch.zeros(5), samples).tolist() == [0, 0, 0, 0]
