"""``python -m benchmarks style_lab``: what each way of painting makes of a scene and a painting.

Every variant is one run of pipeline.py with the same seed and number of steps; then eval.py
--compare measures all of them and puts their views on one sheet.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import run_script
from benchmarks.settings import DATA, RESULTS, ROOT
from benchmarks.table import shown
from datasets.embedded.write import write_demo
from utils.errors import UserError
from utils.tables import markdown_table

# name -> options; "vgg16", "vgg19": with that network's weights, where they are given
VARIANTS: dict[str, tuple[str, ...]] = {
    "nnfm-vgg16": ("--objective", "nnfm", "--features", "vgg16"),
    "nnfm-vgg19": ("--objective", "nnfm", "--features", "vgg19"),
    "nnfm-own": ("--objective", "nnfm", "--features", "own"),
    "nnfm-own-patch": ("--objective", "nnfm", "--features", "own", "--style_mode", "patch"),
    "nnfm-own-small": ("--objective", "nnfm", "--features", "own", "--style_mode", "small"),
    "nnfm-own-all-pixels": ("--objective", "nnfm", "--features", "own", "--coarse_share", "0"),
    "gram-vgg19": ("--objective", "gram", "--features", "vgg19"),
    "adain-own": ("--objective", "adain", "--features", "own"),
    "swd": ("--objective", "swd", "--features", "own"),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks style_lab",
        description="Ways of painting, side by side: time, memory, all measures, one sheet.",
    )
    p.add_argument("--root_dir", type=Path, metavar="DIR", help="scene (default: the embedded one)")
    p.add_argument("--ckpt_path", type=Path, metavar="FILE", help="its geometry (default: trained)")
    p.add_argument(
        "--config", type=Path, metavar="FILE", help="recipe (default: configs/demo.yaml)"
    )
    p.add_argument("--style_dir", type=Path, metavar="FILE", help="painting (default: embedded)")
    p.add_argument(
        "--vgg16", type=Path, metavar="FILE", help="VGG-16's weights, to be compared too"
    )
    p.add_argument(
        "--vgg19", type=Path, metavar="FILE", help="VGG-19's weights, to be compared too"
    )
    p.add_argument("--steps", type=int, default=240, help="of every variant (default: 240)")
    p.add_argument("--only", nargs="+", metavar="NAME", choices=VARIANTS, help="some variants")
    p.add_argument("--measure", nargs="+", default=["quality"], help="as eval.py's")
    p.add_argument("--quick", action="store_true", help="a smoke test, measures nothing")
    p.add_argument("--out", type=Path, default=RESULTS / "style_lab", metavar="DIR")
    return p


def main(argv: Sequence[str]) -> None:
    """Trains the variants, compares them, and writes style_lab.md."""
    options = parser().parse_args(argv)
    out = options.out.resolve()
    config = (options.config or ROOT / "configs" / "demo.yaml").resolve()
    scene, image = inputs_of(options)
    recipe = ["--config", str(config), "--root_dir", str(scene), "--ckpt_dir", str(out / "ckpts")]
    recipe += ["--log_dir", str(out / "runs"), "--scene_name", "lab"]
    geometry = options.ckpt_path
    if geometry is None:
        few = ["--max_steps", "20", "--voxel_resolution", "24"] if options.quick else []
        print("geometry", flush=True)
        run_script("pipeline.py", "--stage", "geometry", *recipe, *few)
        geometry = out / "ckpts" / "lab_geometry.ckpt"
    rows, paths = [], []
    for name, words in variants_of(options):
        print(name, flush=True)
        own = ["--style_dir", str(image), "--ckpt_path", str(geometry.resolve()), "--suffix", name]
        steps = ["--max_steps", str(2 if options.quick else options.steps)]
        seconds, memory = run_script(
            "pipeline.py", "--stage", "style", *recipe, *own, *steps, *words
        )
        rows.append([name, shown(seconds, "s"), shown(memory, "B")])
        paths.append(str(out / "ckpts" / f"lab_{name}.ckpt"))
    costs = markdown_table(["variant", "time", "peak memory"], rows)
    print(costs, flush=True)
    compared = ["--output_dir", str(out), "--measure", *options.measure]
    run_script("eval.py", "--compare", *paths, *compared)
    text = (out / "comparison" / "comparison.md").read_text()
    (out / "style_lab.md").write_text(f"{costs}\n\n{text}")
    (out / "style_lab.json").write_text(json.dumps({"costs": rows, "options": argv}, indent=2))
    print(f"{text}\n\nstyle_lab.md, comparison/comparison.png: {out}")


def inputs_of(options: argparse.Namespace) -> tuple[Path, Path]:
    """The scene's folder and the painting's file; the embedded ones where none are given."""
    scene, image = options.root_dir, options.style_dir
    if scene is None or image is None:
        embedded_scene, embedded_painting = write_demo(DATA / "lab")
        scene, image = scene or embedded_scene, image or embedded_painting
    return scene.resolve(), image.resolve()


def variants_of(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Names and options of the variants for which there are weights; says which are left out.

    Raises:
        UserError: none is left.
    """
    found = False
    for name, words in VARIANTS.items():
        if options.only and name not in options.only:
            continue
        network = next((n for n in ("vgg16", "vgg19") if n in words), None)
        weights = getattr(options, network) if network else None
        if network and weights is None:
            print(f"{name}: left out; give --{network} FILE", flush=True)
            continue
        found = True
        yield name, [*words, *(["--vgg_weights", str(weights.resolve())] if weights else [])]
    if not found:
        raise UserError("--only: none of these variants has its weights; give --vgg16 or --vgg19")
