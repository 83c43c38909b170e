"""Render and measure a trained field: PNG, depth, GIF, MP4, metrics.json.

python eval.py --ckpt_path ckpts/lego_geometry.ckpt
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from assets.weights import load_any_field
from datasets.cameras import Cameras
from datasets.load import load_scene
from datasets.paths import circle_path
from datasets.portable import place_as, scene_from
from datasets.scene import Scene
from models.renderer import Renderer
from opt import SCENE, EvalOptions, parse_eval
from systems.checkpoints import geometry_digest
from systems.processes import launch
from systems.rendering import Picture, render_view
from systems.style_metrics import StyleMeter
from utils.checkpoint import ensure_writable
from utils.colormap import depth_to_colour, write_depth_png16
from utils.depth import write_pfm, write_raw
from utils.errors import UserError, exits_cleanly
from utils.images import read_image, write_image
from utils.machine import accelerator, keep_memory
from utils.metrics import psnr, ssim
from utils.video import write_gif, write_mp4


def evaluate(options: EvalOptions) -> dict[str, Any]:
    """Renders the views asked for and measures them.

    Returns:
        What is written to metrics.json.

    Raises:
        UserError: bad input.
    """
    payload = load_any_field(options.ckpt_path, options.coarse_path, options.fine_path)
    if geometry_digest(payload["state"]) != payload["digest"]:
        raise UserError("the geometry in the checkpoint is not the one its digest was made of")
    options = options.filled_from(payload["options"], SCENE)
    directory = options.output_dir / options.dataset_name / options.scene_name
    ensure_writable(directory)
    device = accelerator(options.device, options.num_gpus)
    blank = None if photos_at_hand(options) else scene_from(payload["scene"])
    scene = blank or load_scene(options)
    scene = place_as(scene, payload["scene"])
    renderer = Renderer.from_state(payload["spec"], payload["state"]).eval()
    cameras, photos = views_of(scene, options)
    photos = [] if blank else photos
    team, device = launch(device, options.num_gpus, options.num_nodes)
    renderer, cameras = renderer.to(device), cameras.to(device)
    meter = StyleMeter.of(payload, device) if payload["kind"] == "style" else None
    own: dict[int, tuple[dict[str, float], float]] = {}
    numbers = team.share(range(len(cameras)))
    for index in tqdm(numbers, desc="rendering", unit="view", disable=team.rank > 0):
        start = time.perf_counter()
        picture = render_view(renderer, cameras, index, options.chunk)
        picture.rgb.cpu()
        seconds = time.perf_counter() - start
        write_view(directory, f"{index:03d}", picture, scene, options.depth_format)
        own[index] = measure(picture, photos[index].image if photos else None, meter), seconds
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
        "seconds_per_frame": sum(seconds) / len(seconds),
        "split": options.split,
        "kind": payload["kind"],
        "digest": payload["digest"],
        "options": payload["options"],
        "versions": {"torch": str(torch.__version__)},
    }
    if team.rank == 0:
        (directory / "metrics.json").write_text(json.dumps(report, indent=2))
        print_report(report, directory, name)
    return report | {"directory": str(directory), "video": str(directory / f"{name}.mp4")}


def photos_at_hand(options: EvalOptions) -> bool:
    """Whether to load the scene's photos: they are there, or were asked for."""
    root_dir = options.root_dir
    return "root_dir" in options.given or (root_dir is not None and root_dir.is_dir())


def views_of(scene: Scene, options: EvalOptions) -> tuple[Cameras, list]:
    """The cameras to render, and the photos to compare with where there are any."""
    if options.split == "circle":
        return circle_path(scene, options.n_frames), []
    views = getattr(scene, options.split)
    return Cameras.within(scene, views), views


def measure(picture: Picture, photo: Tensor | None, meter: StyleMeter | None) -> dict[str, float]:
    """Likeness to the photo; for a stylised field its distances to painting and photo instead."""
    if meter is not None:
        return meter(picture, photo)
    if photo is None:
        return {}
    truth = photo.float() / 255
    rgb = picture.rgb.cpu()
    return {"psnr": psnr(rgb, truth), "ssim": ssim(rgb, truth)}


def mean_of(views: dict[str, dict[str, float]], key: str) -> float:
    """Mean of one measure over the views."""
    return sum(values[key] for values in views.values()) / len(views)


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
    print(f"frames, depth, video and metrics.json: {directory}    GIF: {name}.gif")


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    keep_memory()
    evaluate(parse_eval())


if __name__ == "__main__":
    main()
