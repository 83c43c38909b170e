"""Whole views through a renderer, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.cameras.rays import Cameras
from models.renderer import Renderer
from utils.chunks import Chunks

# rays whose samples fit comfortably into memory at once
CHUNK = {"nerf": 2048, "voxels": 65536}
CHUNK_CUDA = {"nerf": 16384, "voxels": 131072}


@dataclass
class Picture:
    """A rendered view: rgb (H, W, 3) in [0, 1], depth (H, W) in scene units, opacity (H, W)."""

    rgb: Tensor
    depth: Tensor
    opacity: Tensor


def chunk_size(renderer: Renderer, asked: int = 0) -> int:
    """Rays per chunk: what was asked for, or what suits field and device."""
    table = CHUNK_CUDA if renderer.bounds.is_cuda else CHUNK
    return asked or table[renderer.spec["field"]]


@torch.no_grad()
def render_view(renderer: Renderer, cameras: Cameras, view: int, chunk: int = 0) -> Picture:
    """Renders one view, without noise.

    Args:
        renderer: in any mode; random numbers are not used.
        cameras: on the renderer's device.
        view: number of the camera.
        chunk: rays at once; 0: by field and device.
    """
    height, width = cameras.sizes[view].tolist()
    parts = Chunks(chunk_size(renderer, chunk)).over(
        height * width, lambda part: renderer(cameras.view_rays(view, part.start, part.stop))
    )
    return Picture(
        torch.cat([p.rgb for p in parts]).clamp(0, 1).view(height, width, 3),
        torch.cat([p.depth for p in parts]).view(height, width),
        torch.cat([p.opacity for p in parts]).view(height, width),
    )
