"""What few photos leave open, decided by what is likely of any scene: smooth densities,
colours and surfaces.  No network is needed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from datasets.cameras.unseen import UnseenCameras
from datasets.scene import Scene
from losses.priors import cell_roughness, depth_smoothness
from models.renderer import Renderer
from models.style import ParameterGroups
from opt import TrainOptions
from systems.system import Plan, Task, Terms

CELLS = 1 << 15  # the smoothness of whose densities a step looks at
COLOURED_CELLS = CELLS // 4  # and of colours, which have more numbers
PATCHES, SIDE = 4, 16  # of rays that no photo has, in a step
WINDOW = (0.1, 0.2)  # side of a patch, in shorter sides of the image
STREAM = 3


class PriorTask(Task):
    """Adds the gradients of priors to a renderer that learns from photos.

    Args:
        options: their weights are ``density_smoothness``, ``colour_smoothness`` and
            ``depth_smoothness``.
        scene: with the training cameras.
        renderer: that another task trains.
    """

    name = "priors"

    def __init__(self, options: TrainOptions, scene: Scene, renderer: Renderer) -> None:
        super().__init__(options)
        self.renderer = renderer
        self.unseen = UnseenCameras.of(scene)
        self.far = scene.far
        self.unit = (scene.far - scene.near) / 10  # of depth

    @staticmethod
    def wanted(options: TrainOptions) -> bool:
        """Whether any of the priors has a weight."""
        weights = options.density_smoothness, options.colour_smoothness, options.depth_smoothness
        return any(weights)

    def parameter_groups(self) -> ParameterGroups:
        return self.renderer.parameter_groups(self.options.lr)

    def start(self) -> Plan:
        # a field without cells has no corners, whose values could be compared
        kinds = ("depth",) if self.renderer.field.step is None else ("density", "colour", "depth")
        used = [kind for kind in kinds if getattr(self.options, f"{kind}_smoothness")]
        return Plan(f"smooth {', '.join(used) or 'nothing (this field has no cells)'}", 0.0)

    def gradients(self, step: int) -> Iterator[Terms]:
        terms: Terms = {}
        generator = self.generator(step, STREAM)
        team = self.engine.team
        # too little to share: the first process does it all
        if team.rank == 0:
            field, options = self.renderer.field, self.options
            if options.density_smoothness:
                corners = field.corner_densities(CELLS, generator)
                terms |= _roughness("smooth_density", options.density_smoothness, corners)
            if options.colour_smoothness:
                corners = field.corner_features(COLOURED_CELLS, generator)
                terms |= _roughness("smooth_colour", options.colour_smoothness, corners)
            if options.depth_smoothness:
                terms |= self._depth(generator)
            if terms:
                self.descend(terms, step)
        yield {name: value.detach() for name, value in terms.items()}

    def _depth(self, generator: torch.Generator) -> Terms:
        """Smoothness in patches of rays that no photo has."""
        total = 0.0
        for _ in range(PATCHES):
            camera = self.unseen.window(generator, SIDE, WINDOW).to(self.engine.device)
            rays = self.renderer.clip(camera.view_rays(0))
            rendering = self.renderer.render(rays, self.renderer.sample(rays))
            shape = (1, SIDE, SIDE)
            # beyond lies the horizon, whose depth jumps
            depth = rendering.depth.clamp(max=self.far).view(shape)
            opacity = rendering.opacity.view(shape)
            total = total + depth_smoothness(depth, opacity, self.unit) / PATCHES
        return {"smooth_depth": self.options.depth_smoothness * total}


def _roughness(name: str, weight: float, corners: Tensor | None) -> Terms:
    """The term of values at the corners of random cells, of a field that has any."""
    return {} if corners is None else {name: weight * cell_roughness(corners)}
