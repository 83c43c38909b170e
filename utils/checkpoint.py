"""Checkpoints: plain containers and tensors in one file, written whole or not at all, and read
without ever running what is in it."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError

FORMAT = "nerf-style-transfer"
VERSION = 1
_STEP_FILE = re.compile(r"step_(\d+)\.ckpt")

log = logging.getLogger(__name__)


def step_path(directory: str | Path, step: int) -> Path:
    """Where the checkpoint of a step belongs: the name that `newest_checkpoint` looks for."""
    return Path(directory) / f"step_{step}.ckpt"


def save_checkpoint(path: str | Path, payload: Mapping[str, Any]) -> None:
    """Write a checkpoint so that ``path`` holds the old content or the new, never a part.

    Args:
        path: the file; its directory must exist.
        payload: has "kind" (str); its values are tensors, dicts, lists, tuples, str, int, float,
            bool, None, nested as you like.  Format and version are added here.

    Raises:
        UserError: the disk is full, or the place cannot be written.
        TypeError: a value that `load_checkpoint` would refuse.
    """
    path = Path(path)
    content = {"format": FORMAT, "version": VERSION, **payload, "kind": payload["kind"]}
    _require_plain(content, "payload")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    # torch.save turns a failed write (disk full) into a RuntimeError
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else error.__context__ or error
        words = getattr(reason, "strerror", None) or str(reason).splitlines()[0]
        raise UserError(
            f"{path}: checkpoint cannot be written ({words}); free space or choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, kind: str | tuple[str, ...] | None = None) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Args:
        path: a file made by `save_checkpoint`.
        kind: the kind or kinds that are wanted; None takes any.

    Raises:
        UserError: missing, damaged, not a checkpoint, with code in it, or of another format,
            version or kind.
    """
    path = Path(path)
    content = _read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a checkpoint of this project; give one that pipeline.py wrote"
        )
    if content.get("version") != VERSION:
        raise UserError(
            f"{path}: checkpoint of version {content.get('version')!r}, this code reads version "
            f"{VERSION}; use the code that wrote it"
        )
    wanted = (kind,) if isinstance(kind, str) else kind
    if wanted is not None and content.get("kind") not in wanted:
        raise UserError(
            f"{path}: checkpoint of kind {content.get('kind')!r}, wanted is {' or '.join(wanted)}"
        )
    return content


def newest_checkpoint(
    directory: str | Path, kind: str | tuple[str, ...] | None = None
) -> tuple[Path, dict[str, Any]] | None:
    """The readable checkpoint of the highest step, with its content.

    One that cannot be read is named in a warning, and the one before it is taken.

    Returns:
        None where the directory has no checkpoints.

    Raises:
        UserError: there are checkpoints, and none of them can be read.
    """
    paths = _by_step(Path(directory))
    for path in reversed(paths):
        try:
            return path, load_checkpoint(path, kind)
        except UserError as error:
            log.warning("skipped: %s", error)
            reason = error
    if paths:
        raise UserError(f"{directory}: none of its checkpoints can be used; the oldest: {reason}")
    return None


def rotate(directory: str | Path, keep: int) -> None:
    """Delete all but the ``keep`` newest step checkpoints, and what killed writers left behind."""
    paths = _by_step(Path(directory))
    for path in paths[: max(len(paths) - keep, 0)]:
        path.unlink(missing_ok=True)
    for leftover in Path(directory).glob(".step_*.ckpt.tmp"):
        leftover.unlink(missing_ok=True)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over sorted names, dtypes, shapes and bytes: equal where no bit differs."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def ensure_writable(directory: str | Path) -> Path:
    """Make a directory and prove that files can be written in it.

    Raises:
        UserError: they cannot.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be written ({error.strerror}); choose another directory"
        ) from error
    return directory


def _by_step(directory: Path) -> list[Path]:
    """Step checkpoints in the order of their numbers, which is not that of their names."""
    found = [
        (int(match[1]), path)
        for path in (directory.iterdir() if directory.is_dir() else ())
        if (match := _STEP_FILE.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


def _read(path: Path) -> object:
    if path.is_dir():
        raise UserError(f"{path}: is a directory; give the checkpoint file in it")
    damaged = f"{path}: not a checkpoint, or a damaged one; copy or train it again"
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.load checks no checksum: without this a flipped bit would go unseen
            if archive.testzip() is not None:
                raise UserError(damaged)
        return torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: holds more than tensors and plain values; refused") from error
    # a file that is not ours can make unpickling fail in any way whatever
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError(damaged) from error


def _require_plain(value: object, place: str) -> None:
    """TypeError unless ``value`` is made of what ``weights_only`` reads.

    Types are compared exactly: `numpy.float64` is a float, and would be refused on reading.
    """
    if isinstance(value, Tensor) or type(value) in (str, int, float, bool, type(None)):
        return
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _require_plain(key, f"a key of {place}")
            _require_plain(item, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{place}[{index}]")
    else:
        raise TypeError(f"{place}: a checkpoint cannot hold a {type(value).__name__}")


def _sync_directory(directory: Path) -> None:
    """Make a rename in ``directory`` last through a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
