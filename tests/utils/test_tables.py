"""Markdown tables."""

from utils.tables import markdown_table


def test_cells_by_kind():
    rows = [["plain", 1.23456, None], ["tiny", -3e-8, 123456.0]]
    assert markdown_table(["what", "a", "b"], rows).splitlines() == [
        "| what  | a    | b        |",
        "| ----- | ---- | -------- |",
        "| plain | 1.23 | n/a      |",
        "| tiny  | 0    | 1.23e+05 |",
    ]
