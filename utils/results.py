"""Names of the folders that results go into."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.options import LONGEST_NAME

COMPARISON = "comparison"  # the folder of --compare, among those of checkpoints


def name_of(folder: Path) -> str:
    """A folder's own name, whatever way its path is written."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def joined(requests: Sequence[str]) -> str:
    """Requests, in words that a file's name may have, as one folder's name; of a long one the
    beginning and a digest of the whole."""
    words = ",".join(requests)
    if len(words.encode()) > LONGEST_NAME:
        words = f"{words[:40]}...{hashlib.sha256(words.encode()).hexdigest()[:16]}"
    return words


def file_safe(word: str) -> str:
    """A name or ``NAME:WEIGHT`` in letters, digits and ``_-.@``; what else is in it, and a dot at
    either end, becomes a code, as in addresses of the web."""

    def coded(found: re.Match[str]) -> str:
        if found[0] == ":":  # which not every file system takes
            return "@"
        return "".join(f"%{byte:02X}" for byte in found[0].encode())

    return re.sub(r"[^\w.-]|^\.|\.\Z", coded, word)


def results_name(path: Path) -> str:
    """The folder's name for what is written about a checkpoint: the file's without its extension;
    of a run that is not finished, whose ``RUN/step_300.ckpt`` others have too, ``RUN_step_300``.

    Raises:
        UserError: the name is that of another folder.
    """
    if re.fullmatch(r"step_\d+", path.stem):
        return f"{name_of(path.parent)}_{path.stem}"
    if path.stem == COMPARISON or not path.stem.strip("."):
        raise UserError(
            f"{path}: results would go to a folder '{path.stem}', which is not its own; rename "
            "the checkpoint"
        )
    return path.stem
