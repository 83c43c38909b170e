"""Builds an environment for each Python, with the oldest and with the newest dependencies that the
requirements allow, and runs the suite in each.

python tests/environments.py
python tests/environments.py --quick --pythons 3.10 3.13 --dependencies oldest

Needs uv (``pip install uv``), which also fetches Pythons that are missing.  Each environment takes
several gigabytes, most of them PyTorch's, and is removed before the next one is built.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script in a folder of tests finds the packages

from utils.errors import UserError, exits_cleanly  # noqa: E402
from utils.tables import markdown_table  # noqa: E402

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
DEPENDENCIES = {"oldest": "lowest-direct", "newest": "highest"}
NAMED = ("torch", "pytorch-lightning", "numpy")  # in the table
PACKAGES = [file.parent.name for file in sorted(ROOT.glob("*/__init__.py"))]
OPTIONAL = ("pycolmap", "open_clip")  # imported where they are used; each has a requirements file
IMPORTS = f"""
import importlib, pkgutil
for name in {PACKAGES!r}:
    if name != "tests":
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, name + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
"""
TINY = (
    "--root_dir data/demo/scene --img_wh 32 32 --field voxels --voxel_resolution 24 --device cpu "
    "--precision 32"
)
DEMO = (
    "python -m datasets.embedded.write data/demo",
    f"python pipeline.py --stage geometry {TINY} --max_steps 20",
    f"python pipeline.py --stage style {TINY} --ckpt_path ckpts/scene_geometry.ckpt "
    "--style_dir data/demo/painting.png --features own --max_steps 4",
    "python eval.py --ckpt_path ckpts/scene_painting.ckpt --path circle --n_frames 4",
)
# each with its commands
QUICK = {
    "imports": (["python", "-c", IMPORTS],),
    "utils, losses": ("python -m pytest tests/utils tests/losses",),
    "20-step demo": DEMO,
}
WHOLE = QUICK | {"suite": ("python -m pytest",)}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    p.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="X.Y", help="versions")
    p.add_argument(
        "--dependencies", nargs="+", default=list(DEPENDENCIES), choices=DEPENDENCIES, help="which"
    )
    p.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    p.add_argument("--out", type=Path, default=ROOT / "results" / "environments", metavar="DIR")
    return p


@exits_cleanly
def main() -> None:
    """Builds, runs, and writes environments.md and .json."""
    options = parser().parse_args()
    if shutil.which("uv") is None:
        raise UserError("uv is not installed, which builds the environments; pip install uv")
    rows = []
    for python in options.pythons:
        for dependencies in options.dependencies:
            row = tried(python, dependencies, QUICK if options.quick else WHOLE)
            print(row, flush=True)
            rows.append(row)
            write_table(options.out, rows)
    failed = [row for row in rows if "failed" in " ".join(row.values())]
    if failed:
        raise UserError(f"{len(failed)} of {len(rows)} environments failed: {options.out}")


def tried(python: str, dependencies: str, parts: dict[str, tuple]) -> dict[str, str]:
    """A row of the table: versions, and what each part of the suite ended in."""
    row = {"Python": python, "dependencies": dependencies}
    # beside uv's cache, from which it then links what it would copy elsewhere
    with tempfile.TemporaryDirectory(prefix="environment_") as folder:
        try:
            at = build(Path(folder), python, dependencies)
        except subprocess.CalledProcessError as error:
            return row | {"built": f"failed: {last_line(error.stdout)}"}
        row |= versions(at)
        for name, commands in parts.items():
            row[name] = outcome(commands, at)
    return row


def build(folder: Path, python: str, dependencies: str) -> Path:
    """An environment, and a copy of the project beside it.

    Returns:
        The folder of the copy; the environment is its ``.venv``.
    """
    at = folder / "project"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in run(listed, ROOT).splitlines():
        if (ROOT / name).is_file():
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, at / name)
    run(["uv", "venv", "--quiet", "--python", python, str(at / ".venv")], at)
    install = ["uv", "pip", "install", "--quiet", "--python", str(at / ".venv"), "--no-build"]
    chosen = ["--resolution", DEPENDENCIES[dependencies]]
    run([*install, *chosen, "-r", "requirements-dev.txt"], at)
    return at


def versions(at: Path) -> dict[str, str]:
    """Versions of the packages that are named in the table."""
    frozen = run(["uv", "pip", "freeze", "--quiet", "--python", str(at / ".venv")], at)
    found = dict(line.split("==") for line in frozen.splitlines() if "==" in line)
    return {name: found[name] for name in NAMED}


def outcome(commands: tuple, at: Path) -> str:
    """What a part ended in: its seconds, or the last line of what failed."""
    start = time.monotonic()
    try:
        for command in commands:
            words = command.split() if isinstance(command, str) else command
            run([str(at / ".venv" / "bin" / words[0]), *words[1:]], at)
    except subprocess.CalledProcessError as error:
        return f"failed: {last_line(error.stdout)}"
    return f"passed, {time.monotonic() - start:.0f} s"


def run(words: list[str], at: Path) -> str:
    """What a command prints.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        words, cwd=at, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(f"{' '.join(words)[:200]}\n{done.stdout}", file=sys.stderr, flush=True)
    done.check_returncode()
    return done.stdout


def last_line(text: str) -> str:
    """Of what a command has printed, as a cell of a table."""
    lines = [line for line in text.splitlines() if re.search(r"\w", line)]
    return lines[-1].replace("|", "/")[:120] if lines else "without a word"


def write_table(out: Path, rows: list[dict[str, str]]) -> None:
    """environments.md and environments.json in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = markdown_table(columns, [[row.get(name, "") for name in columns] for row in rows])
    (out / "environments.md").write_text(f"{table}\n")
    (out / "environments.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
