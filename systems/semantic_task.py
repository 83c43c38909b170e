"""Semantic consistency (DietNeRF, Jain et al. 2021): from wherever it is seen, the scene shows what
its photos show.

Every few steps a small picture is rendered from a random pose that has no photo; an image encoder
turns it into a unit vector, and the cosine between that and the photos' is to be large.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from datasets.cameras.rays import Cameras
from datasets.cameras.unseen import UnseenCameras
from datasets.scene import Scene, View
from features.semantic import SemanticEncoder, load_encoder
from models.renderer import Renderer, ray_chunks
from models.style import ParameterGroups
from opt import TrainOptions
from systems.deferred import deferred_backward
from systems.system import Plan, Task, Terms, require_finite

SIDE = 75  # pixels of the rendered picture, as DietNeRF's
WINDOW = (0.7, 1.0)  # of the image's shorter side, that the picture shows
STREAM = 4


class SemanticTask(Task):
    """Adds the gradient of the semantic term to a renderer that learns from photos.

    The rendering is deterministic and marks no cells; a step without the term computes nothing.

    Args:
        options: ``semantic``, ``semantic_weight``, ``semantic_every``, ``semantic_until``.
        scene: with at least one training view.
        renderer: that another task trains.
        encoder: of pictures; None: the one that the options name.
    """

    name = "semantic"

    def __init__(
        self,
        options: TrainOptions,
        scene: Scene,
        renderer: Renderer,
        encoder: SemanticEncoder | None = None,
    ) -> None:
        super().__init__(options)
        self.renderer = renderer
        self.unseen = UnseenCameras.of(scene)
        # in tuples: they are no part of what is learned
        self._encoder = (encoder or load_encoder(options.semantic),)
        self._photos: tuple[View, ...] = tuple(scene.train)
        self._target: Tensor | None = None

    @property
    def encoder(self) -> SemanticEncoder:
        return self._encoder[0]

    def parameter_groups(self) -> ParameterGroups:
        return self.renderer.parameter_groups(self.options.lr)

    def start(self) -> Plan:
        device = self.engine.device
        self._encoder = (self.encoder.to(device),)
        self._target = self.target(device)
        self._photos = ()
        return Plan(
            f"{self.encoder.name} on {SIDE}x{SIDE} pixels from a random pose every "
            f"{self.options.semantic_every} steps",
            2e9,
        )

    @torch.no_grad()
    def target(self, device: torch.device) -> Tensor:
        """(C,) the photos' mean unit vector.  A photo drawn at random, as DietNeRF does, has the
        same gradient on average, with noise."""
        return torch.cat([self.encoder(_square(v).to(device)) for v in self._photos]).mean(0)

    def due(self, step: int) -> bool:
        """Whether a step has the semantic term."""
        until = self.options.semantic_until
        return (step + 1) % self.options.semantic_every == 0 and (until is None or step < until)

    def gradients(self, step: int) -> Iterator[Terms]:
        if not self.due(step):
            yield {}
            return
        camera = self.unseen.window(self.generator(step, STREAM), SIDE, WINDOW)
        camera = camera.to(self.engine.device)
        parameters = [p for group in self.parameter_groups() for p in group["params"]]
        yield deferred_backward(
            lambda part: self.pictures(camera, part),
            SIDE * SIDE,
            ray_chunks(self.renderer, self.options.chunk),
            lambda colours: self._image_gradient(step, colours),
            parameters,
            self.engine.team,
        )

    def pictures(self, camera: Cameras, part: slice) -> Tensor:
        """Colours (n, 3) of some pixels of the picture, row-major; (n, 6) where a coarse field
        proposes the samples: it is to look right as well."""
        rays = self.renderer.clip(camera.view_rays(0, part.start, part.stop))
        samples = self.renderer.sample(rays, propose=True)
        colours = [self.renderer.render(rays, samples).rgb]
        if samples.proposal is not None:
            colours.append(self.renderer.over_background(samples.proposal).rgb)
        return torch.cat(colours, 1)

    def loss(self, colours: Tensor) -> Terms:
        """Terms of the colours (SIDE * SIDE, 3 or 6) of a picture: weight times 1 - cosine."""
        terms = {}
        for name, part in zip(("fine", "coarse"), colours.split(3, 1), strict=False):
            picture = part.view(SIDE, SIDE, 3).permute(2, 0, 1)[None]
            distance = 1 - self.encoder(picture)[0] @ self._target
            terms[name] = self.options.semantic_weight * distance
        return terms

    def _image_gradient(self, step: int, colours: Tensor) -> tuple[Terms, Tensor]:
        leaf = colours.to(self._target.dtype).requires_grad_()
        with torch.enable_grad(), torch.autocast(leaf.device.type, enabled=False):
            terms = self.loss(leaf)
            require_finite(self, terms, step)
            (gradient,) = torch.autograd.grad(self.engine.scaled(sum(terms.values())), leaf)
        return {name: value.detach() for name, value in terms.items()}, gradient.to(colours.dtype)


def _square(view: View) -> Tensor:
    """The middle of a photo, (1, 3, N, N) in [0, 1]; N is its shorter side."""
    n = min(view.height, view.width)
    top, left = (view.height - n) // 2, (view.width - n) // 2
    image = view.image[top : top + n, left : left + n]
    return image.permute(2, 0, 1)[None].float() / 255
