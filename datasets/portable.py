"""A scene without its photos, in plain containers: what a checkpoint carries, so that a field can
be rendered, and exported, from its file alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from datasets.cameras.rays import Cameras
from datasets.cameras.space import space_from
from datasets.scene import Scene, View

SPLITS = ("train", "val", "test")
PLACE = ("near", "far", "bounds", "background")


def scene_state(scene: Scene) -> dict[str, Any]:
    """Where the scene is, and the cameras of all its views."""
    place = {name: getattr(scene, name) for name in ("name", *PLACE)}
    views = {split: _packed(getattr(scene, split)) for split in SPLITS}
    return {**place, "space": scene.space.state(), "views": views}


def place_as(scene: Scene, saved: Mapping[str, Any]) -> Scene:
    """``scene``, perhaps with other photos, with the range, bounds, background and space of a
    `scene_state`, as far as they are saved."""
    place = {name: saved[name] for name in PLACE if name in saved}
    return replace(scene, **place, space=space_from(saved["space"]))


def scene_from(saved: Mapping[str, Any]) -> Scene | None:
    """The scene of a `scene_state`, its images blank; None where the cameras are not in it."""
    if "views" not in saved:
        return None
    views = {split: _unpacked(saved["views"][split]) for split in SPLITS}
    place = {name: saved[name] for name in ("name", *PLACE)}
    return Scene(**views, **place, space=space_from(saved["space"]))


def _packed(views: list[View]) -> dict[str, Any]:
    if not views:
        return {"names": []}
    cameras = Cameras.of(views, 0.0, 1.0)
    tensors = {"c2w": cameras.c2w, "intrinsics": cameras.intrinsics, "sizes": cameras.sizes}
    return {"names": [view.name for view in views], **tensors}


def _unpacked(saved: dict[str, Any]) -> list[View]:
    return [
        View(_blank(*size), None, c2w, *lens, name)
        for name, c2w, lens, size in zip(
            saved["names"],
            saved.get("c2w", ()),
            saved.get("intrinsics", torch.empty(0)).tolist(),
            saved.get("sizes", torch.empty(0)).tolist(),
            strict=True,
        )
    ]


def _blank(height: int, width: int) -> Tensor:
    """A white image (H, W, 3) that takes no memory."""
    return torch.full((1, 1, 1), 255, dtype=torch.uint8).expand(height, width, 3)
