"""Joint training on embedded scenes, without any download: how toys would look in a style that only
a garden was seen in, against how they do look.

make demo-joint, or python demo_joint.py
"""

from __future__ import annotations

from utils.threads import spin_briefly

spin_briefly()  # before PyTorch is imported

import argparse
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor

from analyse import analyse
from datasets.embedded.garden import write_worlds
from datasets.load import load_scene
from datasets.scene import View
from demo import timed
from eval import evaluate
from losses.colour_transfer import fit_colour_transfer
from opt import parse_analyse, parse_eval, parse_train
from pipeline import train
from utils.errors import exits_cleanly
from utils.images import over_white, read_image, resize, write_image
from utils.machine import keep_memory
from utils.metrics import psnr

CONFIG = "configs/demo_joint.yaml"
DATA = Path("data/demo_joint")


def photos_of(folder: Path, split: str) -> list[View]:
    """The views of a data set."""
    options = parse_train(["--stage", "geometry", "--root_dir", str(folder)])
    return getattr(load_scene(options), split)


def objects_of(views: list[View]) -> Tensor:
    """Colours (N, 3) in [0, 1] of all opaque pixels."""
    return torch.cat([view.image[view.alpha == 255] for view in views]).float() / 255


def colour_transfer_psnr(folders: dict[str, Path]) -> float:
    """What a plain colour transfer would reach: the map of means and covariances from the garden's
    photos to those in its second style, applied to the toys' own photos."""
    source, target = (objects_of(photos_of(folders[n], "train")) for n in ("garden", "garden_blue"))
    transfer = fit_colour_transfer(source, target)
    found = []
    truths = photos_of(folders["toys_blue"], "test")
    for photo, truth in zip(photos_of(folders["toys"], "test"), truths, strict=True):
        cover = photo.alpha.float()[..., None] / 255
        straight = (photo.image.float() / 255 - (1 - cover)) / cover.clamp(min=1 / 255)
        image = transfer.apply(straight.clamp(0, 1)).clamp(0, 1) * cover + 1 - cover
        found.append(psnr(image, truth.image.float() / 255))
    return sum(found) / len(found)


def write_sheet(path: Path, directories: list[str], truth: Path) -> None:
    """A view of each rendering, and the truth of the last, side by side."""
    files = [Path(directory) / "003.png" for directory in directories] + [truth]
    images = [torch.from_numpy(over_white(*read_image(file))).float() / 255 for file in files]
    height = 2 * images[0].shape[0]
    write_image(path, torch.cat([resize(i, height, height) for i in images], 1))


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    warnings.filterwarnings("ignore")
    keep_memory()
    folders, making = timed(lambda: write_worlds(DATA))
    options = parse_train(["--config", CONFIG, "--stage", "joint"])
    (checkpoint,), learning = timed(lambda: train(options))
    reports = {}
    for encoder, decoder in (
        ("toys", "plain"),
        ("garden", "plain"),
        ("garden", "blue"),
        ("toys", "blue"),
    ):
        words = f"--ckpt_path {checkpoint} --encoder {encoder} --decoder {decoder}"
        if (encoder, decoder) == ("toys", "blue"):  # never seen in training: the truth
            words += f" --root_dir {folders['toys_blue']}"
        reports[encoder, decoder] = evaluate(parse_eval(words.split()))
    for name in ("feature_map", "overlap"):
        analysis = parse_analyse([name, "--ckpt_path", str(checkpoint)])
        analyse(analysis)
    sheet = analysis.directory / "sheet.png"
    directories = [report["directory"] for report in reports.values()]
    write_sheet(sheet, directories, folders["toys_blue"] / "test" / "r_3.png")
    swap = reports.pop(("toys", "blue"))
    rows = {
        "three data sets, and a truth": f"{making:.0f} s",
        "stage joint": f"{learning:.0f} s",
        **{f"PSNR of {e} in {d}": f"{r['psnr']:.2f} dB" for (e, d), r in reports.items()},
        "PSNR of the swap, toys in blue": f"{swap['psnr']:.2f} dB",
        "PSNR of a plain colour transfer": f"{colour_transfer_psnr(folders):.2f} dB",
        "all, and the swap's truth": str(sheet),
        "feature map, overlap": str(analysis.directory),
        "checkpoint": str(checkpoint),
    }
    print()
    for name, value in rows.items():
        print(f"{name:<34}{value}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0]).parse_args()
    main()
