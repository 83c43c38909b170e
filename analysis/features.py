"""The features of jointly trained encoders, and the plane in which they are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.cameras.rays import Cameras
from datasets.portable import scene_from
from datasets.scene import Scene
from models.checkpoint import Checkpoint
from models.encoded import FeatureDecoder, contributing_points, features_at
from models.renderer import Renderer
from utils.errors import UserError

RAYS = 1 << 15  # random pixels of an encoder's training views
CHUNK = 1 << 11
MARGIN = 0.15  # of the plane's extent, around what is in it
FEW = 0.005  # share of an encoder's features left out on either side of the extent
MASK = (
    "samples of random pixels of the training views, drawn in proportion to what they contribute "
    "to their pixels; no threshold"
)


@dataclass
class Analysis:
    """What every analysis works with.

    Attributes:
        checkpoint: of a joint training.
        encoders, decoders: names of those to look at.
        n_points: features of each encoder.
        seed: of all randomness.
        device: to compute on.
        directory: where files go.
    """

    checkpoint: Checkpoint
    encoders: list[str]
    decoders: list[str]
    n_points: int
    seed: int
    device: torch.device
    directory: Path

    def scene(self, encoder: str) -> Scene:
        """The encoder's scene, without photos.

        Raises:
            UserError: its cameras are not in the file.
        """
        scene = scene_from(self.checkpoint.scenes[encoder])
        if scene is None:
            raise UserError("--ckpt_path: has no cameras; give the checkpoint of --stage joint")
        return scene

    def renderer(self, encoder: str, decoder: str | None = None) -> Renderer:
        """An encoder in the colours of a decoder; None: of its own."""
        return self.checkpoint.renderer(encoder, decoder).to(self.device)

    def decoder(self, name: str) -> FeatureDecoder:
        """A decoder alone."""
        return self.checkpoint.decoders[name].build().to(self.device)

    @torch.no_grad()
    def features(self, encoder: str) -> Tensor:
        """(n_points, D) float64 features of an encoder, see `MASK`, on the CPU."""
        renderer, scene = self.renderer(encoder), self.scene(encoder)
        cameras = Cameras.within(scene, scene.train).to(self.device)
        generator = torch.Generator().manual_seed(self.seed)
        u = torch.rand(3, RAYS, generator=generator).to(self.device)
        view = (u[0] * len(cameras)).long()
        height, width = cameras.sizes[view].unbind(1)
        rays = cameras.rays(view, (u[1] * height).long(), (u[2] * width).long())
        parts, n = [], -(-self.n_points * CHUNK // RAYS)
        for start in range(0, RAYS, CHUNK):
            some = renderer.clip(rays[slice(start, start + CHUNK)])
            points = contributing_points(renderer, some, n, generator)
            parts.append(features_at(renderer, *points))
        found = torch.cat(parts)[: self.n_points]
        if len(found) == 0:
            raise UserError(f"--encoders {encoder}: its training views show nothing of it")
        return found.double().cpu()


@dataclass(frozen=True)
class Plane:
    """A plane in feature space: ``origin + u axes[0] + v axes[1]``.

    Attributes:
        origin: (D,).
        axes: (2, D) orthonormal.
        lower, upper: (2,) its extent.
        words: what it is.
    """

    origin: Tensor
    axes: Tensor
    lower: Tensor
    upper: Tensor
    words: str

    @classmethod
    def of(cls, features: Mapping[str, Tensor]) -> Plane:
        """The plane of the features (N, D) of some encoders: their own where D is 2, else that of
        the first two principal components of all together, each encoder with the same weight.

        Raises:
            UserError: D is 1.
        """
        n_features = next(iter(features.values())).shape[1]
        if n_features < 2:
            raise UserError("--ckpt_path: its encoders give one feature: there is no plane")
        if n_features == 2:
            origin, axes, words = torch.zeros(2).double(), torch.eye(2).double(), "the two features"
        else:
            means = torch.stack([x.mean(0) for x in features.values()])
            origin = means.mean(0)
            spread = sum((x - origin).T @ (x - origin) / len(x) for x in features.values())
            values, vectors = torch.linalg.eigh(spread)
            axes = vectors.T[-2:].flip(0)
            # the sign of a component is arbitrary: its largest entry is positive
            largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
            axes = axes * largest.sign()
            share = float(values[-2:].sum() / values.sum())
            words = (
                f"the first two principal components of {n_features} features "
                f"({100 * share:.0f} % of their variance)"
            )
        flat = [(x - origin) @ axes.T for x in features.values()]
        lower = torch.stack([x.quantile(FEW, 0) for x in flat]).amin(0)
        upper = torch.stack([x.quantile(1 - FEW, 0) for x in flat]).amax(0)
        margin = MARGIN * (upper - lower).clamp(min=1e-6)
        return cls(origin, axes, lower - margin, upper + margin, words)

    def flat(self, features: Tensor) -> Tensor:
        """Coordinates (N, 2) in the plane of features (N, D)."""
        return (features - self.origin) @ self.axes.T

    def grid(self, size: int) -> Tensor:
        """(size, size, D) features at the centres of a grid over the extent; rows are v, from the
        lowest up."""
        steps = (torch.arange(size).double() + 0.5) / size
        u, v = (self.lower[i] + steps * (self.upper[i] - self.lower[i]) for i in (0, 1))
        return self.origin + u[None, :, None] * self.axes[0] + v[:, None, None] * self.axes[1]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top, as matplotlib takes it."""
        return (*(float(x[0]) for x in (self.lower, self.upper)),
                *(float(x[1]) for x in (self.lower, self.upper)))  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {
            "plane": self.words,
            "origin": self.origin.tolist(),
            "axes": self.axes.tolist(),
            "extent": list(self.extent),
        }
