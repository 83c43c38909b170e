"""``python -m benchmarks mutual``: stage mutual with and without its halves, at equal steps of the
field: what consistency of the 2D network and the field's teaching are worth, and what they cost."""

from __future__ import annotations

import argparse
import json
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.inputs import demo_directory
from benchmarks.settings import DATA, RESULTS
from datasets.cameras.paths import circle_path
from datasets.cameras.rays import Cameras
from datasets.embedded.painting import paint
from datasets.load import load_scene
from datasets.portable import place_as
from datasets.scene import Scene
from measures.views import StyleDistance
from models.checkpoint import ONLY_FIELD, PHOTO, Checkpoint
from models.image_decoders import load_stylizer
from models.renderer import Picture
from models.stylizer import Stylizer
from models.warp import OPAQUE
from opt import TrainOptions, parse_train
from pipeline import train
from systems.frozen import FrozenGeometry
from systems.lightning import LightningSystem
from systems.mimic_task import fields_of
from systems.mutual import mutual_system
from systems.mutual_measures import CrossView, cross_view_error, laplacian_energy, painter
from systems.paintings import Painting, read_paintings
from systems.photo_views import PhotoViews
from systems.run import Run
from systems.styled_features import StyledFeatures
from systems.system import System
from utils.images import write_image
from utils.machine import accelerator, mixed_precision, trainer_precision
from utils.tables import markdown_table

NEVER = "1000000000"
FRAMES = 24  # of the circle, whose neighbours are compared; none of them was trained on
VOXELS, PHOTO_STEPS = 96, 600


@dataclass(frozen=True)
class Budget:
    """Steps of the field, and of the 2D network before it."""

    field: int
    consistency: int


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks mutual",
        description="Stage mutual with and without its halves: not a speed, what each is worth.",
    )
    p.add_argument("--root_dir", type=Path, metavar="DIR", help="a scene beside the embedded one")
    p.add_argument("--style_dir", type=Path, metavar="DIR", help="paintings (default: embedded)")
    p.add_argument("--vgg_weights", type=Path, metavar="FILE", help="for --decoder_weights")
    p.add_argument("--decoder_weights", type=Path, metavar="FILE", help="2D decoder (default: own)")
    p.add_argument("--steps", type=int, default=400, help="of the field (default: 400)")
    p.add_argument("--size", type=int, default=100, help="pixels along a side (default: 100)")
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    p.add_argument("--quick", action="store_true", help="a smoke test, measures nothing")
    p.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for .md and .json")
    return p


def main(argv: Sequence[str]) -> None:
    """Trains and measures every arm, on the embedded scene and, if given, on another, and writes
    mutual.md and mutual.json."""
    settings = parser().parse_args(argv)
    settings.device, settings.data = accelerator(settings.device), DATA
    if settings.quick:
        settings.data, settings.size = DATA / "quick", 24
    scenes = {"demo": demo_directory(settings, settings.size)}
    if settings.root_dir is not None:
        scenes[settings.root_dir.resolve().name] = settings.root_dir
    found = [
        (name, arm, own) for name, root in scenes.items() for arm, own in _arms(settings, root)
    ]
    text = table(found)
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "mutual.md").write_text(f"{text}\n")
    (settings.out / "mutual.json").write_text(json.dumps(found, indent=2))
    print(f"{text}\n\nmutual.md, mutual.json: {settings.out}")


