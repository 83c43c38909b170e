"""Rays of known cameras."""

import math
from dataclasses import replace

import pytest
import torch

from datasets.cameras.rays import Cameras, Rays
from datasets.cameras.space import NDC, WORLD

SCALE = (2 * 10 / 8, 2 * 20 / 6, 0.5)  # of NDC


def cameras():
    turn = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    c2w = torch.stack([torch.eye(3, 4), torch.cat([turn, torch.tensor([[1.0], [2], [3]])], 1)])
    intrinsics = torch.tensor([[10.0, 20.0, 4.0, 3.0], [10.0, 10.0, 4.0, 3.0]])
    return Cameras(c2w, intrinsics, torch.tensor([[6, 8], [6, 8]]), 1.0, 5.0)


def test_directions_by_hand():
    view, row, column = torch.tensor([0, 0, 1]), torch.tensor([2, 0, 2]), torch.tensor([3, 7, 3])
    rays = cameras().rays(view, row, column)
    expected = torch.tensor([[-0.05, 0.025, -1], [0.35, 0.125, -1], [-1, 0.05, 0.05]])
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(rays.directions, expected)
    torch.testing.assert_close(rays.origins[2], torch.tensor([1.0, 2, 3]))
    assert rays.near.tolist() == [1, 1, 1]
    assert rays.far.tolist() == [5, 5, 5]


def test_rays_equal_their_plain_twin():
    """A pinhole, written out in double precision, in a large image."""
    several = cameras()
    several.intrinsics = torch.tensor([[4000.0, 3990.0, 2010.3, 1490.7], [10.0, 10.0, 4.0, 3.0]])
    g = torch.Generator().manual_seed(0)
    row = torch.randint(3000, (200,), generator=g, dtype=torch.int32)
    column = torch.randint(4000, (200,), generator=g)
    for view in (0, torch.randint(2, (200,), generator=g)):
        rays = several.rays(view, row, column)
        fx, fy, cx, cy = several.intrinsics[view].double().unbind(-1)
        x, y = (column + 0.5 - cx) / fx, (cy - row - 0.5) / fy
        local = torch.stack([x, y, torch.full_like(x, -1)], -1)
        expected = torch.einsum("...ij,...j->...i", several.c2w[view][..., :3].double(), local)
        expected = expected / expected.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(rays.directions.double(), expected, rtol=0, atol=3e-7)
        position = several.c2w[view][..., 3].expand(200, 3)
        assert torch.equal(rays.origins, position)


