"""The documents say what is so: the drawing is that of the imports, the recipes can be followed."""

import os
import re
import shlex
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

from opt import parse_analyse, parse_eval, parse_export, parse_train, parse_view

ROOT = Path(__file__).resolve().parents[1]
CODE = r"\n\n```python\n(.*?)```"
NEW = re.compile(r"New file `([^`]+)`:" + CODE, re.S)
ADDED = re.compile(r"In `([^`]+)`, below the line `([^\n]+)`:" + CODE, re.S)
TRIED = re.compile(r"Try it:\n\n```\n(.*?)```", re.S)


def test_the_drawing_is_that_of_the_imports():
    spec = util.spec_from_file_location("draw_packages", ROOT / "docs/draw_packages.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page()
    graph = module.arrows()
    assert graph["utils"] == set()
    assert not graph["assets"] & {"systems", "measures"}
    assert graph["models"] <= {"datasets", "features", "losses", "utils"}


def recipes():
    """Title and text of each recipe of CONTRIBUTING.md."""
    _, *parts = (ROOT / "CONTRIBUTING.md").read_text().split("\n### ")
    return dict(part.split("\n", 1) for part in parts)


def copy_of_the_project(at):
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            (at / name).write_bytes((ROOT / name).read_bytes())


def run(line, at):
    words = shlex.split(line)
    words[:1] = [sys.executable] if words[0] == "python" else words[:1]
    done = subprocess.run(
        words, cwd=at, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("title", recipes())
def test_recipes_word_by_word(title, tmp_path):
    """What the recipe says is written, in a copy of the project, and its commands are run."""
    text = recipes()[title]
    copy_of_the_project(tmp_path)
    for name, content in NEW.findall(text):
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(content)
    for name, line, content in ADDED.findall(text):
        before = (tmp_path / name).read_text()
        assert before.count(f"{line}\n") == 1, line
        (tmp_path / name).write_text(before.replace(f"{line}\n", f"{line}\n{content}"))
    (commands,) = TRIED.findall(text)
    for line in commands.splitlines():
        run(line, tmp_path)


@pytest.mark.slow
def test_documented_commands_run():
    """What is skipped is said, with its reason; the rest ends well."""
    words = [sys.executable, "-u", str(ROOT / "docs" / "run_commands.py")]
    done = subprocess.run(words, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    ran, _, skipped = map(int, re.findall(r"\d+", done.stdout.splitlines()[-1]))
    assert ran >= skipped > 0


@pytest.mark.slow
def test_the_notebook(tmp_path):
    """All ten cells run, on a short training, and one of them shows a picture."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    copy_of_the_project(tmp_path)
    notebook = nbformat.read(tmp_path / "demo.ipynb", as_version=4)
    assert len(notebook.cells) == 10
    for cell in notebook.cells:
        cell.source = cell.source.replace("STEPS = 800", "STEPS = 20")
        cell.source = cell.source.replace("PASSES = 2", "PASSES = 1")
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = {
    "pipeline.py": parse_train,
    "eval.py": parse_eval,
    "export.py": parse_export,
    "view.py": parse_view,
    "analyse.py": parse_analyse,
}
TAKEN_ELSEWHERE = {"prepare.py", "demo.py", "demo_joint.py"}


def documented():
    """The commands of the documents' code blocks, each with the document's name."""
    for page in DOCUMENTS:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("python ") and ".py" in line.split()[1]:
                    yield pytest.param(line, id=f"{page.name}: {' '.join(line.split()[1:])[:60]}")


@pytest.mark.parametrize("line", documented())
def test_documented_commands_are_understood(line, tmp_path, monkeypatch):
    """Every option of every documented command exists and takes what it is given."""
    words = shlex.split(line, comments=True)[1:]
    if words[0] in TAKEN_ELSEWHERE:
        return
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    # whatever a command names that is not there, as an empty file or folder
    for word in words[1:]:
        if word.endswith((".ckpt", ".jpg", ".png", ".pth", ".safetensors", ".json")):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
    SCRIPTS[words[0]](words[1:])
