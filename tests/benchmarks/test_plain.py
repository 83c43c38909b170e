"""The textbook twin of the benchmarks is right: same weights and samples, same picture as ours."""

import numpy as np
import pytest
import torch

from benchmarks.plain import (
    PlainLoss,
    PlainNerf,
    PlainScene,
    PlainStyle,
    importance,
    shade,
    stratified,
)
from datasets.cameras.rays import Rays
from features.vgg import Vgg, convolutions
from losses.content import content_loss
from losses.objective import StyleObjective
from losses.registry import OBJECTIVES

HALF = 2.0
BOUNDS = torch.tensor([[-HALF] * 3, [HALF] * 3])
N_SAMPLES = 24


def rays_of(n, dtype=torch.float64):
    """Rays that start inside the box and end inside it."""
    generator = torch.Generator().manual_seed(3)
    origins = torch.rand(n, 3, generator=generator, dtype=dtype) - 0.5
    directions = torch.randn(n, 3, generator=generator, dtype=dtype)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    near = torch.full((n,), 0.1, dtype=dtype)
    return Rays(origins, directions, near, torch.full_like(near, 1.3))


def twin_of(field):
    """The plain network with the weights of a `NerfField`."""
    # in single precision, as the field keeps them
    twin = PlainNerf(float(field.geometry.scale), float(field.geometry.fog)).to(torch.float64)
    pairs = [
        (twin.trunk, field.geometry.mlp.layers),
        (twin.density, field.geometry.mlp.out),
        (twin.bottleneck, field.style.head.linear),
        (twin.hidden, field.style.decoder.mlp.layers),
        (twin.rgb, field.style.decoder.mlp.out),
    ]
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())
    return twin


def gradients(*modules):
    return [p.grad for m in modules for p in m.parameters()]


def test_plain_rendering_is_ours(make_nerf):
    renderer = make_nerf(BOUNDS, N_SAMPLES).to(torch.float64)
    field, rays = renderer.field, renderer.clip(rays_of(40))
    twin = twin_of(field)
    t = stratified(rays.near, rays.far, torch.full((40, N_SAMPLES), 0.5, dtype=torch.float64))
    rgb, depth, opacity, weights = shade(twin, rays, t, last=1.2 / N_SAMPLES)
    ours = renderer.render(rays, renderer.sample(rays))
    assert 0.01 < opacity.mean() < 0.99
    torch.testing.assert_close(rgb, ours.rgb, rtol=1e-7, atol=0)
    torch.testing.assert_close(depth / opacity, ours.depth, rtol=1e-7, atol=0)
    torch.testing.assert_close(opacity, ours.opacity, rtol=1e-7, atol=0)
    torch.testing.assert_close(weights.flatten(), ours.weights, rtol=1e-7, atol=1e-12)

    beside = torch.randn_like(rgb)
    (rgb * beside).sum().backward()
    (ours.rgb * beside).sum().backward()
    plain = [twin.trunk, twin.density, twin.bottleneck, twin.hidden, twin.rgb]
    for a, b in zip(gradients(*plain), gradients(field.geometry, field.style), strict=True):
        assert (a - b).norm() <= 1e-6 * b.norm()


def test_plain_importance_sampling_inverts_the_cumulative_density():
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(30, 9, generator=generator, dtype=torch.float64) ** 4
    edges = torch.rand(30, 10, generator=generator, dtype=torch.float64).cumsum(-1)
    u = torch.rand(30, 50, generator=generator, dtype=torch.float64).sort(-1).values
    density = (weights + 1e-5).numpy()
    for ray, found in enumerate(importance(edges, weights, u)):
        cdf = np.concatenate([[0.0], density[ray].cumsum() / density[ray].sum()])
        expected = np.interp(u[ray].numpy(), cdf, edges[ray].numpy())
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_plain_networks_are_as_large_as_ours(make_nerf):
    assert sum(p.numel() for p in make_nerf(BOUNDS, N_SAMPLES).field.parameters()) == sum(
        p.numel() for p in PlainNerf().parameters()
    )


def test_plain_loss_is_our_gram_objective_without_a_mask():
    torch.manual_seed(0)
    network = Vgg(convolutions((2, 2, 1), (64, 128, 256)), "vgg19")
    painting, render, photo = torch.rand(1, 3, 20, 24), torch.rand(16, 18, 3), torch.rand(16, 18, 3)
    objective = StyleObjective(painting, network, {"gram": OBJECTIVES["gram"]["gram"]})
    plain = PlainLoss(painting, [(c.weight, c.bias) for c in network.convs.values()])
    image, beside = (i.permute(2, 0, 1)[None] for i in (render, photo))
    style = plain(render, render)  # no content to lose
    torch.testing.assert_close(style, objective(image)["gram"], rtol=1e-4, atol=0)
    a, b = (network(i, ["conv2_2"])["conv2_2"] for i in (image, beside))
    content = OBJECTIVES["gram"]["content"] * content_loss(a, b)
    torch.testing.assert_close(plain(render, photo) - style, content, rtol=1e-2, atol=1e-6)


@pytest.fixture
def style():
    torch.manual_seed(0)
    return PlainStyle(PlainScene(6, 6), PlainLoss(torch.rand(1, 3, 16, 16)))


def style_gradient(style):
    parameters = style.scene.fine.style_parameters()
    return torch.cat([p.grad.flatten() for p in parameters])


def test_with_fixed_samples_plain_memory_saving_is_the_whole_image(style, monkeypatch):
    style.chunk = 25
    rays, photo = rays_of(8 * 12, torch.float32), torch.rand(8, 12, 3)
    before = [p.clone() for p in style.scene.parameters()]
    monkeypatch.setattr(style.optimizer, "step", lambda: None)
    style.small(rays, photo, random=False)
    whole = style_gradient(style)
    style.memory_saving(rays, photo, random=False)
    assert whole.norm() > 0
    assert (style_gradient(style) - whole).norm() <= 1e-4 * whole.norm()
    assert all(torch.equal(a, b) for a, b in zip(before, style.scene.parameters(), strict=True))


def test_plain_modes_step_the_fine_style_alone(style):
    rays, photo = rays_of(8 * 12, torch.float32), torch.rand(8, 12, 3)
    fine = {id(p) for p in style.scene.fine.style_parameters()}
    for mode in ("small", "patch", "memory_saving"):
        before = {name: p.clone() for name, p in style.scene.named_parameters()}
        getattr(style, mode)(rays, photo)
        for name, p in style.scene.named_parameters():
            assert torch.equal(before[name], p) == (id(p) not in fine), (mode, name)
