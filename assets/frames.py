"""Rendered frames as files: colour, depth, GIF and MP4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.renderer import Picture
from utils.depth import depth_to_colour, write_depth_png16, write_pfm, write_raw
from utils.images import read_image, write_image
from utils.video import write_gif, write_mp4


@dataclass(frozen=True)
class Frames:
    """The frames of one rendering in a folder.

    Attributes:
        directory: the folder.
        near, far: range of depths that colours stand for, scene units.
        depth_formats: of png (16 bits), pfm, raw.
    """

    directory: Path
    near: float
    far: float
    depth_formats: Sequence[str]

    @staticmethod
    def name(index: int) -> str:
        """What the files of a frame are called, without extension."""
        return f"{index:03d}"

    def write(self, index: int, picture: Picture) -> None:
        """Writes a frame, its depth in colours, and its depth in numbers."""
        name, rgb = self.name(index), picture.rgb.cpu()
        depth, opacity = picture.depth.cpu(), picture.opacity.cpu()
        write_image(self.directory / f"{name}.png", rgb)
        colours = depth_to_colour(depth, opacity, self.near, self.far)
        write_image(self.directory / f"depth_{name}_colour.png", colours)
        path = self.directory / f"depth_{name}"
        if "png" in self.depth_formats:
            write_depth_png16(path.with_suffix(".png"), depth, opacity, self.near, self.far)
        if "pfm" in self.depth_formats:
            write_pfm(path.with_suffix(".pfm"), depth, opacity)
        if "raw" in self.depth_formats:
            write_raw(path.with_suffix(".raw"), depth, opacity)

    def drop_after(self, n: int) -> None:
        """Removes what an earlier, longer rendering left: the frames from the ``n``-th on."""
        for path in [*self.directory.glob("*.png"), *self.directory.glob("depth_*")]:
            number = path.stem.removeprefix("depth_").removesuffix("_colour")
            if number.isdecimal() and int(number) >= n:
                path.unlink(missing_ok=True)

    def write_videos(self, indices: Sequence[int], gif: Path, mp4: Path, fps: float) -> list[Path]:
        """Writes the frames ``indices``, which are in the folder, one after the other; none where
        they differ in size, as photos may.

        Returns:
            The files.
        """
        frames = [read_image(self.directory / f"{self.name(i)}.png")[0] for i in indices]
        if len({frame.shape for frame in frames}) > 1:
            for old in (gif, mp4):
                old.unlink(missing_ok=True)
            print("frames of differing sizes: no GIF and no MP4; --path makes frames of one size")
            return []
        write_gif(gif, frames, fps)
        write_mp4(mp4, frames, fps)
        return [gif, mp4]
