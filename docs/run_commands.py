"""``python docs/run_commands.py``: runs the commands of README.md and docs/*.md in a copy of the
project, and says which ran and which were skipped, and why.

The reader's photographs, scenes and paintings are stood in for by the embedded ones, the weights
of VGG-16 by random ones, and options that keep a command short are appended to it; all else is as
it is written.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script in a folder finds the packages

from datasets.embedded.garden import write_worlds  # noqa: E402
from datasets.embedded.painting import write_demo_painting  # noqa: E402
from features.vgg import Vgg, convolutions, torchvision_indices  # noqa: E402
from utils.images import read_image, write_image  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = r"(?:python|make|pip|tensorboard|ns-train|ssh) "
COMMAND = re.compile(PROGRAMS)
# beginnings of commands that are not run
SKIPPED = {
    "make demo-joint": "takes long: tests/test_demo_joint.py runs it on a smaller scale",
    "make demo": "takes long: tests/datasets/embedded runs it on a smaller scale",
    "make": "the tests and benchmarks themselves",
    "pip install": "installs: tests/environments.py",
    "python prepare.py": "needs photographs that overlap: tests/test_prepare.py",
    "python tests/environments.py": "builds environments",
    "python docs/run_commands.py": "this",
    "python -m benchmarks": "takes long: tests/benchmarks runs each on small inputs",
    "python pipeline.py --help": "prints: tests/test_opt.py",
    "python eval.py --help": "prints: tests/test_opt.py",
    "ns-train": "another program",
    "ssh": "another program",
}
SERVERS = ("python view.py", "tensorboard")  # end when their page is up
# appended: later options override earlier ones
SHORT = {
    "--stage geometry": "--img_wh 32 32 --field voxels --voxel_resolution 24 --max_steps 20",
    "--stage style": "--img_wh 32 32 --max_steps 4",
    "--stage mutual": "--img_wh 32 32 --max_steps 8 --consistency_steps 2",
    "--stage joint": "--img_wh 32 32 --voxel_resolution 24 --max_steps 8",
    "python eval.py": "--n_frames 3",
    "python export.py mesh": "--resolution 24",
    "python export.py volume": "--resolution 24",
    "python view.py": "--port 18999",
    "tensorboard": "--port 18998",
}
SCENES = ("data/my_photos", "SCENE", "data/lego", "data/lego_8")  # all are one scene
LONGEST = 300  # seconds


def commands() -> Iterator[tuple[str, str]]:
    """The commands of the pages, in code blocks and in the text, each with its page's name."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block, inline in re.findall(r"```\w*\n(.*?)```|`([^`]+)`", text, re.S):
            for line in (block or inline).replace("\\\n", " ").splitlines() if block else [inline]:
                words = " ".join(line.partition("  #")[0].split())
                if COMMAND.match(words):
                    yield page.name, words


def snippets() -> Iterator[tuple[str, str]]:
    """The Python of docs/tasks.md, which stands on what its commands have made."""
    page = ROOT / "docs" / "tasks.md"
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        yield page.name, block


def copy_of_the_project(at: Path) -> None:
    """What git knows of, and what is new."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, at / name)


def write_stand_ins(at: Path) -> None:
    """Scenes, paintings, weights and checkpoints that the commands speak of."""
    small = {"size": (32, 32), "n_train": 8, "n_val": 1, "n_test": 2}
    worlds = write_worlds(at / "data" / "worlds", **small)
    for name in SCENES:
        (at / name).symlink_to(worlds["toys"])
    (at / "data" / "sphere_masked").symlink_to(worlds["garden"])
    (at / "data" / "sphere_relit").symlink_to(worlds["garden_blue"])
    painting = at / "PAINTING.png"
    write_demo_painting(painting)
    image, _ = read_image(painting)
    for folder in ("FOLDER", "FOLDER_OF_PAINTINGS"):
        (at / folder).mkdir()
        for name in ("starry_night", "great_wave"):
            write_image(at / folder / f"{name}.png", image)
    write_image(at / "starry_night.jpg", image)
    (at / "PAINTING").symlink_to(painting)
    write_random_vgg16(at / "vgg16.safetensors")
    base = "pipeline.py --root_dir SCENE --device cpu"
    geometry = f"{base} --stage geometry {SHORT['--stage geometry']}"
    style = f"{base} --stage style --style_dir FOLDER --ckpt_path ckpts/SCENE_geometry.ckpt"
    for words in (geometry, f"{style} {SHORT['--stage style']}"):
        run([sys.executable, *words.split()], at)
    ckpts = at / "ckpts"
    shutil.copy(ckpts / "SCENE_geometry.ckpt", at / "FIELD")
    painted = ckpts / "SCENE_starry_night.ckpt"
    for name in ("lego_starry_night", "lego_wave"):
        shutil.copy(painted, ckpts / f"{name}.ckpt")


def write_random_vgg16(path: Path) -> None:
    """A file of weights that holds the first three blocks of a VGG-16, untrained."""
    channels = convolutions((2, 2, 3), (64, 128, 256))
    convs = Vgg(channels, "vgg16").convs
    state = {
        f"features.{index}.{name}": value
        for conv, index in torchvision_indices(channels).items()
        for name, value in convs[conv].state_dict().items()
    }
    save_file(state, path)


def outcome(line: str, at: Path) -> str:
    """What a command ended in."""
    for start, reason in SKIPPED.items():
        if line.startswith(start):
            return f"skipped: {reason}"
    words = shlex.split(line)
    for start, more in SHORT.items():
        words += more.split() if start in line else []
    if words[0] == "python":
        words[0] = sys.executable
    else:
        words[0] = str(Path(sys.executable).parent / words[0])
    begin = time.monotonic()
    try:
        if line.startswith(SERVERS):
            serve(words, at)
        else:
            run(words, at)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stdout", None) or str(error)
        return f"FAILED: {said}"
    return f"ran, {time.monotonic() - begin:.0f} s"


def run(words: list[str], at: Path) -> None:
    """Runs a command to its end.

    Raises:
        subprocess.SubprocessError: it failed, or took too long.
    """
    subprocess.run(
        words,
        cwd=at,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST,
        check=True,
    )


def serve(words: list[str], at: Path) -> None:
    """Runs a command until it says where its page is.

    Raises:
        subprocess.SubprocessError: it ends before.
    """
    said = []
    with subprocess.Popen(
        words, cwd=at, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            said.append(line)
            if "http://" in line:
                process.terminate()
                return
    raise subprocess.CalledProcessError(process.returncode, words, "".join(said))


def main() -> int:
    """Runs all, in the order of the pages; the number that failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder) / "project"
        copy_of_the_project(at)
        write_stand_ins(at)
        done: dict[str, str] = {}
        for page, line in [*commands(), *snippets()]:
            if line not in done:
                python = "\n" in line
                done[line] = outcome(f"python -c {shlex.quote(line)}" if python else line, at)
                failed += done[line].startswith("FAILED")
            shown = line.splitlines()[0] + " [...]" if "\n" in line else line
            print(f"{page}: {shown}\n    {done[line]}", flush=True)
    ran = sum(result.startswith("ran") for result in done.values())
    print(f"{ran} ran, {failed} failed, {len(done) - ran - failed} skipped")
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main()))
