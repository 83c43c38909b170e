"""Checkpoints: whole or not at all, never run, and every bad file has its line."""

import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import checkpoint
from utils.checkpoint import (
    digest,
    ensure_writable,
    load_checkpoint,
    newest_checkpoint,
    rotate,
    save_checkpoint,
    step_path,
)
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def payload(step: int = 3, kind: str = "geometry") -> dict:
    return {
        "kind": kind,
        "step": step,
        "weights": {"a": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2).bfloat16()},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, 0.99)},
        "options": {"img_wh": [4, 3], "near": None, "resume": False, "prefix": "lego"},
    }


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def message(path, kind=None) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, kind)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "x.ckpt", payload())
    read = load_checkpoint(tmp_path / "x.ckpt", "geometry")
    assert (read["format"], read["version"], read["kind"]) == ("nerf-style-transfer", 1, "geometry")
    assert read["options"] == payload()["options"]
    assert read["optimizer"]["betas"] == (0.9, 0.99)
    assert read["optimizer"]["state"][0]["step"] == 3
    for name, tensor in payload()["weights"].items():
        assert torch.equal(read["weights"][name], tensor)
        assert read["weights"][name].dtype == tensor.dtype
    assert names(tmp_path) == ["x.ckpt"]


def test_state_dicts_round_trip(tmp_path):
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(tmp_path / "x.ckpt", {"kind": "k", **states})
    read = load_checkpoint(tmp_path / "x.ckpt")
    assert digest(read["model"]) == digest(model.state_dict())
    again = torch.optim.Adam(torch.nn.Linear(2, 3).parameters(), lr=9)
    again.load_state_dict(read["optimizer"])
    assert str(again.state_dict()) == str(optimizer.state_dict())


@pytest.mark.parametrize(
    "value", [np.float64(1), np.zeros(2), object(), {"a": [Path("x")]}, defaultdict(int)]
)
def test_what_could_not_be_read_back_is_not_written(value, tmp_path):
    with pytest.raises(TypeError, match=r"payload\['extra'\]"):
        save_checkpoint(tmp_path / "x.ckpt", payload() | {"extra": value})
    assert names(tmp_path) == []


