"""``python -m benchmarks viewer``: how fast the viewer is while somebody moves, and how soon sharp.

Without a browser: the camera goes around the scene as fast as pictures come, then stands still.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assets.weights import read_trained
from benchmarks.settings import RESULTS
from datasets.cameras.paths import circle_path
from opt import parse_view
from utils.machine import accelerator, mixed_precision
from utils.tables import markdown_table
from viewer.exhibits import Trained
from viewer.film import poses_of
from viewer.look import Look
from viewer.pace import Frame
from viewer.page import OVERSAMPLING
from viewer.studio import Studio

LAPS_A_SECOND, POSES = 0.15, 400  # of the camera around the scene
SOON = 1.0  # seconds after a stop


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks viewer",
        description="Pictures a second while moving, and their size a second after a stop.",
    )
    p.add_argument("--ckpt_path", type=Path, nargs="+", required=True, metavar="PATH")
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument("--window", nargs=2, type=int, default=[1280, 720], metavar="N")
    p.add_argument("--seconds", type=float, default=5.0, help="of moving (default: 5)")
    p.add_argument("--out", type=Path, default=RESULTS / "viewer", metavar="DIR")
    return p


class Screen:
    """Notes when pictures come."""

    def __init__(self) -> None:
        self.pictures: list[tuple[float, Frame]] = []

    def picture(self, image: np.ndarray, frame: Frame, seconds: float) -> None:
        self.pictures.append((time.perf_counter(), frame))

    def part(self, image: np.ndarray) -> None:
        pass

    def trouble(self, words: str) -> None:
        raise RuntimeError(words)


def measured(path: Path, device: str, window: tuple[int, int], seconds: float) -> dict[str, Any]:
    """A row of the table for a checkpoint."""
    options = parse_view(["--ckpt_path", str(path), "--device", device])
    device = accelerator(options.device)
    checkpoint = read_trained(options.ckpt_path, None, None)
    exhibit = Trained(checkpoint, options, torch.device(device))
    studio, screen = Studio(None, mixed_precision("auto", device)), Screen()
    studio.exhibit = exhibit
    shown, scene = studio.open(screen), exhibit.scene(exhibit.first)
    studio.limit(shown, OVERSAMPLING * max(view.height for view in scene.train), 1080)
    poses = poses_of(circle_path(scene, POSES))
    for count in (1.0, seconds):  # it finds its pace in the first second
        screen.pictures.clear()
        start, spent = time.perf_counter(), time.process_time()
        while (now := time.perf_counter() - start) < count:
            pose = poses[int(now * LAPS_A_SECOND * POSES) % POSES]
            studio.show(shown, Look(pose, exhibit.first), window)
            studio.turn()
        stop = time.perf_counter()
        share = (time.process_time() - spent) / (stop - start)
    rate, moving = len(screen.pictures) / (stop - start), screen.pictures[-1][1]
    while time.perf_counter() - stop < SOON:
        if studio.turn() is None:
            studio.wait(0.05)
    still = [frame for at, frame in screen.pictures if at - stop < SOON][-1]
    while not shown.pace.sharp:
        if studio.turn() is None:
            studio.wait(0.05)
    at, finest = screen.pictures[-1]
    return {
        "checkpoint": path.stem,
        "pictures a second": f"{rate:.1f}",
        "moving": f"{moving.width} x {moving.height}",
        "a second after the stop": f"{still.width} x {still.height}",
        "finest": f"{finest.width} x {finest.height} after {at - stop:.1f} s",
        "cores in use": f"{share:.2f}",
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measures each checkpoint, and writes the table."""
    asked = parser().parse_args(argv)
    rows = [measured(p, asked.device, tuple(asked.window), asked.seconds) for p in asked.ckpt_path]
    print(f"{processor()}, {torch.get_num_threads()} threads")
    print(markdown_table(list(rows[0]), [list(row.values()) for row in rows]))
    asked.out.mkdir(parents=True, exist_ok=True)
    content = {"processor": processor(), "cores": os.cpu_count(), "rows": rows}
    (asked.out / "viewer.json").write_text(json.dumps(content, indent=2))


def processor() -> str:
    """What the machine says that it is."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else "an unknown processor"
