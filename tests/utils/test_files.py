"""Files are written whole or not at all."""

import errno

import pytest

from utils.errors import UserError
from utils.files import replacing


def test_a_new_file_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    for text in ("old", "new"):
        with replacing(path) as partial:
            assert partial.suffix == ".txt"
            partial.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises((UserError, KeyboardInterrupt)) as caught, replacing(path) as partial:
        partial.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"{path}: cannot be written (full); ")


def test_where_no_file_can_be(tmp_path):
    (tmp_path / "taken").write_text("")
    for path in (tmp_path / "taken" / "a.txt", tmp_path / ("n" * 300)):
        with pytest.raises(UserError, match="cannot be written"), replacing(path) as partial:
            partial.write_text("x")
