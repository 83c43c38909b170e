"""Errors that end a script with one clear line and an exit code instead of a traceback."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps


class UserError(Exception):
    """Bad input.  The message is one line: which file or option, what is wrong, what to do."""


class NumericalError(Exception):
    """NaN or infinity met in training.  The message names the step, the term and the tensor."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM.  Not a KeyboardInterrupt: Lightning would end the process on that one,
    with its own exit code and without a message.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


TOO_LARGE = (
    "there is not enough memory; use smaller images (--img_wh), fewer rays (--batch_size, "
    "--chunk) or fewer voxels (--voxel_resolution)"
)
RESUME = "to continue from the newest checkpoint, give the same command with --resume"


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an error means that CPU or GPU memory ran out; for the CPU PyTorch has no error
    class."""
    known = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(part in str(error).lower() for part in known)


def exits_cleanly(main: Callable[[], object], can_resume: bool = False) -> Callable[[], None]:
    """Wraps a script's ``main`` so that an error ends it with one line and an exit code: 2 for a
    `UserError`, 3 for a `NumericalError`, 4 for too little memory, 130 for Ctrl-C, 143 for SIGTERM.

    Args:
        main: the script.
        can_resume: whether the line after an interruption says how to continue.
    """
    hint = f"; {RESUME}" if can_resume else ""

    @wraps(main)
    def wrapped() -> None:
        try:
            _raise_on_signals()
            main()
        except UserError as error:
            _end(f"error: {error}", 2)
        except NumericalError as error:
            _end(f"error: {error}", 3)
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            detail = str(error).split("\n")[0]
            _end(f"error: {TOO_LARGE}{hint} ({detail})", 4)
        except Interrupted as interruption:
            name = "interrupted" if interruption.number == signal.SIGINT else "terminated"
            _end(f"{name}{hint}", 128 + interruption.number)
        except KeyboardInterrupt:
            _end(f"interrupted{hint}", 130)

    return wrapped


def _end(line: str, code: int) -> None:
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(code)


def _raise_on_signals() -> None:
    """Makes Ctrl-C and SIGTERM raise `Interrupted`, wherever the program is."""

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, interrupt)
