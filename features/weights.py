"""Weights out of untrusted files, PyTorch's or safetensors, and into convolutions."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from utils.errors import UserError


def read_weights(file: Path) -> Mapping[str, object]:
    """A state dict from an untrusted file; code in it is never run.

    Args:
        file: ``.safetensors``, or else what `torch.save` wrote: a state dict, bare or under
            ``state_dict``.

    Raises:
        UserError: for a file that is missing, damaged, or not a state dict.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file of weights; check the path")
    damaged = f"{file}: not a file of weights, or a damaged one; copy or download it again"
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        zipped = zipfile.is_zipfile(file)
        if zipped:
            with zipfile.ZipFile(file) as archive:
                # torch.load checks no checksum: without this a flipped bit would go unseen
                if archive.testzip() is not None:
                    raise UserError(damaged)
        # mapped: torchvision's files are 0.5 GB, of which the convolutions are a small part
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
    # a file that is not ours can make unpickling fail in any way whatever
    except Exception as error:
        raise UserError(damaged) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise UserError(f"{file}: holds a {type(state).__name__}, not a state dict")
    return state


def copy_weights(
    convs: nn.ModuleDict, state: Mapping[str, object], names: Mapping[str, str], source: Path
) -> None:
    """Copy weights and biases into convolutions.

    Args:
        convs: name -> convolution.
        state: what `read_weights` found in ``source``.
        names: the state dict's name of each convolution.
        source: for messages.

    Raises:
        UserError: for a tensor that is missing, of another shape or type, or not finite.
    """
    parameters = {
        f"{names[name]}.{part}": getattr(conv, part)
        for name, conv in convs.items()
        for part in ("weight", "bias")
    }
    if missing := [key for key in parameters if not isinstance(state.get(key), Tensor)]:
        raise UserError(f"{source}: {', '.join(missing)} missing; give a complete file of weights")
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
