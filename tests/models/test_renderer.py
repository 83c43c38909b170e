"""The renderer: made of a specification, saved, refined; what its pictures depend on."""

import json
import math

import pytest
import torch
from torch import nn

from datasets.cameras.rays import Cameras, Rays
from models.render import Rendering, Samples
from models.renderer import Renderer, ray_chunks, render_view

WHITE = torch.ones(3)
HIERARCHICAL = {"kind": "hierarchical", "n_coarse": 8, "n_fine": 8}
SYSTEMS = {
    "nerf-hierarchical": ("nerf", HIERARCHICAL),
    "nerf-coarse": ("nerf", HIERARCHICAL | {"n_fine": 0}),
    "nerf-occupancy": ("nerf", {"kind": "occupancy", "n_steps": 16}),
    "voxels-occupancy": ("voxels", {"kind": "occupancy", "n_steps": 0}),
    "voxels-steps": ("voxels", {"kind": "occupancy", "n_steps": 24}),
    "voxels-hierarchical": ("voxels", HIERARCHICAL),
    "voxels-coarse": ("voxels", HIERARCHICAL | {"n_fine": 0}),
}
VOXELS = [name for name in SYSTEMS if name.startswith("voxels")]
NERFS = [name for name in SYSTEMS if name.startswith("nerf")]


@pytest.fixture
def make(bounds):
    """``make(system, **style)``: a renderer with something to see."""

    def build(system, **style):
        torch.manual_seed(0)
        kind, sampler = SYSTEMS[system]
        field = {"kind": kind} | ({"n_frequencies": 4} if kind == "nerf" else {})
        if sampler["kind"] == "hierarchical":
            sampler = sampler | {"style": {"kind": kind}}
        spec = {"field": field, "style": {"kind": kind, **style}, "sampler": sampler}
        occupied = torch.rand(8, 8, 6) > 0.2
        renderer = Renderer.build(spec, bounds, WHITE, occupied)
        for each in (renderer.field, getattr(renderer.sampler, "coarse", None)):
            if each is None:
                continue
            each.style.reset()
            if kind == "voxels":
                nn.init.normal_(each.geometry.raw, mean=-1.0)
                nn.init.normal_(each.style.head.table)
        return renderer

    return build


def rays_from_above(n=20):
    g = torch.Generator().manual_seed(1)
    origins = torch.randn(n, 3, generator=g) * 0.2 + torch.tensor([0.0, 0, 3])
    directions = nn.functional.normalize(-origins + 0.3 * torch.randn(n, 3, generator=g), dim=-1)
    return Rays(origins, directions, torch.full((n,), 1.0), torch.full((n,), 6.0))


def camera(width=9, height=7):
    c2w = torch.tensor([[[1.0, 0, 0, 0.1], [0, 1, 0, -0.1], [0, 0, 1, 3]]])
    intrinsics = torch.tensor([[12.0, 12.0, width / 2, height / 2]])
    return Cameras(c2w, intrinsics, torch.tensor([[height, width]]), 1.0, 5.0)


def assert_comes_back(renderer, code=None):
    spec = renderer.spec
    assert json.loads(json.dumps(spec)) == spec
    again = Renderer.from_state(spec, renderer.state_dict())
    assert again.spec == spec
    state, found = renderer.state_dict(), again.state_dict()
    assert state.keys() == found.keys()
    assert all(torch.equal(state[name], found[name]) for name in state)
    rays = rays_from_above()
    for generator in (False, True):
        a, b = (
            r.sample(r.clip(rays), torch.Generator().manual_seed(0) if generator else None)
            for r in (renderer, again)
        )
        assert torch.equal(a.t, b.t)
    a, b = renderer(rays, code), again(rays, code)
    assert torch.equal(a.rgb, b.rgb)
    assert torch.equal(a.depth, b.depth)
    assert a.opacity.max() > 0.01
    return again


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_renderer_comes_back_from_its_state(system, make):
    renderer = make(system)
    renderer.sampler.grid.set(torch.rand(16, 16, 12) > 0.1)
    assert_comes_back(renderer)


@pytest.mark.parametrize("system", VOXELS)
def test_a_refined_renderer_comes_back_from_its_state(system, make):
    renderer = make(system)
    assert renderer.refine(12)
    assert_comes_back(renderer)


@pytest.mark.parametrize("system", ["nerf-hierarchical", "nerf-occupancy", "voxels-occupancy"])
def test_a_renderer_with_all_that_a_style_may_have_comes_back(system, make):
    renderer = make(system, n_code=3, view_dependent=False, n_frequencies=1)
    renderer.field.style.decoder.set_colour_map(torch.rand(3, 3), torch.rand(3))
    renderer.refine(12)
    again = assert_comes_back(renderer, torch.randn(3))
    assert again.field.style.decoder.colour_matrix is not None
    assert not again.field.style.decoder.view_dependent


