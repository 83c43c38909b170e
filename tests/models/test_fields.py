"""Both fields: shapes, separation of geometry and style, the fast gather against its plain twin."""

import pytest
import torch

from datasets.cameras.rays import Rays
from models.encoding import encoded_width, positional_encoding
from models.nerf import NerfField
from models.renderer import Renderer
from models.trilinear import trilinear_gather, trilinear_weights
from models.voxels import VoxelField, grid_shape

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 0.5]])
ACTIVE = torch.ones(8, 8, 6, dtype=torch.bool)


def field_of(kind):
    torch.manual_seed(0)
    return NerfField(BOUNDS) if kind == "nerf" else VoxelField(ACTIVE, BOUNDS)


def points(n=40):
    return torch.rand(n, 3) * torch.tensor([2.0, 2, 1.5]) + BOUNDS[0]


def test_positional_encoding_is_the_formula():
    x = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    parts = [x]
    for k in range(3):
        parts += [(2**k * x).sin(), (2**k * x).cos()]
    assert torch.allclose(positional_encoding(x, 3), torch.cat(parts, -1))
    assert positional_encoding(x, 3).shape[-1] == encoded_width(2, 3)
    assert positional_encoding(x, 0) is x


def test_nerf_has_the_papers_size():
    count = sum(p.numel() for p in NerfField(BOUNDS).geometry.parameters())
    trunk = 63 * 256 + 256 + 6 * (256 * 256 + 256) + (319 * 256 + 256)
    assert count == trunk + 257


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_shapes_and_ranges(kind):
    field, x = field_of(kind), points()
    density, feature = field.geometry(x)
    rgb = field.style(feature, x, torch.nn.functional.normalize(x, dim=-1))
    assert density.shape == (40,)
    assert (density >= 0).all()
    assert len(feature) == 40
    assert rgb.shape == (40, 3)
    assert ((rgb >= 0) & (rgb <= 1)).all()


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_colour_has_no_gradient_in_the_density(kind):
    field, x = field_of(kind), points()
    density, _ = field.geometry(x)
    density.sum().backward()
    assert all(p.grad is None for p in field.style.parameters())
    assert all(p.grad is not None for p in field.geometry.parameters())
    names = {n.split(".")[0] for n, _ in field.named_parameters()}
    assert names == {"geometry", "style"}


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_without_view_dependence_all_directions_are_one(kind):
    field, x = field_of(kind), points()
    if kind == "voxels":
        torch.nn.init.normal_(field.style.features)
    _, feature = field.geometry(x)
    a, b = torch.nn.functional.normalize(torch.randn(2, 40, 3), dim=-1)
    assert not torch.allclose(field.style(feature, x, a), field.style(feature, x, b))
    field.style.view_dependent.fill_(0)
    assert torch.equal(field.style(feature, x, a), field.style(feature, x, b))


def test_colour_transfer_is_part_of_the_style_and_never_wraps():
    field, x = field_of("nerf"), points()
    _, feature = field.geometry(x)
    before = field.style(feature, x, x)
    field.style.colour_matrix.copy_(2 * torch.eye(3))
    field.style.colour_offset.fill_(-0.2)
    assert torch.allclose(field.style(feature, x, x), (2 * before - 0.2).clamp(0, 1))


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("n_samples", [0, 30, 300])
def test_trilinear_gather_equals_its_plain_twin(channels, n_samples):
    """With few samples in a cell, and with many."""
    table = torch.randn(50, channels, dtype=torch.float64, requires_grad=True)
    corners = torch.randint(0, 50, (40, 8), dtype=torch.int32)
    cell = torch.randint(0, 40, (n_samples,), dtype=torch.int32)
    weights = torch.rand(n_samples, 8, dtype=torch.float64)
    out = trilinear_gather(table, corners, cell, weights)
    plain = (table[corners.long()[cell.long()]] * weights[..., None]).sum(1)
    assert torch.allclose(out, plain)
    grad = torch.randn_like(plain)
    (fast,) = torch.autograd.grad(out, table, grad)
    (slow,) = torch.autograd.grad(plain, table, grad)
    assert torch.allclose(fast, slow, rtol=1e-12)


