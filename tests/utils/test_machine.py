"""What is set of the machine."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREPARATION = """
import torch
from utils.machine import keep_memory, memory_in_use, release_memory
keep_memory()
cpu = torch.device("cpu")
before = memory_in_use(cpu)
blocks = [torch.ones(1 << 19) for _ in range(100)]
full = memory_in_use(cpu)
last = blocks.pop()
del blocks
kept = memory_in_use(cpu)
release_memory()
print(*(round((m - before) / 1e6) for m in (full, kept, memory_in_use(cpu))))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library")
def test_freed_memory_is_kept_until_it_is_released():
    command = [sys.executable, "-c", PREPARATION]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    full, kept, released = map(int, done.stdout.split())
    assert full > 180  # MB
    assert kept > 180
    assert released < 80
