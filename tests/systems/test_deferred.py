"""Deferred back-propagation and frozen geometry: the very image and gradient of the plain twin."""

import pytest
import torch

from datasets.cameras.rays import Cameras
from datasets.cameras.space import WORLD, Contracted
from datasets.scene import View
from features.vgg import Vgg, convolutions
from losses.objective import StyleObjective
from losses.registry import OBJECTIVES
from models.occupancy import with_sides
from systems.deferred import deferred_backward
from systems.frozen import FrozenGeometry
from systems.style_task import freeze_geometry, stages_of
from systems.views import patches, shrunk
from tests.renderers import nerf_renderer, voxel_renderer
from utils.chunks import Chunks

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
SIZE = (13, 18)


def scene_of(kind, dtype):
    """A renderer with something to see, and a camera that sees it."""
    torch.manual_seed(1)
    space = Contracted(BOUNDS / 2) if kind == "endless" else WORLD
    x = torch.linspace(-1, 1, 12)
    ball = torch.stack(torch.meshgrid(x, x, x, indexing="ij")).norm(dim=0) < 0.8
    if kind == "nerf":
        renderer = nerf_renderer(BOUNDS, ball, 12, 12)
        renderer.field.geometry.mlp.out.bias.data.fill_(1.0)
    else:
        renderer = voxel_renderer(BOUNDS, ball, with_sides(ball) if kind == "endless" else None)
        torch.nn.init.normal_(renderer.field.geometry.raw, mean=-1.0)
        torch.nn.init.normal_(renderer.field.style.head.table)
    c2w = torch.tensor([[[1.0, 0, 0, 0.1], [0, 1, 0, -0.1], [0, 0, 1, 3]]])
    intrinsics = torch.tensor([[16.0, 17.0, SIZE[1] / 2, SIZE[0] / 2]])
    size = torch.tensor([SIZE])
    cameras = Cameras(c2w.to(dtype), intrinsics.to(dtype), size, 1.0, 5.0, space.to(c2w.to(dtype)))
    renderer = renderer.to(dtype)
    renderer.field.colour_threshold = 0.0
    freeze_geometry(renderer)
    return renderer, cameras


def objective_of(name, dtype):
    torch.manual_seed(2)
    network = Vgg(convolutions((2, 2, 1), (4, 6, 8)), "tiny").to(dtype)
    weights = {**OBJECTIVES[name], "tv": 0.1}
    style = torch.rand(3, 20, 24, dtype=dtype)
    return StyleObjective(style, network, weights, tile=32).to(dtype)


def whole_image(renderer, frozen):
    """(H * W, 3) of a frozen view."""
    colours = frozen.render(renderer.field, renderer.background)
    return frozen.image(colours, renderer.background)[0].permute(1, 2, 0).reshape(-1, 3)