def test_trilinear_interpolation_is_exact_for_linear_functions():
    field = field_of("voxels")
    lattice = field.geometry.lattice
    slope = torch.tensor([[1.0, -2.0, 0.5]]).T
    x = points(200)
    cell = lattice.locate(x)
    values = lattice.interpolate(lattice.vertices() @ slope, cell, x)
    assert torch.allclose(values, x @ slope, atol=1e-5)
    assert torch.allclose(trilinear_weights(torch.rand(9, 3)).sum(1), torch.ones(9))


def test_nothing_outside_the_voxels():
    active = ACTIVE.clone()
    active[:4] = False
    field = VoxelField(active, BOUNDS)
    density, cell = field.geometry(torch.tensor([[-0.5, 0, 0], [0.5, 0, 0], [5, 0, 0]]))
    assert density[0] == 0
    assert density[1] > 0
    assert density[2] == 0
    assert cell.tolist()[0] == -1


def test_refining_keeps_the_function():
    field = field_of("voxels")
    torch.nn.init.normal_(field.geometry.raw)
    torch.nn.init.normal_(field.style.features)
    fine = field.refined(torch.ones(16, 16, 12, dtype=torch.bool))
    x, d = points(300), torch.nn.functional.normalize(torch.randn(300, 3), dim=-1)
    density, feature = field.geometry(x)
    density_fine, feature_fine = fine.geometry(x)
    # not to the last digit: rim vertices are looked up a thousandth of a cell inside
    assert torch.allclose(density, density_fine, rtol=1e-2)
    assert torch.allclose(
        field.style(feature, x, d), fine.style(feature_fine, x, d), rtol=1e-2, atol=1e-3
    )
    assert fine.geometry.lattice.n_vertices == 17 * 17 * 13


def test_grid_shape_makes_cubes():
    assert grid_shape(BOUNDS, 64) == (64, 64, 48)


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_a_renderer_comes_back_from_its_state(kind):
    torch.manual_seed(0)
    white = torch.ones(3)
    occupied = torch.rand(8, 8, 6) > 0.3
    renderer = (
        Renderer.nerf(BOUNDS, white, occupied, 8, 8)
        if kind == "nerf"
        else Renderer.voxels(BOUNDS, white, occupied, occupied)
    )
    if kind == "voxels":
        torch.nn.init.normal_(renderer.field.geometry.raw, mean=4.0)
        torch.nn.init.normal_(renderer.field.style.features)
        renderer.sampler.grid.set(torch.rand(16, 16, 12) > 0.1)
    origins = torch.randn(20, 3) * 0.2 + torch.tensor([0.0, 0, 3])
    directions = torch.nn.functional.normalize(-origins + 0.3 * torch.randn(20, 3), dim=-1)
    rays = Rays(origins, directions, torch.full((20,), 1.0), torch.full((20,), 6.0))
    again = Renderer.from_state(renderer.spec, renderer.state_dict()).eval()
    a, b = renderer.eval()(rays), again(rays)
    assert torch.equal(a.rgb, b.rgb)
    assert a.opacity.max() > 0.01


def test_clipped_rays_end_at_the_box():
    renderer = Renderer.voxels(BOUNDS, torch.ones(3), ACTIVE, ACTIVE)
    origins = torch.tensor([[0.0, 0, 3], [0, 5, 3], [0, 0, 0]])
    directions = torch.tensor([[0.0, 0, -1], [0, 0, -1], [1.0, 0, 0]])
    rays = renderer.clip(Rays(origins, directions, torch.zeros(3), torch.full((3,), 9.0)))
    assert torch.allclose(rays.near[[0, 2]], torch.tensor([2.5, 0.0]))
    assert torch.allclose(rays.far[[0, 2]], torch.tensor([4.0, 1.0]))
    assert rays.far[1] < rays.near[1]


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_without_view_dependence_the_direction_is_one_for_all(kind):
    """As a bias of the first layer it is what it was as an input."""
    field, x = field_of(kind), points()
    field.double().style.reset()
    x = x.double()
    d = torch.nn.functional.normalize(x, dim=-1)
    feature = field.geometry(x)[1].detach()

    def run(d):
        rgb = field.style(feature, x, d)
        loss = (rgb * x).sum()
        return rgb, *torch.autograd.grad(loss, list(field.style.parameters()))

    input_ = run(torch.zeros_like(d))
    field.style.view_dependent.zero_()
    torch.testing.assert_close(run(d), input_, rtol=1e-10, atol=1e-12)
