"""From a look to the pixels of a picture, a chunk of rays at a time: between two chunks whoever
computes may do something else, or stop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from datasets.cameras.rays import Cameras, Rays
from models.render import Rendering
from models.renderer import ray_chunks
from utils.depth import depth_to_colour
from utils.images import to_uint8
from viewer.exhibits import Exhibit, Subject
from viewer.look import Look

# yields after each chunk what puts the pixels that are done over another picture (H, W, 3) uint8;
# returns the whole one
Over = Callable[[np.ndarray], np.ndarray]
Making = Generator[Over, None, np.ndarray]


def make_picture(
    exhibit: Exhibit,
    look: Look,
    width: int,
    height: int,
    networks: AbstractContextManager,
    chunk: int = 0,
) -> Making:
    """Renders a picture.

    Args:
        exhibit: what is looked at.
        look: how.
        width, height: of the picture, pixels.
        networks: the precision of the networks, see `mixed_precision`.
        chunk: rays per chunk; 0: the field's size for the device.

    Raises:
        UserError: there are no such colours.
    """
    subject, scene = exhibit.subject(look.colours), exhibit.scene(look.colours)
    device = subject.renderer.bounds.device
    camera = look.pose.camera(scene, width, height).to(device)
    pixel = torch.arange(width * height, device=device)
    left = pixel % width < round(look.split * width)
    halves = [(subject, pixel[~left])]
    if bool(left.any()):
        halves.append((exhibit.photographic(look.colours), pixel[left]))
    crop = None if look.crop is None else torch.tensor(look.crop, device=device).view(2, 3)
    background = None if look.background is None else torch.tensor(look.background, device=device)
    rgb, done = torch.zeros(width * height, 3), torch.zeros(width * height, dtype=torch.bool)
    depth, opacity = torch.zeros(2, width * height)

    def shown() -> np.ndarray:
        if look.channel == "colour":
            return to_uint8(rgb.view(height, width, 3)).numpy()
        if look.channel == "opacity":
            return to_uint8(opacity.view(height, width, 1).expand(-1, -1, 3)).numpy()
        found = depth.view(height, width), opacity.view(height, width)
        return depth_to_colour(*found, scene.near, scene.far)

    def over(other: np.ndarray) -> np.ndarray:
        return np.where(done.view(height, width, 1).numpy(), shown(), other)

    for half, pixels in halves:
        chunks = ray_chunks(half.renderer, chunk)  # smaller ones where a GPU runs out of memory
        start = 0
        while start < len(pixels):
            stop = min(start + chunks.size, len(pixels))

            def work(part: slice, half: Subject = half, pixels: Tensor = pixels) -> None:
                index = pixels[part]
                with networks:
                    found = _rendered(half, _rays(camera, index, crop), background)
                where = index.cpu()
                rgb[where], depth[where] = found.rgb.float().cpu(), found.depth.float().cpu()
                opacity[where] = found.opacity.float().cpu()
                done[where] = True

            chunks.over(slice(start, stop), work)
            start = stop
            yield over
    return shown()


def _rays(camera: Cameras, pixels: Tensor, crop: Tensor | None) -> Rays:
    """The rays of some pixels (K,) of a camera, inside a box of the world."""
    width = int(camera.sizes[0, 1])
    rays = camera.rays(torch.zeros_like(pixels), pixels // width, pixels % width)
    return rays if crop is None else rays.space.clip_in_world(rays, crop)


@torch.no_grad()
def _rendered(subject: Subject, rays: Rays, background: Tensor | None) -> Rendering:
    """The rays in the subject's colours, over its own background or another; endless ones over its
    colours at infinity."""
    renderer = subject.renderer
    rays = renderer.clip(rays)
    samples = renderer.sample(rays)
    geometry = renderer.geometry(rays, samples)
    found = renderer.render(rays, samples, None, geometry, style=subject.style)
    if background is None or rays.space.infinity is not None:
        return found
    behind = (1 - found.opacity)[:, None] * (background - renderer.background)
    return replace(found, rgb=found.rgb + behind)
