"""Deferred back-propagation and frozen geometry: the very image and gradient of the plain twin."""

import pytest
import torch

from datasets.cameras import Cameras
from losses.features import FeatureNetwork
from losses.objective import OBJECTIVES, StyleObjective
from models.renderer import Renderer
from systems.deferred import chunks_of, deferred_backward
from systems.frozen import FrozenGeometry
from systems.style import as_image, freeze_geometry, patches

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
SIZE = (13, 18)


def scene_of(kind, dtype):
    """A renderer with something to see, and a camera that sees it."""
    torch.manual_seed(1)
    x = torch.linspace(-1, 1, 12)
    ball = torch.stack(torch.meshgrid(x, x, x, indexing="ij")).norm(dim=0) < 0.8
    if kind == "nerf":
        renderer = Renderer.nerf(BOUNDS, torch.ones(3), ball, 12, 12)
        renderer.field.geometry.density.bias.data.fill_(1.0)
    else:
        renderer = Renderer.voxels(BOUNDS, torch.ones(3), ball, ball)
        torch.nn.init.normal_(renderer.field.geometry.raw, mean=-1.0)
        torch.nn.init.normal_(renderer.field.style.features)
    c2w = torch.tensor([[[1.0, 0, 0, 0.1], [0, 1, 0, -0.1], [0, 0, 1, 3]]])
    intrinsics = torch.tensor([[16.0, 17.0, SIZE[1] / 2, SIZE[0] / 2]])
    cameras = Cameras(c2w.to(dtype), intrinsics.to(dtype), torch.tensor([SIZE]), 1.0, 5.0)
    renderer = renderer.to(dtype).eval()
    freeze_geometry(renderer)
    return renderer, cameras


def loss_of(objective, dtype, opacity):
    torch.manual_seed(2)
    network = FeatureNetwork((4, 4, 6, 6, 8)).to(dtype)
    weights = {**OBJECTIVES[objective], "tv": 0.1}
    style = StyleObjective(torch.rand(3, 20, 24, dtype=dtype), network, weights).to(dtype)
    photo = torch.rand(1, 3, *SIZE, dtype=dtype)
    content = style.content_features(photo)
    mask = opacity.view(1, 1, *SIZE)
    return lambda pixels: style(as_image(pixels, SIZE), content, mask)


def gradients(renderer):
    found = [p.grad for p in renderer.field.style.parameters()]
    renderer.zero_grad()
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
@pytest.mark.parametrize("kind", ["nerf", "voxels"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradient_is_that_of_the_whole_image(kind, objective, dtype, bound):
    """Law 3: for every objective, both fields, H != W and chunks that do not divide the image."""
    renderer, cameras = scene_of(kind, dtype)
    frozen = FrozenGeometry(renderer, cameras, 1e9, threshold=0.0).view(0)
    image_loss = loss_of(objective, dtype, frozen.opacity)

    def shade(part):
        return frozen.shade(renderer.field, renderer.background, part)

    sum(image_loss(shade(slice(0, SIZE[0] * SIZE[1]))).values()).backward()
    whole = gradients(renderer)
    assert whole.norm() > 0
    for chunk in (37, 1000):
        deferred_backward(shade, chunks_of(SIZE[0] * SIZE[1], chunk), image_loss)
        error = (gradients(renderer) - whole).norm() / whole.norm()
        assert error <= bound


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_frozen_image_and_gradient_equal_the_renderers(kind):
    """Law 5: with threshold 0 the kept view is the renderer's own picture, and so its gradient."""
    renderer, cameras = scene_of(kind, torch.float64)
    renderer.threshold = 0.0
    frozen = FrozenGeometry(renderer, cameras, 1e9, chunk=50, threshold=0.0).view(0)
    plain = renderer(cameras.view_rays(0))
    kept = frozen.shade(renderer.field, renderer.background, slice(0, len(frozen.opacity)))
    assert torch.allclose(kept, plain.rgb, rtol=1e-12)
    assert torch.allclose(frozen.opacity, plain.opacity, rtol=1e-12)
    assert frozen.opacity.max() > 0.5
    weights = torch.randn_like(kept)
    (kept * weights).sum().backward()
    fast = gradients(renderer)
    (plain.rgb * weights).sum().backward()
    assert torch.allclose(fast, gradients(renderer), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_dropping_small_samples_changes_nearly_nothing(kind):
    renderer, cameras = scene_of(kind, torch.float32)
    exact = FrozenGeometry(renderer, cameras, 1e9, threshold=0.0).view(0)
    small = FrozenGeometry(renderer, cameras, 1e9).view(0)
    everything = slice(0, len(exact.opacity))
    a, b = (v.shade(renderer.field, renderer.background, everything) for v in (exact, small))
    assert len(small.t) < len(exact.t)
    mse = (a - b).square().mean()
    assert -10 * torch.log10(mse + 1e-12) >= 50
    a.square().sum().backward()
    first = gradients(renderer)
    b.square().sum().backward()
    cosine = torch.nn.functional.cosine_similarity(first, gradients(renderer), dim=0)
    assert cosine > 0.99985  # one degree


def test_a_view_can_be_taken_apart():
    renderer, cameras = scene_of("voxels", torch.float64)
    frozen = FrozenGeometry(renderer, cameras, 1e9).view(0)
    pixels = torch.tensor([100, 3, 120, 121, 233])
    part = frozen.take(pixels)
    whole = frozen.shade(renderer.field, renderer.background, slice(0, len(frozen.opacity)))
    taken = part.shade(renderer.field, renderer.background, slice(0, 5))
    assert torch.allclose(taken, whole[pixels])


def test_budget_decides_what_is_kept_not_what_is_seen():
    renderer, cameras = scene_of("voxels", torch.float32)
    keeping = FrozenGeometry(renderer, cameras, 1e9)
    forgetting = FrozenGeometry(renderer, cameras, 0)
    assert keeping.view(0) is keeping.view(0)
    assert keeping.used == keeping.view(0).nbytes()
    assert not forgetting.kept
    assert torch.equal(keeping.view(0).weights, forgetting.view(0).weights)


@pytest.mark.parametrize("size", [(100, 60), (55, 47), (10, 70)])
def test_patches_cover_every_pixel_and_stay_inside(size):
    tiles = patches(size, 50, "cpu")
    seen = torch.zeros(size[0] * size[1], dtype=torch.bool)
    for pixels, shape in tiles:
        assert len(pixels) == shape[0] * shape[1]
        assert shape == (min(50, size[0]), min(50, size[1]))
        seen[pixels] = True
    assert seen.all()
    assert len(tiles) == -(-size[0] // 50) * -(-size[1] // 50)
