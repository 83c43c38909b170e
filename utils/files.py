"""Atomic writing of files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError


def read_text(path: Path, most: int) -> str:
    """The text (UTF-8, with or without a mark at its beginning) of a file of at most ``most``
    bytes, which is known before anything is read.

    Raises:
        OSError: there is no such file, it cannot be read, it is larger, or it is no file: a pipe
            has no end.
        ValueError: it is not UTF-8.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a file")
    if status.st_size > most:
        raise OSError(f"{status.st_size / 1e6:.0f} MB, more than {most / 1e6:.0f}")
    with path.open("rb") as file:
        return file.read(most).decode("utf-8-sig")


def require_no_folders(*files: Path) -> None:
    """Raises a `UserError` where one of the ``files`` to be written is a folder."""
    for file in files:
        if file.is_dir():
            raise UserError(f"{file}: is a folder, where a file is to be written; move it away")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager for a temporary file next to ``path``, with the same extension, that replaces
    ``path`` when the block ends without an error; a full disk or an interruption leaves the old
    file in place.

    Args:
        path: the file to write; its folder is created as needed.

    Raises:
        UserError: the file cannot be written.
    """
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "free some space or choose another place"
        ) from None
    finally:
        with suppress(OSError):  # an error while cleaning up must not hide the original one
            partial.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Makes a rename in ``directory`` survive a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
