"""The field alone, as safetensors: small, readable by any program, and a field again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from systems.checkpoints import KINDS, geometry_digest, load_field
from utils.checkpoint import FORMAT, VERSION
from utils.errors import UserError
from utils.files import replacing

if TYPE_CHECKING:
    from assets.job import Job

SUFFIX = ".safetensors"
SMALL = 64  # elements up to which a tensor keeps its precision: bounds, colour matrices
BITS = ".bits"  # ends the name of a boolean grid of which eight cells lie in a byte
COARSE = "sampler.coarse."
LIT = "sampler.grid.lit"
PLACE = ("name", "near", "far", "space")  # of the scene; its cameras stay in the checkpoint


def write_weights(path: Path, payload: dict[str, Any], half: bool) -> None:
    """Writes the field of a checkpoint's payload.

    What rendering does not need is left out: the coarse network's colours, and which cells light
    reached.  The metadata hold the payload without its tensors as JSON under "payload".

    Args:
        path: the file.
        payload: as of `load_field`.
        half: round large tensors to half precision.

    Raises:
        UserError: a weight is too large for half precision, or the file cannot be written.
    """
    state = rounded(slim(payload), half)
    rest = {name: value for name, value in payload.items() if name != "state"}
    rest |= {
        "scene": {name: payload["scene"][name] for name in PLACE if name in payload["scene"]},
        "source_digest": payload["digest"],
        "digest": geometry_digest(completed(widened(state), payload["spec"])),
    }
    shapes = {name: list(t.shape) for name, t in state.items() if t.dtype == torch.bool}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "spec": json.dumps(payload["spec"]),
        "payload": json.dumps(rest),
        "shapes": json.dumps(shapes),
    }
    tensors = {}
    for name, tensor in state.items():
        packed = tensor.dtype == torch.bool
        tensors[name + BITS if packed else name] = packed_bits(tensor) if packed else tensor
    content = save({k: t.contiguous() for k, t in tensors.items()}, metadata)
    with replacing(path) as partial:
        partial.write_bytes(content)


def export_weights(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """Writes the field alone.

    Returns:
        The file, and entries for the report.

    Raises:
        UserError: see `write_weights`.
    """
    path = job.path(SUFFIX[1:])
    write_weights(path, job.payload, job.options.half)
    precision = "half" if job.options.half else "single"
    return [path], {"precision": precision, "bytes": path.stat().st_size}


def read_weights(path: Path) -> dict[str, Any]:
    """The payload that `write_weights` was given, its large tensors as precise as the file's.

    Raises:
        UserError: missing, damaged, or not a field of this project.
    """
    foreign = f"{path}: not a field of this project; give one that export.py wrote"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, or not safetensors ({error}); write it again") from None
    if metadata.get("format") != FORMAT:
        raise UserError(foreign)
    if metadata.get("version") != str(VERSION):
        raise UserError(
            f"{path}: field of version {metadata.get('version')}, this code reads version "
            f"{VERSION}; use the code that wrote it"
        )
    try:
        payload, shapes = json.loads(metadata["payload"]), json.loads(metadata["shapes"])
        for name, shape in shapes.items():
            tensors[name] = unpacked_bits(tensors.pop(name + BITS), shape)
        payload["state"] = completed(widened(tensors), payload["spec"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError):
        raise UserError(foreign) from None
    if payload["kind"] not in KINDS:
        raise UserError(foreign)
    return payload


def load_any_field(
    ckpt_path: Path | None, coarse_path: Path | None, fine_path: Path | None
) -> dict[str, Any]:
    """`load_field`, for which ``ckpt_path`` may also be a .safetensors of `write_weights`."""
    if ckpt_path is not None and ckpt_path.suffix == SUFFIX:
        return read_weights(ckpt_path)
    return load_field(ckpt_path, coarse_path, fine_path)


def left_out(spec: dict[str, Any]) -> str | None:
    """What the names of a coarse network's tensors start with that rendering does not need.

    The coarse network proposes by density alone; without a fine one it is the field itself.
    """
    if spec["field"] != "nerf" or spec["sampling"] != "hierarchical":
        return None
    return f"{COARSE}style." if spec["n_fine"] else COARSE


def slim(payload: dict[str, Any]) -> dict[str, Tensor]:
    """The state without what rendering does not need."""
    prefix = left_out(payload["spec"])
    return {
        name: tensor
        for name, tensor in payload["state"].items()
        if name != LIT and not (prefix and name.startswith(prefix))
    }


def completed(state: dict[str, Tensor], spec: dict[str, Any]) -> dict[str, Tensor]:
    """The inverse of `slim`: what the coarse network lacks it gets from the field."""
    state = {**state, LIT: torch.zeros_like(state["sampler.grid.occupied"])}
    prefix = left_out(spec)
    for name in [n for n in state if prefix and n.startswith("field.")]:
        twin = COARSE + name.removeprefix("field.")
        if twin.startswith(prefix):
            state[twin] = state[name].clone()
    return state


def rounded(state: dict[str, Tensor], half: bool) -> dict[str, Tensor]:
    """The tensors, large ones in half precision if ``half``."""
    if not half:
        return state
    out = {}
    for name, tensor in state.items():
        large = tensor.is_floating_point() and tensor.numel() > SMALL
        out[name] = tensor.half() if large else tensor
        if large and not bool(out[name].isfinite().all()):
            raise UserError(f"--half: {name} has a value that half precision cannot hold; leave it")
    return out


def widened(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with half precision made single, as a renderer takes them."""
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in state.items()}


def packed_bits(grid: Tensor) -> Tensor:
    """(ceil(K / 8),) uint8 of a boolean grid of K cells, the first cell in the lowest bit."""
    bits = torch.nn.functional.pad(grid.flatten().to(torch.uint8), (0, -grid.numel() % 8))
    return (bits.view(-1, 8) << torch.arange(8)).sum(1).to(torch.uint8)


def unpacked_bits(packed: Tensor, shape: list[int]) -> Tensor:
    """The boolean grid of ``shape`` that `packed_bits` packed."""
    bits = (packed[:, None] >> torch.arange(8)) & 1
    count = torch.Size(shape).numel()
    return bits.flatten()[:count].bool().view(shape)
