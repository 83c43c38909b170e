"""What a checkpoint of a run holds, and how a field comes back from it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.portable import scene_state
from datasets.scene import Scene
from models.renderer import Renderer
from opt import TrainOptions
from utils.checkpoint import digest, load_checkpoint, save_checkpoint
from utils.errors import UserError

KINDS = ("geometry", "style")
NETWORKS = {"coarse": "sampler.coarse.", "fine": "field."}


def geometry_digest(state: Mapping[str, Tensor]) -> str:
    """Digest of everything but the style modules: proof that the geometry has not moved."""
    return digest({name: t for name, t in state.items() if ".style." not in name})


def field_payload(options: TrainOptions, scene: Scene, renderer: Renderer) -> dict[str, Any]:
    """All that evaluation needs: options, the scene's place and cameras, the field, its digest."""
    state = {name: tensor.detach().cpu() for name, tensor in renderer.state_dict().items()}
    return {
        "kind": options.stage,
        "options": options.to_dict(),
        "scene": scene_state(scene),
        "spec": renderer.spec,
        "state": state,
        "digest": geometry_digest(state),
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
    }


def run_directory(options: TrainOptions) -> Path:
    """Where the checkpoints of an unfinished run are."""
    return options.ckpt_dir / f"{options.prefix}_{options.stage}_{options.suffix}"


def final_path(options: TrainOptions) -> Path:
    """The finished field, in one file."""
    return options.ckpt_dir / f"{options.prefix}_{options.suffix}.ckpt"


def save_field(options: TrainOptions, scene: Scene, renderer: Renderer) -> list[Path]:
    """Writes the finished field; a NeRF also as a file for each network, as styleNeRF does."""
    payload = field_payload(options, scene, renderer)
    paths = [final_path(options)]
    save_checkpoint(paths[0], payload)
    if any(name.startswith(NETWORKS["coarse"]) for name in payload["state"]):
        for network in NETWORKS:
            other = NETWORKS["fine" if network == "coarse" else "coarse"]
            state = {k: v for k, v in payload["state"].items() if not k.startswith(other)}
            path = options.ckpt_dir / f"{options.prefix}_nerf_{network}_{options.suffix}.pt"
            kind = f"{payload['kind']}-{network}"
            save_checkpoint(path, {**payload, "kind": kind, "state": state})
            paths.append(path)
    return paths


def load_field(
    ckpt_path: Path | None, coarse_path: Path | None, fine_path: Path | None
) -> dict[str, Any]:
    """The payload of a finished field, from one file or from its two networks' files.

    Raises:
        UserError: a file is missing or damaged, or the two are not of one field.
    """
    if ckpt_path is not None:
        return load_checkpoint(ckpt_path, KINDS)
    coarse = load_checkpoint(coarse_path, tuple(f"{kind}-coarse" for kind in KINDS))
    fine = load_checkpoint(fine_path, tuple(f"{kind}-fine" for kind in KINDS))
    if coarse["digest"] != fine["digest"]:
        raise UserError(
            f"--coarse_path {coarse_path}: does not belong to --fine_path {fine_path}; "
            "give the two files of one run"
        )
    kind = fine["kind"].removesuffix("-fine")
    return {**fine, "kind": kind, "state": {**coarse["state"], **fine["state"]}}
