"""What a script says, and what it exits with, when it cannot go on."""

import pytest
import torch

from utils.errors import NumericalError, UserError, exits_cleanly


def raising(error):
    def main():
        raise error

    return exits_cleanly(main)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("a file\nis missing"), 2, "error: a file is missing"),
        (NumericalError("step 3: NaN"), 3, "error: step 3: NaN"),
        (MemoryError(), 4, "error: there is not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 4, "use smaller images"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_one_line_and_a_code(error, code, said, capsys):
    with pytest.raises(SystemExit) as exit_:
        raising(error)()
    assert exit_.value.code == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_too_large_a_tensor_is_such_a_case(capsys):
    with pytest.raises(SystemExit) as exit_:
        exits_cleanly(lambda: torch.empty(1 << 60, dtype=torch.uint8))()
    assert exit_.value.code == 4
    assert "--img_wh" in capsys.readouterr().err


def test_mistakes_of_the_code_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shape"):
        raising(RuntimeError("wrong shape"))()