def gradients(renderer):
    found = [p.grad for p in renderer.field.style.parameters()]
    renderer.zero_grad()
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("objective", sorted(OBJECTIVES.keys() - {"directional"}))
@pytest.mark.parametrize("kind", ["nerf", "voxels"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradient_is_that_of_the_whole_image(kind, objective, dtype, bound):
    """Law 3: for every objective, both fields, H != W and chunks that do not divide the image."""
    renderer, cameras = scene_of(kind, dtype)
    frozen = FrozenGeometry(renderer, cameras, 1e9, threshold=0.0).view(0)
    objective = objective_of(objective, dtype)
    photo = torch.rand(1, 3, *SIZE, dtype=dtype)
    background = renderer.background

    # the plain twin: every pixel of the view through the renderer, the whole graph at once
    picture = renderer(cameras.view_rays(0))
    plain = picture.rgb.view(*SIZE, 3).permute(2, 0, 1)[None]
    mask = picture.opacity.detach().view(1, 1, *SIZE)
    sum(objective(plain, photo, mask).values()).backward()
    whole = gradients(renderer)
    assert whole.norm() > 0

    def image_gradient(colours):
        leaf = colours.requires_grad_()
        image = frozen.image(leaf, background)
        terms, gradient = objective.gradient(image, photo, frozen.mask())
        return terms, torch.autograd.grad(image, leaf, gradient)[0]

    for chunk in (37, 1000):
        deferred_backward(
            lambda part: frozen.render(renderer.field, background, part),
            len(frozen),
            Chunks(chunk),
            image_gradient,
            list(renderer.field.style.parameters()),
        )
        error = (gradients(renderer) - whole).norm() / whole.norm()
        assert error <= bound


@pytest.mark.parametrize("kind", ["nerf", "voxels", "endless"])
def test_frozen_image_and_gradient_equal_the_renderers(kind):
    """Law 5: with threshold 0 the kept view is the renderer's own picture, and so its gradient."""
    renderer, cameras = scene_of(kind, torch.float64)
    frozen = FrozenGeometry(renderer, cameras, 1e9, chunk=50, threshold=0.0).view(0)
    plain = renderer(cameras.view_rays(0))
    kept = whole_image(renderer, frozen)
    assert torch.allclose(kept, plain.rgb, rtol=1e-12)
    expected = torch.ones_like(plain.opacity) if kind == "endless" else plain.opacity
    assert torch.allclose(frozen.mask().flatten(), expected, rtol=1e-12)
    assert plain.opacity.max() > 0.5 > plain.opacity.min()
    weights = torch.randn_like(kept)
    (kept * weights).sum().backward()
    fast = gradients(renderer)
    (plain.rgb * weights).sum().backward()
    assert torch.allclose(fast, gradients(renderer), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
@pytest.mark.parametrize("name", ["gram", "nnfm", "swd"])
def test_dropping_least_samples_changes_nearly_nothing(kind, name):
    """Each picture's own style gradient: what is painted, not only what is seen."""
    renderer, cameras = scene_of(kind, torch.float32)
    exact = FrozenGeometry(renderer, cameras, 1e9, threshold=0.0).view(0)
    fewer = FrozenGeometry(renderer, cameras, 1e9).view(0)
    assert len(fewer.t) < 0.9 * len(exact.t)
    objective, photo = objective_of(name, torch.float32), torch.rand(1, 3, *SIZE)
    pictures, found = [], []
    for view in (exact, fewer):
        pictures.append(whole_image(renderer, view))
        image = pictures[-1].view(*SIZE, 3).permute(2, 0, 1)[None]
        sum(objective(image, photo, view.mask()).values()).backward()
        found.append(gradients(renderer))
    mse = (pictures[0] - pictures[1]).square().mean()
    assert -10 * torch.log10(mse + 1e-12) >= 50
    cosine = torch.nn.functional.cosine_similarity(*found, dim=0)
    assert cosine > 0.99985  # one degree


def test_a_view_can_be_taken_apart():
    renderer, cameras = scene_of("voxels", torch.float64)
    frozen = FrozenGeometry(renderer, cameras, 1e9).view(0)
    whole = frozen.render(renderer.field, renderer.background)
    pixels = torch.tensor([50, 3, 41, 42, len(frozen) - 1])
    taken = frozen.take(pixels).render(renderer.field, renderer.background)
    assert torch.allclose(taken, whole[pixels])
    corner, size = (3, 5), (6, 9)
    window = frozen.window(corner, size)
    cut = window.image(window.render(renderer.field, renderer.background), renderer.background)
    image = whole_image(renderer, frozen).view(*SIZE, 3).permute(2, 0, 1)[None]
    assert torch.allclose(cut, image[..., 3:9, 5:14])
    assert torch.equal(window.mask(), frozen.mask()[..., 3:9, 5:14])


@pytest.mark.parametrize("first", [(0, 0), (1, 2), (2, 1)])
def test_every_third_pixel_of_a_view_is_the_whole_views(first):
    renderer, cameras = scene_of("voxels", torch.float64)
    frozen = FrozenGeometry(renderer, cameras, 1e9).view(0)
    image = whole_image(renderer, frozen).view(*SIZE, 3).permute(2, 0, 1)[None]
    every = frozen.every(3, first)
    anew = FrozenGeometry(renderer, cameras, 0)
    anew.view(0)  # it is known from now on that there is no room for it
    computed = anew.view(0, 3, first)
    assert computed.size == every.size
    for name, tensor in every.tensors().items():
        assert torch.allclose(computed.tensors()[name], tensor), name
    few = every.image(every.render(renderer.field, renderer.background), renderer.background)
    assert few.shape[2:] == every.size
    assert torch.allclose(few, image[..., first[0] :: 3, first[1] :: 3])
    assert torch.equal(every.mask(), frozen.mask()[..., first[0] :: 3, first[1] :: 3])
    window = every.window((1, 2), (2, 3))
    cut = window.image(window.render(renderer.field, renderer.background), renderer.background)
    assert torch.allclose(cut, few[..., 1:3, 2:5])


@pytest.mark.parametrize(
    ("side", "share", "expected"),
    [
        (800, 0.75, [(25, 8), (50, 4), (75, 2), (100, 1)]),
        (400, 0.6, [(30, 4), (60, 2), (100, 1)]),
        (255, 0.6, [(60, 2), (100, 1)]),
        (127, 0.6, [(100, 1)]),
    ],
)
def test_strokes_are_painted_from_large_to_small(side, share, expected):
    assert stages_of(100, side, share) == expected


def test_budget_decides_what_is_kept_not_what_is_seen():
    renderer, cameras = scene_of("voxels", torch.float32)
    keeping = FrozenGeometry(renderer, cameras, 1e9)
    forgetting = FrozenGeometry(renderer, cameras, 0)
    kept = keeping.view(0)
    assert keeping.view(0).weights is kept.weights
    assert keeping.used == {"device": 0, "host": kept.nbytes()}
    assert torch.equal(kept.weights, forgetting.view(0).weights)
    assert not forgetting.kept


def test_running_out_of_memory_halves_the_chunks_and_changes_nothing():
    seen = []

    def work(part):
        if part.stop - part.start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(part)
        return part.stop - part.start

    chunks = Chunks(11)
    assert sum(chunks.over(25, work)) == 25
    assert [p.start for p in seen] == [0, *[p.stop for p in seen[:-1]]]
    assert chunks.size == 2  # 11, 5, 2
    with pytest.raises(torch.OutOfMemoryError):
        Chunks(2).over(4, lambda part: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))


def test_what_is_short_enough_is_not_cut():
    chunks = Chunks(4, uncut=10)
    assert chunks.over(10, lambda part: part) == [slice(0, 10)]
    assert [p.stop for p in chunks.over(11, lambda part: part)] == [4, 8, 11]
    assert chunks.fit(10)
    assert not chunks.fit(11)


def test_a_view_whose_graph_finds_no_memory_is_done_in_chunks():
    """With the same terms and the same gradient."""
    colour = torch.nn.Parameter(torch.linspace(0, 1, 12, dtype=torch.float64).view(6, 2))

    def backward(chunks, largest):
        def shade(part):
            if part.stop - part.start > largest and torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory")
            return colour[part].cumsum(1)

        def image_gradient(pixels):
            pixels = pixels.requires_grad_()
            loss = (pixels.sum(0) ** 2).sum()
            return {"loss": loss.detach()}, torch.autograd.grad(loss, pixels)[0]

        terms = deferred_backward(shade, len(colour), chunks, image_gradient, [colour])
        gradient, colour.grad = colour.grad, None
        return terms["loss"], gradient

    loss, gradient = backward(Chunks(6), 6)
    chunks = Chunks(4, uncut=6)
    found, again = backward(chunks, 2)
    assert torch.equal(found, loss)
    assert torch.allclose(again, gradient)
    assert (chunks.size, chunks.uncut) == (1, 1)  # 6, 3, 1


@pytest.mark.parametrize("size", [(100, 60), (55, 47), (10, 70)])
def test_patches_cover_every_pixel_and_stay_inside(size):
    tiles = patches(size, 50)
    seen = torch.zeros(size, dtype=torch.bool)
    for (top, left), (height, width) in tiles:
        assert (height, width) == (min(50, size[0]), min(50, size[1]))
        assert top + height <= size[0] and left + width <= size[1]
        seen[top : top + height, left : left + width] = True
    assert seen.all()
    assert len(tiles) == -(-size[0] // 50) * -(-size[1] // 50)


def test_a_small_view_averages_rays():
    """`small`: k x k rays a pixel, the camera's field of view kept, never enlarged."""
    image = torch.randint(0, 256, (60, 90, 3), dtype=torch.uint8)
    view = View(image, None, torch.eye(4)[:3], 50.0, 50.0, 45.0, 30.0, "v")
    small, pool = shrunk(view, 16)
    assert pool == 3 and (small.height, small.width) == (48, 72)
    assert small.fx / small.width == pytest.approx(view.fx / view.width)
    assert small.cy / small.height == pytest.approx(0.5)
    same, pool = shrunk(view, 60)
    assert pool == 1 and same is view
    assert shrunk(view, 200) == (view, 1)


def test_a_resized_view_keeps_its_mask_and_what_is_valid():
    alpha, valid = torch.zeros(40, 60, dtype=torch.uint8), torch.ones(40, 60, dtype=torch.bool)
    alpha[:, 30:], valid[0, 0] = 255, False
    image = torch.zeros(40, 60, 3, dtype=torch.uint8)
    view = View(image, alpha, torch.eye(4)[:3], 50.0, 40.0, 30.0, 20.0, "v", valid)
    small = view.resized(30, 10)
    assert (small.fx, small.fy, small.cx, small.cy) == (25.0, 10.0, 15.0, 5.0)
    assert (small.alpha[:, :14] == 0).all() and (small.alpha[:, 16:] == 255).all()
    assert not small.valid[0, 0] and small.valid[3:, 3:].all()


def test_kept_features_change_nothing():
    """Of a field whose features are long vectors: computed with the samples, or when needed."""
    renderer, cameras = scene_of("nerf", torch.float64)
    renderer.field.rows = 11
    parameters = list(renderer.field.style.parameters())
    kept, bare = (FrozenGeometry(renderer, cameras, budget).view(0) for budget in (1e9, 1e4))
    assert kept.feature is not None
    assert bare.feature is None
    again = bare.with_features(renderer.field, Chunks(7))
    images = [view.render(renderer.field, renderer.background) for view in (kept, bare, again)]
    gradients = [torch.autograd.grad(image.square().sum(), parameters) for image in images]
    for image, gradient in zip(images[1:], gradients[1:], strict=True):
        torch.testing.assert_close(image, images[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(gradient, gradients[0], rtol=0, atol=1e-10)
    part = kept.window((2, 3), (5, 6))
    torch.testing.assert_close(
        part.render(renderer.field, renderer.background),
        bare.window((2, 3), (5, 6)).render(renderer.field, renderer.background),
        rtol=0,
        atol=1e-12,
    )
