"""Train: options -> scene -> system -> Trainer.fit -> checkpoint.

python pipeline.py --stage geometry --root_dir SCENE
python pipeline.py --stage style --root_dir SCENE --style_dir PAINTING --ckpt_path CHECKPOINT
"""

from __future__ import annotations

from opt import SCENE, TrainOptions, parse_train
from utils.errors import UserError, exits_cleanly

if __name__ == "__main__":  # help and mistakes do not wait for what takes seconds to import
    exits_cleanly(parse_train)()

import logging
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from assets.weights import read_trained
from datasets.load import load_scene
from datasets.portable import place_as, scene_state
from datasets.scene import Scene
from models.checkpoint import FIELD, PHOTO, Checkpoint, FieldRecord, style_name
from systems.base import TrainingSystem
from systems.frozen import FrozenGeometry
from systems.geometry import GeometrySystem, new_renderer
from systems.processes import processes
from systems.run import Run
from systems.saving import Checkpointing
from systems.style import StyleSystem
from utils.checkpoint import digest, ensure_writable
from utils.images import read_image
from utils.machine import accelerator, keep_memory, trainer_precision

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Unfinished = tuple[Path, Checkpoint]  # a run's newest checkpoint


def train(options: TrainOptions) -> list[Path]:
    """Runs one stage; stage style once for each painting.

    Returns:
        The files of the finished fields.

    Raises:
        UserError: bad input, before anything is trained.
        NumericalError: NaN or infinity in training.
    """
    device = accelerator(options.device, options.num_gpus)
    ensure_writable(options.ckpt_dir)
    ensure_writable(options.log_dir)
    if options.stage == "geometry":
        return learn(options, device)
    return paint(options, device)


def learn(options: TrainOptions, device: str) -> list[Path]:
    """Stage 1."""
    with Run(options) as run:
        unfinished = run.newest()
        if unfinished is None and run.finished():
            return []
        scene = load_scene(options)
        renderer = unfinished[1].renderer() if unfinished else new_renderer(options, scene)
        system = GeometrySystem(options, scene, renderer)

        def snapshot() -> Checkpoint:
            field = FieldRecord.of(system.renderer)
            return Checkpoint(options.stage, {FIELD: field}, {FIELD: scene_state(scene)})

        return fit(run, system, snapshot, unfinished, device)


def paint(options: TrainOptions, device: str) -> list[Path]:
    """Stage 2, one painting after the other; the frozen geometry is computed for the first."""
    source = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    field, _ = source.chosen()
    options = options.filled_from(source.options, (*SCENE, "field"))
    if options.field != source.fields[field].spec["field"]:
        raise UserError(
            f"--field {options.field}: the checkpoint holds a field of the kind "
            f"'{source.fields[field].spec['field']}'; leave --field out"
        )
    todo = options_of_paintings(options)
    paintings = [torch.from_numpy(read_image(each.style_dir)[0]) for each in todo]
    paths, frozen = [], None
    with ExitStack() as stack:
        runs = []
        for each, painting in zip(todo, paintings, strict=True):
            style_name(each.style_dir)  # refuses one that is taken
            inputs = {"geometry": source.fields[field].digest}
            inputs |= {"painting": digest({"painting": painting})}
            runs.append(stack.enter_context(Run(each, inputs)))
        unfinished = [run.newest() for run in runs]
        scene = place_as(load_scene(options), source.scenes[field])
        for run, painting, start in zip(runs, paintings, unfinished, strict=True):
            name = style_name(run.options.style_dir)
            if len(runs) > 1:
                print(f"painting {run.options.style_dir.name}")
            if start is None and run.finished():
                continue
            system = style_system(run.options, scene, source, painting, start, frozen)

            def snapshot(
                name: str = name, run: Run = run, system: StyleSystem = system
            ) -> Checkpoint:
                place = scene_state(scene)
                return source.with_style(name, system.renderer, run.options.to_dict(), field, place)

            paths += fit(run, system, snapshot, start, device)
            frozen = system.frozen
    return paths


def options_of_paintings(options: TrainOptions) -> list[TrainOptions]:
    """The options of the run for each painting: of a folder, all images by name."""
    if not options.style_dir.is_dir():
        return [options]
    files = sorted(f for f in options.style_dir.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"--style_dir {options.style_dir}: no image in this folder; give paintings")
    prefix = f"{options.suffix}_" if "suffix" in options.given else ""
    return [replace(options, style_dir=file, suffix=f"{prefix}{file.stem}") for file in files]


def fit(
    run: Run,
    system: TrainingSystem,
    snapshot: Callable[[], Checkpoint],
    unfinished: Unfinished | None,
    device: str,
) -> list[Path]:
    """Trains ``system`` to its end and saves what ``snapshot`` then makes of it."""
    if unfinished is not None:
        check_continues(system, *unfinished)
    start = time.perf_counter()
    trainer = make_trainer(run, snapshot, device)
    trainer.fit(system)
    if trainer.interrupted:
        raise KeyboardInterrupt
    system.require_finite_weights()
    system.gather_state()
    if not trainer.is_global_zero:
        return []
    paths = run.finish(snapshot())
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    print(f"{run.options.stage}: {system.n_steps} steps in {minutes} min {seconds} s")
    print("written:", *paths)
    return paths


def style_system(
    options: TrainOptions,
    scene: Scene,
    source: Checkpoint,
    painting: Tensor,
    unfinished: Unfinished | None,
    frozen: FrozenGeometry | None,
) -> StyleSystem:
    """Stage 2, new or continued, on the finished field in ``source``."""
    field, _ = source.chosen()
    if unfinished is not None:
        path, checkpoint = unfinished
        if (
            field not in checkpoint.fields
            or checkpoint.fields[field].digest != source.fields[field].digest
        ):
            raise UserError(
                f"{path}: belongs to another geometry; give the checkpoint that the run was "
                "started with, or start again without --resume"
            )
        return StyleSystem(options, scene, checkpoint.renderer(field), painting, frozen)
    photographic = source.fields[field].photographic
    renderer = source.renderer(field, PHOTO if photographic else None)
    system = StyleSystem(options, scene, renderer, painting, frozen)
    system.start_from_photo()
    return system


def check_continues(system: TrainingSystem, path: Path, checkpoint: Checkpoint) -> None:
    """Continues ``system`` from a checkpoint, which must be of as long a run."""
    progress = checkpoint.progress
    if progress.n_steps != system.n_steps:
        raise UserError(
            f"{path}: belongs to a run of {progress.n_steps} steps, this one has "
            f"{system.n_steps}; give the same options, or start again without --resume"
        )
    system.restore(progress)
    print(f"resuming {path} at step {progress.step} of {progress.n_steps}")


def make_trainer(run: Run, snapshot: Callable[[], Checkpoint], device: str) -> pl.Trainer:
    """Lightning's trainer for one run."""
    options = run.options
    logger = TensorBoardLogger(
        options.log_dir, name=f"{options.prefix}_{options.stage}_{options.suffix}", version=""
    )
    return pl.Trainer(
        accelerator=device,
        **processes(options.num_gpus, options.num_nodes),
        use_distributed_sampler=False,
        precision=trainer_precision(options.precision, device),
        max_epochs=1,
        logger=logger,
        log_every_n_steps=10,
        callbacks=[Checkpointing(run, snapshot), TQDMProgressBar(refresh_rate=10)],
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def quiet_lightning() -> None:
    """Leaves Lightning's progress bar, without its advice."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # the "data loader" yields step numbers: workers would not help
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*treespec.*")


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    quiet_lightning()
    keep_memory()
    train(parse_train())


if __name__ == "__main__":
    main()
