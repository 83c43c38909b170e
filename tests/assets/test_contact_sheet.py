"""Sheets of pictures larger than their cells; those of small ones are tests/test_measure.py's."""

import torch

from assets.contact_sheet import Row, contact_sheet, shown_of


def test_which_views_are_shown():
    assert [shown_of(n) for n in (1, 4, 5, 60)] == [[0], [0, 1, 2, 3], [0, 2, 4], [0, 15, 30, 45]]


def test_large_views_are_shrunk_and_the_crop_is_at_full_size():
    views = [torch.randint(0, 256, (360, 480, 3), dtype=torch.uint8) for _ in range(2)]
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).expand(1000, 500, 3)
    sheet = contact_sheet([Row("photographs", views), Row("painted", views[::-1], red)])
    assert sheet.shape == (2 * (16 + 180) + 6, 4 * (240 + 6) + 6, 3)
    first, second = (sheet[top : top + 180] for top in (16, 16 + 196))
    middle = slice(90, 270), slice(120, 360)
    for line, view in ((first, views[0]), (second, views[1])):
        assert torch.equal(line[:, 6 + 3 * 246 : 6 + 3 * 246 + 240], view[middle])
    # as high as a view, half as wide, and white beside it
    assert (second[:, 6:96] == red[0, 0]).all()
    assert (second[:, 96:252] == 255).all()
    assert (first[:, :252] == 255).all()
