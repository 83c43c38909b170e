"""Stage style: a field and a painting -> the field in the manner of the painting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from assets.weights import read_trained
from datasets.load import load_scene
from datasets.portable import place_as, scene_state
from features.network import FeatureNetwork
from features.registry import load_features
from features.semantic import SemanticEncoder, load_encoder
from losses.directional import Directional, mean_embedding
from losses.objective import StyleObjective
from losses.registry import OBJECTIVES, TERMS, layers_needed
from losses.style_image import painting_size, prepare_style
from models.checkpoint import ONLY_FIELD, PHOTO, Checkpoint, style_name
from models.renderer import Renderer
from opt import SCENE, TrainOptions
from systems.frozen import FrozenGeometry
from systems.run import Run
from systems.style_task import StyleTask
from systems.system import System
from utils.checkpoint import digest
from utils.errors import UserError
from utils.images import read_painting
from utils.schedule import Schedule
from utils.team import Team

PAINTING_FREE = {"directional", "content", "tv"}  # terms that can do without
PHOTO_WORDS = "a photo"  # what a prompt's direction starts from
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def style_stage(options: TrainOptions) -> Iterator[tuple[System, Run]]:
    """One system for each painting; the frozen geometry is computed for the first."""
    field = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    options = options_of_field(options, field)
    with ExitStack() as stack:
        jobs = []
        for own in options_of_paintings(options):
            painting, name = None, own.suffix
            inputs = {"geometry": field.fields[ONLY_FIELD].digest}
            if own.style_dir is not None:
                painting = torch.from_numpy(read_painting(own.style_dir))
                name = style_name(own.style_dir)
                inputs["painting"] = digest({"rgb": painting})
            run = stack.enter_context(Run(own, inputs))
            jobs.append((own, name, painting, run, run.to_resume()))
        scene = place_as(load_scene(options), field.scenes[ONLY_FIELD])
        network = network_of(options)
        frozen: FrozenGeometry | None = None
        for own, name, painting, run, found in jobs:
            if len(jobs) > 1:
                print(f"painting {own.style_dir.name}")
            if found is None and run.finished():
                continue
            if painting is None:  # the terms that a prompt leaves compare nothing with it
                painting = scene.train[0].image
            renderer = found[1].renderer(style=name) if found else start_colours(field, own)
            weights = term_weights(own)
            objective_of = partial(make_objective, own, weights, network, painting)
            task = StyleTask(own, scene, renderer, painting, objective_of, weights, frozen)
            add_style = partial(field.with_style, name, renderer, own.to_dict())
            checkpoint = partial(add_style, scene=scene_state(scene))
            system = System(own, [task], task.n_steps, checkpoint, task.beginning)
            if found:
                system.resume(*found)
            yield system, run
            frozen = task.frozen
        if len(jobs) > 1:
            write_together(options, field, [(name, run.path) for _, name, _, run, _ in jobs])


def write_together(
    options: TrainOptions, field: Checkpoint, painted: Sequence[tuple[str, Path]]
) -> None:
    """One checkpoint with the styles of all paintings of a folder, so that they can be mixed; it is
    called like the folder.

    Args:
        painted: name and checkpoint of each style; one that is not there is left out.
    """
    if Team.current().rank > 0:
        return
    taken = {own.resolve() for _, own in painted}
    taken |= {own.resolve() for own in (options.ckpt_path,) if own is not None}
    path = Run(options).path
    while path.resolve() in taken:
        path = path.with_stem(f"{path.stem}_all")
    together = field
    for name, own in painted:
        if own.is_file():
            found = Checkpoint.read(own)
            together = replace(found, styles={**together.styles, name: found.styles[name]})
    together.write(path)
    print(f"written: {path}, with all paintings")


def options_of_field(options: TrainOptions, field: Checkpoint) -> TrainOptions:
    """The options, with the field's scene where no other was given.

    Raises:
        UserError: another kind of field was asked for, or there are several.
    """
    if ONLY_FIELD not in field.fields:
        raise UserError(
            "--ckpt_path: a checkpoint of several fields; --stage style paints those of --stage "
            "geometry"
        )
    options = options.filled_from(field.options, (*SCENE, "field"))
    kind = field.fields[ONLY_FIELD].spec["field"]["kind"]
    if options.field != kind:
        raise UserError(
            f"--field {options.field}: the checkpoint holds a field of the kind '{kind}'; "
            "leave --field out"
        )
    return options


def options_of_paintings(options: TrainOptions) -> list[TrainOptions]:
    """The options of the run for each painting: of a folder, all images by name."""
    if options.style_dir is None:
        needing = set(term_weights(options)) - PAINTING_FREE
        if needing:
            raise UserError(
                f"--prompt: without a painting there is nothing for {', '.join(sorted(needing))}; "
                "give --objective directional, or --style_dir as well"
            )
        return [replace(options, colour_transfer=False)]
    if not options.style_dir.is_dir():
        return [options]
    files = sorted(f for f in options.style_dir.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"--style_dir {options.style_dir}: no image in this folder; give paintings")
    prefix = f"{options.suffix}_" if "suffix" in options.given else ""
    return [replace(options, style_dir=file, suffix=f"{prefix}{file.stem}") for file in files]


def start_colours(field: Checkpoint, options: TrainOptions) -> Renderer:
    """The field in the colours to start from: the photographic ones where it has them."""
    has_photo = field.fields[ONLY_FIELD].has_photo_colours
    renderer = field.renderer(style=PHOTO if has_photo else None)
    style = renderer.field.style
    style.decoder.view_dependent = options.view_dependent
    if options.style_init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            style.reset()
    return renderer


def term_weights(options: TrainOptions) -> dict[str, Schedule]:
    """The objective's weights, with those that the user gave in their place."""
    weights = {n: Schedule.constant(w) for n, w in OBJECTIVES[options.objective].items()}
    for term in TERMS:
        given = getattr(options, f"{term}_weight")
        if given is not None:
            weights[term] = given
    if options.prompt is not None:
        weights.setdefault("directional", Schedule.constant(1.0))
    return {term: weight for term, weight in weights.items() if weight.greatest > 0}


