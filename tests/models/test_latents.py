"""Codes of paintings: their distribution, their autoencoder, and the networks that read them."""

import pytest
import torch
from torch import distributions, nn

from models.latent_nerf import SKIP, LatentNerfStyle
from models.latent_voxels import LatentVoxelStyle, rows_of
from models.latents import Latents
from models.mlp import positional_encoding
from models.style import build_style
from models.style_vae import StyleVae, divergence, fit_style_vae


def drawn(n_views=5, n_code=4):
    latents = Latents(n_views, n_code)
    g = torch.Generator().manual_seed(3)
    latents.draw(torch.randn(n_code, generator=g), torch.randn(n_code, generator=g), g)
    return latents


def test_likelihood_is_a_normal_distributions():
    """With its half, and divided by the variance: up to the constant that has no gradient."""
    latents = drawn()
    normal = distributions.Normal(latents.mean, (0.5 * latents.log_variance).exp())
    found = latents.negative_log_likelihood(1) - latents.negative_log_likelihood(2)
    wanted = -normal.log_prob(latents.codes[1]).sum() + normal.log_prob(latents.codes[2]).sum()
    torch.testing.assert_close(found, wanted)


def test_a_novel_view_lies_between_its_neighbours_or_takes_the_mean():
    latents, views = drawn(), torch.tensor([0, 3])
    weights = torch.tensor([0.25, 0.75])
    assert torch.equal(latents.between(views, weights, 0.0), latents.mean)
    own = 0.25 * latents.codes[0] + 0.75 * latents.codes[3]
    torch.testing.assert_close(latents.between(views, weights, 1.0), own)


def test_codes_are_those_of_the_distribution():
    latents = Latents(4000, 3)
    mean, log_variance = torch.tensor([1.0, -2, 0]), torch.tensor([0.0, -2, 1])
    latents.draw(mean, log_variance, torch.Generator().manual_seed(0))
    torch.testing.assert_close(latents.codes.mean(0), mean, atol=0.1, rtol=0.0)
    torch.testing.assert_close(latents.codes.var(0).log(), log_variance, atol=0.1, rtol=0.0)


