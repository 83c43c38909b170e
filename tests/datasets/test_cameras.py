"""Rays of known cameras."""

import torch

from datasets.cameras import Cameras


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
