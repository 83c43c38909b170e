"""Keeps the features of encoders where the decoders that they are to wear have been trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datasets.pairs import Pair
from losses.overlap import Adversary
from losses.registry import OVERLAPS
from models.encoded import contributing_features
from models.style import ParameterGroups
from opt import TrainOptions
from systems.pair_task import PairTask
from systems.system import Plan, Task, Terms

POINTS = 1024  # of each encoder in a step
RAYS = 256  # that they are drawn from
ADVERSARY_RATE = 1e-3


@dataclass(frozen=True)
class Overlap:
    """An encoder, and those with which a decoder was trained that it is to wear."""

    encoder: str
    references: tuple[str, ...]


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

    Features are compared in units of their deviation, without a gradient through it: else an
    encoder could overlap by shrinking.

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
        self.loss = OVERLAPS[options.overlap]
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
        return Plan(f"overlap ({self.options.overlap}) of {words}", 0.0)

    def gradients(self, step: int) -> Iterator[Terms]:
        weight = self.options.overlap_weight.at(step)
        if weight == 0:
            return
        needed = {o.encoder for o in self.overlaps}.union(*(o.references for o in self.overlaps))
        generator = self.generator(step)
        drawn = {n: self.draw(n, step, generator) for n in self.tasks if n in needed}
        terms: Terms = {}
        with torch.autocast(self.engine.device.type, enabled=False):
            for index, overlap in enumerate(self.overlaps):
                parts = [drawn[name] for name in overlap.references if len(drawn[name])]
                if parts and len(drawn[overlap.encoder]):
                    terms[overlap.encoder] = terms.get(overlap.encoder, 0) + self._term(
                        index, drawn[overlap.encoder], torch.cat(parts), generator
                    )
        # every process draws the same samples: each adds its share of the one gradient
        share = weight / self.engine.team.size
        if terms:
            self.descend({name: value * share for name, value in terms.items()}, step)
        yield {name: value.detach() * weight for name, value in terms.items()}

    def _term(self, index: int, own: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of the ``index``-th overlap, of features (N, D) and (M, D)."""
        picked = torch.randperm(len(others), generator=generator)[: len(own)].to(own.device)
        others = others[picked]
        both = torch.cat([own, others]).detach()
        scale = both.std(0).clamp(min=1e-6)
        own, others = ((x - both.mean(0)) / scale for x in (own, others))
        if self.adversaries is not None:
            return self.adversaries[index](own, others)
        if self.options.overlap == "sliced":
            return self.loss(own, others, generator)
        return self.loss(own, others)

    def draw(self, encoder: str, step: int, generator: torch.Generator) -> Tensor:
        """Features (K, D) of samples that an encoder's pixels are made of; K is 0 where its rays
        meet nothing yet."""
        tasks, parts = self.tasks[encoder], []
        for task in tasks:
            rays = task.rays_of(task.pixels.draw(RAYS // len(tasks), generator))
            n_points = POINTS // len(tasks)
            parts.append(contributing_features(task.renderer, rays, n_points, generator))
        return torch.cat(parts)

    def state(self) -> dict[str, Any]:
        return {} if self.adversaries is None else {"adversaries": self.adversaries.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if self.adversaries is not None:
            self.adversaries.load_state_dict(state["adversaries"])
