"""What somebody asks to see, as plain values: knows neither a browser nor a field."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from datasets.cameras.rays import Cameras
from datasets.scene import Scene

CHANNELS = ("colour", "depth", "opacity")


@dataclass(frozen=True)
class Pose:
    """A camera without an image size.

    Attributes:
        c2w: the 12 numbers of a 3x4 camera-to-world, row by row, OpenGL axes, scene units.
        fov: vertical field of view, radians.
    """

    c2w: tuple[float, ...]
    fov: float

    def focal(self, height: int) -> float:
        """Focal length in pixels of an image of that height."""
        return height / 2 / math.tan(self.fov / 2)

    def within_reach(self, scene: Scene) -> Pose:
        """This pose, or the nearest one from which the scene can be seen."""
        c2w = torch.tensor(self.c2w, dtype=torch.float64).view(3, 4)
        cameras = torch.stack([view.c2w[:, 3] for view in scene.train])
        reached = scene.space.within_reach(c2w, scene.bounds, cameras)
        if torch.allclose(reached, c2w, atol=1e-6):
            return self
        return Pose(tuple(reached.flatten().tolist()), self.fov)

    def camera(self, scene: Scene, width: int, height: int) -> Cameras:
        """The camera with an image of so many pixels, in the scene's space."""
        lens = [self.focal(height), self.focal(height), width / 2, height / 2]
        c2w = torch.tensor(self.c2w, dtype=torch.float32).view(1, 3, 4)
        size = torch.tensor([[height, width]])
        return Cameras(c2w, torch.tensor([lens]), size, scene.near, scene.far, scene.space)


@dataclass(frozen=True)
class Colours:
    """Which colours, see `Mixture.asked`.

    Attributes:
        style: name of a style; None: what there is.
        second: name of another that it is mixed with; None: none.
        share: of the second, in [0, 1].
        strength: 0 the photographic colours, 1 the painting's.
        encoder, decoder: of a joint training.
    """

    style: str | None = None
    second: str | None = None
    share: float = 0.0
    strength: float = 1.0
    encoder: str | None = None
    decoder: str | None = None

    @property
    def words(self) -> list[str]:
        """As the option --style has them."""
        if self.style is None:
            return []
        if self.second is None or self.second == self.style:
            return [self.style]
        return [f"{self.style}:{1 - self.share}", f"{self.second}:{self.share}"]


@dataclass(frozen=True)
class Look:
    """All that a picture depends on but its size.

    Attributes:
        pose: of the camera.
        colours: of the field.
        channel: of `CHANNELS`.
        split: share of the picture's width, from the left, in photographic colours.
        crop: lower x y z and upper x y z of a box in the world, outside of which nothing is shown;
            None: all is.
        background: red, green, blue in [0, 1]; None: the scene's.
    """

    pose: Pose
    colours: Colours = Colours()
    channel: str = CHANNELS[0]
    split: float = 0.0
    crop: tuple[float, ...] | None = None
    background: tuple[float, float, float] | None = None
