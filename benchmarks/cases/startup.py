"""How long a command takes to say its first word, and to be ready to work."""

from __future__ import annotations

from benchmarks.measure import Contest, run_outside
from benchmarks.settings import Settings
from benchmarks.table import Row

COMMANDS = {
    "pipeline.py --help": ("pipeline.py", "--help"),
    "eval.py --help": ("eval.py", "--help"),
    "pipeline.py, imports": ("-c", "import pipeline"),
    "eval.py, imports": ("-c", "import eval"),
}
FLOOR = "python -c 'import torch'"


def run_case(settings: Settings) -> list[Row]:
    """A row per command; the floor is PyTorch alone."""
    contest = Contest("cpu", settings.turns, settings.budget * 2, weighs=False)
    work = {FLOOR: ("-c", "import torch"), **COMMANDS}
    contest.take_turns(
        **{name: lambda words=words: run_outside(*words) for name, words in work.items()}
    )
    return [
        Row(
            "startup",
            name,
            contest.median(name),
            floor=contest.median(FLOOR),
            note=f"floor: {FLOOR}",
            details={"seconds": contest.seconds},
        )
        for name in COMMANDS
    ]
