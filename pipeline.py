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
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from assets.weights import load_any_field
from datasets.load import load_scene
from datasets.portable import place_as
from datasets.scene import Scene
from models.renderer import Renderer
from systems.base import TrainingSystem
from systems.checkpoints import final_path, run_directory, save_field
from systems.frozen import FrozenGeometry
from systems.geometry import GeometrySystem, new_renderer
from systems.processes import processes
from systems.saving import Checkpointing
from systems.style import StyleSystem
from utils.checkpoint import ensure_writable, newest_checkpoint
from utils.images import read_image
from utils.machine import accelerator, keep_memory, trainer_precision

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Unfinished = tuple[Path, dict]  # a checkpoint and what it holds


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
    unfinished = unfinished_run(options)
    scene = load_scene(options)
    system = geometry_system(options, scene, unfinished)
    return fit(options, scene, system, unfinished, device)


def paint(options: TrainOptions, device: str) -> list[Path]:
    """Stage 2, one painting after the other; the frozen geometry is computed for the first."""
    geometry = load_any_field(options.ckpt_path, options.coarse_path, options.fine_path)
    options = options.filled_from(geometry["options"], (*SCENE, "field"))
    if options.field != geometry["spec"]["field"]:
        raise UserError(
            f"--field {options.field}: the checkpoint holds a field of the kind "
            f"'{geometry['spec']['field']}'; leave --field out"
        )
    runs = options_of_paintings(options)
    paintings = [torch.from_numpy(read_image(run.style_dir)[0]) for run in runs]
    unfinished = [unfinished_run(run) for run in runs]
    scene = load_scene(options)
    scene = place_as(scene, geometry["scene"])
    paths, frozen = [], None
    for run, painting, start in zip(runs, paintings, unfinished, strict=True):
        if len(runs) > 1:
            print(f"painting {run.style_dir.name}")
        if options.resume and start is None and len(runs) > 1 and final_path(run).is_file():
            print(f"{final_path(run)}: finished already")
            continue
        system = style_system(run, scene, geometry, painting, start, frozen)
        paths += fit(run, scene, system, start, device)
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


def unfinished_run(options: TrainOptions) -> Unfinished | None:
    """The newest checkpoint of a run that is to be resumed, with its path."""
    directory = ensure_writable(run_directory(options))
    return newest_checkpoint(directory, options.stage) if options.resume else None


def fit(
    options: TrainOptions,
    scene: Scene,
    system: TrainingSystem,
    unfinished: Unfinished | None,
    device: str,
) -> list[Path]:
    """Trains ``system`` to its end and saves the field."""
    if unfinished is not None:
        check_continues(system, *unfinished)
    start = time.perf_counter()
    trainer = make_trainer(options, scene, device)
    trainer.fit(system)
    if trainer.interrupted:
        raise KeyboardInterrupt
    system.require_finite_weights()
    system.gather_state()
    if not trainer.is_global_zero:
        return []
    paths = save_field(options, scene, system.renderer)
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    print(f"{options.stage}: {system.n_steps} steps in {minutes} min {seconds} s")
    print("written:", *paths)
    return paths


def geometry_system(
    options: TrainOptions, scene: Scene, unfinished: Unfinished | None
) -> GeometrySystem:
    """Stage 1, new or continued."""
    if unfinished is None:
        return GeometrySystem(options, scene, new_renderer(options, scene))
    payload = unfinished[1]
    return GeometrySystem(options, scene, Renderer.from_state(payload["spec"], payload["state"]))


def style_system(
    options: TrainOptions,
    scene: Scene,
    geometry: dict,
    painting: Tensor,
    unfinished: Unfinished | None,
    frozen: FrozenGeometry | None,
) -> StyleSystem:
    """Stage 2, new or continued, on the finished field ``geometry``."""
    if unfinished is not None and unfinished[1]["digest"] != geometry["digest"]:
        raise UserError(
            f"{unfinished[0]}: belongs to another geometry; give the checkpoint that the run was "
            "started with, or start again without --resume"
        )
    source = geometry if unfinished is None else unfinished[1]
    renderer = Renderer.from_state(source["spec"], source["state"])
    system = StyleSystem(options, scene, renderer, painting, frozen)
    if unfinished is None:
        system.start_from_photo()
    return system


def check_continues(system: TrainingSystem, path: Path, payload: dict) -> None:
    """Continues ``system`` from ``payload``, which must be of the same run."""
    if payload["n_steps"] != system.n_steps:
        raise UserError(
            f"{path}: belongs to a run of {payload['n_steps']} steps, this one has "
            f"{system.n_steps}; give the same options, or start again without --resume"
        )
    system.restore(payload)
    print(f"resuming {path} at step {payload['step']} of {payload['n_steps']}")


def make_trainer(options: TrainOptions, scene: Scene, device: str) -> pl.Trainer:
    """Lightning's trainer for one run."""
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
        callbacks=[Checkpointing(options, scene), TQDMProgressBar(refresh_rate=10)],
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
