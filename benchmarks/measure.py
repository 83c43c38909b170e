"""Time and memory: pieces of work in turns, and what the machine could do at best."""

from __future__ import annotations

import ctypes
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.settings import ROOT
from utils.errors import UserError

MEGA = 1e6
STATUS = Path("/proc/self/status")
PROBES = 5  # repetitions of a measurement of the machine


def clock(device: str) -> float:
    """Seconds, when the device has done all that was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class PeakMemory:
    """Bytes that a piece of work takes beyond what was there before it.

    On a CPU the peak of the resident set: freed memory goes back to the kernel first and the mark
    is reset, so that every piece of work has its own peak.  None where the kernel does not tell.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.before: int | None = None

    def start(self) -> None:
        """From here."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _resident("VmRSS")
        except (OSError, AttributeError):
            self.before = None  # not Linux, or not glibc

    def stop(self) -> int | None:
        """To here."""
        if self.before is None:
            return None
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else _resident("VmHWM")
        return max(0, peak - self.before)


def _resident(name: str) -> int:
    """A line of the process's status, bytes."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", STATUS.read_text())[1])


class Contest:
    """Pieces of work that take turns: A B A B ...

    The first turn of each warms up, the later ones are asked for their time, and the last for its
    memory: what was given back to the kernel for that is slower when it comes again.

    Args:
        device: where they work.
        rounds: timed turns of each.
        budget: seconds after which two timed rounds are enough.
        weighs: whether there is a last turn, for the memory.
    """

    def __init__(self, device: str, rounds: int, budget: float, weighs: bool = True) -> None:
        self.device, self.rounds, self.budget = device, rounds, budget
        self.seconds: dict[str, list[float]] = {}
        self.bytes: dict[str, int | None] = {}
        self._peak = PeakMemory(device)
        self._begun = time.perf_counter()
        self._started = 0.0
        self._weighs = weighs
        self._timed = False  # whether there have been timed rounds enough

    def begin(self, name: str) -> None:
        """Starts a turn of ``name``."""
        if self._timed:
            self._peak.start()
        self._started = clock(self.device)

    def end(self, name: str) -> None:
        """Ends it."""
        took = clock(self.device) - self._started
        if self._timed:
            self.bytes[name] = self._peak.stop()
        elif name in self.seconds:
            self.seconds[name].append(took)
        else:
            self.seconds[name] = []

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """`begin` and `end`."""
        self.begin(name)
        yield
        self.end(name)

    def take_turns(self, **work: Callable[[], object]) -> None:
        """All rounds of pieces of work that can be called."""
        while not self.over():
            for name, piece in work.items():
                with self.turn(name):
                    piece()

    def over(self) -> bool:
        """Whether there have been rounds enough; to be asked between two rounds."""
        if self.seconds and not self._timed:
            done = min(len(seconds) for seconds in self.seconds.values())
            late = time.perf_counter() - self._begun > self.budget
            self._timed = done >= self.rounds or (late and done >= min(2, self.rounds))
        return self._timed and (not self._weighs or self.bytes.keys() == self.seconds.keys())

    def median(self, name: str) -> float:
        """Seconds."""
        return statistics.median(self.seconds[name])

    def sums(self, shares: Mapping[str, float]) -> list[float]:
        """For every round, the sum over name -> factor of factor times seconds."""
        rows = zip(*(self.seconds[name] for name in shares), strict=False)
        return [sum(a * b for a, b in zip(shares.values(), row, strict=True)) for row in rows]


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median of the quotients, pair by pair: slow drifts of the machine cancel."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=False))


def best_of(device: str, work: Callable[[], object]) -> float:
    """Median seconds of a short piece of work, warmed up."""
    work()
    seconds = []
    for _ in range(PROBES):
        start = clock(device)
        work()
        seconds.append(clock(device) - start)
    return statistics.median(seconds)


def matrix_rate(device: str, dtype: torch.dtype, quick: bool = False) -> float:
    """Floating point operations a second of the better of a square product and of one layer of a
    NeRF, (65536, 256) x (256, 256)."""
    side = 256 if quick else 2048 if device == "cpu" else 8192
    rates = []
    for rows, inner in ((side, side), (256 * side // 8, 256)):
        a = torch.randn(rows, inner, device=device).to(dtype)
        b = torch.randn(inner, inner, device=device).to(dtype)
        seconds = best_of(device, lambda a=a, b=b: a @ b)
        rates.append(2 * rows * inner * inner / seconds)
    return max(rates)


def bandwidth(device: str, quick: bool = False) -> float:
    """Bytes a second, read and written, of copying a large tensor."""
    source = torch.ones((1 << 20 if quick else 1 << 26), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_of(device, lambda: target.copy_(source))


def run_outside(*words: str) -> tuple[float, int, str]:
    """Runs ``python *words`` from the project's root.

    Returns:
        Seconds, the peak of its resident memory in bytes as the kernel saw it, and its output.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(words)}: exit code {process.returncode}\n{output}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), output


def run_script(*words: str) -> tuple[float, int]:
    """Seconds and peak memory of a script of ours, see `run_outside`.

    Raises:
        UserError: it failed; the last line that it wrote.
    """
    try:
        seconds, memory, _ = run_outside(*words)
    except RuntimeError as error:
        raise UserError(str(error).strip().splitlines()[-1]) from error
    return seconds, memory
