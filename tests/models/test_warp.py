"""Warping between views: planes with known answers, and rendered fields in every space."""

import pytest
import torch

from datasets.cameras.rays import Cameras
from datasets.cameras.space import NDC, WORLD, Contracted
from models.renderer import render_view
from models.warp import (
    Frame,
    Surface,
    correspondence,
    eroded,
    masked_rmse,
    render_frame,
)
from tests.renderers import nerf_renderer, voxel_renderer
from utils.images import sample_bilinear

HEIGHT, WIDTH = 16, 32  # powers of two: projections come out to the bit
DISTANCE = 16.0
SQUARE = slice(4, 10), slice(12, 18)  # of the occluder in view 0, rows and columns
SPACES = {
    "world": WORLD,
    "ndc": NDC((1.5, 2.0, 1.0)),
    "contracted": Contracted(torch.tensor([[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]])),
}


def plane_cameras(n, pixels=1):
    """Cameras side by side before a plane, which moves by so many ``pixels`` from one to the
    next."""
    c2w = torch.eye(3, 4).repeat(n, 1, 1)
    c2w[:, 0, 3] = torch.arange(n) * pixels * DISTANCE / 16
    lens = torch.tensor([[16.0, 16.0, WIDTH / 2, HEIGHT / 2]]).repeat(n, 1)
    return Cameras(c2w, lens, torch.tensor([[HEIGHT, WIDTH]]).repeat(n, 1), 1.0, 100.0)


def plane_frame(cameras, view, pictures=None, occluder=False):
    """The plane, with a square before it at half the distance, which moves twice as fast."""
    depth = torch.full((HEIGHT, WIDTH), DISTANCE)
    if occluder:
        depth[square(cameras, view)] /= 2
    column, row = torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy")
    local = [
        (column + 0.5 - WIDTH / 2) / 16,
        (HEIGHT / 2 - row - 0.5) / 16,
        -torch.ones_like(depth),
    ]
    points = torch.stack(local, -1) * depth[..., None] + cameras.c2w[view, :, 3]
    distance = (points - cameras.c2w[view, :, 3]).norm(dim=-1)
    surface = Surface(points, distance, torch.ones(HEIGHT, WIDTH, dtype=torch.bool))
    return Frame(view, surface, pictures or {})


def square(cameras, view):
    """(H, W) bool: the pixels of the occluder."""
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    moved = 2 * round(float(cameras.c2w[view, 0, 3]))
    mask[SQUARE[0], SQUARE[1].start - moved : SQUARE[1].stop - moved] = True
    return mask


def test_a_translated_texture_has_error_0_and_a_known_coverage():
    cameras = plane_cameras(2, 3)
    texture = torch.rand(HEIGHT, WIDTH + 3, 3, generator=torch.Generator().manual_seed(0))
    target, source = (plane_frame(cameras, view) for view in (1, 0))
    pixel, valid = correspondence(cameras, target, source)
    # three columns are out of the source's image, and one more is beside them
    assert valid.sum(1).tolist() == [WIDTH - 4] * HEIGHT
    warped = sample_bilinear(texture[:, :WIDTH], pixel)
    assert masked_rmse(texture[:, 3:], warped, valid) == 0
    assert masked_rmse(texture[:, 3:], texture[:, :WIDTH], valid) > 0.1


def test_an_occluder_removes_exactly_its_shadow():
    cameras = plane_cameras(2, 2)
    target, source = (plane_frame(cameras, view, occluder=True) for view in (1, 0))
    _, valid = correspondence(cameras, target, source)
    near, hidden = square(cameras, 1), square(cameras, 0)
    column = torch.arange(WIDTH)
    shown = (column + 2 < WIDTH).repeat(HEIGHT, 1)
    shown[:, :-2] &= ~hidden[:, 2:]  # the plane, where the source does not have the square
    expected = torch.where(near, (column + 4 < WIDTH).repeat(HEIGHT, 1), shown)
    assert torch.equal(valid, eroded(expected))
    shadow = ~expected[:, :-3] & ~near[:, :-3]
    assert int(shadow.sum()) == 6 * 2  # as wide as the square moves against the plane


