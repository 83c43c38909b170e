"""Files of plain containers and tensors, written atomically, and read without running any code that
they contain."""

from __future__ import annotations

import hashlib
import math
import pickle
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError
from utils.files import replacing

FORMAT = "nerf-style-transfer"
DTYPES = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int32, torch.int64),
}
# limits of a file: shared references in a few bytes of pickle could expand without end
DEEPEST = 32
MOST_VALUES = 1_000_000


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes plain content atomically, see `replacing`.

    Args:
        path: the file; its directory is created as needed.
        content: tensors, dicts, lists, tuples, str, int, float, bool and None, nested.

    Raises:
        UserError: the disk is full, or the file cannot be written.
        TypeError: a value is not plain: `load_checkpoint` would refuse it.
    """
    content = {"format": FORMAT, **content}
    require_plain(content)
    with replacing(Path(path)) as partial, partial.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch.save raises this for a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a file that `save_checkpoint` wrote, its tensors to the CPU.

    Raises:
        UserError: the file is missing, damaged or of another format, or contains code or anything
            else that `save_checkpoint` does not write.
    """
    path = Path(path)
    content = _read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a checkpoint of this project; give one that pipeline.py wrote"
        )
    try:
        require_plain(content)
    except TypeError as error:
        raise UserError(f"{path}: damaged: {error}; copy or train it again") from None
    return content


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a state dict whose names start with ``prefix``, without it."""
    return {k.removeprefix(prefix): x for k, x in state.items() if k.startswith(prefix)}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of tensors, over sorted names, dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(repr(name).encode())
        _digest_tensor(total, tensors[name])
    return total.hexdigest()


def content_digest(content: object) -> str:
    """SHA-256 (hex) of plain content, over all values, their types and the bytes of tensors."""
    total = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            _digest_tensor(total, value)
        elif isinstance(value, Mapping):
            total.update(f"dict {len(value)}\n".encode())
            for key, item in value.items():
                total.update(f"{key!r}:".encode())
                add(item)
        elif isinstance(value, list | tuple):
            total.update(f"{type(value).__name__} {len(value)}\n".encode())
            for item in value:
                add(item)
        else:
            total.update(f"{value!r}\n".encode())

    add(content)
    return total.hexdigest()


def ensure_writable(directory: str | Path) -> Path:
    """Creates a directory and checks that files can be written to it.

    Raises:
        UserError: they cannot.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be written ({error.strerror}); choose another directory"
        ) from error
    return directory


def require_other_file(output: Path, inputs: Mapping[str, Path | None]) -> None:
    """Refuses to overwrite an input file.

    Args:
        output: the file to be written.
        inputs: input files, by the name of their option.

    Raises:
        UserError: ``output`` is one of them.
    """
    for name, path in inputs.items():
        if path is not None and path.resolve() == output.resolve():
            raise UserError(
                f"{output}: would overwrite --{name}, its own input; "
                "choose another name or directory"
            )


def require_plain(content: object) -> None:
    """Raises TypeError unless ``content`` consists of types that `save_checkpoint` writes.

    Types are compared exactly: `numpy.float64` is a subclass of float, but refused on reading.
    """
    seen = 0

    def check(value: object, place: str, depth: int) -> None:
        nonlocal seen
        seen += 1
        if depth > DEEPEST or seen > MOST_VALUES:
            raise TypeError(f"{place}: too deep, or too many values")
        if type(value) in (str, bool, type(None)):
            return
        if type(value) is int and abs(value) < 1 << 63:
            return
        if type(value) is float and math.isfinite(value):
            return
        if isinstance(value, Tensor):
            _require_plain_tensor(value, place)
        elif type(value) in (dict, OrderedDict):
            for key, item in value.items():
                if type(key) not in (str, int):
                    raise TypeError(f"{place}: a {type(key).__name__} as a key")
                check(item, f"{place}[{key!r}]" if place else f"{key}", depth + 1)
        elif type(value) in (list, tuple):
            for index, item in enumerate(value):
                check(item, f"{place}[{index}]", depth + 1)
        else:
            raise TypeError(f"{place}: a checkpoint cannot hold {_described(value)}")

    check(content, "", 0)


def _require_plain_tensor(x: Tensor, place: str) -> None:
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.layout == torch.strided
    if not plain or x.dtype not in DTYPES or x.is_nested or x.is_meta:
        raise TypeError(f"{place}: a checkpoint cannot hold such a tensor ({x.dtype}, {x.layout})")
    # with strides of 0 a few bytes could hold a huge tensor
    if x.numel() * x.element_size() > x.untyped_storage().nbytes():
        raise TypeError(f"{place}: a tensor of shape {tuple(x.shape)} with fewer values than that")


def _described(value: object) -> str:
    if type(value) is float:
        return f"the number {value}"
    return "an integer of more than 64 bits" if type(value) is int else f"a {type(value).__name__}"


def _digest_tensor(total: Any, tensor: Tensor) -> None:
    tensor = tensor.detach().cpu().contiguous()
    total.update(f" {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _read(path: Path) -> object:
    damaged = f"{path}: not a checkpoint, or a damaged one; copy or train it again"
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a directory; give the checkpoint file in it")
        with zipfile.ZipFile(path) as archive:
            # torch.save does not compress: a few bytes that are could expand without end
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise UserError(damaged)
            # torch.load verifies no checksum: without this a flipped bit would go unnoticed
            if archive.testzip() is not None:
                raise UserError(damaged)
        return torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: holds more than tensors and plain values; refused") from error
    # an untrusted file can make unpickling fail in any way
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError(damaged) from error
