"""The one exception for mistakes of the user: a clear line, exit code 2, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps


class UserError(Exception):
    """Bad input.  The message is one line: which file or option, what is wrong, what to do."""


class NumericalError(Exception):
    """NaN or infinity met in training.  The message names the step, the term and the tensor."""


TOO_LARGE = (
    "the memory does not suffice; give smaller images (--img_wh), fewer rays (--batch_size, "
    "--chunk) or fewer voxels (--voxel_resolution); --resume continues from the newest checkpoint"
)


def ran_out_of_memory(error: Exception) -> bool:
    """Whether the machine, or a GPU, had no memory left; PyTorch has no error of its own for the
    first."""
    known = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(part in str(error).lower() for part in known)


def exits_cleanly(main: Callable[[], object]) -> Callable[[], None]:
    """Wrap a script's ``main``: a `UserError` ends it with one line and exit code 2,
    a `NumericalError` with one line and exit code 3, too little memory with 4, Ctrl-C with 130."""

    @wraps(main)
    def wrapped() -> None:
        try:
            main()
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)
        except NumericalError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(3)
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            detail = " ".join(str(error).split("\n")[0].split())
            print(f"error: {TOO_LARGE} ({detail})", file=sys.stderr)
            sys.exit(4)
        except KeyboardInterrupt:
            print("interrupted; --resume continues from the newest checkpoint", file=sys.stderr)
            sys.exit(130)

    return wrapped