def _arms(settings: Namespace, root: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Name and measures of each arm."""
    field = photographic(settings, root)
    folder = settings.style_dir or embedded_paintings(settings)
    budget = Budget(4, 2) if settings.quick else Budget(settings.steps, settings.steps // 4)
    arms = {
        "2D -> 3D": (0, NEVER),
        "+ consistency": (budget.consistency, NEVER),
        "+ 3D -> 2D": (0, "0"),
        "both": (budget.consistency, "0"),
    }
    for arm, (consistency, decoder_step) in arms.items():
        print(arm, flush=True)
        words = [*_words(settings, root), "--style_dir", str(folder), "--ckpt_path", str(field)]
        words += ["--max_steps", str(budget.field), "--consistency_steps", str(consistency)]
        words += ["--decoder_step", decoder_step, "--img_wh", *[str(settings.size)] * 2]
        yield arm, measured(parse_train(["--stage", "mutual", *words]), settings)


def table(found: Sequence[tuple[str, str, dict[str, float]]]) -> str:
    """A line per scene and arm: its measures, and how they differ from the one-way arm's."""
    keys = list(found[0][2])
    rows, first = [], {}
    for scene, arm, own in found:
        first.setdefault(scene, own)
        cells = [
            f"{own[key]:.4g} ({100 * (own[key] / max(first[scene][key], 1e-12) - 1):+.0f} %)"
            for key in keys
        ]
        rows.append([scene, arm, *cells])
    return markdown_table(["scene", "arm", *keys], rows)


def _words(settings: Namespace, root: Path) -> list[str]:
    words = ["--root_dir", str(root), "--device", settings.device]
    words += ["--ckpt_dir", str(settings.data / "ckpts"), "--log_dir", str(settings.data / "runs")]
    if settings.decoder_weights is None:
        return [*words, "--features", "own"]
    more = ["--vgg_weights", str(settings.vgg_weights)]
    return [*words, *more, "--decoder_weights", str(settings.decoder_weights)]


def photographic(settings: Namespace, root: Path) -> Path:
    """A voxel field in photographic colours, trained once and kept."""
    side, steps = settings.size, 20 if settings.quick else PHOTO_STEPS
    words = ["--stage", "geometry", "--field", "voxels", "--root_dir", str(root)]
    words += ["--voxel_resolution", str(24 if settings.quick else VOXELS), "--batch_size", "2048"]
    words += ["--lr_scheduler", "cosine", "--max_steps", str(steps), "--device", settings.device]
    words += [
        "--img_wh",
        str(side),
        str(side),
        "--prefix",
        root.name,
        "--suffix",
        f"{side}_{steps}",
    ]
    words += ["--ckpt_dir", str(settings.data / "ckpts"), "--log_dir", str(settings.data / "runs")]
    options = parse_train(words)
    path = Run(options).path
    if not path.is_file():
        train(options)
    return path


def embedded_paintings(settings: Namespace) -> Path:
    """The embedded painting, and another one with its strokes turned and its colours exchanged."""
    folder = settings.data / "paintings"
    if not folder.is_dir():
        own = torch.from_numpy(paint((384, 288)))
        write_image(folder / "first.png", own)
        write_image(folder / "second.png", own.flip(1).transpose(0, 1)[..., [1, 2, 0]].contiguous())
    return folder


def measured(options: TrainOptions, settings: Namespace) -> dict[str, float]:
    """Trains a run, without writing anything, and measures both halves on held-out views."""
    field = Checkpoint.read(options.ckpt_path)
    options = options.filled_from(field.options, ("field", "dataset_name", "scene_name"))
    files = sorted(options.style_dir.iterdir())
    paintings = read_paintings(files)
    stylizer = load_stylizer(options.features, options.vgg_weights, options.decoder_weights)
    untrained = load_stylizer(options.features, options.vgg_weights, options.decoder_weights)
    scene = place_as(load_scene(options), field.scenes[ONLY_FIELD])
    start = time.perf_counter()
    system = mutual_system(options, field, scene, paintings, stylizer)
    _train(system, options, settings)
    seconds = time.perf_counter() - start
    found = _judged(system, options, field, scene, paintings, untrained, settings)
    return {"seconds": seconds, **found}


def _train(system: System, options: TrainOptions, settings: Namespace) -> None:
    """All steps, by Lightning, without files."""
    trainer = pl.Trainer(
        accelerator=settings.device,
        devices=1,
        precision=trainer_precision(options.precision, settings.device),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    module = LightningSystem(system, Run(options))
    module.on_train_batch_end = lambda *_: None  # nothing is saved
    trainer.fit(module)


@torch.no_grad()
def _judged(
    system: System,
    options: TrainOptions,
    field: Checkpoint,
    scene: Scene,
    paintings: list[Painting],
    untrained: Stylizer,
    settings: Namespace,
) -> dict[str, float]:
    _, mimic = system.tasks
    device = torch.device(settings.device)
    renderer = field.renderer(style=PHOTO).to(device)
    side = settings.size
    cameras = circle_path(scene, 6 if settings.quick else FRAMES).resized(side, side).to(device)
    stylizer, untrained = mimic.stylizer.to(device), untrained.to(device)
    totals: dict[str, list[float]] = {}
    with mixed_precision(options.precision, settings.device):
        held_out = _views(renderer, cameras, options, mimic)
        own = mimic.styled[1]
        styled = StyledFeatures(stylizer, held_out, own.content, own.manners, own.style)
        pairs = [(i, i - 1) for i in range(1, len(cameras))]
        for number, painting in enumerate(paintings):
            (painted,) = fields_of(renderer.field, [mimic.styles[number].to(device)])
            guide = painted if mimic.lesson.field_guides(mimic.lesson.n_steps - 1) else None
            own = painter(stylizer.decode, styled, number, guide)
            # what either half is compared with has to be the same for all arms
            first = painter(untrained.decode, styled, number)
            pictures = [_picture(held_out, index, painted) for index in range(len(cameras))]
            distance = StyleDistance(painting.rgb, options.features, options.vgg_weights, device)
            distances = [
                distance(picture, held_out.rgb[index]) for index, picture in enumerate(pictures)
            ]
            masks = [picture.opacity > OPAQUE for picture in pictures]
            errors = {
                "2D": cross_view_error(own, held_out, pairs),
                "field": cross_view_error(
                    lambda index, all_of=pictures: all_of[index].rgb, held_out, pairs
                ),
                "photographic": cross_view_error(
                    lambda index: held_out.rgb[index].to(device).float() / 255, held_out, pairs
                ),
            }
            values = {
                f"{who}: {measure}": None if error is None else getattr(error, measure)
                for who, error in errors.items()
                for measure in CrossView._fields
            }
            values |= {
                "style": _mean(d["style_distance"] for d in distances),
                "content": _mean(d["content_distance"] for d in distances),
                "sharpness": _mean(
                    laplacian_energy(picture.rgb, mask)
                    for picture, mask in zip(pictures, masks, strict=True)
                )
                / _mean(laplacian_energy(first(i), mask) for i, mask in enumerate(masks)),
            }
            for key, value in values.items():
                totals.setdefault(key, []).append(float(value or 0.0))
    return {key: _mean(values) for key, values in totals.items()}


def _views(renderer, cameras: Cameras, options: TrainOptions, mimic) -> PhotoViews:  # noqa: ANN001
    frozen = FrozenGeometry(renderer, cameras, mimic.frozen.budget)
    views = PhotoViews(frozen, renderer.field, renderer.background, mimic.chunks)
    for index in range(len(frozen)):
        views.add(index)
    return views


def _picture(views: PhotoViews, index: int, field) -> Picture:  # noqa: ANN001
    view, background = views.frozen.view(index), views.background
    colours = view.render(field, background).float().clamp(0, 1)
    rgb: Tensor = view.image(colours, background)[0].permute(1, 2, 0)
    return Picture(rgb, views.distance[index], view.mask()[0, 0])


def _mean(values) -> float:  # noqa: ANN001
    found = list(values)
    return sum(found) / max(1, len(found))