def test_edges_are_eroded_and_single_holes_are_not():
    mask = torch.ones(8, 9, dtype=torch.bool)
    mask[:, 6:] = False
    mask[4, 2] = False
    expected = mask.clone()
    expected[:, 5] = False
    assert torch.equal(eroded(mask), expected)


def test_what_is_not_opaque_does_not_count():
    cameras = plane_cameras(2, 0)
    whole = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    for holes in ((1, 0), (0, 1)):
        frames = [plane_frame(cameras, view) for view in (0, 1)]
        for frame, hole in zip(frames, holes, strict=True):
            if hole:
                frame.surface.opaque[5, 7] = False
        _, valid = correspondence(cameras, frames[1], frames[0])
        expected = whole.clone()  # interpolation spreads the source's hole over its neighbours
        expected[5, 7] = False
        assert torch.equal(valid, expected)


def test_depth_that_is_off_counts_as_long_as_it_does_no_harm():
    """A surface at the share 1 - d of the depth moves by d / (1 - d) of the parallax more: here by
    0.44 and 1.33 pixels; 0.006 of the depth are within the tolerance whatever the parallax."""
    for pixels, off, counts in ((4, 0.1, True), (12, 0.1, False), (24, 0.006, True)):
        cameras = plane_cameras(2, pixels)
        target, source = (plane_frame(cameras, view) for view in (1, 0))
        source.surface.distance *= 1 - off
        _, valid = correspondence(cameras, target, source)
        assert bool(valid[:, : WIDTH - pixels - 1].all()) == counts
        assert bool(valid.any()) == counts


def test_bilinear_samples_of_a_ramp():
    ramp = torch.arange(8.0).repeat(4, 1)[..., None]
    pixel = torch.tensor([[[0.5, 0.5], [3.25, 2.0], [7.5, 3.5], [9.0, 1.0]]])
    assert sample_bilinear(ramp, pixel)[0, :, 0].tolist() == [0, 2.75, 7, 7]


def looking_at_origin(space, n=3):
    """Cameras along -z, from z = 3, or from the near plane of NDC on."""
    c2w = torch.eye(3, 4).repeat(n, 1, 1)
    c2w[:, 0, 3] = torch.linspace(-0.2, 0.2, n)
    c2w[:, 2, 3] = 0.0 if space.forward_facing else 3.0
    width, height = 12, 9
    lens = torch.tensor([[16.0, 16.0, width / 2, height / 2]]).repeat(n, 1)
    sizes = torch.tensor([[height, width]]).repeat(n, 1)
    return Cameras(c2w, lens, sizes, 0.0 if space.forward_facing else 1.0, 6.0, space)


def renderer_of(field, raw=-1.0):
    torch.manual_seed(0)
    bounds = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    occupied = torch.ones(8, 8, 8, dtype=torch.bool)
    if field == "nerf":
        return nerf_renderer(bounds, occupied, 8, 8)
    renderer = voxel_renderer(bounds, occupied)
    torch.nn.init.normal_(renderer.field.geometry.raw, mean=raw)
    torch.nn.init.normal_(renderer.field.style.head.table)
    return renderer


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("field", ["voxels", "nerf"])
def test_a_frame_is_the_rendered_view(field, space):
    """In several styles at once, in chunks; and its points are where their pixels are."""
    renderer, cameras = renderer_of(field), looking_at_origin(SPACES[space])
    grey = {"grey": lambda feature, x, d, code: torch.full_like(x, 0.25)}
    frame = render_frame(renderer, cameras, 1, {"own": renderer.field.style, **grey}, chunk=50)
    picture = render_view(renderer, cameras, 1)
    torch.testing.assert_close(frame.pictures["own"], picture.rgb)
    expected = 1 - 0.75 * picture.opacity[..., None].expand(-1, -1, 3)  # over white
    torch.testing.assert_close(frame.pictures["grey"], expected)
    assert torch.equal(frame.surface.opaque, picture.opacity > 0.5)
    shown = picture.opacity.flatten() > 0
    assert shown.any()
    pixel, _, inside = cameras.project(1, frame.surface.points.view(-1, 3)[shown])
    column, row = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(9) + 0.5, indexing="xy")
    centres = torch.stack([column, row], -1).view(-1, 2)[shown]
    assert inside.all()
    torch.testing.assert_close(pixel, centres, atol=1e-2, rtol=0)
