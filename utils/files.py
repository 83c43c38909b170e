"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside ``path``, with the same extension, that takes its place when the block ends
    without an error; a full disk or an interruption leaves what was there before.

    Args:
        path: the file to write; its folder is made as needed.

    Raises:
        UserError: it cannot be written.
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
        with suppress(OSError):  # the error that led here counts, and not that of cleaning up
            partial.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Makes a rename in ``directory`` last through a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
