"""Learning an encoder and a decoder from the photos of one data set, beside others that share
them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from datasets.cameras.rays import Rays
from datasets.pixels import TrainingPixels
from datasets.scene import Scene
from models.encoded import FeatureDecoder, wear, worn
from models.renderer import Renderer
from models.style import ParameterGroups
from opt import TrainOptions
from systems.photometric_task import PhotometricTask
from systems.system import Plan, Subjects, Terms

APART = 0x9E3779B97F4A7C15  # between the random numbers of two tasks


class PairTask(PhotometricTask):
    """Trains an encoder, in a decoder, on the photos of a data set.

    Args:
        options: of the run.
        scene: the data set, in the space of the encoder.
        renderer: the encoder.
        pixels: of the training views.
        n_steps: length of the run, by which the encoder grows.
        resolution: cells along the encoder's longest side at the end.
        decoder: that the encoder wears here.
        name: of the data set.
        index: number of the task, for random numbers of its own.
        grows: whether this is the one of the encoder's tasks that lets it grow.
    """

    def __init__(
        self,
        options: TrainOptions,
        scene: Scene,
        renderer: Renderer,
        pixels: TrainingPixels,
        n_steps: int,
        resolution: int,
        decoder: FeatureDecoder,
        name: str,
        index: int,
        grows: bool,
    ) -> None:
        super().__init__(options, scene, renderer, pixels, n_steps, resolution)
        self.decoder, self.index, self.grows = decoder, index, grows
        self.name, self.label = name, f"{name}/"

    def wear(self) -> None:
        """Gives the encoder, which other tasks share, this task's decoder."""
        wear(self.renderer, self.decoder)

    def subjects(self) -> Subjects:
        colours = worn(self.renderer.field.style, self.decoder)
        return {self.name: (self.scene, self.renderer, colours)}

    def parameter_groups(self) -> ParameterGroups:
        self.wear()
        return super().parameter_groups()

    def start(self) -> Plan:
        self.wear()
        plan = super().start()
        return Plan(f"{self.name}: {plan.words}", plan.working_bytes)

    def before_step(self, step: int) -> bool:
        return self.grows and super().before_step(step)

    def gradients(self, step: int) -> Iterator[Terms]:
        self.wear()
        yield from super().gradients(step)

    def code(self, step: int, n_rays: int) -> Tensor | None:
        """A decoder that sees the place is not shown that of some rays, so that the features alone
        still mean what they mean in other decoders."""
        if not self.decoder.n_place:
            return None
        device = self.engine.device
        drawn = torch.rand(n_rays, 1, generator=self.generator(step, 2, device.type), device=device)
        return (drawn >= self.options.place_dropout).float()

    def validate(self, step: int) -> None:
        self.wear()
        super().validate(step)

    def rays_of(self, flat: Tensor) -> Rays:
        """Rays, inside the encoder's box, of the pixels ``flat (N,)``."""
        return self._rays(flat)[0]

    def generator(self, step: int, stream: int = 0, device: str = "cpu") -> torch.Generator:
        own = super().generator(step, stream, device)
        return own.manual_seed((own.initial_seed() + self.index * APART) % (1 << 63))
