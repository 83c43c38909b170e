"""The one product of every loader: posed views by split, and where the scene is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from datasets.cameras.space import WORLD, Space
from utils.images import resize, to_uint8


@dataclass
class View:
    """One posed image.

    Attributes:
        image: (H, W, 3) uint8, sRGB; where the file had alpha, already over the scene's background.
        alpha: (H, W) uint8 coverage, or None where the file had none.
        c2w: (3, 4) float32 camera-to-world, OpenGL axes (x right, y up, looking along -z).
        fx, fy, cx, cy: intrinsics in pixels; the centre of the pixel (row i, column j) is
            (j + 0.5, i + 0.5).
        name: the file's name without extension, for messages and outputs.
        valid: (H, W) bool, False where the image says nothing about the scene (a passer-by, the
            photographer's hand), unlike alpha 0, which says that nothing is there; None: all True.
    """

    image: Tensor
    alpha: Tensor | None
    c2w: Tensor
    fx: float
    fy: float
    cx: float
    cy: float
    name: str
    valid: Tensor | None = None

    @property
    def height(self) -> int:
        return self.image.shape[0]

    @property
    def width(self) -> int:
        return self.image.shape[1]

    def resized(self, width: int, height: int) -> View:
        """The same view with an image of another size; a pixel is as valid as all that went into
        it."""
        if (width, height) == (self.width, self.height):
            return self
        image = to_uint8(resize(self.image.float() / 255, width, height))
        alpha, valid = self.alpha, self.valid
        if alpha is not None:
            alpha = to_uint8(resize(alpha[..., None].float() / 255, width, height)[..., 0])
        if valid is not None:
            valid = resize(valid[..., None].float(), width, height)[..., 0] > 1 - 1e-5
        x, y = width / self.width, height / self.height
        lens = {"fx": self.fx * x, "fy": self.fy * y, "cx": self.cx * x, "cy": self.cy * y}
        return replace(self, image=image, alpha=alpha, valid=valid, **lens)


GREY = (0.5, 0.5, 0.5)  # behind a scene that fills its photos, where it is not opaque


@dataclass
class Scene:
    """Views by split and the space that they look at.

    Attributes:
        name: for messages and outputs.
        train, val, test: the views of each split; `train` is never empty.
        near, far: range of ray distances that holds the scene, scene units; in NDC of the warped
            rays; of an unbounded scene the foreground, and rays go on to the horizon.
        bounds: (2, 3) float32, corners of an axis-aligned box around what is to be rendered; in
            NDC in warped space; of an unbounded scene the foreground.
        background: (3,) float32 in [0, 1], the colour behind everything.
        space: the world as it is for objects with alpha or on the plain background colour;
            contracted where photos show a background beyond `bounds`; NDC where cameras face
            forward.
    """

    name: str
    train: list[View]
    val: list[View]
    test: list[View]
    near: float
    far: float
    bounds: Tensor
    background: Tensor = field(default_factory=lambda: torch.ones(3))
    space: Space = WORLD

    @property
    def surrounds(self) -> bool:
        """Whether every ray of a photo ends in something that belongs to the scene."""
        return self.space.surrounds

    @property
    def box(self) -> Tensor:
        """(2, 3) the box that a field has to fill: `bounds`, or all of contracted space."""
        return self.space.box(self.bounds)

    @property
    def has_alpha(self) -> bool:
        return all(view.alpha is not None for view in self.train)
