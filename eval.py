"""Render and measure a trained field: PNG, depth, GIF, MP4, metrics.json.

python eval.py --ckpt_path ckpts/lego_geometry.ckpt
"""

from __future__ import annotations

from opt import SCENE, EvalOptions, parse_eval
from utils.errors import UserError, exits_cleanly

if __name__ == "__main__":  # help and mistakes do not wait for what takes seconds to import
    exits_cleanly(parse_eval)()

import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from assets.weights import read_trained
from datasets.cameras.camera_path import cameras_along
from datasets.cameras.rays import Cameras
from datasets.formats.names import NO_PATH
from datasets.load import load_scene
from datasets.portable import place_as, scene_from
from datasets.scene import Scene, View
from models.checkpoint import PHOTO, Checkpoint
from models.renderer import Picture, render_view
from systems.launch import launch
from systems.style_metrics import StyleMeter
from utils.checkpoint import ensure_writable
from utils.colormap import depth_to_colour, write_depth_png16
from utils.depth import write_pfm, write_raw
from utils.images import read_image, write_image
from utils.machine import accelerator, keep_memory, mixed_precision, versions
from utils.metrics import ImageMetrics
from utils.video import write_gif, write_mp4

FPS = 15  # of a path that does not say how many


def evaluate(options: EvalOptions) -> dict[str, Any]:
    """Renders the views asked for and measures them.

    Returns:
        What is written to metrics.json.

    Raises:
        UserError: bad input.
    """
    checkpoint = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    field, style = checkpoint.chosen(style=options.style)
    options = options.filled_from(checkpoint.options, SCENE)
    directory = options.output_dir / options.dataset_name / options.scene_name
    ensure_writable(directory)
    device = accelerator(options.device, options.num_gpus)
    networks = mixed_precision(options.precision, device)
    scene, photographed = scene_of(options, checkpoint.scenes[field])
    renderer = checkpoint.renderer(field, style)
    cameras, photos, fps = views_of(scene, options)
    options = replace(options, fps=options.fps or fps or FPS)
    photos = photos if photographed else []
    team, device = launch(device, options.num_gpus, options.num_nodes)
    renderer, cameras = renderer.to(device), cameras.to(device)
    painted = style != PHOTO
    meter = StyleMeter.of(checkpoint.styles[style].options, device) if painted else None
    metrics = ImageMetrics(device, int(cameras.sizes.min())) if photos and not painted else None
    own: dict[int, tuple[dict[str, float], float]] = {}
    numbers = team.share(range(len(cameras)))
    for index in tqdm(numbers, desc="rendering", unit="view", disable=team.rank > 0):
        start = time.perf_counter()
        with networks:
            picture = render_view(renderer, cameras, index, options.chunk)
        picture.rgb.cpu()
        seconds = time.perf_counter() - start
        write_view(directory, f"{index:03d}", picture, scene, options.depth_format)
        view = photos[index] if photos else None
        own[index] = measure(picture, view, metrics, meter), seconds
    measured = {index: found for part in team.gather(own) for index, found in part.items()}
    views = {f"{index:03d}": measured[index][0] for index in sorted(measured)}
    seconds = [spent for _, spent in measured.values()]
    name = options.gif_name
    if team.rank == 0:
        frames = [read_image(directory / f"{view}.png")[0] for view in views]
        write_gif(Path(f"{name}.gif"), frames, options.fps)
        write_mp4(directory / f"{name}.mp4", frames, options.fps)

    report = {key: mean_of(views, key) for key in next(iter(views.values()))}
    report |= {
        "views": views,
        "left_out": metrics.left_out if metrics else {},
        "seconds_per_frame": sum(seconds) / len(seconds),
        **provenance(options, checkpoint, field, style),
    }
    if team.rank == 0:
        (directory / "metrics.json").write_text(json.dumps(report, indent=2))
        print_report(report, directory, name)
    return report | {"directory": str(directory), "video": str(directory / f"{name}.mp4")}


def scene_of(options: EvalOptions, saved: Mapping[str, Any]) -> tuple[Scene, bool]:
    """The scene, and whether its photos are in it; else its views are blank.

    Photos are loaded where they are, or were asked for; along a path there is nothing to compare
    with them, and the cameras in the checkpoint do.
    """
    root_dir = options.root_dir
    at_hand = options.path == NO_PATH and root_dir is not None and root_dir.is_dir()
    wanted = at_hand or "root_dir" in options.given
    blank = None if wanted else scene_from(saved)
    scene = blank or load_scene(options)
    return place_as(scene, saved), blank is None


def views_of(scene: Scene, options: EvalOptions) -> tuple[Cameras, list[View], float | None]:
    """The cameras to render, the views to compare with and the frames per second to show them at,
    of the last two what there is."""
    photos: list[View] = []
    fps = None
    if options.path == NO_PATH:
        photos = getattr(scene, options.split.removeprefix("test_"))
        if not photos:
            raise UserError(f"--split {options.split}: the scene has no such views; give another")
        cameras = Cameras.within(scene, photos)
    else:
        cameras, fps = cameras_along(scene, options)
    if "img_wh" in options.given:
        cameras = cameras.resized(*options.img_wh)  # loaded photos have this size already
    return cameras, photos, fps


def measure(
    picture: Picture, view: View | None, metrics: ImageMetrics | None, meter: StyleMeter | None
) -> dict[str, float]:
    """Likeness to the photo; for a stylised field its distances to painting and photo instead."""
    if meter is not None:
        return meter(picture, None if view is None else view.image)
    if metrics is None or view is None:
        return {}
    return metrics(picture.rgb.cpu(), view.image.float() / 255, view.valid)


def mean_of(views: dict[str, dict[str, float]], key: str) -> float:
    """Mean of one measure over the views."""
    return sum(values[key] for values in views.values()) / len(views)


def provenance(
    options: EvalOptions, checkpoint: Checkpoint, field: str, style: str
) -> dict[str, Any]:
    """What was rendered, and all that it takes to do it again."""
    return {
        "split": options.split if options.path == NO_PATH else None,
        "path": options.path,
        "style": style,
        "digest": checkpoint.fields[field].digest,
        "command": shlex.join(sys.argv),
        "options": options.to_dict(),
        "training_options": checkpoint.options,
        "versions": versions(),
    }


def write_view(
    directory: Path, name: str, picture: Picture, scene: Scene, formats: Sequence[str]
) -> None:
    """The frame, its depth in colours, and its depth in numbers: ``formats`` of png, pfm, raw."""
    depth, opacity = picture.depth.cpu(), picture.opacity.cpu()
    write_image(directory / f"{name}.png", picture.rgb.cpu())
    colours = depth_to_colour(depth, opacity, scene.near, scene.far)
    write_image(directory / f"depth_{name}_colour.png", colours)
    if "png" in formats:
        write_depth_png16(directory / f"depth_{name}.png", depth, opacity, scene.near, scene.far)
    if "pfm" in formats:
        write_pfm(directory / f"depth_{name}.pfm", depth, opacity)
    if "raw" in formats:
        write_raw(directory / f"depth_{name}.raw", depth, opacity)


def print_report(report: dict[str, Any], directory: Path, name: str) -> None:
    """The means in one line, then where everything is."""
    shown = [k for k, v in report.items() if isinstance(v, float)]
    print("  ".join(f"{key} {report[key]:.4g}" for key in shown))
    for key, reason in report["left_out"].items():
        print(f"{key} is left out: {reason}")
    print(f"frames, depth, video and metrics.json: {directory}    GIF: {name}.gif")


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    keep_memory()
    evaluate(parse_eval())


if __name__ == "__main__":
    main()