def network_of(options: TrainOptions) -> FeatureNetwork | None:
    """The network that the options' terms look through; None where none of them needs one."""
    weights = {term: weight.greatest for term, weight in term_weights(options).items()}
    layers = layers_needed(weights)
    return load_features(options.features, options.vgg_weights, layers=layers) if layers else None


def make_objective(
    options: TrainOptions,
    weights: Mapping[str, Schedule],
    network: FeatureNetwork | None,
    painting: Tensor,
    size: int,
) -> StyleObjective:
    """The objective of the options for renders with a shorter side of ``size`` pixels.

    Args:
        weights: of its terms.
        network: see `network_of`.
        painting: (H, W, 3) uint8.

    Raises:
        UserError: renders or strokes are too small for the terms to look at.
    """
    most = {term: weight.greatest for term, weight in weights.items()}
    style = prepare_style(painting, painting_size(size, options.stroke_scale))
    made = {"directional": directional(options, style)} if "directional" in most else {}
    return StyleObjective(style, network, most, seed=options.seed, made=made)


def directional(options: TrainOptions, style: Tensor) -> Directional:
    """The directional term: to the prompt, or to the painting ``style (1, 3, H, W)``.

    Raises:
        UserError: the encoder is not at hand, or knows no words.
    """
    encoder = _encoder(options.directional_encoder)
    if options.prompt is None:
        return Directional(encoder, mean_embedding(encoder, style))
    source, target = encoder.embed_text([PHOTO_WORDS, options.prompt])
    return Directional(encoder, target, source)


@lru_cache(maxsize=1)
def _encoder(name: str) -> SemanticEncoder:
    """Loaded once for all sizes and paintings."""
    return load_encoder(name, "--directional_encoder")
