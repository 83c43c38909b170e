"""Checkpoints: whole or not at all, never run, and every bad file has its line."""

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
    content_digest,
    digest,
    ensure_writable,
    load_checkpoint,
    require_other_file,
    save_checkpoint,
)
from utils.errors import UserError
from utils.files import replacing

ROOT = Path(__file__).resolve().parents[2]


def payload(step: int = 3) -> dict:
    return {
        "step": step,
        "weights": {"a": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2).bfloat16()},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, 0.99)},
        "options": {"img_wh": [4, 3], "near": None, "resume": False, "prefix": "lego"},
    }


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def message(path) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "x.ckpt", payload())
    read = load_checkpoint(tmp_path / "x.ckpt")
    assert read["format"] == "nerf-style-transfer"
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
    save_checkpoint(tmp_path / "x.ckpt", states)
    read = load_checkpoint(tmp_path / "x.ckpt")
    assert digest(read["model"]) == digest(model.state_dict())
    again = torch.optim.Adam(torch.nn.Linear(2, 3).parameters(), lr=9)
    again.load_state_dict(read["optimizer"])
    assert str(again.state_dict()) == str(optimizer.state_dict())


@pytest.mark.parametrize(
    "value",
    [
        *(np.float64(1), np.zeros(2), object(), {"a": [Path("x")]}, defaultdict(int), {1.5: 0}),
        *(float("nan"), 1 << 63, torch.zeros(2, dtype=torch.complex64), torch.zeros(2).to("meta")),
        *(torch.zeros(1).expand(9), torch.zeros(2).to_sparse(), [[[]]] * 500_000),
    ],
)
def test_what_could_not_be_read_back_is_not_written(value, tmp_path):
    with pytest.raises(TypeError, match=r"^extra(\[|:)"):
        save_checkpoint(tmp_path / "x.ckpt", payload() | {"extra": value})
    assert names(tmp_path) == []


def test_shared_references_do_not_unfold_without_end(tmp_path):
    nested: list = []
    for _ in range(200):
        nested = [nested, nested]
    endless: list = []
    endless += [endless, endless]
    for value in (nested, endless):
        torch.save({"format": checkpoint.FORMAT, "x": value}, tmp_path / "x.ckpt")
        assert "too deep, or too many values" in message(tmp_path / "x.ckpt")


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
    path = tmp_path / "x.ckpt"
    save_checkpoint(path, payload(step=1))
    code = (
        "import os, signal, torch\n"
        "from utils.checkpoint import save_checkpoint\n"
        "def killed(content, file):\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "torch.save = killed\n"
        f"save_checkpoint({str(path)!r}, {{'step': 2}})\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert load_checkpoint(path)["step"] == 1
    left, _ = names(tmp_path)
    assert left.startswith(".")
    assert left.endswith(".x.ckpt")


def test_a_full_disk_is_one_line(tmp_path):
    """A real write error amid torch.save; a limit on file sizes stands for the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"x\.ckpt: cannot be written \(File too"):
            save_checkpoint(tmp_path / "x.ckpt", {"big": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


def test_an_impossible_directory_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(tmp_path / "file" / "x.ckpt", payload())


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
    torch.save({"format": checkpoint.FORMAT, "version": Evil()}, tmp_path / "x.ckpt")
    assert "refused" in message(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"fc.weight": torch.ones(2)}, torch.ones(2), [1, 2]])
def test_another_format(content, tmp_path):
    torch.save(content, tmp_path / "x.ckpt")
    assert "not a checkpoint of this project" in message(tmp_path / "x.ckpt")


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


def test_a_digest_of_content_sees_every_value_and_type():
    base = {"a": [1, 2.0, None], "b": {"c": "x", "d": torch.zeros(2)}}
    assert content_digest(base) == content_digest({**base, "b": {"c": "x", "d": torch.zeros(2)}})
    others = [
        {**base, "a": [1, 2, None]},
        {**base, "a": [True, 2.0, None]},
        {**base, "a": (1, 2.0, None)},
        {**base, "a": [[1, 2.0], None]},
        {**base, "b": {"c": "x", "d": torch.zeros(3)}},
        {**base, "b": {"c": "x"}, "d": torch.zeros(2)},
        {**base, "b": {"c": "x:", "d": torch.zeros(2)}},
        {"b": base["b"], "a": base["a"]},
    ]
    assert len({content_digest(x) for x in [base, *others]}) == 1 + len(others)


def test_what_cannot_be_cleaned_up_does_not_hide_why(tmp_path, monkeypatch):
    """The folder turns read-only in the middle: neither the rename nor the clean-up works."""

    def denied(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", denied)
    monkeypatch.setattr(Path, "unlink", denied)
    words = r"x: cannot be written \(Permission denied\)"
    with pytest.raises(UserError, match=words), replacing(tmp_path / "x") as partial:
        partial.write_bytes(b"x")


def test_a_file_is_not_written_over_what_it_is_made_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = {"style_dir": None, "ckpt_path": Path("a/../x.ckpt")}
    require_other_file(Path("y.ckpt"), inputs)
    with pytest.raises(UserError, match=r"x\.ckpt: would overwrite --ckpt_path"):
        require_other_file(tmp_path / "x.ckpt", inputs)


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
