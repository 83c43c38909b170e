"""Both fields: shapes, separation of geometry and style, the fast gather against its plain twin."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models import FIELDS
from models.mlp import MLP, positional_encoding
from models.nerf import NerfGeometry
from models.occupancy import dilate, grid_shape, resample_any
from models.trilinear import trilinear_gather, trilinear_weights

KINDS = ["nerf", "voxels"]


def test_nerf_has_the_papers_size(make_field):
    count = sum(p.numel() for p in make_field("nerf").geometry.parameters())
    trunk = 63 * 256 + 256 + 6 * (256 * 256 + 256) + (319 * 256 + 256)
    assert count == trunk + 257


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_ranges(kind, make_field, points):
    field, (x, d) = make_field(kind), points()
    density, feature = field.geometry(x)
    rgb = field.style(feature, x, d)
    assert density.shape == (40,)
    assert (density >= 0).all()
    assert len(feature) == 40
    assert rgb.shape == (40, 3)
    assert ((rgb >= 0) & (rgb <= 1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_feature_alone_is_that_with_the_density(kind, make_field, points):
    field, (x, _) = make_field(kind), points()
    assert torch.equal(field.geometry.feature(x), field.geometry(x)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_colour_has_no_gradient_in_the_density(kind, make_field, points):
    field, (x, _) = make_field(kind), points()
    density, _ = field.geometry(x)
    density.sum().backward()
    assert all(p.grad is None for p in field.style.parameters())
    assert all(p.grad is not None for p in field.geometry.parameters())
    names = {n.split(".")[0] for n, _ in field.named_parameters()}
    assert names == {"geometry", "style"}


@pytest.mark.parametrize("what", ["densities", "features"])
def test_corners_add_up_their_gradient_in_a_fixed_order(make_field, two_threads, what):
    field = make_field("voxels")
    table = {"densities": field.geometry.raw, "features": field.style.head.table}[what]

    def gradient():
        draw = getattr(field, f"corner_{what}")
        drawn = draw(100_000, torch.Generator().manual_seed(0))
        factor = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(1))
        return torch.autograd.grad((drawn * factor).sum(), table)[0]

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(4))


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_change_nothing(kind, make_field, points):
    """The plain twin takes all rows at once."""
    x, d = points(50, torch.float64)

    def both(rows):
        field = make_field(kind).double()
        field.style.reset()
        for network in (m for m in field.modules() if isinstance(m, MLP)):
            network.rows = rows
        density, feature = field.geometry(x)
        rgb = field.style(feature, x, d)
        loss = (density.sum() + (rgb * x).sum()) ** 2
        with torch.no_grad():
            again = field.geometry(x)
        return density, rgb, *again, *torch.autograd.grad(loss, list(field.parameters()))

    whole = both(1 << 13)
    torch.testing.assert_close(both(7), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [7, 1 << 13])
@pytest.mark.parametrize("shape", [None, (3,), (40, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_those_of_the_style_at_once(kind, shape, rows, make_field, points, gradients):
    """In values and gradients, of which the geometry has none."""
    field = make_field(kind, n_code=3).double()
    field.style.reset()
    field.rows = rows
    x, d = points(dtype=torch.float64)
    code = None if shape is None else torch.randn(shape, dtype=torch.float64).requires_grad_()
    expected = field.style(field.geometry.feature(x).detach(), x, d, code)
    found = field.colours(x, d, code)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    inputs = [*field.style.parameters(), *([] if code is None else [code])]
    torch.testing.assert_close(
        gradients(found, inputs), gradients(expected, inputs), rtol=1e-12, atol=1e-12
    )
    found.sum().backward()
    assert all(p.grad is None for p in field.geometry.parameters())
    with torch.no_grad():
        torch.testing.assert_close(field.colours(x, d, code), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_like_another_has_a_style_and_weights_of_its_own(kind, make_field):
    field = make_field(kind, n_code=2)
    field.style.decoder.set_colour_map(torch.eye(3), torch.zeros(3))
    style = {"kind": kind, "n_frequencies": 1}
    twin = field.like(style)
    assert twin.style.spec() == make_field(kind, n_frequencies=1).style.spec()
    pair = field.geometry, twin.geometry
    shapes, others = ({n: p.shape for n, p in g.named_parameters()} for g in pair)
    assert shapes == others
    assert not {id(p) for p in field.parameters()} & {id(p) for p in twin.parameters()}
    layers = [[m for m in g.modules() if isinstance(m, nn.Linear)] for g in pair]
    assert not any(torch.equal(a.weight, b.weight) for a, b in zip(*layers, strict=True))
    if kind == "voxels":
        assert twin.style.head._lattice[0] is twin.geometry.lattice


@pytest.mark.parametrize("kind", KINDS)
def test_groups_hold_every_parameter_once(kind, make_field):
    field = make_field(kind)
    found = [id(p) for group in field.parameter_groups(None) for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in field.parameters())
    usual, asked = field.parameter_groups(None), field.parameter_groups(1e-3)
    ratios = [a["lr"] / u["lr"] for a, u in zip(asked, usual, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    of_appearance = field.style.head.table if kind == "voxels" else field.style.head.linear.weight
    assert [g["lr"] for g in asked if any(p is of_appearance for p in g["params"])] == [
        pytest.approx(1e-3)
    ]


@pytest.mark.parametrize(
    ("kind", "sampling", "sampler"),
    [
        (
            "nerf",
            "hierarchical",
            {
                "kind": "hierarchical",
                "n_coarse": 24,
                "n_fine": 40,
                "style": {"kind": "nerf", "n_frequencies": 3},
            },
        ),
        ("nerf", "occupancy", {"kind": "occupancy", "n_steps": 64}),
        ("voxels", "occupancy", {"kind": "occupancy", "n_steps": 0}),
    ],
)
def test_options_make_a_specification(kind, sampling, sampler, bounds):
    options = SimpleNamespace(
        N_samples=24, N_importance=40, N_emb_xyz=6, N_emb_dir=3, sampling=sampling
    )
    spec = FIELDS[kind].specs_of(options)
    assert spec["field"]["kind"] == spec["style"]["kind"] == kind
    assert spec["sampler"] == sampler
    field = FIELDS[kind].build(spec, bounds, torch.ones(4, 4, 3, dtype=torch.bool))
    if kind == "nerf":
        assert field.geometry.mlp.layers[0].in_features == 3 * (1 + 2 * 6)
        assert field.style.decoder.n_frequencies == 3


# voxels


@pytest.mark.parametrize("channels", [1, 3, 5])
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


def test_trilinear_interpolation_is_exact_for_linear_functions(make_field, points):
    lattice = make_field("voxels").geometry.lattice
    slope = torch.tensor([[1.0, -2.0, 0.5]]).T
    x, _ = points(200)
    position = lattice.position(x)
    cell = lattice.locate(position)
    values = lattice.interpolate(lattice.vertices() @ slope, cell, position)
    assert torch.allclose(values, x @ slope, atol=1e-5)
    assert torch.allclose(trilinear_weights(torch.rand(3, 9)).sum(1), torch.ones(9))


def test_nothing_outside_the_voxels(make_field):
    active = torch.ones(8, 8, 6, dtype=torch.bool)
    active[:4] = False
    field = make_field("voxels", active)
    density, cell = field.geometry(torch.tensor([[-0.5, 0, 0], [0.5, 0, 0], [5, 0, 0]]))
    assert density[0] == 0
    assert density[1] > 0
    assert density[2] == 0
    assert cell.tolist()[0] == -1


def test_filling_sets_one_density(make_field, points):
    field, (x, _) = make_field("voxels"), points()
    field.fill(1.5)
    unit = 2 / 100  # hundredths of the box's longest side
    expected = nn.functional.softplus(torch.tensor(1.5)) / unit
    torch.testing.assert_close(field.geometry(x)[0], expected.expand(40))


def test_steps_are_shorter_than_cells(make_field):
    assert make_field("voxels").step == pytest.approx(0.25 * 3 / 4)
    assert make_field("nerf").step is None


@pytest.mark.parametrize("options", [{}, {"n_features": 5, "n_code": 2, "view_dependent": False}])
def test_other_cells_keep_the_function(options, make_field, points):
    field = make_field("voxels", **options)
    nn.init.normal_(field.geometry.raw)
    nn.init.normal_(field.style.head.table)
    field.style.decoder.set_colour_map(torch.rand(3, 3), torch.rand(3))
    fine = field.on_cells(torch.ones(16, 16, 12, dtype=torch.bool))
    x, d = points(300)
    density, feature = field.geometry(x)
    density_fine, feature_fine = fine.geometry(x)
    # not to the last digit: rim vertices are looked up a thousandth of a cell inside
    assert torch.allclose(density, density_fine, rtol=1e-2)
    assert torch.allclose(
        field.style(feature, x, d), fine.style(feature_fine, x, d), rtol=1e-2, atol=1e-3
    )
    assert fine.geometry.lattice.n_vertices == 17 * 17 * 13
    assert fine.style.spec() == field.style.spec()
    assert all(parameter.requires_grad for parameter in fine.parameters())


def test_refining_goes_where_the_grid_finds_something(make_field, bounds):
    occupied = torch.zeros(12, 12, 9, dtype=torch.bool)
    occupied[3, 4, 5] = True
    field = make_field("voxels")
    fine = field.refined(occupied, 16)
    shape = grid_shape(bounds, 16)
    assert shape == (16, 16, 12)
    assert torch.equal(fine.geometry.lattice.active, resample_any(dilate(occupied), shape))
    assert fine.geometry.lattice.active.sum() < 300
    nerf = make_field("nerf")
    assert nerf.refined(occupied, 16) is nerf


def test_hidden_frequencies_do_not_matter_until_they_are_revealed():
    """Of 4 frequencies a quarter is the first one alone: moving by its period changes only x."""
    geometry = NerfGeometry(4, torch.tensor([[-1.0] * 3, [1.0] * 3])).double()
    x = torch.rand(5, 3, dtype=torch.float64) * torch.pi
    whole = positional_encoding(x, 4)
    geometry.revealed = 0.375  # one and a half
    seen = geometry._encode(x)
    assert torch.equal(seen[:, :9], whole[:, :9])
    assert torch.allclose(seen[:, 9:15], 0.5 * whole[:, 9:15])
    assert (seen[:, 15:] == 0).all()
    assert geometry._encode(x[:0]).shape == (0, 27)  # rays that meet nothing
    geometry.revealed = 1.0
    assert torch.equal(geometry._encode(x), whole)
