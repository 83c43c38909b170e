"""The one exception for mistakes of the user: a clear line, exit code 2, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps


class UserError(Exception):
    """Bad input.  The message is one line: which file or option, what is wrong, what to do."""


class NumericalError(Exception):
    """NaN or infinity met in training.  The message names the step, the term and the tensor."""


def exits_cleanly(main: Callable[[], object]) -> Callable[[], None]:
    """Wrap a script's ``main``: a `UserError` ends it with one line and exit code 2,
    a `NumericalError` with one line and exit code 3, Ctrl-C with 130."""

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
        except KeyboardInterrupt:
            print("interrupted; --resume continues from the newest checkpoint", file=sys.stderr)
            sys.exit(130)

    return wrapped
