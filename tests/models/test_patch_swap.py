"""Patches of features, against loops over cells."""

import torch
from torch.nn import functional

from models import patch_swap
from models.patch_swap import nearest_patches, swapped


def patch(features, row, column):
    """The 3x3 cells around one, beyond the borders as at them."""
    padded = functional.pad(features, (1, 1, 1, 1), mode="replicate")[0]
    return padded[:, row : row + 3, column : column + 3]


def test_nearest_patches_are_those_of_the_largest_cosine():
    content, style = torch.randn(1, 4, 5, 6), torch.randn(1, 4, 7, 3)
    where = torch.rand(5, 6) < 0.6
    found = nearest_patches(content, style, where)
    assert torch.equal(found < 0, ~where)
    every = [patch(style, r, c).flatten() for r in range(7) for c in range(3)]
    for row, column in where.nonzero().tolist():
        own = patch(content, row, column).flatten()
        cosines = [float(functional.cosine_similarity(own, other, 0)) for other in every]
        assert int(found[row, column]) == max(range(21), key=cosines.__getitem__)


def test_swapped_patches_overlap_to_their_mean():
    content, style = torch.randn(1, 4, 5, 6), torch.randn(1, 4, 7, 3)
    nearest = torch.randint(21, (5, 6), dtype=torch.int32)
    nearest[torch.rand(5, 6) < 0.7] = -1
    total, count = torch.zeros(4, 7, 8), torch.zeros(7, 8)
    for row, column in (nearest >= 0).nonzero().tolist():
        number = int(nearest[row, column])
        total[:, row : row + 3, column : column + 3] += patch(style, number // 3, number % 3)
        count[row : row + 3, column : column + 3] += 1
    wanted = torch.where(count > 0, total / count.clamp(min=1), functional.pad(content[0], [1] * 4))
    torch.testing.assert_close(swapped(content, style, nearest)[0], wanted[:, 1:-1, 1:-1])


def test_a_large_painting_is_compared_with_patches_from_all_over_it(monkeypatch):
    monkeypatch.setattr(patch_swap, "MOST_PATCHES", 20)
    numbers = patch_swap._spread(torch.Size([12, 15]), torch.device("cpu"))
    rows, columns = (numbers // 15).unique(), (numbers % 15).unique()
    assert 10 < len(numbers) <= 20
    assert rows.min() < 4
    assert rows.max() >= 8
    assert columns.min() < 4
    assert columns.max() >= 11
