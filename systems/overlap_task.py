"""Keeps the features of encoders where the decoders that they are to wear have been trained, and
free of what no photo asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datasets.pairs import Pair
from losses.overlap import Adversary
from losses.registry import OVERLAPS
from models.encoded import contributing_points, features_at
from models.style import ParameterGroups
from opt import TrainOptions
from systems.pair_task import PairTask
from systems.system import Plan, Task, Terms

POINTS = 1024  # of each encoder in a step
RAYS = 256  # that they are drawn from
ADVERSARY_RATE = 1e-3
NEARBY = 0.01  # standard deviation of a step aside, in sides of the field's box


@dataclass(frozen=True)
class Overlap:
    """An encoder, and those with which a decoder was trained that it is to wear."""

    encoder: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """Samples of an encoder: positions and viewing directions (K, 3), features (K, D)."""

    x: Tensor
    d: Tensor
    features: Tensor


def overlaps_of(pairs: Sequence[Pair]) -> list[Overlap]:
    """What has to overlap so that every pair that is not trained is one that could have been."""
    trained = {(pair.encoder, pair.decoder) for pair in pairs}
    found: dict[Overlap, None] = {}
    for encoder in dict.fromkeys(pair.encoder for pair in pairs):
        for decoder in dict.fromkeys(pair.decoder for pair in pairs):
            if (encoder, decoder) not in trained:
                known = (pair.encoder for pair in pairs if pair.decoder == decoder)
                found[Overlap(encoder, tuple(dict.fromkeys(known)))] = None
    return list(found)


class OverlapTask(Task):
    """Draws samples of the encoders in proportion to what they contribute to their pixels, and
    makes their features overlap.

    Features that are one colour in an encoder's own decoder may be many in another: where they
    vary without need, a swap has blots, and colours that turn with the camera.  So an encoder that
    is to wear another's decoder is also held to the same features nearby and from any direction,
    as far as its photos allow.

    For their overlap features are compared in units of their deviation, without a gradient through
    it: else an encoder could overlap by shrinking.

    Args:
        options: of the run.
        overlaps: which encoders with which.
        tasks: of each encoder, by its name, those that show it photos.
    """

    name = "overlap"

    def __init__(
        self,
        options: TrainOptions,
        overlaps: Sequence[Overlap],
        tasks: Mapping[str, Sequence[PairTask]],
    ) -> None:
        super().__init__(options)
        self.overlaps = overlaps
        self.tasks = {name: list(some) for name, some in tasks.items()}
        self.loss = None if options.overlap == "none" else OVERLAPS[options.overlap]
        self.adversaries: torch.nn.ModuleList | None = None
        if options.overlap == "adversarial":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(options.seed)
                adversaries = [Adversary(options.n_features) for _ in overlaps]
            self.adversaries = torch.nn.ModuleList(adversaries)

    def parameter_groups(self) -> ParameterGroups:
        groups = [group for own in self.tasks.values() for group in own[0].parameter_groups()]
        if self.adversaries is not None:
            parameters = list(self.adversaries.parameters())
            groups.append({"params": parameters, "lr": ADVERSARY_RATE})
        return groups

    def start(self) -> Plan:
        if self.adversaries is not None:
            self.adversaries.to(self.engine.device)
        words = ", ".join(f"{o.encoder} with {' and '.join(o.references)}" for o in self.overlaps)
        what = "smooth features" if self.loss is None else f"overlap ({self.options.overlap})"
        return Plan(f"{what} of {words}", 0.0)

    def gradients(self, step: int) -> Iterator[Terms]:
        overlap = self.options.overlap_weight.at(step) if self.loss is not None else 0.0
        smoothness = self.options.feature_smoothness.at(step)
        needed = {o.encoder for o in self.overlaps} if overlap or smoothness else set()
        if overlap:
            needed.update(*(o.references for o in self.overlaps))
        generator = self.generator(step)
        drawn = {n: self.draw(n, generator) for n in self.tasks if n in needed}
        terms: Terms = {}
        if overlap:
            with torch.autocast(self.engine.device.type, enabled=False):
                losses = self._overlaps(drawn, generator)
            terms |= {name: overlap * value for name, value in losses.items()}
        if smoothness:
            for name in dict.fromkeys(o.encoder for o in self.overlaps):
                if len(drawn[name].features):
                    value = self._variation(name, drawn[name], generator)
                    terms[f"smoothness/{name}"] = smoothness * value
        if not terms:
            return
        # every process draws the same samples: each adds its share of the one gradient
        share = 1 / self.engine.team.size
        self.descend({name: value * share for name, value in terms.items()}, step)
        yield {name: value.detach() for name, value in terms.items()}

    def _overlaps(self, drawn: Mapping[str, Drawn], generator: torch.Generator) -> Terms:
        """The overlap losses of each encoder that is to wear another's decoder, summed."""
        terms: Terms = {}
        for index, overlap in enumerate(self.overlaps):
            own = drawn[overlap.encoder].features
            parts = [drawn[name].features for name in overlap.references]
            others = torch.cat(parts)
            if len(own) and len(others):
                value = self._term(index, own, others, generator)
                terms[overlap.encoder] = terms.get(overlap.encoder, 0) + value
        return terms

    def _variation(self, encoder: str, drawn: Drawn, generator: torch.Generator) -> Tensor:
        """Mean squared difference between an encoder's features and those a step aside, from
        another sample's direction, as a share of their variance."""
        renderer = self.tasks[encoder][0].renderer
        x, d, features = drawn.x, drawn.d, drawn.features
        side = (renderer.bounds[1] - renderer.bounds[0]).max()
        aside = x + NEARBY * side * torch.randn(x.shape, generator=generator).to(x)
        inside = renderer.sampler.grid.contains(aside)
        aside = torch.where(inside[:, None], aside, x)  # where there is nothing, no features are
        turned = d[torch.randperm(len(d), generator=generator).to(d.device)]
        difference = features - features_at(renderer, aside, turned)
        # with the gradient of the variance: else features would become one to be smooth
        return (difference.square().mean(0) / features.var(0).clamp(min=1e-12)).mean()

    def _term(self, index: int, own: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of the ``index``-th overlap, of features (N, D) and (M, D)."""
        n = min(len(own), len(others))
        own, others = (
            x[torch.randperm(len(x), generator=generator)[:n].to(x.device)] for x in (own, others)
        )
        both = torch.cat([own, others]).detach()
        scale = both.std(0).clamp(min=1e-6)
        own, others = ((x - both.mean(0)) / scale for x in (own, others))
        if self.adversaries is not None:
            return self.adversaries[index](own, others)
        if self.options.overlap == "sliced":
            return self.loss(own, others, generator)
        return self.loss(own, others)

    def draw(self, encoder: str, generator: torch.Generator) -> Drawn:
        """Samples that an encoder's pixels are made of; none where its rays meet nothing yet."""
        tasks, parts = self.tasks[encoder], []
        for task in tasks:
            rays = task.rays_of(task.pixels.draw(RAYS // len(tasks), generator))
            n_points = POINTS // len(tasks)
            x, d = contributing_points(task.renderer, rays, n_points, generator)
            parts.append((x, d, features_at(task.renderer, x, d)))
        return Drawn(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def state(self) -> dict[str, Any]:
        return {} if self.adversaries is None else {"adversaries": self.adversaries.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if self.adversaries is not None:
            self.adversaries.load_state_dict(state["adversaries"])
