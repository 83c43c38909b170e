"""Render and measure a trained field: PNG, depth, GIF, MP4, metrics.json.

python eval.py --ckpt_path ckpts/lego_geometry.ckpt
python eval.py --compare ckpts/lego_starry_night.ckpt ckpts/lego_wave.ckpt
"""

from __future__ import annotations

from opt import SCENE, EvalOptions, TrainOptions, parse_eval
from utils.errors import UserError, exits_cleanly
from utils.threads import spin_briefly

spin_briefly()  # before PyTorch is imported
if __name__ == "__main__":  # help and mistakes do not wait for what takes seconds to import
    exits_cleanly(parse_eval)()

import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from assets.contact_sheet import Row, contact_sheet, shown_of
from assets.frames import Frames
from assets.weights import read_trained
from datasets.cameras.camera_path import cameras_along
from datasets.cameras.rays import Cameras
from datasets.formats.names import NO_PATH
from datasets.load import load_scene
from datasets.pairs import source_of
from datasets.portable import place_as, scene_from
from datasets.scene import Scene, View
from measures.comparison import comparison_text
from measures.consistency import default_path
from measures.stylised import (
    Subject,
    ViewQuality,
    measuring_network,
    path_consistency,
    path_legacy,
    require_refittable,
    view_refit,
    write_measures,
    write_report,
)
from measures.views import Measures, painting_of
from models.checkpoint import PHOTO, Checkpoint
from models.mixing import Mixture
from models.renderer import render_view
from systems.launch import launch
from systems.novel_codes import codes_of
from systems.regions import read_regions, with_regions
from utils.checkpoint import ensure_writable
from utils.depth import depth_to_colour
from utils.files import replacing, require_no_folders
from utils.images import read_image, to_uint8, write_image
from utils.lock import lock
from utils.machine import accelerator, keep_memory, mixed_precision, versions
from utils.metrics import means
from utils.results import COMPARISON, results_name
from utils.video import write_gif

FPS = 15  # of a path that does not say how many


def evaluate(options: EvalOptions, like: Path | None = None) -> dict[str, Any]:
    """`rendered`, alone in its folder: for arguments, result and errors see there."""
    with ExitStack() as held:
        return rendered(options, like, held)


def rendered(options: EvalOptions, like: Path | None, held: ExitStack) -> dict[str, Any]:
    """Renders the views asked for and measures them.

    Args:
        options: of eval.py.
        like: a checkpoint through whose network to measure; None: through this one's own.
        held: gets the lock of the folder that is written to.

    Returns:
        What is written to metrics.json, and where the files are; under "measures" what is written
        to measures.json, if anything is.

    Raises:
        UserError: bad input.
    """
    checkpoint = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    options, mixture, shown = chosen_of(options, checkpoint)
    field, style = mixture.field, mixture.style
    regions = read_regions(options.regions, checkpoint)
    directory = ensure_writable(options.directory)
    name = options.gif_name or directory.name
    gif, mp4 = directory / f"{name}.gif", directory / f"{name}.mp4"
    require_no_folders(gif, mp4, directory / "metrics.json", directory / "measures.json")
    device = accelerator(options.device, options.num_gpus)
    networks = mixed_precision(options.precision, device)
    scene, photographed = scene_of(options, checkpoint.scenes[field])
    cameras, photos, fps = views_of(scene, options)
    options = replace(options, fps=options.fps or fps or FPS)
    team, device = launch(device, options.num_gpus, options.num_nodes)
    if team.rank == 0:
        busy = f"{directory}: another program renders here; wait, or give another --output_dir"
        held.enter_context(lock(directory / ".lock", busy))
    renderer, cameras = mixture.renderer(checkpoint).to(device), cameras.to(device)
    if regions:
        with_regions(renderer, checkpoint, field, scene, regions)
    codes = codes_of(renderer.field.style, cameras, scene, options.sigma_scale)
    smallest = int(cameras.sizes.min())
    photos = photos if photographed and shown and not regions else []
    colours = PHOTO if style in checkpoint.decoders else style
    measures = Measures(checkpoint, colours, photos, smallest, device)
    if len(mixture.paintings) > 1 or regions:
        measures.leave_out_style("of a mixture: there is no painting of it; render one --style")
    subject = quality = None
    if options.measure:
        model = checkpoint if like is None else read_trained(like, None, None)
        network = measuring_network(model, model.chosen()[1] if like else colours, device)
        subject = Subject(checkpoint, field, colours, renderer, networks, network, options.chunk)
    if "refit" in options.measure:
        require_refittable(subject)
    if "quality" in options.measure:
        quality = ViewQuality(subject, photos, cameras)
    frames = Frames(directory, scene.near, scene.far, options.depth_format)

    own: dict[int, tuple[dict[str, float], float]] = {}
    judged: dict[str, Any] = {}
    numbers = team.share(range(len(cameras)))
    for index in tqdm(numbers, desc="rendering", unit="view", disable=team.rank > 0):
        start = time.perf_counter()
        with networks:
            picture = render_view(renderer, cameras, index, options.chunk, codes[index]).cpu()
        seconds = time.perf_counter() - start
        frames.write(index, picture)
        own[index] = measures(index, picture), seconds
        if quality is not None:
            judged[Frames.name(index)] = quality(index, picture)
    measured = {index: found for part in team.gather(own) for index, found in part.items()}

    about = {
        "split": options.split if options.path == NO_PATH else None,
        "path": options.path,
        "field": field,
        "style": str(mixture),
        "regions": list(options.regions),
        "digest": checkpoint.fields[field].digest,
        "command": shlex.join(sys.argv),
        "options": options.to_dict(),
        "training_options": checkpoint.options,
        "versions": versions(),
    }
    report = summary(measured, measures.left_out) | about
    if quality is not None:
        views = {name: found for part in team.gather(judged) for name, found in part.items()}
        about["quality"] = quality.report(dict(sorted(views.items())))
    if team.rank == 0:
        with replacing(directory / "metrics.json") as partial:
            partial.write_text(json.dumps(report, indent=2))
        frames.drop_after(len(cameras))
        videos = frames.write_videos(sorted(measured), gif, mp4, options.fps)
        print_report(report, directory, videos)
        if {"consistency", "legacy"} & {*options.measure}:
            path = default_path(scene) if options.path == NO_PATH else options.path
            along = views_of(scene, replace(options, path=path))[0].to(device)
        if "consistency" in options.measure:
            own_photos = scene if photographed and shown else None
            about["consistency"] = {"path": path} | path_consistency(subject, along, own_photos)
        if "legacy" in options.measure:
            about["legacy"] = {"path": path} | path_legacy(subject, along)
        if "refit" in options.measure:
            about["refit"] = view_refit(subject, scene)
        if options.measure:
            print(write_measures(directory, about))
    found = report | {"directory": str(directory), "gif": str(gif), "mp4": str(mp4)}
    return found | ({"measures": about} if options.measure else {})