def test_a_write_that_fails_halfway_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.ckpt"
    save_checkpoint(path, payload(step=1))

    def half(content, file):
        file.write(b"half of a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        save_checkpoint(path, payload(step=2))
    monkeypatch.undo()
    assert load_checkpoint(path)["step"] == 1
    assert names(tmp_path) == ["x.ckpt"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "step_1.ckpt"
    save_checkpoint(path, payload(step=1))
    code = (
        "import os, signal, torch\n"
        "from utils.checkpoint import save_checkpoint\n"
        "def killed(content, file):\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "torch.save = killed\n"
        f"save_checkpoint({str(path)!r}, {{'kind': 'geometry'}})\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert load_checkpoint(path)["step"] == 1
    assert len(names(tmp_path)) == 2
    rotate(tmp_path, keep=1)
    assert names(tmp_path) == ["step_1.ckpt"]


def test_a_full_disk_is_one_line(tmp_path):
    """A real write error amid torch.save; a limit on file sizes stands for the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"x\.ckpt: checkpoint cannot be written \(File too"):
            save_checkpoint(tmp_path / "x.ckpt", {"kind": "k", "big": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


def test_a_missing_directory_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(tmp_path / "none" / "x.ckpt", payload())


def test_missing_and_directory(tmp_path):
    assert "no such file" in message(tmp_path / "none.ckpt")
    assert "is a directory" in message(tmp_path)


def test_damaged_files(tmp_path):
    path = tmp_path / "x.ckpt"
    save_checkpoint(path, payload())
    good = path.read_bytes()
    tensor = good.index(payload()["weights"]["a"].numpy().tobytes())
    flipped = bytearray(good)
    flipped[tensor + 5] ^= 1
    # the last: pickled by the format of long ago
    for content in (b"", b"garbage", good[:-1], good[: len(good) // 2], flipped, pickle.dumps({})):
        path.write_bytes(content)
        assert "not a checkpoint, or a damaged one" in message(path)


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert "not a checkpoint, or a damaged one" in message(tmp_path / "x.ckpt")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoint.FORMAT, "version": 1, "kind": Evil()}, tmp_path / "x.ckpt")
    assert "refused" in message(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"fc.weight": torch.ones(2)}, torch.ones(2), [1, 2]])
def test_another_format(content, tmp_path):
    torch.save(content, tmp_path / "x.ckpt")
    assert "not a checkpoint of this project" in message(tmp_path / "x.ckpt")


def test_another_version(tmp_path):
    torch.save({"format": checkpoint.FORMAT, "version": 2, "kind": "k"}, tmp_path / "x.ckpt")
    assert "checkpoint of version 2, this code reads version 1" in message(tmp_path / "x.ckpt")


def test_another_kind(tmp_path):
    save_checkpoint(tmp_path / "x.ckpt", payload(kind="style"))
    assert "of kind 'style', wanted is geometry" in message(tmp_path / "x.ckpt", "geometry")
    assert "wanted is a or b" in message(tmp_path / "x.ckpt", ("a", "b"))
    assert load_checkpoint(tmp_path / "x.ckpt", ("geometry", "style"))["kind"] == "style"


def test_newest_is_by_number_not_by_name(tmp_path):
    for step in (999, 1_000_000, 20):
        save_checkpoint(step_path(tmp_path, step), payload(step))
    (tmp_path / "step_last.ckpt").write_text("not one of them")
    (tmp_path / "step_9999999.ckpt.bak").write_text("not one of them")
    path, content = newest_checkpoint(tmp_path, "geometry")
    assert (path.name, content["step"]) == ("step_1000000.ckpt", 1_000_000)


def test_a_damaged_newest_is_named_and_the_one_before_it_used(tmp_path, caplog):
    save_checkpoint(step_path(tmp_path, 9), payload(9))
    step_path(tmp_path, 10).write_bytes(b"cut off")
    with caplog.at_level(logging.WARNING):
        path, content = newest_checkpoint(tmp_path, "geometry")
    assert (path.name, content["step"]) == ("step_9.ckpt", 9)
    assert "step_10.ckpt" in caplog.text


def test_no_checkpoints(tmp_path):
    assert newest_checkpoint(tmp_path / "none", "geometry") is None
    assert newest_checkpoint(tmp_path, "geometry") is None
    step_path(tmp_path, 10).write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"none of its checkpoints can be used"):
        newest_checkpoint(tmp_path, "geometry")


def test_rotate_keeps_the_highest_steps(tmp_path):
    for step in (999, 1000, 1_000_000, 20):
        step_path(tmp_path, step).touch()
    (tmp_path / "best.ckpt").touch()
    rotate(tmp_path, keep=2)
    assert names(tmp_path) == ["best.ckpt", "step_1000.ckpt", "step_1000000.ckpt"]
    rotate(tmp_path, keep=5)
    assert len(names(tmp_path)) == 3


def test_digest_sees_names_types_shapes_and_bits():
    base = {"a": torch.arange(6.0), "b": torch.tensor(1, dtype=torch.int32)}
    assert digest(base) == digest({"b": base["b"].clone(), "a": base["a"].clone()})
    assert digest(base) == digest({**base, "a": torch.arange(12.0).reshape(6, 2)[:, 0] / 2})
    others = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
        {**base, "a": base["a"].reshape(2, 3)},
        {**base, "a": base["a"].view(torch.int32)},
        {**base, "a": torch.nextafter(base["a"], torch.tensor(9.0))},
        {**base, "a": base["a"] * torch.tensor([-1.0, 1, 1, 1, 1, 1])},
        {**base, "empty": torch.zeros(0)},
    ]
    assert len({digest(x) for x in [base, *others]}) == 1 + len(others)
    assert len(digest({"m": torch.ones(2, dtype=torch.bfloat16), "n": torch.ones(3).bool()})) == 64


def test_ensure_writable(tmp_path, monkeypatch):
    assert ensure_writable(tmp_path / "a" / "b").is_dir()
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot be written"):
            ensure_writable(bad)

    def denied(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint.tempfile, "TemporaryFile", denied)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        ensure_writable(tmp_path)
