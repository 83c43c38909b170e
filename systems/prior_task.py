"""What few photos leave open, decided by what is likely of any scene: smooth fields, rays that end
at surfaces.  No network is needed."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from datasets.cameras.unseen import UnseenCameras
from datasets.scene import Scene
from losses.priors import cell_roughness, depth_smoothness, ray_entropy
from models.renderer import Renderer
from models.style import ParameterGroups
from opt import TrainOptions
from systems.system import Plan, Task, Terms

CELLS = 1 << 15  # whose smoothness a step looks at
PATCHES, SIDE = 4, 16  # of rays that no photo has, in a step
WINDOW = (0.1, 0.2)  # side of a patch, in shorter sides of the image
STREAM = 3


class PriorTask(Task):
    """Adds the gradients of few-view priors to a renderer that learns from photos.

    Args:
        options: their weights are ``density_smoothness``, ``feature_smoothness``, ``ray_entropy``
            and ``depth_smoothness``.
        scene: with the training cameras.
        renderer: that another task trains.
    """

    name = "priors"

    def __init__(self, options: TrainOptions, scene: Scene, renderer: Renderer) -> None:
        super().__init__(options)
        self.renderer = renderer
        self.unseen = UnseenCameras.of(scene)
        extent = scene.box[1] - scene.box[0]
        self.unit = float(extent.max()) / 10  # of depth

    @classmethod
    def wanted(cls, options: TrainOptions) -> bool:
        """Whether any of the priors has a weight."""
        return cls._of_cells(options) or cls._of_rays(options)

    @staticmethod
    def _of_cells(options: TrainOptions) -> bool:
        return bool(options.density_smoothness or options.feature_smoothness)

    @staticmethod
    def _of_rays(options: TrainOptions) -> bool:
        return bool(options.ray_entropy or options.depth_smoothness)

    def parameter_groups(self) -> ParameterGroups:
        return self.renderer.parameter_groups(self.options.lr)

    def start(self) -> Plan:
        return Plan("few-view priors", 0.0)

    def gradients(self, step: int) -> Iterator[Terms]:
        terms: Terms = {}
        generator = self.generator(step, STREAM)
        team = self.engine.team
        # too little to share: the first process does it all
        if team.rank == 0:
            if self._of_cells(self.options):
                terms |= self._smoothness(generator)
            if self._of_rays(self.options):
                terms |= self._rays(generator)
            if terms:
                self.descend(terms, step)
        yield {name: value.detach() for name, value in terms.items()}

    def _smoothness(self, generator: torch.Generator) -> Terms:
        """Of density and features, in some random cells of a field that has any."""
        tables = self.renderer.field.corner_values(CELLS, generator)
        weights = {
            "density": self.options.density_smoothness,
            "features": self.options.feature_smoothness,
        }
        return {
            f"smooth_{name}": weights[name] * cell_roughness(values)
            for name, values in tables.items()
            if weights[name]
        }

    def _rays(self, generator: torch.Generator) -> Terms:
        """Of patches of rays that no photo has."""
        device = self.renderer.bounds.device
        terms: Terms = {}
        shares = []
        for _ in range(PATCHES):
            camera = self.unseen.window(generator, SIDE, WINDOW).to(device)
            rays = self.renderer.clip(camera.view_rays(0))
            samples = self.renderer.sample(rays)
            rendering = self.renderer.render(rays, samples)
            found = {}
            if self.options.ray_entropy:
                found["entropy"] = self.options.ray_entropy * ray_entropy(
                    rendering.weights, samples.ray_index, rendering.opacity
                )
            if self.options.depth_smoothness:
                shape = (1, SIDE, SIDE)
                depth, opacity = rendering.depth.view(shape), rendering.opacity.view(shape)
                smooth = depth_smoothness(depth, opacity, self.unit)
                found["smooth_depth"] = self.options.depth_smoothness * smooth
            shares.append(found)
        for name in shares[0]:
            terms[name] = sum(share[name] for share in shares) / len(shares)
        return terms
