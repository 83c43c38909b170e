"""The device, its memory and its numerical precision."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch

from utils.errors import UserError


def accelerator(asked: str, num_gpus: int = 1) -> str:
    """'cuda' or 'cpu' for the option --device.

    Raises:
        UserError: CUDA or more GPUs were requested than are available.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cuda" and not there:
        raise UserError("--device cuda: PyTorch finds no CUDA GPU here; use --device cpu")
    if asked == "auto":
        asked = "cuda" if there else "cpu"
    if asked == "cuda" and num_gpus > there:
        raise UserError(f"--num_gpus {num_gpus}: PyTorch finds {there} here; ask for fewer")
    cores = max(2, os.cpu_count() or 1)  # two processes can be tried anywhere
    if asked == "cpu" and num_gpus > cores:
        raise UserError(f"--num_gpus {num_gpus}: this machine has {cores} cores; ask for fewer")
    return asked


def keep_memory() -> None:
    """Tunes malloc and oneDNN for short-lived tensors; must be called before any tensor is made.

    glibc keeps freed memory, within bounds: getting zeroed pages from the kernel again takes a
    third of a training step's time on a CPU.  oneDNN caches fewer convolutions: by default it keeps
    a thousand, megabytes each, one for every image size.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    trim_threshold, top_pad, mmap_threshold, arena_max = -1, -2, -3, -8
    for parameter, value in (
        (mmap_threshold, 1 << 26),
        (trim_threshold, 1 << 29),
        (top_pad, 1 << 26),
        (arena_max, 1),
    ):
        _glibc("mallopt", parameter, value)


def release_memory() -> None:
    """Returns freed memory to the system: preparations leave a GB of free blocks that the training
    steps cannot reuse, since their tensors have other sizes."""
    _glibc("malloc_trim", 0)


def _glibc(function: str, *values: int) -> None:
    """Calls a function of the GNU C library; does nothing with another C library."""
    with suppress(OSError, AttributeError):
        getattr(ctypes.CDLL("libc.so.6"), function)(*values)


def memory_in_use(device: torch.device) -> int:
    """Bytes that this process uses, of GPU or CPU memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the peak instead
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()


def memory_of_machine() -> int:
    """Bytes of CPU memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def has_fast_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are quicker than in single precision.

    On a CPU that takes matrix units (AMX).  With the vector instructions alone (AVX-512 BF16) a
    layer of 256 channels took 1.4 times as long as in single precision, a convolution 1.8 times.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported()


def trainer_precision(asked: str, device: str) -> str:
    """Lightning's name for the option --precision.

    'auto' is bfloat16 for matrix products where the hardware supports it, otherwise single
    precision.

    Raises:
        UserError: half precision was requested on a CPU.
    """
    if asked == "16" and device == "cpu":
        raise UserError("--precision 16: not on a CPU; use bf16 or 32")
    if asked == "auto":
        asked = "bf16" if has_fast_bfloat16(device) else "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[asked]


def product_type(asked: str, device: str) -> torch.dtype:
    """The dtype of matrix products with the option --precision.

    Raises:
        UserError: half precision was requested on a CPU.
    """
    types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    return types.get(trainer_precision(asked, device), torch.float32)


def mixed_precision(asked: str, device: str) -> torch.autocast:
    """The autocast context that training uses with the option --precision; for errors see
    `product_type`."""
    dtype = product_type(asked, device)
    return torch.autocast(device, dtype, enabled=dtype != torch.float32)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results; PyTorch's includes its build."""
    others = ("numpy", "pytorch-lightning", "torchmetrics", "kornia")
    base = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return base | {name: version(name) for name in others}