def compare(options: EvalOptions) -> dict[str, Any]:
    """Evaluates several checkpoints, each in a folder of its own, and puts their measures into one
    table and their views on one sheet.

    Returns:
        What is written to comparison.json.

    Raises:
        UserError: bad input.
    """
    paths = {results_name(path): path for path in options.compare}
    if len(paths) < len(options.compare):
        raise UserError("--compare: two files of the same name; rename one")
    scenes, paintings, first = {}, {}, None
    for name, path in paths.items():
        checkpoint = read_trained(path, None, None)
        scenes[path] = checkpoint.options.get("scene_name")
        paintings[name] = painting_at_hand(options, checkpoint)
        first = first or checkpoint
    if len({*scenes.values()}) > 1:
        found = ", ".join(f"{path}: {scene}" for path, scene in scenes.items())
        raise UserError(f"--compare: different scenes ({found}); give checkpoints of one")
    place = ensure_writable(options.output_dir / COMPARISON)
    reports, files = {}, {}
    for name, path in paths.items():
        print(f"{name}: {path}")
        measure = options.measure or ("consistency", "quality")
        own = replace(options, ckpt_path=path, compare=(), measure=measure, output_dir=place)
        report = evaluate(own, options.compare[0])
        reports[name] = report["measures"]
        files[name] = [Path(report["directory"]) / f"{view}.png" for view in report["views"]]
    shown = shown_of(min(map(len, files.values())))
    rows = unpainted(options, first, shown)
    for name, own in files.items():
        views = [torch.from_numpy(read_image(own[index])[0]) for index in shown]
        rows.append(Row(name, views, paintings[name]))
    text = comparison_text(reports)
    write_report(place, "comparison", reports, text)
    write_image(place / "comparison.png", contact_sheet(rows))
    print(f"{text}\n\ncomparison.md, comparison.json and comparison.png: {place}")
    return reports


def painting_at_hand(options: EvalOptions, checkpoint: Checkpoint) -> Tensor | None:
    """The painting (H, W, 3) uint8 of the colours that are asked for; None where they are of no
    painting or of several, or it is gone."""
    _, mixture, _ = chosen_of(options, checkpoint)
    if len(mixture.paintings) != 1 or mixture.style not in checkpoint.styles:
        return None
    try:
        return painting_of(TrainOptions.from_dict(checkpoint.styles[mixture.style].options))
    except UserError:
        return None


