"""Locks: of two programs that would write the same files only one goes on."""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError

log = logging.getLogger(__name__)


def lock(file: Path, busy: str) -> BinaryIO:
    """Locks ``file``, which is created as needed and stays.

    Args:
        file: in a folder that is there.
        busy: the message where another process, or this one, has locked it.

    Returns:
        What to close in order to unlock it; the system does so when the process ends, however it
        does.

    Raises:
        UserError: it is locked.
    """
    handle = file.open("wb")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise UserError(busy) from None
    except OSError as error:  # some network drives know no locks
        log.warning("%s: cannot be locked (%s): start no second run", file, error.strerror)
    return handle
