"""Stage geometry: photos -> a field, by photometric training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from datasets.hull import needed_views, seen_by_several, visual_hull
from datasets.load import load_scene
from datasets.pixels import TrainingPixels
from datasets.portable import scene_state
from datasets.scene import Scene
from datasets.stereo import stereo_density
from models import FIELDS
from models.checkpoint import ONLY_FIELD, Checkpoint, FieldRecord
from models.occupancy import grid_shape, resample_any, resample_nearest, with_sides
from models.renderer import Renderer, Spec
from opt import TrainOptions
from systems.growth import STEREO, final_resolution, growth_of
from systems.photometric_task import PhotometricTask
from systems.prior_task import PriorTask
from systems.run import Run
from systems.semantic_task import SemanticTask
from systems.system import System, Task

# cells along the scene's box when it is asked which of them several views see, and what in them
SEEN_GRID, STEREO_GRID = 64, 96


def geometry_stage(options: TrainOptions) -> Iterator[tuple[System, Run]]:
    """The one system of the stage, new or continued."""
    with Run(options) as run:
        found = run.to_resume()
        if found is None and run.finished():
            return
        scene, pixels = training_pixels(load_scene(options))
        n_steps = length_of(options, pixels)
        resolution = final_resolution(options, scene)
        renderer = (
            found[1].renderer() if found else new_renderer(options, scene, resolution=resolution)
        )

        def checkpoint() -> Checkpoint:
            fields = {ONLY_FIELD: FieldRecord.of(renderer)}
            scenes = {ONLY_FIELD: scene_state(scene)}
            return Checkpoint(options.stage, fields, scenes)

        tasks: list[Task] = [PhotometricTask(options, scene, renderer, pixels, n_steps, resolution)]
        if PriorTask.wanted(options):
            tasks.append(PriorTask(options, scene, renderer))
        if options.semantic is not None:
            tasks.append(SemanticTask(options, scene, renderer))
        system = System(options, tasks, n_steps, checkpoint)
        if found:
            system.resume(*found)
        yield system, run


def training_pixels(scene: Scene) -> tuple[Scene, TrainingPixels]:
    """The pixels to learn from: all, or with alpha masks those that the hull may reach; and the
    scene, which shares the memory of its photos with them."""
    pixels, train = TrainingPixels.of(scene.train)
    scene = replace(scene, train=train)
    if scene.has_alpha:
        masks = []
        for view in scene.train:
            # the hull's voxels reach a little over the silhouettes
            reach = 1 + math.ceil(max(view.height, view.width) / 128)
            alpha = view.alpha[None, None].float()
            grown = functional.max_pool2d(alpha, 2 * reach + 1, stride=1, padding=reach)
            masks.append(grown.flatten() > 0)
        pixels.candidates = torch.cat(masks).nonzero()[:, 0].to(torch.int32)
    return scene, pixels


def length_of(options: TrainOptions, pixels: TrainingPixels) -> int:
    """Steps of the run; an epoch sees as many rays as there are pixels to learn from."""
    if steps := options.max_steps or options.num_steps_density:
        return steps
    n_epochs = options.num_epochs_density or 1
    return max(1, n_epochs * pixels.n_candidates // options.batch_size)


def new_renderer(
    options: TrainOptions, scene: Scene, spec: Spec | None = None, resolution: int | None = None
) -> Renderer:
    """An untrained renderer for ``scene``, initialised from the seed; ``spec``: see
    `Renderer.build`, None: as of the options; ``resolution``: in the end, None: the scene's."""
    kind, growth = FIELDS[options.field], growth_of(scene, options.stereo)
    resolution = resolution or final_resolution(options, scene)
    occupied = first_occupancy(scene, resolution)
    coarse = grid_shape(scene.box, round(resolution * growth.resolutions[0][1]))
    cells = resample_any(occupied, coarse)
    if scene.space.infinity is not None:
        cells = with_sides(cells)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        renderer = Renderer.build(
            spec or kind.specs_of(options),
            scene.box,
            scene.background,
            occupied,
            cells,
        )
        renderer.field.fill(growth.raw_density)
        if growth is STEREO and renderer.field.step is not None:
            vertices = [n + 1 for n in grid_shape(scene.box, STEREO_GRID)]
            renderer.field.start_from(stereo_density(scene, vertices))
    return renderer


def first_occupancy(scene: Scene, resolution: int) -> Tensor:
    """(R0, R1, R2) bool: what several photos show where they show all that is there; of an object
    its visual hull as far as enough photos show it, for in front of a single camera anything
    explains its photo."""
    shape = grid_shape(scene.box, resolution)
    if scene.surrounds:
        return resample_nearest(seen_by_several(scene, grid_shape(scene.box, SEEN_GRID)), shape)
    needed = needed_views(scene.train, scene.bounds, scene.background)
    return visual_hull(scene.train, scene.bounds, shape, needed)
