"""Converts checkpoints of version 1, which held one field in its last trained colours, to version
2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.checkpoint import digest, without_prefix
from utils.errors import UserError

ONLY_FIELD, STYLE_PREFIX = "scene", "field.style."  # as in `models.checkpoint`
# names in a state_dict, before and after
RENAMED = (
    (".geometry.layers.", ".geometry.mlp.layers."),
    (".geometry.density.", ".geometry.mlp.out."),
    (".style.bottleneck.", ".style.head.linear."),
    (".style.features", ".style.head.table"),
    (".style.hidden.", ".style.decoder.mlp.layers."),
    (".style.rgb.", ".style.decoder.mlp.out."),
    (".style.colour_", ".style.decoder.colour_"),
)


def convert(old: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Converts the content of a finished field's file to version 2.

    Args:
        old: content of version 1.
        path: its file, for messages.

    Raises:
        UserError: the file belongs to an unfinished run, or holds only one network.
        ValueError, KeyError, TypeError, AttributeError, RuntimeError: the file is damaged.
    """
    stage = old["kind"]
    if "step" in old or stage not in ("geometry", "style"):
        raise UserError(
            f"{path}: only complete, finished fields can be read from version 1; train it again"
        )
    if _geometry_digest(old["state"]) != old["digest"]:
        raise ValueError("its geometry does not match its digest")
    state, style = _state(old["state"]), _style_spec(old["spec"], old["state"])
    if old["spec"].get("n_fine") == 0:  # version 1 saved the only network twice
        state = {k: x for k, x in state.items() if not k.startswith("sampler.coarse.")}
    options = dict(old["options"])
    styles: dict[str, Any] = {}
    if stage == "style":
        colours = without_prefix(state, STYLE_PREFIX)
        state = {k: x for k, x in state.items() if not k.startswith(STYLE_PREFIX)}
        name = options.get("suffix")
        name = name if isinstance(name, str) and name != "photo" else "style"
        styles[name] = {"field": ONLY_FIELD, "spec": style, "state": colours, "options": options}
    spec = {**_spec(old["spec"]), "style": style}
    return {
        "version": 2,
        "part": "whole",
        "stage": stage,
        "fields": {ONLY_FIELD: {"spec": spec, "state": state, "digest": _geometry_digest(state)}},
        "scenes": {ONLY_FIELD: _scene(old["scene"])},
        "styles": styles,
        "options": options,
        "inputs": {},
        "progress": None,
        "versions": old.get("versions", {}),
    }


def _scene(old: Mapping[str, Any]) -> dict[str, Any]:
    """The scene in the form of `datasets.portable.scene_state`."""
    scene = {name: value for name, value in old.items() if name not in ("ndc", "unbounded")}
    space: dict[str, Any] = {"kind": "world"}
    if old["ndc"]:
        train = old["views"]["train"]
        (fx, fy), (height, width) = train["intrinsics"][0, :2].tolist(), train["sizes"][0].tolist()
        space = {"kind": "ndc", "scale": [2.0 * fx / width, 2.0 * fy / height, 1.0]}
    elif old["unbounded"]:
        space = {"kind": "contracted", "foreground": old["bounds"].tolist()}
    return scene | {"space": space}


def _geometry_digest(state: Mapping[str, Tensor]) -> str:
    return digest({name: x for name, x in state.items() if ".style." not in name})


def _spec(old: Mapping[str, Any]) -> dict[str, Any]:
    """Specifications of field and sampler, in the form of `Field.specs_of`."""
    if old["field"] == "voxels":
        return {"field": {"kind": "voxels"}, "sampler": {"kind": "occupancy", "n_steps": 0}}
    counts = {"n_coarse": old["n_coarse"], "n_fine": old["n_fine"]}
    style = {"kind": "nerf", "n_frequencies": old["n_dir"]}
    sampler = {"kind": "hierarchical", **counts, "style": style}
    if old["sampling"] == "occupancy":
        sampler = {"kind": "occupancy", "n_steps": sum(counts.values())}
    return {"field": {"kind": "nerf", "n_frequencies": old["n_xyz"]}, "sampler": sampler}


def _style_spec(old: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The style's specification, in the form of `Style.spec`."""
    spec = {
        "kind": old["field"],
        "n_frequencies": old.get("n_dir", 2),
        "n_code": 0,
        "view_dependent": bool(state[f"{STYLE_PREFIX}view_dependent"]),
        "colour_map": _maps_colours(state, STYLE_PREFIX),
    }
    if old["field"] == "voxels":
        return spec | {"n_features": old["n_features"]}
    return spec | {"depth": 6}


def _maps_colours(state: Mapping[str, Tensor], prefix: str) -> bool:
    return not torch.equal(state[f"{prefix}colour_matrix"], torch.eye(3))


def _state(old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under their current names, without colour maps that are the identity."""
    state = {}
    for name, tensor in old.items():
        prefix, mark, last = name.rpartition(".style.")
        if mark and last == "view_dependent":
            continue
        unmapped = mark and not _maps_colours(old, f"{prefix}.style.")
        if unmapped and last in ("colour_matrix", "colour_offset"):
            continue
        for before, after in RENAMED:
            name = name.replace(before, after)
        state[name] = tensor
    return state