def unpainted(options: EvalOptions, checkpoint: Checkpoint, shown: Sequence[int]) -> list[Row]:
    """What was painted, as a row of `compare`'s sheet: the photographs of some views or, without
    them, renders in the photographic colours; no row where the checkpoint has neither."""
    options, mixture, _ = chosen_of(options, checkpoint)
    scene, photographed = scene_of(options, checkpoint.scenes[mixture.field])
    cameras, photos, _ = views_of(scene, options)
    if photographed and photos:
        return [Row("photographs", [photos[index].image for index in shown])]
    if checkpoint.decoders or not checkpoint.fields[mixture.field].has_photo_colours:
        return []
    device = accelerator(options.device)
    renderer = checkpoint.renderer(mixture.field, PHOTO).to(device)
    cameras = cameras.to(device)
    pictures = (render_view(renderer, cameras, index, options.chunk) for index in shown)
    return [Row("unstylised renders", [to_uint8(picture.rgb).cpu() for picture in pictures])]


def spin(options: EvalOptions) -> list[Path]:
    """``--gif_only``: once around the scene, or along ``--path``, as two GIFs and nothing else.

    Returns:
        The files: of colour, and of depth.

    Raises:
        UserError: bad input.
    """
    checkpoint = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    options, mixture, _ = chosen_of(options, checkpoint)
    regions = read_regions(options.regions, checkpoint)
    directory = ensure_writable(options.directory)
    name = options.gif_name or directory.name
    files = [directory / f"{name}{suffix}.gif" for suffix in ("", "_depth")]
    require_no_folders(*files)
    if options.path == NO_PATH:
        options = replace(options, path="circle")
    scene, _ = scene_of(options, checkpoint.scenes[mixture.field])
    cameras, _, fps = views_of(scene, options)
    device = accelerator(options.device, options.num_gpus)
    networks = mixed_precision(options.precision, device)
    team, device = launch(device, options.num_gpus, options.num_nodes)
    renderer, cameras = mixture.renderer(checkpoint).to(device), cameras.to(device)
    if regions:
        with_regions(renderer, checkpoint, mixture.field, scene, regions)
    codes = codes_of(renderer.field.style, cameras, scene, options.sigma_scale)
    own = {}
    numbers = team.share(range(len(cameras)))
    for index in tqdm(numbers, desc="rendering", unit="view", disable=team.rank > 0):
        with networks:
            picture = render_view(renderer, cameras, index, options.chunk, codes[index]).cpu()
        depth = depth_to_colour(picture.depth, picture.opacity, scene.near, scene.far)
        own[index] = to_uint8(picture.rgb).numpy(), depth
    frames = {index: pair for part in team.gather(own) for index, pair in part.items()}
    if team.rank == 0:
        pairs = [frames[index] for index in sorted(frames)]
        for file, pictures in zip(files, zip(*pairs, strict=True), strict=True):
            write_gif(file, pictures, options.fps or fps or FPS)
    return files


def chosen_of(options: EvalOptions, checkpoint: Checkpoint) -> tuple[EvalOptions, Mixture, bool]:
    """The options with the checkpoint's scene, the colours that they ask for, and whether the
    scene's photos show these."""
    mixture = Mixture.asked(
        checkpoint, options.style, options.strength, options.encoder, options.decoder
    )
    saved, shown = checkpoint.options, True
    if checkpoint.decoders:  # photos in the colours of another decoder are no truth
        saved, shown = source_of(checkpoint.options, mixture.field, mixture.style)
        shown = shown or "root_dir" in options.given
    return options.filled_from(saved, SCENE), mixture, shown


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


def summary(
    measured: Mapping[int, tuple[dict[str, float], float]], left_out: Mapping[str, str]
) -> dict[str, Any]:
    """Means of the measures, each view's, and why a measure is left out."""
    views = {Frames.name(index): measured[index][0] for index in sorted(measured)}
    seconds = sum(spent for _, spent in measured.values()) / len(measured)
    return {
        **means(list(views.values())),
        "views": views,
        "left_out": left_out,
        "seconds_per_frame": seconds,
    }


def print_report(report: Mapping[str, Any], directory: Path, videos: Sequence[Path]) -> None:
    """The means in one line, then where everything is."""
    shown = [k for k, v in report.items() if isinstance(v, float)]
    print("  ".join(f"{key} {report[key]:.4g}" for key in shown))
    for key, reason in report["left_out"].items():
        print(f"{key} is left out: {reason}")
    seen = ["   video:", *videos] if videos else []
    print(f"frames, depth and metrics.json: {directory}", *seen)


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    keep_memory()
    options = parse_eval()
    if options.compare:
        compare(options)
    elif options.gif_only:
        print("written:", *spin(options))
    else:
        evaluate(options)


if __name__ == "__main__":
    main()
