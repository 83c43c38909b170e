"""A camera path by keyframes, and the video along it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets.cameras.paths import cameras_in, through_keyframes
from datasets.cameras.rays import Cameras
from datasets.scene import Scene
from utils.errors import UserError
from utils.files import replacing
from utils.video import write_mp4
from viewer.look import Look, Pose
from viewer.studio import Studio


def along_keyframes(
    scene: Scene,
    keyframes: Sequence[Pose],
    n_frames: int,
    width: int,
    height: int,
    closed: bool = False,
) -> Cameras:
    """A smooth path through keyframes at constant speed.

    Args:
        scene: that they are in.
        keyframes: at least two, no two in a row alike.
        n_frames: from the first to the last, or once around.
        width, height: of the images, pixels.
        closed: whether it goes back to the first.

    Raises:
        UserError: there are too few keyframes.
    """
    if len(keyframes) < 2:
        raise UserError("a camera path needs two keyframes; move the camera and add another")
    stops = torch.cat([pose.camera(scene, width, height).c2w for pose in keyframes])
    lens = torch.cat([pose.camera(scene, width, height).intrinsics for pose in keyframes])
    c2w, lens = through_keyframes(scene, stops, lens, n_frames, closed)
    return cameras_in(scene, c2w, lens, height, width)


def poses_of(cameras: Cameras) -> list[Pose]:
    """The cameras without their image size."""
    heights, focals = cameras.sizes[:, 0].tolist(), cameras.intrinsics[:, 1].tolist()
    return [
        Pose(tuple(c2w.flatten().tolist()), 2 * math.atan(height / 2 / focal))
        for c2w, height, focal in zip(cameras.c2w, heights, focals, strict=True)
    ]


def film(
    studio: Studio, look: Look, cameras: Cameras, progress: Callable[[int, int], None]
) -> Generator[None, None, list[np.ndarray]]:
    """Renders the pictures of a video, for `Studio.send`.

    Args:
        studio: whose exhibit is filmed.
        look: in which way, whatever its pose is.
        cameras: all of one image size.
        progress: is told after each picture how many there are, and how many there will be.

    Returns:
        (H, W, 3) uint8 each; they lie in a file that vanishes with them, not in memory.
    """
    height, width = cameras.sizes[0].tolist()
    with tempfile.TemporaryFile() as file:
        frames = np.memmap(file, np.uint8, "w+", shape=(len(cameras), height, width, 3))
    for index, pose in enumerate(poses_of(cameras)):
        frames[index] = yield from studio.making(replace(look, pose=pose), width, height)
        progress(index + 1, len(cameras))
    return list(frames)


def write_film(file: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Writes a video, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(file) as partial:
        write_mp4(partial, frames, fps)
