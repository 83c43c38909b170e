"""``python docs/draw_packages.py``: draws which package imports which, from the imports themselves,
into docs/architecture.md.  An arrow that follows from two others is left out."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START, END = "```mermaid\n", "```\n"
PACKAGES = sorted(
    {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests"}
)
SCRIPTS = "scripts"  # all modules beside the packages
# it reads the packages' registries of names, and systems and assets read it
LEFT_OUT = "opt.py"


def imports_of(file: Path) -> set[str]:
    """Top-level names that a module imports at run time."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found = set()
    for node in set(ast.walk(tree)) - typing_only:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def arrows() -> dict[str, set[str]]:
    """Which package imports which."""
    files = {name: list((ROOT / name).rglob("*.py")) for name in PACKAGES}
    beside = sorted(ROOT.glob("*.py"))
    files[SCRIPTS] = [file for file in beside if file.name != LEFT_OUT]
    found = {}
    for name, own in files.items():
        used = set().union(*map(imports_of, own)) if own else set()
        found[name] = used & {*PACKAGES} - {name}
    return found


def drawing() -> str:
    """The drawing as Mermaid text."""
    graph = arrows()

    def reached(name: str, seen: frozenset[str]) -> set[str]:
        further = graph[name] - seen
        return further.union(*(reached(n, seen | further) for n in further))

    lines = ["graph TD"]
    for name, used in graph.items():
        # where two packages import each other, neither speaks for the other
        below = [n for n in used if name not in graph[n]]
        implied = set().union(*(reached(n, frozenset({n})) for n in below))
        lines += [f"    {name} --> {other}" for other in sorted(used - implied)]
    return "\n".join([*lines, ""])


def page() -> str:
    """docs/architecture.md with the drawing as the imports are now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{drawing()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