@pytest.mark.parametrize("system", ["nerf-occupancy", "voxels-occupancy"])
def test_a_state_of_something_else_is_refused(system, make):
    renderer = make(system)
    other = make("voxels-occupancy" if system.startswith("nerf") else "nerf-occupancy")
    with pytest.raises((RuntimeError, KeyError, TypeError)):
        Renderer.from_state(other.spec, renderer.state_dict())


def test_cells_of_the_field_need_not_be_those_of_the_grid(bounds):
    spec = {"field": {"kind": "voxels"}, "style": {"kind": "voxels"}}
    spec["sampler"] = {"kind": "occupancy", "n_steps": 0}
    occupied, cells = torch.rand(8, 8, 6) > 0.5, torch.rand(16, 16, 12) > 0.5
    renderer = Renderer.build(spec, bounds, WHITE, occupied, cells)
    assert torch.equal(renderer.sampler.grid.occupied, occupied)
    assert torch.equal(renderer.field.geometry.lattice.active, cells)
    renderer = Renderer.build(spec, bounds, WHITE, occupied)
    assert torch.equal(renderer.field.geometry.lattice.active, occupied)


@pytest.mark.parametrize("system", SYSTEMS)
def test_groups_hold_every_parameter_once(system, make):
    renderer = make(system)
    found = [id(p) for group in renderer.parameter_groups(None) for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in renderer.parameters())


# refining


@pytest.mark.parametrize("system", NERFS)
def test_a_field_without_cells_is_not_refined(system, make):
    renderer = make(system)
    field, step = renderer.field, getattr(renderer.sampler, "step", None)
    assert renderer.refine(32) is False
    assert renderer.field is field
    assert getattr(renderer.sampler, "step", None) == step


def test_refining_makes_cells_finer_where_something_is(make):
    renderer = make("voxels-occupancy")
    occupied = torch.zeros(8, 8, 6, dtype=torch.bool)
    occupied[2, 3, 1] = True
    renderer.sampler.grid.set(occupied)
    before = renderer.field
    assert renderer.refine(16) is True
    lattice = renderer.field.geometry.lattice
    assert lattice.active.shape == (16, 16, 12)
    assert int(lattice.active.sum()) == 6**3
    assert renderer.sampler.step == renderer.field.step == before.step / 2
    assert renderer.field.style.head.table.shape[0] == lattice.n_vertices


def test_refining_makes_what_proposes_finer_too(make):
    renderer = make("voxels-hierarchical")
    assert renderer.refine(16)
    assert renderer.sampler.coarse.geometry.lattice.active.shape == (16, 16, 12)


def test_a_number_of_steps_that_was_asked_for_stays(make):
    renderer = make("voxels-steps")
    step = renderer.sampler.step
    assert renderer.refine(16)
    assert renderer.sampler.step == step


# rays, samples, pictures


def test_clipped_rays_end_at_the_box(make):
    origins = torch.tensor([[0.0, 0, 3], [0, 5, 3], [0, 0, 0]])
    directions = torch.tensor([[0.0, 0, -1], [0, 0, -1], [1.0, 0, 0]])
    rays = Rays(origins, directions, torch.zeros(3), torch.full((3,), 9.0))
    rays = make("voxels-occupancy").clip(rays)
    assert torch.allclose(rays.near[[0, 2]], torch.tensor([2.5, 0.0]))
    assert torch.allclose(rays.far[[0, 2]], torch.tensor([4.0, 1.0]))
    assert rays.far[1] < rays.near[1]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("system", ["nerf-hierarchical", "nerf-occupancy", "voxels-occupancy"])
def test_pictures_and_samples_depend_on_no_mode(system, training, make):
    renderer = make(system)
    rays = rays_from_above()
    expected = renderer.eval()(rays)
    renderer.train(training)
    with torch.no_grad():
        assert torch.equal(renderer(rays).rgb, expected.rgb)
    assert torch.equal(renderer(rays).rgb, expected.rgb)
    samples = renderer.sample(renderer.clip(rays))
    assert samples.proposal is None
    assert not renderer.sampler.grid.lit.any()


def test_marks_and_proposals_are_asked_for(make):
    rays = rays_from_above()
    renderer = make("voxels-occupancy").eval()
    renderer.sample(renderer.clip(rays), mark=True)
    assert renderer.sampler.grid.lit.any()
    renderer = make("nerf-hierarchical").eval()
    samples = renderer.sample(renderer.clip(rays), propose=True)
    assert samples.proposal.rgb.requires_grad


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_picture_is_differentiable_in_the_style_alone(system, make):
    renderer = make(system, n_code=2)
    code = torch.zeros(2, requires_grad=True)
    renderer(rays_from_above(), code).rgb.square().sum().backward()
    style = {id(p) for p in renderer.field.style.parameters()}
    for name, parameter in renderer.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in style), name
    assert (code.grad != 0).all()


