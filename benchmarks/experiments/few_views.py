"""``python -m benchmarks few_views``: what a scene from few photos is worth, on the test views.

Each cell of the table is a way of learning, with a field, from a number of photos; it is learned
once for each draw of the photos, and the table has mean and spread over the draws.  What a table in
``--out`` has already is not learned again, so a table can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import run_script
from benchmarks.settings import RESULTS, ROOT
from benchmarks.table import shown
from utils.errors import UserError
from utils.tables import markdown_table

VIEWS: dict[str, tuple[str, ...]] = {
    "4": ("--few_shot", "4"),
    "8": ("--few_shot", "8"),
    "14": ("--few_shot", "14"),
    "14 occluded": ("--few_shot", "14", "--occluded", "left"),
}
CONFIGS = {"voxels": "few_views.yaml", "nerf": "nerf_cpu.yaml"}
# what needs no network: off, and on
FREE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # the recipe has it
    "voxels": (
        (
            *("--density_smoothness", "0", "--no-matte", "--silhouette_weight", "0"),
            *("--visible_weight", "0", "--colour_smoothness", "0", "--no-stereo"),
        ),
        (),
    ),
    "nerf": ((), ("--coarse_to_fine", "0.7")),
}
WAYS = ("plain", "network-free", "semantic", "all")
MEASURES = ("psnr", "ssim", "lpips")
# what all lines of a table have in common
COMMON = ("root_dir", "semantic", "img_wh", "max_steps", "hull")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks few_views",
        description="Scenes from few photos: PSNR, SSIM and LPIPS of the test views, over draws.",
    )
    p.add_argument("--root_dir", type=Path, required=True, metavar="DIR", help="a scene, with test")
    p.add_argument("--views", nargs="+", default=list(VIEWS), choices=VIEWS, metavar="N")
    p.add_argument("--fields", nargs="+", default=list(CONFIGS), choices=CONFIGS)
    p.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    p.add_argument("--draws", type=int, default=3, help="of the photos (default: 3)")
    p.add_argument(
        "--semantic", default="efficientnet", metavar="NAME", help="encoder, as pipeline.py's"
    )
    p.add_argument("--img_wh", nargs=2, type=int, default=[400, 400], metavar="N")
    p.add_argument("--max_steps", type=int, metavar="N", help="(default: the recipe's)")
    p.add_argument("--hull", action=argparse.BooleanOptionalAction, default=False)
    p.add_argument("--quick", action="store_true", help="one cell, tiny: a smoke test")
    p.add_argument("--out", type=Path, default=RESULTS / "few_views", metavar="DIR")
    return p


def words_of(field: str, way: str, semantic: str) -> list[str]:
    """Options of one of `WAYS`."""
    words = [*FREE[field][way in ("network-free", "all")]]
    return words + (["--semantic", semantic] if way in ("semantic", "all") else [])


def main(argv: Sequence[str]) -> None:
    """Trains and measures every cell, and writes few_views.md and .json as it goes.

    Raises:
        UserError: the folder has a table of something else.
    """
    options = parser().parse_args(argv)
    if options.quick:
        options.views, options.fields, options.ways = ["4"], ["voxels"], ["all"]
        options.draws, options.semantic, options.img_wh, options.max_steps = 1, "own", [40, 40], 20
    options.root_dir = options.root_dir.resolve()
    out = options.out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    common = json.loads(json.dumps({name: getattr(options, name) for name in COMMON}, default=str))
    rows = rows_in(out, common)
    for views in options.views:
        for field in options.fields:
            for way in options.ways:
                row = row_of(rows, views, field, way)
                for draw in range(len(row["draws"]), options.draws):
                    row["draws"].append(learned(options, views, field, way, draw))
                    content = {"options": common, "rows": rows}
                    (out / "few_views.json").write_text(json.dumps(content, indent=2))
                    (out / "few_views.md").write_text(table(rows) + "\n")
                    print(table([row]), flush=True)
    print(f"{table(rows)}\n\nfew_views.md, few_views.json: {out}")


def rows_in(out: Path, common: dict) -> list[dict]:
    """The rows of the table in a folder; none where there is no table.

    Args:
        common: the `COMMON` options of the table that is to be made.

    Raises:
        UserError: it was made with others.
    """
    file = out / "few_views.json"
    if not file.exists():
        return []
    found = json.loads(file.read_text())
    for name in COMMON:
        if found["options"][name] != common[name]:
            raise UserError(
                f"{file}: was made with --{name} {found['options'][name]}, not {common[name]}; "
                "give another --out"
            )
    return found["rows"]


def row_of(rows: list[dict], views: str, field: str, way: str) -> dict:
    """The line of a cell, which is added where it is not there."""
    for row in rows:
        if (row["views"], row["field"], row["way"]) == (views, field, way):
            return row
    rows.append({"views": views, "field": field, "way": way, "draws": []})
    return rows[-1]


def learned(options: argparse.Namespace, views: str, field: str, way: str, draw: int) -> dict:
    """The measures of one draw, and the processor's seconds for learning it."""
    name = f"{views}_{field}_{way}_{draw}".replace(" ", "_")
    print(name, flush=True)
    out = options.out
    recipe = ["--config", str(ROOT / "configs" / CONFIGS[field])]
    recipe += ["--root_dir", str(options.root_dir), "--prefix", name]
    recipe += ["--img_wh", *map(str, options.img_wh), "--hull" if options.hull else "--no-hull"]
    recipe += ["--shuffle_seed", str(draw), "--seed", str(draw), "--ckpt_dir", str(out / "ckpts")]
    recipe += ["--log_dir", str(out / "runs"), *VIEWS[views]]
    recipe += ["--max_steps", str(options.max_steps)] if options.max_steps else []
    recipe += ["--voxel_resolution", "24"] if options.quick else []
    before = _childrens_seconds()
    words = words_of(field, way, options.semantic)
    run_script("pipeline.py", "--stage", "geometry", *recipe, *words)
    seconds = _childrens_seconds() - before
    ckpt, renders = out / "ckpts" / f"{name}_geometry.ckpt", out / "renders"
    run_script("eval.py", "--ckpt_path", str(ckpt), "--output_dir", str(renders))
    metrics = json.loads((renders / ckpt.stem / "metrics.json").read_text())
    return {m: metrics[m] for m in MEASURES if m in metrics} | {"seconds": seconds}


def _childrens_seconds() -> float:
    """Of the processor, for the scripts that have been run."""
    times = os.times()
    return times.children_user + times.children_system


def table(rows: Sequence[dict]) -> str:
    """The table: mean and spread (standard deviation) over the draws, and the worst PSNR."""
    headings = ["photos", "field", "learned", *MEASURES, "worst psnr", "processor time"]
    lines = []
    for row in rows:
        if not (draws := row["draws"]):
            continue
        cells = [_spread([draw[m] for draw in draws if m in draw]) for m in MEASURES]
        worst = f"{min(draw['psnr'] for draw in draws):.2f}"
        time = shown(statistics.mean(draw["seconds"] for draw in draws), "s")
        lines.append([row["views"], row["field"], row["way"], *cells, worst, time])
    return markdown_table(headings, lines)


def _spread(values: Sequence[float]) -> str | None:
    if not values:
        return None
    deviation = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{deviation}"