def test_clipped_rays_are_in_the_box():
    """The slab method, written out; one ray runs along a side, one passes by."""
    origins = torch.tensor([[-3.0, 0.1, 0.2], [0.0, 0.0, 5.0], [-3.0, 4.0, 0.0]])
    directions = torch.tensor([[0.8, 0.6, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    near, far = torch.tensor([0.0, 4.5, 0.0]), torch.tensor([9.0, 9.0, 9.0])
    box = torch.tensor([[-1.0, -2, -1], [1, 2, 1]])
    found = Rays(origins, directions, near, far).clip(box)
    for ray in range(2):
        t = torch.linspace(0, 9, 90001)
        x = origins[ray] + t[:, None] * directions[ray]
        inside = t[((x >= box[0]) & (x <= box[1])).all(-1) & (t >= near[ray])]
        assert float(found.near[ray]) == pytest.approx(float(inside[0]), abs=2e-4)
        assert float(found.far[ray]) == pytest.approx(float(inside[-1]), abs=2e-4)
    assert found.far[2] <= found.near[2]


def test_a_whole_view_is_its_pixels_in_raster_order():
    whole = cameras().view_rays(1)
    row, column = torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")
    one = cameras().rays(torch.ones(48, dtype=torch.long), row.flatten(), column.flatten())
    assert torch.equal(whole.directions, one.directions)
    assert torch.equal(cameras().view_rays(1, 10, 13).directions, one.directions[10:13])


def test_mixed_precision_leaves_rays_alone():
    """Autocast would have rounded the rotation to bfloat16, and the rays by pixels."""
    with torch.autocast("cpu", torch.bfloat16):
        rays = cameras().view_rays(1)
    assert torch.equal(rays.directions, cameras().view_rays(1).directions)


def ndc_of(points, focal=(10.0, 20.0), size=(8, 6)):
    """Appendix C of the NeRF paper, near plane 1, in a slab half as thick."""
    x, y, z = points.unbind(-1)
    return torch.stack(
        [-2 * focal[0] / size[0] * x / z, -2 * focal[1] / size[1] * y / z, SCALE[2] * (1 + 2 / z)],
        dim=-1,
    )


class TestNdc:
    @pytest.fixture
    def forward(self):
        """Two cameras that look about along -z, one of them before the near plane."""
        c, s = math.cos(0.1), math.sin(0.1)
        tilt = torch.tensor([[c, 0, s, 0.2], [0, 1, 0, -0.1], [-s, 0, c, -1.5]])
        c2w = torch.stack([torch.eye(3, 4), tilt])
        intrinsics = torch.tensor([[10.0, 20.0, 4.0, 3.0]]).expand(2, -1)
        return Cameras(c2w, intrinsics, torch.tensor([[6, 8], [6, 8]]), 0.0, math.inf, NDC(SCALE))

    @pytest.mark.parametrize("view", [0, 1])
    def test_warped_rays_hold_the_warped_points(self, forward, view):
        world = replace(forward, space=WORLD).view_rays(view)
        rays = forward.view_rays(view)
        for distance in (1.2, 3.0, 50.0):
            points = world.origins + distance * world.directions
            keep = points[:, 2] < -1
            arm = ndc_of(points) - rays.origins
            along = (arm * rays.directions).sum(1)
            off = (arm - along[:, None] * rays.directions).norm(dim=1)
            assert (off[keep] < 1e-5).all()
            assert (along[keep] > -1e-5).all()
            assert (along <= rays.far + 1e-5).all()

    def test_from_the_near_plane_to_infinity(self, forward):
        rays = forward.view_rays(0)
        torch.testing.assert_close(rays.origins[:, 2], torch.full((48,), -SCALE[2]))
        ends = rays.origins + rays.far[:, None] * rays.directions
        torch.testing.assert_close(ends[:, 2], torch.full((48,), SCALE[2]))
        assert (rays.near == 0).all()
        torch.testing.assert_close(rays.directions.norm(dim=1), torch.ones(48))

    def test_from_the_eye_where_it_is_beyond_the_near_plane(self, forward):
        rays, eye = forward.view_rays(1), torch.tensor([[0.2, -0.1, -1.5]])
        torch.testing.assert_close(rays.origins, ndc_of(eye).expand(48, -1))

    def test_view_directions_stay_in_the_world(self, forward):
        world, rays = replace(forward, space=WORLD).view_rays(1), forward.view_rays(1)
        assert torch.equal(rays.view_directions, world.directions)
        assert torch.equal(world.view_directions, world.directions)
        assert not torch.allclose(rays.directions, rays.view_directions, atol=0.1)
        part = torch.tensor([5, 7])
        assert torch.equal(rays[part].view_directions, world.directions[part])

    def test_rays_the_other_way_are_empty(self, forward):
        back = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
        forward.c2w = torch.cat([back, torch.zeros(3, 1)], dim=1).expand(2, -1, -1)
        rays = forward.view_rays(0)
        assert (rays.far <= rays.near).all()
        for values in (rays.origins, rays.directions, rays.far):
            assert values.isfinite().all()

    def test_range_and_device_are_kept(self, forward):
        nearer = replace(forward, near=0.5, far=0.7).to("cpu").view_rays(0)
        assert (nearer.near == 0.5).all()
        assert (nearer.far == torch.tensor(0.7)).all()


def test_another_image_size_shows_the_same():
    """Corner to corner; an upright image among wide ones stays upright."""
    c2w = torch.eye(4)[:3].expand(2, 3, 4)
    lens = torch.tensor([[9.0, 9.5, 4.0, 3.0], [9.0, 9.5, 3.0, 4.0]])
    small = Cameras(c2w, lens, torch.tensor([[6, 8], [8, 6]]), 1.0, 5.0)
    large = small.resized(24, 18)
    assert large.sizes.tolist() == [[18, 24], [24, 18]]
    torch.testing.assert_close(large.intrinsics, 3 * lens)
    stretched = Cameras(c2w[:1], lens[:1], small.sizes[:1], 1.0, 5.0).resized(6, 8)
    assert stretched.sizes.tolist() == [[8, 6]]
    expected = lens[:1] * torch.tensor([6 / 8, 8 / 6, 6 / 8, 8 / 6])
    torch.testing.assert_close(stretched.intrinsics, expected)
