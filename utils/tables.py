"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

MISSING = "n/a"
ROUNDING = 1e-6  # of single precision, in what lies between 0 and 1


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    """A table with padded columns, so that it reads well as plain text; numbers with three
    significant digits, what is mere rounding as 0, None as "n/a"."""
    lines = [list(headings), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))} |"
        for line in lines
    )


def _text(cell: str | float | None) -> str:
    if cell is None:
        return MISSING
    return cell if isinstance(cell, str) else f"{cell if abs(cell) > ROUNDING else 0:.3g}"
