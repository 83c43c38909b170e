"""``python -m benchmarks [CASE ...]``: measures, prints a Markdown table, writes it with a JSON.

One case runs here; several run one after the other, each in a process of its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks import table
from benchmarks.settings import FIELDS, MODES, RESULTS, ROOT, Settings
from benchmarks.work import best_rates, short
from utils.errors import exits_cleanly
from utils.machine import accelerator, keep_memory, product_type

CASES = {
    "memory": "bytes of the training data of 100 views of 800 x 800 pixels",
    "startup": "seconds to the help of pipeline.py and eval.py, and until they are imported",
    "geometry_step": "one step of stage 1",
    "rendering": "a whole view",
    "style_step": "one view of stage 2, in each mode",
    "pixels": "style step against the number of pixels: time and memory",
    "launches": "operations and waits of a step and a frame on a GPU, counted without one",
    "fast_field": "seconds to a quality, on the demo scene and with --lego on lego",
}
# not of speed; each has options of its own: ``python -m benchmarks NAME --help``
EXPERIMENTS = {
    "mutual": "stage mutual with and without its halves",
    "style_lab": "ways of painting side by side: time, memory, measures, pictures",
    "kills": "training killed at random moments and resumed: the same weights",
    "few_views": "scenes from few photos: quality on the test views, over draws",
    "viewer": "pictures a second while somebody moves, and how soon they are sharp",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    lines = [f"  {name:<14} {about}" for name, about in (CASES | EXPERIMENTS).items()]
    cases = "\n".join(lines)
    p = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Our hot paths against plain textbook implementations, in turns.",
        epilog=f"cases:\n{cases}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("cases", nargs="*", metavar="CASE", help="what to measure (default: everything)")
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument("--fields", "--field", nargs="+", default=list(FIELDS), choices=FIELDS)
    p.add_argument("--modes", "--mode", nargs="+", default=MODES, choices=MODES)
    p.add_argument("--sizes", nargs="+", type=int, metavar="N", help="pixels along a side")
    p.add_argument("--rounds", type=int, default=5, help="timed turns of each side (default: 5)")
    p.add_argument(
        "--budget", type=float, default=10.0, metavar="S",
        help="seconds after which two turns are enough (default: 10)",
    )  # fmt: skip
    p.add_argument("--plain", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument(
        "--plain_rays", type=int, default=0, metavar="N",
        help="rays of a view that the plain twin renders, before its time is scaled "
        "(default: 512, on a GPU 20000)",
    )  # fmt: skip
    p.add_argument("--quick", action="store_true", help="smallest sizes, one turn: a smoke test")
    p.add_argument("--full", action="store_true", help="all sizes everywhere: takes hours on a CPU")
    p.add_argument("--lego", type=Path, metavar="DIR", help="fast_field: the lego scene, too")
    p.add_argument("--vgg_weights", type=Path, metavar="FILE", help="VGG-19 (default: random)")
    p.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for .md and .json")
    p.add_argument("--list", action="store_true", help="only name the cases")
    return p


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings that the arguments ask for."""
    return Settings(
        device=accelerator(arguments.device),
        quick=arguments.quick,
        full=arguments.full,
        fields=tuple(arguments.fields),
        modes=tuple(arguments.modes),
        sizes=tuple(arguments.sizes) if arguments.sizes else None,
        rounds=arguments.rounds,
        budget=arguments.budget,
        plain=arguments.plain,
        plain_rays=arguments.plain_rays,
        lego=arguments.lego,
        vgg_weights=arguments.vgg_weights,
    )


def machine_of(settings: Settings) -> dict[str, Any]:
    """What was measured on, and what it is good for."""
    device = settings.device
    cuda = device == "cuda"
    facts = {
        "device": torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "arithmetic": short(product_type("auto", device)),
    }
    width = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        rate, width = best_rates(device, dtype, settings.quick)
        facts[f"{str(dtype).removeprefix('torch.')} products"] = f"{rate / 1e9:.3g} GFLOP/s"
    facts["memory"] = f"{width / 1e9:.3g} GB/s"
    if settings.quick:
        facts["quick"] = "measures nothing"
    return facts


def run_one(name: str, settings: Settings, out: Path) -> None:
    """Measures one case in this process."""
    machine = machine_of(settings)
    rows = import_module(f"benchmarks.cases.{name}").run_case(settings)
    table.write(out, name, rows, machine)
    print(table.markdown(rows, machine), flush=True)


def run_several(names: Sequence[str], words: Sequence[str], out: Path) -> int:
    """Measures the cases one after the other and joins their tables; the number that failed."""
    failed, rows, machine = [], [], {}
    for name in names:
        start = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks", name, *words, "--out", str(out.resolve())]
        done = subprocess.run(command, cwd=ROOT, check=False, env=os.environ)
        print(f"{name}: {time.perf_counter() - start:.0f} s\n", flush=True)
        if done.returncode:
            failed.append(name)
            continue
        own, machine = table.read(out / f"{name}.json")
        rows += own
    table.write(out, "all", rows, machine)
    print(table.markdown(rows, machine))
    print(f"written: {out / 'all.md'}, {out / 'all.json'}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def passed_on(arguments: argparse.Namespace) -> list[str]:
    """The arguments again, for a process that measures one of the cases."""
    words = ["--device", arguments.device, "--rounds", str(arguments.rounds)]
    words += ["--budget", str(arguments.budget), "--plain_rays", str(arguments.plain_rays)]
    words += ["--fields", *arguments.fields, "--modes", *arguments.modes]
    words += ["--sizes", *map(str, arguments.sizes)] if arguments.sizes else []
    words += [f"--{flag}" for flag in ("quick", "full") if getattr(arguments, flag)]
    words += [] if arguments.plain else ["--no-plain"]
    for name in ("lego", "vgg_weights"):
        path = getattr(arguments, name)
        words += [] if path is None else [f"--{name}", str(path.resolve())]
    return words


def _quiet() -> None:
    """Leaves what we print ourselves; and see `keep_memory`."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    keep_memory()


@exits_cleanly
def main() -> None:
    if sys.argv[1:] and sys.argv[1] in EXPERIMENTS:
        _quiet()
        import_module(f"benchmarks.experiments.{sys.argv[1]}").main(sys.argv[2:])
        return
    arguments = parser().parse_args()
    if unknown := [name for name in arguments.cases if name not in CASES]:
        parser().error(f"unknown case {unknown[0]}; take some of {', '.join(CASES)}")
    if arguments.list:
        print("\n".join(f"{name:<14} {about}" for name, about in (CASES | EXPERIMENTS).items()))
        return
    names = arguments.cases or list(CASES)
    if len(names) > 1:
        sys.exit(min(1, run_several(names, passed_on(arguments), arguments.out)))
    _quiet()
    run_one(names[0], settings_of(arguments), arguments.out)


if __name__ == "__main__":
    main()
