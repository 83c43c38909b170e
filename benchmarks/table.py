"""Rows of results: as a Markdown table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEADINGS = (
    "case", "what", "ours", "plain", "plain / ours", "floor", "ours / floor", "memory ours",
    "memory plain", "notes",
)  # fmt: skip


@dataclass
class Row:
    """One line of a table.

    Attributes:
        case, what: names.
        ours, plain, floor: seconds, or what ``unit`` says; None where there is none.
        ratio: plain / ours, pair by pair.
        memory, plain_memory: bytes beyond the resting process.
        note: what the reader must know.
        details: everything else, for the JSON.
    """

    case: str
    what: str
    ours: float | None
    plain: float | None = None
    ratio: float | None = None
    floor: float | None = None
    memory: float | None = None
    plain_memory: float | None = None
    note: str = ""
    unit: str = "s"
    details: dict[str, Any] = field(default_factory=dict)

    def cells(self) -> list[str]:
        """The texts of the line."""
        above = self.ours / self.floor if self.ours and self.floor else None
        return [
            self.case,
            self.what,
            shown(self.ours, self.unit),
            shown(self.plain, self.unit),
            _times(self.ratio),
            shown(self.floor, self.unit),
            _times(above),
            shown(self.memory, "B"),
            shown(self.plain_memory, "B"),
            self.note,
        ]


def shown(value: float | None, unit: str) -> str:
    """A number for a person: seconds as ms, s or min; bytes as MB or GB."""
    if value is None:
        return "–"
    steps = {
        "s": ((1.0, 1e3, "ms"), (300.0, 1.0, "s"), (float("inf"), 1 / 60, "min")),
        "B": ((1e9, 1e-6, "MB"), (float("inf"), 1e-9, "GB")),
    }
    for below, factor, name in steps.get(unit, ((float("inf"), 1.0, unit),)):
        if value < below:
            return f"{_three_digits(value * factor)} {name}"
    return f"{value} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{_three_digits(value)} x"


def markdown(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The table, under a line about the machine."""
    lines = [", ".join(f"{name}: {value}" for name, value in machine.items()), ""]
    lines += [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
    lines += [_line(row.cells()) for row in rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write(directory: Path, name: str, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """``name.md`` and ``name.json`` in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.md").write_text(markdown(rows, machine), encoding="utf-8")
    content = {"machine": machine, "rows": [asdict(row) for row in rows]}
    text = json.dumps(content, indent=1, default=str)
    (directory / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """Rows and machine of a JSON file that `write` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Row(**row) for row in content["rows"]], content["machine"]
