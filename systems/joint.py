"""Stage joint: data sets of several scenes in several styles -> encoders and decoders, any of which
go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from datasets.load import load_scene
from datasets.pairs import Pair, checked_pairs, folders, listed_once, plain_value
from datasets.pixels import TrainingPixels
from datasets.portable import place_as, scene_state
from datasets.scene import Scene
from models import FIELDS
from models.checkpoint import Checkpoint, DecoderRecord, FieldRecord
from models.encoded import FeatureDecoder, wear
from models.renderer import Spec
from opt import Data, TrainOptions
from systems.geometry import length_of, new_renderer, training_pixels
from systems.growth import final_resolution
from systems.overlap_task import OverlapTask, overlaps_of
from systems.pair_task import PairTask
from systems.pattern_task import PatternTask, Swap
from systems.run import Run
from systems.system import System, Task
from utils.errors import UserError
from utils.options import options_of


def joint_stage(options: TrainOptions) -> Iterator[tuple[System, Run]]:
    """The one system of the stage, new or continued."""
    pairs = checked_pairs(options.scenes, options.pairs)
    with Run(options) as run:
        found = run.to_resume()
        if found is None and run.finished():
            return
        data = load_data(options)
        joint = Joint(options, pairs, data, found[1] if found else None)
        system = System(options, joint.tasks(), joint.n_steps, joint.checkpoint)
        if found:
            system.resume(*found)
        yield system, run


def load_data(options: TrainOptions) -> dict[str, tuple[Scene, TrainingPixels]]:
    """Every data set, by name.

    Raises:
        UserError: a value of one of them is impossible, or it cannot be loaded.
    """
    return {
        name: training_pixels(load_scene(options_of_data(options, name, own)))
        for name, own in folders(options.scenes).items()
    }


def options_of_data(options: TrainOptions, name: str, own: Mapping[str, str]) -> TrainOptions:
    """The options with those of the data set ``name``, its ``own``, in their place."""
    known, values = options_of(Data), {}
    for key, text in own.items():
        try:
            values[key] = known[key].read_node(plain_value(key, text))
        except ValueError as error:
            raise UserError(f"--scenes {name}: {key}: {error}") from None
    return replace(options, scene_name=name, **values)


class Joint:
    """The encoders, decoders and tasks of one run.

    Args:
        options: of the run.
        pairs: what each data set trains.
        data: the data sets, by name.
        found: the checkpoint to continue from; None: there is none.
    """

    def __init__(
        self,
        options: TrainOptions,
        pairs: Sequence[Pair],
        data: Mapping[str, tuple[Scene, TrainingPixels]],
        found: Checkpoint | None,
    ) -> None:
        self.options, self.pairs, self.data = options, pairs, dict(data)
        self.scenes: dict[str, Scene] = {}  # of the encoders
        self.resolutions: dict[str, int] = {}  # that they grow to
        for encoder in listed_once([pair.encoder for pair in pairs]):
            names = [pair.data for pair in pairs if pair.encoder == encoder]
            self.scenes[encoder] = one_scene(encoder, {n: self.data[n][0] for n in names})
            scenes = [self.data[name][0] for name in names]
            self.resolutions[encoder] = final_resolution(options, *scenes)
            for name in names:
                scene, pixels = self.data[name]
                self.data[name] = in_space_of(self.scenes[encoder], scene), pixels
        decoders = listed_once([pair.decoder for pair in pairs])
        if found is None:
            spec = spec_of(options)
            self.renderers = {
                name: new_renderer(options, scene, spec, self.resolutions[name])
                for name, scene in self.scenes.items()
            }
            boxes = torch.stack([scene.box for scene in self.scenes.values()])
            unit = float((boxes[:, 1] - boxes[:, 0]).max())
            self.decoders = {n: new_decoder(options, i, n, unit) for i, n in enumerate(decoders)}
        else:
            self.renderers = {name: found.renderer(name) for name in self.scenes}
            self.decoders = {name: found.decoders[name].build() for name in decoders}
        self.n_steps = max(length_of(options, pixels) for _, pixels in self.data.values())

    def tasks(self) -> list[Task]:
        """The photometric term of every pair, each in every step; for swaps the overlap and
        smoothness of features, and patterns."""
        tasks: list[PairTask] = []
        of_encoder: dict[str, list[PairTask]] = {}
        for index, pair in enumerate(self.pairs):
            scene, pixels = self.data[pair.data]
            task = PairTask(
                self.options,
                scene,
                self.renderers[pair.encoder],
                pixels,
                self.n_steps,
                self.resolutions[pair.encoder],
                self.decoders[pair.decoder],
                pair.data,
                index,
                grows=pair.encoder not in of_encoder,
            )
            of_encoder.setdefault(pair.encoder, []).append(task)
            tasks.append(task)
        further: list[Task] = []
        overlaps = overlaps_of(self.pairs)
        asked = self.options.overlap != "none" or self.options.feature_smoothness.greatest > 0
        if overlaps and asked:
            further.append(OverlapTask(self.options, overlaps, of_encoder))
        if swaps := self._patterned_swaps(tasks, of_encoder):
            further.append(PatternTask(self.options, swaps))
        return [*tasks, *further]

    def _patterned_swaps(
        self, tasks: list[PairTask], of_encoder: Mapping[str, list[PairTask]]
    ) -> list[Swap]:
        """The untrained pairs of decoders that make patterns."""
        swaps = []
        for name in dict.fromkeys(self.options.pattern):
            shown = [
                task for task, pair in zip(tasks, self.pairs, strict=True) if pair.decoder == name
            ]
            known = {pair.encoder for pair in self.pairs if pair.decoder == name}
            for encoder, own in of_encoder.items():
                if encoder not in known:
                    swaps.append(Swap(own[0], self.decoders[name], shown))
        return swaps

    def checkpoint(self) -> Checkpoint:
        """Everything as it is now."""
        fields = {}
        for name, renderer in self.renderers.items():
            own = next(pair.decoder for pair in self.pairs if pair.encoder == name)
            wear(renderer, self.decoders[own])
            fields[name] = FieldRecord.of(renderer)
        decoders = {
            name: DecoderRecord.of(
                decoder, [pair.encoder for pair in self.pairs if pair.decoder == name]
            )
            for name, decoder in self.decoders.items()
        }
        scenes = {name: scene_state(scene) for name, scene in self.scenes.items()}
        return Checkpoint(self.options.stage, fields, scenes, decoders=decoders)


def spec_of(options: TrainOptions) -> Spec:
    """Specification of an encoder, with a decoder."""
    spec = FIELDS[options.field].specs_of(options)
    style: dict[str, Any] = {
        "kind": f"encoded_{spec['field']['kind']}",
        "n_features": options.n_features,
    }
    if "n_frequencies" in spec["style"]:
        style["n_frequencies"] = spec["style"]["n_frequencies"]
    sampler = spec["sampler"]
    if "style" in sampler:
        sampler = {**sampler, "style": style}
    return {**spec, "style": style, "sampler": sampler}


def new_decoder(options: TrainOptions, index: int, name: str, unit: float) -> FeatureDecoder:
    """An untrained decoder, the ``index``-th of a run; ``unit``: see `FeatureDecoder`."""
    n_place = options.place_frequencies if name in options.pattern else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed * 1009 + index)
        return FeatureDecoder(options.n_features, n_place, unit)


def one_scene(encoder: str, scenes: Mapping[str, Scene]) -> Scene:
    """The scene that several data sets show: the views of the first, a box and a range that hold
    it in all of them.

    Raises:
        UserError: they are not in one space.
    """
    first, *others = scenes.values()
    for name, other in zip(list(scenes)[1:], others, strict=True):
        if other.space.kind != first.space.kind:
            raise UserError(
                f"--pairs: the encoder '{encoder}' has data sets with and without a background "
                f"('{next(iter(scenes))}' {first.space.kind}, '{name}' {other.space.kind}); "
                "give each an encoder of its own"
            )
    if first.space.kind != "world":
        return first
    boxes = torch.stack([scene.bounds for scene in scenes.values()])
    bounds = torch.stack([boxes[:, 0].amin(0), boxes[:, 1].amax(0)])
    near = min(scene.near for scene in scenes.values())
    far = max(scene.far for scene in scenes.values())
    return replace(first, bounds=bounds, near=near, far=far)


def in_space_of(whole: Scene, scene: Scene) -> Scene:
    """A data set of an encoder's scene ``whole``: of a world its own near and far are kept."""
    saved = scene_state(replace(whole, train=whole.train[:1], val=[], test=[]))
    if whole.space.kind == "world":
        saved |= {"near": scene.near, "far": scene.far}
    return place_as(scene, saved)
