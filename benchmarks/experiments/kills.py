"""``python -m benchmarks kills``: training that is killed at random moments and resumed, in every
stage, ends with the weights of training that is not, and leaves nothing that cannot be read.

The processes are forks of this one, so that a kill can meet any moment of a short run and none is
wasted on the seconds of imports.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.settings import DATA, RESULTS
from datasets.embedded.painting import write_demo_painting
from datasets.embedded.scene import write_demo_scene
from models.checkpoint import Checkpoint
from opt import parse_train
from pipeline import train
from utils.checkpoint import content_digest
from utils.errors import UserError
from utils.tables import markdown_table

VOXELS = "--field voxels --voxel_resolution 24 --batch_size 64"
NERF = "--field nerf --N_samples 8 --N_importance 8 --batch_size 64"
PAINTED = "--style_dir painting.png --features own --ckpt_path start/scene_start.ckpt"
# each with a result to kill for: the stages, and what they can be made of
STAGES = {
    "geometry, voxels": f"--stage geometry --root_dir scene {VOXELS} --max_steps 60",
    "geometry, nerf": f"--stage geometry --root_dir scene {NERF} --max_steps 30",
    "few views": (
        f"--stage geometry --root_dir scene {VOXELS} --max_steps 30 --few_shot 4 --semantic own "
        "--semantic_every 4 --appearance affine"
    ),
    "style": f"--stage style --root_dir scene {PAINTED} --max_steps 12",
    "mutual": f"--stage mutual --root_dir scene {PAINTED} --consistency_steps 6 --max_steps 24",
    "joint": (
        f"--stage joint --scenes a=scene b=scene,near=1.5 --pairs a=e,plain b=f,red --n_features 3 "
        f"--overlap adversarial --pattern red --max_steps 20 {VOXELS}"
    ),
}
EVERY = 3  # steps between checkpoints: most of the time one is being written, or has just been
COMMON = f"--img_wh 24 24 --device cpu --precision 32 --prefix scene --checkpoint_every {EVERY}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks kills",
        description="Kills training at random moments and resumes it, in every stage.",
    )
    p.add_argument("--kills", type=int, default=100, metavar="N", help="in all (default: 100)")
    p.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES, metavar="NAME")
    p.add_argument("--seed", type=int, default=0, help="of the moments")
    p.add_argument("--out", type=Path, default=RESULTS / "kills", metavar="DIR")
    return p


def main(argv: Sequence[str]) -> None:
    """Kills, compares, and writes kills.md and .json.

    Raises:
        UserError: weights that differ, or a file that cannot be read.
    """
    options = parser().parse_args(argv)
    out = options.out.resolve()
    rows = killed_stages(DATA / "kills", options.stages, options.kills, options.seed)
    out.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = markdown_table(columns, [[row.get(name, 0) for name in columns] for row in rows])
    (out / "kills.md").write_text(text + "\n")
    (out / "kills.json").write_text(json.dumps(rows, indent=2))
    print(f"{text}\n\nkills.md, kills.json: {out}")


def killed_stages(
    at: Path, stages: Sequence[str], kills: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Kills the training of ``stages``, in the folder ``at``, so many times in all.

    Returns:
        Of each stage how many kills met what.

    Raises:
        UserError: weights that differ, or a file that cannot be read.
    """
    at.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # forks do not inherit the threads of a pool
    rows = []
    with within(at):
        write_demo_scene(Path("scene"), (24, 24), n_train=8, n_val=1, n_test=2)
        if not Path("painting.png").is_file():
            write_demo_painting(Path("painting.png"))
        start = f"{STAGES['geometry, voxels']} --suffix start --ckpt_dir start".split()
        in_fork([*start, *COMMON.split()])
        for number, stage in enumerate(stages):
            share = kills // len(stages) + (number < kills % len(stages))
            found = killed_stage(stage, share, random.Random(f"{seed} {stage}"))
            rows.append({"stage": stage, "kills": share, **found, "weights": "identical"})
            print(rows[-1], flush=True)
    return rows


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """The working directory is ``folder``; paths in checkpoints are then the same everywhere."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def killed_stage(stage: str, kills: int, rng: random.Random) -> Counter[str]:
    """How many of the kills of one stage met what: see `moment`."""
    line = [*f"{STAGES[stage]} {COMMON}".split(), "--suffix", stage.replace(", ", "_")]
    shutil.rmtree("whole", ignore_errors=True)
    begin = time.perf_counter()
    in_fork([*line, "--ckpt_dir", "whole"])
    seconds = time.perf_counter() - begin
    (result,) = Path("whole").glob("*.ckpt")
    expected = weights_of(result)
    shutil.rmtree("killed", ignore_errors=True)
    line += ["--ckpt_dir", "killed", "--resume"]
    found: Counter[str] = Counter()
    left = kills
    while left:
        process = forked(line)
        process.join(rng.uniform(0, seconds))
        # chance alone seldom meets a file that is being written: every second kill waits for one
        while left % 2 and process.exitcode is None and not being_written(process.pid):
            time.sleep(0.001)
        if process.exitcode is None:
            process.kill()
            process.join()
            found[moment(process.pid)] += 1
            left -= 1
        for path in Path("killed").rglob("*.ckpt"):
            if not path.name.startswith("."):  # files beside the last ones are being written
                Checkpoint.read(path)
        if (done := Path("killed") / result.name).is_file():
            require_same(stage, done, expected)
            done.unlink()  # once more from the beginning
    in_fork(line)
    require_same(stage, Path("killed") / result.name, expected)
    return found


def moment(pid: int) -> str:
    """What the process ``pid`` was at when it was killed, by what it has left."""
    if being_written(pid):
        return "while writing"
    if any(Path("killed").rglob("step_*.ckpt")):
        return "between checkpoints"
    return "before the first checkpoint"


def being_written(pid: int) -> bool:
    """Whether the process ``pid`` has begun a checkpoint and not finished it (`utils.files`)."""
    return any(Path("killed").rglob(f".{pid}.*.ckpt"))


def weights_of(path: Path) -> str:
    """Digest of all that was learned; paths and versions may differ."""
    content = Checkpoint.read(path).content()
    parts = {name: content[name] for name in ("fields", "decoders", "networks")}
    styles = {name: style["state"] for name, style in content["styles"].items()}
    return content_digest(parts | {"styles": styles})


def require_same(stage: str, path: Path, expected: str) -> None:
    """Raises a `UserError` where the weights in the file ``path`` have another digest."""
    if weights_of(path) != expected:
        raise UserError(f"{stage}: other weights after kills: {path.resolve()}")


def in_fork(words: Sequence[str]) -> None:
    """`pipeline.py` with these words, to its end.

    Raises:
        UserError: it failed.
    """
    process = forked(words)
    process.join()
    if process.exitcode:
        raise UserError(f"pipeline.py {' '.join(words)}: exit code {process.exitcode}")


def forked(words: Sequence[str]) -> multiprocessing.Process:
    """A process that trains, as quietly as it can."""

    def work() -> None:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        train(parse_train(words))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process
