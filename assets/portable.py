"""A scene without its photos: the cameras of all splits in a checkpoint's payload, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from datasets.cameras import Cameras
from datasets.scene import Scene, View

SPLITS = ("train", "val", "test")


def portable(payload: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """The payload with the scene's cameras, bounds and background in its "scene"."""
    views = {split: _packed(getattr(scene, split)) for split in SPLITS}
    more = {"bounds": scene.bounds, "background": scene.background, "ndc": scene.ndc}
    return {**payload, "scene": {**payload["scene"], **more, "views": views}}


def scene_of(payload: dict[str, Any]) -> Scene | None:
    """The scene that `portable` put into the payload, its images blank; None without one."""
    saved = payload["scene"]
    if "views" not in saved:
        return None
    views = [_unpacked(saved["views"][split]) for split in SPLITS]
    return Scene(
        saved["name"],
        *views,
        saved["near"],
        saved["far"],
        saved["bounds"],
        saved["background"],
        saved["ndc"],
    )


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
