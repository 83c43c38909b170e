"""Reads weights from untrusted PyTorch or safetensors files and copies them into convolutions."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from utils.errors import UserError

HASHED = re.compile(r"-([0-9a-f]{8})$")


def read_weights(file: Path) -> Mapping[str, object]:
    """Reads a state dict from an untrusted file without running any code that it contains.

    Args:
        file: a ``.safetensors`` file, or one written by `torch.save` with a state dict at the top
            or under the key ``state_dict``.

    Raises:
        UserError: the file is missing, damaged, or holds no state dict.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file of weights; check the path")
    damaged = f"{file}: not a weights file, or a damaged one; copy or download it again"
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        # torchvision's files are called by their digest
        if (named := HASHED.search(file.stem)) and not _sha256(file).startswith(named[1]):
            raise UserError(
                f"{file}: is not what the digest in its name says; download it again, or, where "
                "that is no digest, rename it"
            )
        zipped = zipfile.is_zipfile(file)
        if zipped:
            with zipfile.ZipFile(file) as archive:
                # torch.save does not compress: a few bytes that are could expand without end
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise UserError(damaged)
                # torch.load verifies no checksum: without this a flipped bit would go unnoticed
                if archive.testzip() is not None:
                    raise UserError(damaged)
        # memory-mapped: of torchvision's 0.5 GB the convolutions are a small part
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file}: damaged, or holds more than tensors and plain values, which is refused; "
            "save the network's state_dict() instead"
        ) from error
    # an untrusted file can make unpickling fail in any way
    except Exception as error:
        raise UserError(damaged) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise UserError(f"{file}: holds a {type(state).__name__}, not a state dict")
    return state


def _sha256(file: Path) -> str:
    total = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def copy_weights(
    convs: nn.ModuleDict, state: Mapping[str, object], names: Mapping[str, str], source: Path
) -> None:
    """Copies weights and biases into convolutions.

    Args:
        convs: name -> convolution.
        state: state dict, from `read_weights`.
        names: name of a convolution -> its name in the state dict.
        source: the file, for messages.

    Raises:
        UserError: a tensor is missing, has a wrong shape or type, or is not finite.
    """
    parameters = {
        f"{names[name]}.{part}": getattr(conv, part)
        for name, conv in convs.items()
        for part in ("weight", "bias")
    }
    if missing := [key for key in parameters if not isinstance(state.get(key), Tensor)]:
        raise UserError(f"{source}: {', '.join(missing)} missing; give a complete weights file")
    for key, parameter in parameters.items():
        value = state[key]
        if value.shape != parameter.shape or not value.is_floating_point():
            raise UserError(
                f"{source}: {key} is {tuple(value.shape)} {value.dtype} instead of "
                f"{tuple(parameter.shape)} floating point; is this another network?"
            )
        if not value.isfinite().all():
            raise UserError(f"{source}: {key} holds NaN or infinity; the file is damaged")
        parameter.data.copy_(value)
