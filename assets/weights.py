"""A field in the colours of one style, as safetensors: small, readable by any program, and a
checkpoint again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from datasets.pairs import source_of
from models.checkpoint import (
    COARSE_PREFIX,
    PHOTO,
    STYLE_PREFIX,
    VERSION,
    Checkpoint,
    geometry_digest,
)
from utils.checkpoint import FORMAT, digest, require_other_file, without_prefix
from utils.errors import UserError
from utils.files import replacing

if TYPE_CHECKING:
    from assets.job import Job

SUFFIX = ".safetensors"
SMALL = 64  # elements up to which a tensor keeps its precision: bounds, colour matrices
BITS = ".bits"  # ends the name of a boolean grid of which eight cells lie in a byte
LIT = "sampler.grid.lit"
PLACE = ("name", "near", "far", "space")  # of the scene; its cameras stay in the checkpoint


def write_weights(
    path: Path,
    checkpoint: Checkpoint,
    half: bool,
    field: str | None = None,
    style: str | None = None,
) -> None:
    """Writes a field in the colours of one style, whole or not at all.

    What rendering does not need is left out: other styles, the coarse network's colours, and where
    light has been.  The metadata hold everything but the tensors as JSON: "spec" what the modules
    are built from, "content" the rest, "shapes" those of the grids that are packed to bits, and
    "digest" the SHA-256 of all of it.

    Args:
        path: the file.
        checkpoint: that has the field.
        half: round large tensors to half precision.
        field, style: as of `Checkpoint.chosen`.

    Raises:
        UserError: a weight is too large for half precision, or the place cannot be written.
    """
    field, style = checkpoint.chosen(field, style)
    renderer = checkpoint.renderer(field, style)
    state = rounded(slim(renderer.state_dict()), half)
    scene, options = checkpoint.scenes[field], checkpoint.options
    if style in checkpoint.decoders:  # a field of its own, in the colours of the decoder it wears
        options, style = source_of(options, field, style)[0], PHOTO
    content = {
        "stage": checkpoint.stage,
        "field": field,
        "style": None if style == PHOTO else style,
        "style_options": None if style == PHOTO else checkpoint.styles[style].options,
        "scene": {name: scene[name] for name in PLACE if name in scene},
        "options": options,
        "versions": checkpoint.versions,
    }
    shapes = {name: list(t.shape) for name, t in state.items() if t.dtype == torch.bool}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "spec": json.dumps(renderer.spec),
        "content": json.dumps(content),
        "shapes": json.dumps(shapes),
        "source_digest": checkpoint.fields[field].digest,
    }
    tensors = {}
    for name, tensor in state.items():
        packed = tensor.dtype == torch.bool
        tensors[name + BITS if packed else name] = packed_bits(tensor) if packed else tensor
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata["digest"] = file_digest(tensors, metadata)
    data = save(tensors, metadata)
    with replacing(path) as partial:
        partial.write_bytes(data)


def export_weights(job: Job) -> tuple[list[Path], dict[str, Any]]:
    """Writes the field in the colours of one style, alone.

    Returns:
        The file, and entries for the report.

    Raises:
        UserError: see `write_weights`, or the file would replace the checkpoint.
    """
    path, options = job.path(SUFFIX[1:]), job.options
    inputs = ("ckpt_path", "coarse_path", "fine_path")
    require_other_file(path, {name: getattr(options, name) for name in inputs})
    write_weights(path, job.checkpoint, options.half, job.field, job.style)
    precision = "half" if options.half else "single"
    return [path], {"precision": precision, "bytes": path.stat().st_size}


def read_weights(path: Path) -> Checkpoint:
    """The checkpoint of one field, and one style or none, that `write_weights` wrote.

    Raises:
        UserError: missing, damaged, or not a field of this project.
    """
    metadata, tensors = _stored(path)
    foreign = f"{path}: not a field of this project, or a damaged one; write it again"
    if metadata.get("format") != FORMAT:
        raise UserError(foreign)
    version = metadata.get("version", "unknown")
    if version != str(VERSION):
        raise UserError(
            f"{path}: field of version {version:.10}, this code reads version {VERSION}; "
            "export it again from its checkpoint"
        )
    claimed = metadata.pop("digest", None)
    if claimed != file_digest(tensors, metadata):
        raise UserError(f"{path}: damaged: its content is not what was written; write it again")
    try:
        shapes = json.loads(metadata["shapes"])
        for name, shape in shapes.items():
            tensors[name] = unpacked_bits(tensors.pop(name + BITS), shape)
        content = _content(metadata, widened(tensors))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, RecursionError):
        raise UserError(foreign) from None
    return Checkpoint.checked(content, path)


def read_trained(
    ckpt_path: Path | None, coarse_path: Path | None, fine_path: Path | None
) -> Checkpoint:
    """The checkpoint that the options of these names mean: one file, which may be a .safetensors of
    `write_weights`, or one for each network.

    Raises:
        UserError: a file is missing or damaged, or two are not of one field.
    """
    if ckpt_path is None:
        return Checkpoint.read_networks(coarse_path, fine_path)
    return read_weights(ckpt_path) if ckpt_path.suffix == SUFFIX else Checkpoint.read(ckpt_path)


def file_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 (hex) of all that is in a file."""
    rest = json.dumps(sorted(metadata.items()))
    return hashlib.sha256(f"{digest(tensors)} {rest}".encode()).hexdigest()


def _stored(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of any safetensors."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not safetensors ({error}); write it again") from None


def _content(metadata: Mapping[str, str], state: dict[str, Tensor]) -> dict[str, Any]:
    """The content of a checkpoint, not yet checked."""
    spec, rest = json.loads(metadata["spec"]), json.loads(metadata["content"])
    state, field, style = completed(state), rest["field"], rest["style"]
    claimed, styles = geometry_digest(state), {}
    if style is not None:
        own = without_prefix(state, STYLE_PREFIX)
        state = {k: x for k, x in state.items() if not k.startswith(STYLE_PREFIX)}
        styles[style] = {"field": field, "state": own}
        styles[style] |= {"spec": spec["style"], "options": rest["style_options"]}
    return {
        "stage": rest["stage"],
        "fields": {field: {"spec": spec, "state": state, "digest": claimed}},
        "scenes": {field: rest["scene"]},
        "styles": styles,
        "options": rest["options"],
        "inputs": {},
        "progress": None,
        "versions": rest["versions"],
    }


COARSE_STYLE_PREFIX = f"{COARSE_PREFIX}style."  # a coarse network proposes by density alone


def slim(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state without what rendering does not need."""
    return {k: x for k, x in state.items() if k != LIT and not k.startswith(COARSE_STYLE_PREFIX)}


def completed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `slim`: the style that the coarse network lacks it gets from the field."""
    state = {**state, LIT: torch.zeros_like(state["sampler.grid.occupied"])}
    if any(name.startswith(COARSE_PREFIX) for name in state):
        own = without_prefix(state, STYLE_PREFIX)
        own = {k: x for k, x in own.items() if not k.startswith("decoder.colour_")}
        state |= {COARSE_STYLE_PREFIX + name: x.clone() for name, x in own.items()}
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
