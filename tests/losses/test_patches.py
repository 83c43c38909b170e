"""Patches: which count, and that their distance is one of patterns, not of places."""

import torch

from losses.patches import SIDE, patch_distance, patches_of


def stripes(size, period, offset=0):
    """(size, size, 3) vertical stripes, black and white."""
    column = (torch.arange(size) + offset) // (period // 2) % 2
    return column.float().expand(size, size)[..., None].expand(size, size, 3).contiguous()


def distance(a, b, mask=None):
    mask = torch.ones(a.shape[:2]) if mask is None else mask
    other = torch.ones(b.shape[:2])
    generator = torch.Generator().manual_seed(0)
    return float(patch_distance([(a, mask)], [(b, other)], generator))


def test_patches_lie_whole_on_the_object():
    image, mask = torch.rand(20, 16, 3), torch.zeros(20, 16)
    mask[4:12, 3:12] = 1
    fine, coarse = patches_of(image, mask)
    assert fine.shape == ((8 - SIDE + 1) * (9 - SIDE + 1), 3 * SIDE**2)
    assert torch.equal(fine[0].view(3, SIDE, SIDE), image[4:11, 3:10].permute(2, 0, 1))
    assert len(coarse) == 0


def test_a_shifted_pattern_is_the_same_and_another_is_not():
    a, shifted = stripes(64, 8), stripes(64, 8, offset=3)
    other, grey = stripes(64, 24), torch.full((64, 64, 3), 0.5)
    same = distance(a, shifted)
    assert distance(a, other) > 2 * same
    assert distance(a, grey) > 5 * same


def test_what_is_beside_the_object_does_not_matter():
    a, mask = stripes(48, 8), torch.zeros(48, 48)
    mask[8:40, 8:40] = 1
    painted = a.clone()
    painted[mask == 0] = torch.tensor([1.0, 0, 0])
    assert distance(painted, a, mask) == distance(a, a, mask)


def test_no_whole_patch_no_distance():
    image = torch.rand(20, 20, 3, requires_grad=True)
    nothing = torch.zeros(20, 20)
    loss = patch_distance([(image, nothing)], [(image, nothing)], torch.Generator())
    (gradient,) = torch.autograd.grad(loss, image)
    assert float(loss.detach()) == 0
    assert not gradient.any()