def test_divergence_is_the_one_of_normal_distributions():
    mean, log_variance = torch.randn(2, 7, 3).unbind(0)
    own = distributions.Normal(mean, (0.5 * log_variance).exp())
    wanted = distributions.kl_divergence(own, distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(divergence(mean, log_variance), wanted)


def test_autoencoder_tells_paintings_apart_and_rebuilds_them():
    g = torch.Generator().manual_seed(0)
    paintings = torch.randn(4, 1, 24, generator=g) * 3 + 1
    rows = paintings + 0.3 * torch.randn(4, 40, 24, generator=g)
    vae = fit_style_vae(rows.flatten(0, 1), steps=60, seed=1)
    codes = torch.stack([vae.encode(p[0])[0] for p in paintings])
    assert torch.pdist(codes).min() > 0.5
    rebuilt = vae.decoder(codes) * vae.scale + vae.centre
    error = (rebuilt - paintings[:, 0]).square().mean() / paintings.var()
    assert error < 0.3
    again = fit_style_vae(rows.flatten(0, 1), steps=60, seed=1)
    assert torch.equal(again.encode(rows[0])[0], vae.encode(rows[0])[0])
    assert isinstance(vae, StyleVae)


def paper_twin(style, x, code):
    """The style module layer by layer, its code as an input of every one."""
    encoded = positional_encoding((x - style.centre) * style.unit, style.network.n_frequencies)
    h = encoded
    for i, layer in enumerate(style.network.layers):
        h = torch.cat([h, encoded, code] if i == SKIP else [h, code], -1)
        h = nn.functional.linear(h, layer.weight, layer.bias)
        h = h.relu() if i < len(style.network.layers) - 1 else h.sigmoid()
    return h


@pytest.mark.parametrize("each", [False, True])
def test_nerfs_style_module_is_the_papers(make_field, points, gradients, each):
    torch.manual_seed(0)
    style = LatentNerfStyle(make_field("nerf").geometry.double(), 3, 6).double()
    x, d = points(30, torch.float64)
    code = torch.randn(30, 6) if each else torch.randn(6)
    code = code.double().requires_grad_()
    found = style(None, x, d, code)
    wanted = paper_twin(style, x, code if each else code.expand(30, 6))
    torch.testing.assert_close(found, wanted)
    leaves = [code, *style.network.parameters()]
    for a, b in zip(gradients(found, leaves), gradients(wanted, leaves), strict=True):
        torch.testing.assert_close(a, b)
    assert [layer.out_features for layer in style.network.layers] == [*[256] * 7, 3]


def test_painting_on_voxels_begins_with_the_photographic_colours(make_field, monkeypatch):
    """Of each vertex, whatever the code is; however many are computed at once."""
    monkeypatch.setattr("models.latent_voxels.ROWS", 100)
    field = make_field("voxels", view_dependent=False)
    nn.init.normal_(field.style.head.table)
    new = LatentVoxelStyle.like(field.style, field.geometry, 3)
    x = field.geometry.lattice.vertices() * 0.9999
    feature, d = field.geometry.feature(x), torch.zeros_like(x)
    wanted = field.style(feature, x, d)
    torch.testing.assert_close(new(feature, x, d), wanted, atol=5e-3, rtol=0)
    assert torch.equal(new(feature, x, d, torch.randn(32)), new(feature, x, d))
    # seen from everywhere, also where the photographic colours are not
    seen = make_field("voxels").style
    seen.load_state_dict(field.style.state_dict())
    twin = LatentVoxelStyle.like(seen, field.geometry, 3)
    assert torch.equal(twin.head.table, new.head.table)
    assert seen.decoder.view_dependent


@pytest.mark.parametrize("each", [False, True])
def test_a_code_scales_and_shifts_what_the_palette_makes_logits_of(
    make_field, points, gradients, each
):
    field = make_field("voxels").double()
    style = LatentVoxelStyle(field.geometry, 3, 6).double()
    for parameter in style.parameters():
        nn.init.normal_(parameter)
    x, d = points(30, torch.float64)
    feature = field.geometry.feature(x)
    code = torch.randn(30, 6) if each else torch.randn(6)
    code = code.double().requires_grad_()
    change = (code.expand(30, 6) - style.latents.mean) @ style.tint.weight.T
    own = style.head(feature, x) * (1 + change[:, :3]) + change[:, 3:]
    wanted = torch.sigmoid(own @ style.palette.T + style.centre)
    found = style(feature, x, d, code)
    torch.testing.assert_close(found, wanted)
    leaves = [code, style.head.table, style.tint.weight]
    for a, b in zip(gradients(found, leaves), gradients(wanted, leaves), strict=True):
        torch.testing.assert_close(a, b)


def test_reset_of_a_style_whose_layer_has_no_bias(make_field):
    style = LatentVoxelStyle(make_field("voxels").geometry, 3)
    assert (style.tint.weight == 0).all()
    style.reset()
    assert style.tint.weight.abs().max() > 0


def test_recoloured_vertices(make_field, points, monkeypatch):
    """In units of a palette or not: the same colours, if the units are."""
    monkeypatch.setattr("models.latent_voxels.ROWS", 100)
    field = make_field("voxels")
    style = LatentVoxelStyle(field.geometry, 3)
    nn.init.normal_(style.head.table)
    x, d = points()
    feature = field.geometry.feature(x)
    before = style(feature, x, d)
    palette, centre = torch.diag(torch.tensor([1.0, 2, 4])), torch.tensor([0.5, 0, -0.5])
    style.recolour(lambda logits: (logits - centre) @ palette.inverse().T, palette, centre)
    torch.testing.assert_close(style(feature, x, d), before)
    style.recolour(torch.zeros_like, palette, centre)
    torch.testing.assert_close(style(feature, x, d), torch.sigmoid(centre).expand(len(x), 3))


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_a_style_rendered_without_a_code_takes_its_own_mean(make_field, points, kind):
    field = make_field(kind)
    style = {"nerf": LatentNerfStyle, "voxels": LatentVoxelStyle}[kind](field.geometry, 3)
    for parameter in style.parameters():
        nn.init.normal_(parameter, std=0.1)
    field.style = style
    x, d = points()
    assert torch.equal(field.colours(x, d), field.colours(x, d, style.latents.mean))
    assert not torch.equal(field.colours(x, d), field.colours(x, d, style.latents.codes[0]))


def test_smoothed_vertices(make_field):
    """What alternates from vertex to vertex vanishes inside, what is linear stays; the field ends
    with its own values."""
    field = make_field("voxels")
    head = LatentVoxelStyle(field.geometry, 3).head
    index = ((field.geometry.lattice.vertices() + 1) / field.geometry.lattice.cell).round()
    inside = ((index > 0) & (index < torch.tensor([8, 8, 6]))).all(1)
    with torch.no_grad():
        head.table.copy_(torch.stack([(-1.0) ** index[:, 1], index[:, 0], index.sum(1)], 1))
    before = head.table.detach().clone()
    head.smooth()
    assert head.table[inside, 0].abs().max() < 1e-6
    torch.testing.assert_close(head.table[inside, 1:], before[inside, 1:])
    corner = (index == 8 * torch.tensor([1, 1, 0])).all(1)
    assert head.table[corner, 1].item() == pytest.approx(7.75)
    assert head.table.requires_grad


def test_vertices_that_no_view_sees_have_the_numbers_of_one_before(make_field, points, gradients):
    """Values and gradients are those of a table of all vertices; so is what smoothing makes of the
    seen ones, and what a saved style shows."""
    field = make_field("voxels").double()
    every, style = (LatentVoxelStyle(field.geometry, 3).double() for _ in range(2))
    nn.init.normal_(style.head.table)
    seen = torch.rand(len(style.head.table), generator=torch.Generator().manual_seed(0)) < 0.6
    row = rows_of(seen)
    style.head.keep(seen, row)
    assert len(style.head.table) == seen.sum()
    with torch.no_grad():
        every.head.table.copy_(style.head.table[row])
    x, d = points(200, torch.float64)
    feature = field.geometry.feature(x)
    found, wanted = style(feature, x, d), every(feature, x, d)
    torch.testing.assert_close(found, wanted)
    (grad,), (whole,) = gradients(found, [style.head.table]), gradients(wanted, [every.head.table])
    torch.testing.assert_close(grad, torch.zeros_like(grad).index_add(0, row.long(), whole))
    again = build_style(style.spec(), field.geometry).double()
    again.load_state_dict(style.state_dict())
    assert torch.equal(again(feature, x, d), found)
    style.head.smooth()
    every.head.smooth()
    torch.testing.assert_close(style.head.table, every.head.table[seen])
    other = style.clone()
    other.load_state_dict(style.state_dict())
    assert other.head.row is style.head.row and other.head.table is not style.head.table
