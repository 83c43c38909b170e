"""What endless rays show that no surface stops: the field's colours at infinity."""

import pytest
import torch
from torch import nn

from datasets.cameras.rays import Rays
from datasets.cameras.space import NDC, WORLD, Contracted
from models.occupancy import with_sides
from tests.renderers import nerf_renderer, voxel_renderer

FOREGROUND = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
SPACE = Contracted(FOREGROUND)
BOX = SPACE.box(FOREGROUND)
EMPTY = torch.zeros(8, 8, 8, dtype=torch.bool)


def renderer_of(kind, occupied=EMPTY):
    torch.manual_seed(0)
    if kind == "nerf":
        return nerf_renderer(BOX, occupied, 8, 8, sampling="occupancy")
    renderer = voxel_renderer(BOX, occupied, with_sides(occupied))
    nn.init.normal_(renderer.field.style.head.table)
    return renderer


def rays_from(*origins, space=SPACE):
    """The same five directions from each place."""
    torch.manual_seed(1)
    directions = nn.functional.normalize(torch.randn(5, 3), dim=-1).repeat(len(origins), 1)
    origins = torch.tensor(origins).repeat_interleave(5, 0)
    rays = Rays(origins, directions, torch.zeros(len(origins)), torch.ones(len(origins)))
    return space.warp_rays(rays)


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_an_empty_scene_looks_alike_from_everywhere(kind):
    renderer = renderer_of(kind)
    seen = renderer(rays_from([0.0, 0, 0], [0.8, -0.9, 0.5]))
    one, other = seen.rgb.view(2, 5, 3)
    assert (one - other).abs().max() < 0.1 * (one - one[0]).abs().max()
    assert seen.opacity.max() == 0


def test_infinity_is_behind_what_is_there():
    """White fog in front of a white sky is white, however thin; the background would be grey."""
    renderer = renderer_of("voxels", torch.ones_like(EMPTY))
    renderer.background = torch.full((3,), 0.5)
    renderer.field.geometry.raw.data.fill_(-4.0)
    out = renderer.field.style.decoder.mlp.out
    nn.init.zeros_(out.weight)
    nn.init.constant_(out.bias, 50.0)
    found = renderer(rays_from([0.0, 0, 0]))
    assert bool(((found.opacity > 0.01) & (found.opacity < 0.99)).all())
    torch.testing.assert_close(found.rgb, torch.ones(5, 3))


def test_other_rays_show_the_background():
    """Of objects, of forward-facing scenes, and those that end at a box of the world."""
    renderer = renderer_of("voxels")
    renderer.background = torch.tensor([0.2, 0.4, 0.6])
    cut = SPACE.clip_in_world(rays_from([0.0, 0, 0]), FOREGROUND)
    for rays in (rays_from([0.0, 0, 0], space=WORLD), cut):
        torch.testing.assert_close(renderer(rays).rgb, renderer.background.expand(5, 3))
    assert WORLD.infinity is None
    assert NDC((1.0, 1.0, 0.3)).infinity is None


def test_the_background_is_where_infinity_has_no_cells():
    cells = EMPTY.clone()
    cells[0] = True  # one side, towards -x
    renderer = voxel_renderer(BOX, EMPTY, cells)
    rays = rays_from([0.0, 0, 0])
    d = rays.directions
    side = (d.abs().argmax(1) == 0) & (d[:, 0] < 0)
    white = (renderer(rays).rgb == 1).all(1)
    assert torch.equal(white, ~side)
    assert side.any()


def test_colours_at_infinity_learn():
    renderer = renderer_of("voxels")
    renderer(rays_from([0.0, 0, 0])).rgb.sum().backward()
    assert renderer.field.style.head.table.grad.abs().sum() > 0


def test_refining_keeps_the_colours_at_infinity():
    renderer = renderer_of("voxels")
    rays = rays_from([0.0, 0, 0])
    before = renderer(rays).rgb
    assert renderer.refine(16, sides=True)
    active = renderer.field.geometry.lattice.active
    assert torch.equal(active, with_sides(torch.zeros(16, 16, 16, dtype=torch.bool)))
    torch.testing.assert_close(renderer(rays).rgb, before, atol=1e-3, rtol=0)
