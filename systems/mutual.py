"""Stage mutual: a field and several paintings -> the field in the manner of each of them, all
learned at once, from and together with a 2D stylisation network (StylizedNeRF, Huang et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from assets.weights import read_trained
from datasets.load import load_scene
from datasets.portable import place_as, scene_state
from datasets.scene import Scene
from models.checkpoint import ONLY_FIELD, PHOTO, Checkpoint
from models.image_decoders import decoder_state, load_stylizer
from models.latent_nerf import N_FREQUENCIES, LatentNerfStyle
from models.latent_voxels import LatentVoxelStyle
from models.renderer import Renderer
from models.style import Style
from models.stylizer import Stylizer
from opt import TrainOptions
from systems.decoder_task import DecoderTask, Lesson
from systems.growth import pixels_along
from systems.mimic_task import STAY, MimicTask, fields_of
from systems.paintings import Painting, read_paintings
from systems.run import Run
from systems.style import options_of_field, options_of_paintings
from systems.system import System
from utils.checkpoint import digest
from utils.errors import UserError

STEPS = 400  # of the field for each painting, or as many as it takes to see every view once
ALONE = 0.5  # of these steps, in which the field does not yet teach the 2D network


def mutual_stage(options: TrainOptions) -> Iterator[tuple[System, Run]]:
    """The one system of the stage, new or continued."""
    field = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    options = options_of_field(options, field)
    if not field.fields[ONLY_FIELD].has_photo_colours:
        raise UserError(
            f"--ckpt_path {options.ckpt_path}: has no photographic colours, which --stage mutual "
            "paints over; give the checkpoint of --stage geometry"
        )
    paintings = read_paintings([own.style_dir for own in options_of_paintings(options)])
    stylizer = load_stylizer(
        options.features,
        options.vgg_weights,
        options.decoder_weights,
        field.networks.get("decoder"),
    )
    inputs = {
        "geometry": field.fields[ONLY_FIELD].digest,
        "decoder": digest(stylizer.decoder.state_dict()),
        "paintings": digest({painting.name: painting.rgb for painting in paintings}),
    }
    with Run(options, inputs) as run:
        found = run.to_resume()
        if found is None and run.finished():
            return
        scene = place_as(load_scene(options), field.scenes[ONLY_FIELD])
        system = mutual_system(options, field, scene, paintings, stylizer)
        if found:
            system.resume(*found)
        yield system, run


def mutual_system(
    options: TrainOptions,
    field: Checkpoint,
    scene: Scene,
    paintings: Sequence[Painting],
    stylizer: Stylizer,
) -> System:
    """The two tasks that teach each other, as a system.

    Args:
        options: of the run.
        field: with photographic colours.
        scene: whose training views are painted.
        paintings: one or more.
        stylizer: the 2D network; its decoder is trained.
    """
    renderer = field.renderer(style=PHOTO).requires_grad_(False)
    styles = new_styles(renderer, scene, len(paintings), options.seed)
    lesson = lesson_of(options, len(paintings), len(scene.train))
    decoder = DecoderTask(options, stylizer, lesson, fields_of(renderer.field, styles))
    mimic = MimicTask(options, scene, renderer, paintings, styles, decoder, lesson)

    def checkpoint() -> Checkpoint:
        named = {
            painting.name: (style, replace(options, style_dir=painting.file).to_dict())
            for painting, style in zip(paintings, styles, strict=True)
        }
        painted = field.with_styles(named, renderer, options.to_dict(), scene_state(scene))
        return replace(painted, networks={"decoder": decoder_state(stylizer.decoder)})

    beginning = "consistency", lesson.n_consistency
    return System(options, [decoder, mimic], lesson.n_steps, checkpoint, beginning)


def lesson_of(options: TrainOptions, n_paintings: int, n_views: int) -> Lesson:
    """Which half learns when."""
    n_field = options.max_steps or n_paintings * max(STEPS, STAY * n_views)
    after = options.decoder_step
    after = round(ALONE * n_field) if after is None else min(after, n_field)
    first = options.consistency_steps
    return Lesson(first, first + after, first + n_field)


def new_styles(renderer: Renderer, scene: Scene, n_paintings: int, seed: int) -> list[Style]:
    """A style for each painting; they share their network.  On voxels they start from the
    photographic colours, on a NeRF from random weights, and with no wave shorter than two pixels of
    the photos: shorter ones are learned as grain."""
    field, n_views = renderer.field, len(scene.train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if field.kind == "voxels":
            first = LatentVoxelStyle.like(field.style, field.geometry, n_views)
            styles = [first, *(first.clone() for _ in range(n_paintings - 1))]
        else:
            octaves = max(1, int(math.log2(min(pixels_along(scene), 2**N_FREQUENCIES))))
            styles = [
                LatentNerfStyle(field.geometry, n_views, n_frequencies=octaves)
                for _ in range(n_paintings)
            ]
    for style in styles[1:]:
        style.share(styles[0])
    return styles
