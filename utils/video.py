"""Writes frames as GIF and MP4."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from imageio_ffmpeg import count_frames_and_secs
from PIL import Image

from utils.errors import UserError
from utils.files import replacing

WHITE_INDEX = 255
# Browsers slow a GIF down that asks for less than 20 ms per frame.
SHORTEST_FRAME_MS = 20


def write_gif(path: str | Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Writes an endlessly looping GIF.

    Every frame has its own dithered palette of 255 colours, and exact white, so that a white
    background is not dithered.

    Args:
        path: the file.
        frames: (H, W, 3) uint8 each, all of the same size.
        fps: frames per second; a GIF counts in units of 10 ms, so the durations of frames vary by
            that much in order to keep the rate.  More than 50 are shown as 50.

    Raises:
        UserError: the file cannot be written.
    """
    _require_frames(frames)
    ends = [round(100 * i / fps) * 10 for i in range(len(frames) + 1)]
    durations = [max(end - start, SHORTEST_FRAME_MS) for start, end in pairwise(ends)]
    first, *rest = [_with_palette(frame) for frame in frames]
    with replacing(Path(path)) as partial:
        first.save(
            partial, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0
        )


def write_mp4(path: str | Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Writes an H.264 video that every player opens (yuv420p, colours marked as BT.709).

    Args:
        path: the file.
        frames: (H, W, 3) uint8 each, all of the same size; the last row or column of an odd side is
            duplicated, because the format requires even sizes.
        fps: frames per second.

    Raises:
        UserError: the file cannot be written.
    """
    _require_frames(frames)
    height, width = frames[0].shape[:2]
    margin = ((0, height % 2), (0, width % 2), (0, 0))
    colours = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    matrix = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-color_range", "tv"]
    settings = {
        "format": "FFMPEG",
        "mode": "I",
        "fps": fps,
        "codec": "libx264",
        "pixelformat": "yuv420p",
        "quality": None,
        "macro_block_size": 1,
        "ffmpeg_log_level": "error",
        "output_params": ["-crf", "16", "-movflags", "+faststart", *matrix, *colours],
    }
    try:
        with replacing(Path(path)) as partial:
            with imageio.get_writer(partial, **settings) as writer:
                for frame in frames:
                    writer.append_data(np.pad(frame, margin, mode="edge"))
            # of a full disk ffmpeg's exit code says nothing
            if count_frames_and_secs(str(partial))[0] != len(frames):
                raise RuntimeError("it is cut off; is the disk full?")
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UserError(f"{path}: MP4 cannot be written by ffmpeg ({reason})") from error


def _with_palette(frame: np.ndarray) -> Image.Image:
    """The frame as a palette image with exact white."""
    image = Image.fromarray(frame)
    # The octree was both the fastest of Pillow's methods on renderings and the most accurate.
    table = image.quantize(WHITE_INDEX, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours = table.getpalette("RGB")[: 3 * WHITE_INDEX]
    colours += [255] * (3 * (WHITE_INDEX + 1) - len(colours))
    table.putpalette(colours)
    dithered = image.quantize(palette=table, dither=Image.Dither.FLOYDSTEINBERG)
    index = np.where((frame == 255).all(axis=-1), WHITE_INDEX, np.asarray(dithered))
    result = Image.fromarray(index.astype(np.uint8))
    result.putpalette(colours)
    return result


def _require_frames(frames: Sequence[np.ndarray]) -> None:
    if not frames:
        raise ValueError("no frames")
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"expected (H, W, 3) uint8 frames, got {frame.dtype} {frame.shape}")
        if frame.shape != frames[0].shape:
            raise ValueError(f"frames of two sizes: {frames[0].shape} and {frame.shape}")
