"""Patches of features, against loops over cells."""

import pytest
import torch
from torch.nn import functional

from models import patch_swap
from models.patch_swap import nearest_patches, swapped


def patch(features, row, column):
    """The 3x3 cells around one, beyond the borders as at them."""
    padded = functional.pad(features, (1, 1, 1, 1), mode="replicate")[0]
    return padded[:, row : row + 3, column : column + 3]


@pytest.mark.parametrize("products", [1 << 24, 1])
def test_nearest_patches_are_those_of_the_largest_cosine(monkeypatch, products):
    """Of all cells at once, and of few rows at a time."""
    monkeypatch.setattr(patch_swap, "PRODUCTS", products)
    content, style = torch.randn(1, 4, 5, 6), torch.randn(1, 4, 7, 3)
    where = torch.rand(5, 6) < 0.6
    where[:, 0] = False
    where[4] = False
    found = nearest_patches(content, style, where)
    assert torch.equal(found < 0, ~where)
    every = [patch(style, r, c).flatten() for r in range(7) for c in range(3)]
    for row, column in where.nonzero().tolist():
        own = patch(content, row, column).flatten()
        cosines = [float(functional.cosine_similarity(own, other, 0)) for other in every]
        assert int(found[row, column]) == max(range(21), key=cosines.__getitem__)


def test_nothing_is_matched_where_there_is_nothing():
    content, style = torch.randn(1, 4, 5, 6), torch.randn(1, 4, 7, 3)
    assert (nearest_patches(content, style, torch.zeros(5, 6, dtype=torch.bool)) == -1).all()


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
    rows, columns = patch_swap._spread((12, 15))
    assert 10 < len(rows) * len(columns) <= 20
    assert rows[0] < 4
    assert rows[-1] >= 8
    assert columns[0] < 4
    assert columns[-1] >= 11
    # and each of them is found where it is
    style = torch.randn(1, 4, 12, 15)
    found = nearest_patches(style, style, torch.ones(12, 15, dtype=torch.bool))
    assert set(found.unique().tolist()) == {r * 15 + c for r in rows for c in columns}
    assert all(found[r, c] == r * 15 + c for r in rows for c in columns)
