"""Several checkpoints, measured one by one, in one table (docs/measures.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from measures.consistency import floor_notes, measured
from measures.legacy import legacy_table
from measures.quality import CONTENT, STYLE, STYLISED
from measures.refit import refit_table
from utils.tables import markdown_table

Reports = Mapping[str, Mapping[str, Any]]


def comparison_text(reports: Reports) -> str:
    """The measures of several checkpoints as Markdown.

    Args:
        reports: by the checkpoint's name, what `measures.stylised.write_measures` is given.
    """
    parts = []
    measures = {key: {n: r[key] for n, r in reports.items() if key in r} for key in HEADINGS}
    for key, found in measures.items():
        if found:
            parts += [f"## {HEADINGS[key]}", TABLES[key](found, reports)]
    return "\n\n".join(parts)


def joined(rows: Mapping[str, Mapping[str, Any]], own: Mapping[str, str]) -> Iterator[tuple]:
    """Rows of several tables, each once.

    Args:
        rows: by checkpoint, a row by the name of its pictures.
        own: by checkpoint, the name of the pictures that are its own; the others are controls.

    Yields:
        (what to call it, checkpoint, row): own pictures by the checkpoint's name, then controls,
        with the checkpoint's name where they are not the same for all.
    """
    for name, found in rows.items():
        if own[name] in found:
            yield name, name, found[own[name]]
    seen: dict[str, list[Any]] = {}
    for name, found in rows.items():
        for label, row in found.items():
            if label == own[name] or row in seen.setdefault(label, []):
                continue
            seen[label].append(row)
            yield label if len(seen[label]) == 1 else f"{label} ({name})", name, row


def _consistency(found: Reports, reports: Reports) -> str:
    parts = []
    for warp in dict.fromkeys(warp for report in found.values() for warp in report["warps"]):
        having = {name: report[warp]["gaps"] for name, report in found.items() if warp in report}
        gaps = list(dict.fromkeys(gap for own in having.values() for gap in own))
        every = [
            row for own in having.values() for g in own.values() for row in g["pictures"].values()
        ]
        keys = list(dict.fromkeys(key for row in every for key in measured(row)))
        keys = keys or ["rmse", "normalised"]
        rows = []
        for gap in gaps:
            at = {name: own[gap] for name, own in having.items() if gap in own}
            for name, block in at.items():
                if block["doubt"]:
                    doubt = [f"n/a: {block['doubt']}", *[""] * (2 * len(keys) - 1)]
                    rows.append([f"{gap}", f"{block['coverage'] or 0:.0%}", name, *doubt])
            sure = {name: block["pictures"] for name, block in at.items() if not block["doubt"]}
            for label, name, row in joined(sure, {n: reports[n]["style"] for n in sure}):
                cells = [cell for key in keys for cell in (row.get(key), row["of_floor"].get(key))]
                rows.append([f"{gap}", f"{at[name]['coverage']:.0%}", label, *cells])
        headings = ["gap", "coverage", "pictures", *(x for key in keys for x in (key, "x floor"))]
        notes = [f"{name}, {x}" for name, own in having.items() for x in floor_notes(own)]
        parts += [f"By {warp}:", markdown_table(headings, rows), *notes]
    return "\n\n".join(parts)


def _quality(found: Reports, reports: Reports) -> str:
    keys = (*STYLE, *CONTENT)
    rows = []
    pictures = {name: report["pictures"] for name, report in found.items()}
    for label, name, row in joined(pictures, dict.fromkeys(found, STYLISED)):
        trained = found[name]["trained_on"] if row is pictures[name][STYLISED] else ()
        cells = [
            None if row.get(k) is None else f"{row[k]:.3g}{'*' * (k in trained)}" for k in keys
        ]
        rows.append([label, *cells])
    table = markdown_table(["pictures", *keys], rows)
    return f"{table}\n\n* what that run was trained on, or nearly"


def _refit(found: Reports, reports: Reports) -> str:
    pictures = {name: report["pictures"] for name, report in found.items()}
    own = {name: reports[name]["style"] for name in found}
    return refit_table({label: row for label, _, row in joined(pictures, own)})


def _legacy(found: Reports, reports: Reports) -> str:
    gaps: dict[Any, dict[str, float]] = {}
    own = {name: reports[name]["style"] for name in found}
    for gap in next(iter(found.values()))["gaps"]:
        pictures = {name: report["gaps"][gap] for name, report in found.items()}
        gaps[gap] = {label: row for label, _, row in joined(pictures, own)}
    return legacy_table(gaps)


HEADINGS = {
    "consistency": "Consistency",
    "quality": "Quality",
    "refit": "Refit",
    "legacy": "Legacy (after Stylos' script, faults and all)",
}
TABLES = {
    "consistency": _consistency,
    "quality": _quality,
    "refit": _refit,
    "legacy": _legacy,
}
