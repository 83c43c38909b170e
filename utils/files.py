"""Atomic writing of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError


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