@pytest.mark.parametrize("system", SYSTEMS)
def test_through_given_samples_it_is_differentiable_in_the_geometry_too(system, make):
    """And the same picture: samples that carry a geometry do not have to be used with it."""
    renderer = make(system)
    rays = renderer.clip(rays_from_above())
    samples = renderer.sample(rays)
    rendering = renderer.render(rays, samples)
    torch.testing.assert_close(rendering.rgb, renderer(rays).rgb)
    rendering.rgb.square().sum().backward()
    assert all(p.grad is not None for p in renderer.field.parameters())


@pytest.mark.parametrize("system", ["nerf-occupancy", "voxels-occupancy"])
def test_one_code_is_the_same_code_for_every_ray(system, make):
    renderer = make(system, n_code=3)
    rays, code = rays_from_above(), torch.randn(3)
    one, each = renderer(rays, code), renderer(rays, code.expand(len(rays), 3))
    torch.testing.assert_close(one.rgb, each.rgb)
    codes = torch.randn(len(rays), 3)
    whole = renderer(rays, codes).rgb
    for i in (0, 7):
        torch.testing.assert_close(renderer(rays[i : i + 1], codes[i]).rgb[0], whole[i])
    assert not torch.allclose(one.rgb, whole)


def test_colours_that_cannot_matter_are_left_out(make):
    renderer = make("voxels-occupancy")
    threshold = renderer.field.colour_threshold
    assert threshold > 0
    rays = rays_from_above()
    fast = renderer(rays)
    renderer.field.colour_threshold = 0.0
    exact = renderer(rays)
    n = len(renderer.sample(renderer.clip(rays))) / len(rays)
    assert 0 < (fast.rgb - exact.rgb).abs().max() < 2 * n * threshold
    assert torch.equal(fast.opacity, exact.opacity)


def test_the_background_is_behind_everything(make):
    renderer = make("voxels-occupancy")
    renderer.background = torch.tensor([0.0, 0, 1])
    first, second = 1 - math.exp(-1.0), math.exp(-1.0) * (1 - math.exp(-3.0))
    rgb = torch.tensor([[first, second, 0.0], [0, 0, 0]])
    opacity = torch.tensor([first + second, 0.0])
    none = torch.zeros(0)
    samples = Samples(none.long(), none, none, n_rays=2)
    black = Rendering(rgb, opacity, none, samples)
    over = renderer.over_background(black)
    expected = torch.tensor([[first, second, math.exp(-4.0)], [0, 0, 1]])
    torch.testing.assert_close(over.rgb, expected)
    assert torch.equal(black.rgb, rgb)
    assert over.opacity is opacity


@pytest.mark.parametrize("system", ["nerf-hierarchical", "nerf-occupancy", "voxels-occupancy"])
def test_rays_that_meet_nothing_show_the_background(system, make):
    renderer = make(system)
    renderer.background = torch.tensor([0.2, 0.4, 0.6])
    rays = rays_from_above(4)
    rays = Rays(rays.origins + 9, rays.directions, rays.near, rays.far)
    rendering = renderer(rays)
    assert torch.equal(rendering.rgb, renderer.background.expand(4, 3))
    assert (rendering.opacity == 0).all()


@pytest.mark.parametrize("system", ["nerf-occupancy", "voxels-occupancy"])
def test_a_view_is_its_rays_in_whatever_chunks(system, make):
    renderer, cameras, code = make(system, n_code=2), camera(), torch.randn(2)
    picture = render_view(renderer, cameras, 0, code=code)
    assert not picture.rgb.requires_grad
    whole = renderer(cameras.view_rays(0), code)
    torch.testing.assert_close(picture.rgb, whole.rgb.clamp(0, 1).view(7, 9, 3))
    torch.testing.assert_close(picture.depth, whole.depth.view(7, 9))
    torch.testing.assert_close(picture.opacity, whole.opacity.view(7, 9))
    chunked = render_view(renderer, cameras, 0, 10, code)
    torch.testing.assert_close(chunked.rgb, picture.rgb)
    assert picture.opacity.max() > 0.01


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mixed", [False, True])
def test_threads_side_by_side_make_the_picture_that_one_makes(mixed, make):
    renderer, cameras = make("voxels-occupancy"), camera()

    def picture():
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            return render_view(renderer, cameras, 0, 10).rgb

    together = picture()
    assert not together.requires_grad
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert torch.equal(together, picture())
    mixed = not mixed
    assert not torch.equal(together, picture())


def test_rays_at_once_are_those_of_the_field_or_as_asked(make):
    renderer = make("voxels-occupancy")
    assert ray_chunks(renderer).size == renderer.field.cost.rays_on(torch.device("cpu"))
    assert ray_chunks(renderer, 12).size == 12
