"""The main job on the embedded scene, without any download: geometry, style, GIF.

make demo, or python demo.py
"""

from __future__ import annotations

from utils.threads import spin_briefly

spin_briefly()  # before PyTorch is imported

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from datasets.embedded.write import write_demo
from eval import evaluate
from features.vgg import vgg_in_cache
from opt import parse_eval, parse_train
from pipeline import train
from systems.run import Run
from utils.errors import exits_cleanly
from utils.images import read_image, resize, write_image
from utils.machine import keep_memory

CONFIG = "configs/demo.yaml"
DATA = Path("data/demo")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of ``work`` and the seconds it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def write_sheet(path: Path, photos: str, painting: Path, stylised: str) -> None:
    """A photographic frame, the painting, and two painted frames, side by side."""
    files = [Path(photos) / "003.png", painting]
    files += [Path(stylised) / f"{number:03d}.png" for number in (0, 20)]
    images = [torch.from_numpy(read_image(file)[0]).float() / 255 for file in files]
    height = 2 * images[0].shape[0]
    scaled = [resize(i, round(i.shape[1] * height / i.shape[0]), height) for i in images]
    write_image(path, torch.cat(scaled, 1))


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    warnings.filterwarnings("ignore")
    keep_memory()
    (scene, painting), making = timed(lambda: write_demo(DATA))
    common = ["--config", CONFIG, "--root_dir", str(scene)]
    looking = vgg_in_cache() or "our own encoder (no VGG is at hand)"
    print(f"the style loss looks through {looking}")

    geometry = parse_train([*common, "--stage", "geometry"])
    _, learning = timed(lambda: train(geometry))
    photo = evaluate(parse_eval(["--ckpt_path", str(Run(geometry).path)]))

    where = ["--style_dir", str(painting), "--ckpt_path", str(Run(geometry).path)]
    style = parse_train([*common, "--stage", "style", *where])
    _, painting_time = timed(lambda: train(style))
    words = ["--ckpt_path", str(Run(style).path), "--path", "circle"]
    stylised = evaluate(parse_eval(words))

    sheet = Path(stylised["directory"]) / "sheet.png"
    write_sheet(sheet, photo["directory"], painting, stylised["directory"])
    rows = {
        "scene and painting": f"{making:.0f} s",
        "stage geometry": f"{learning:.0f} s",
        "stage style": f"{painting_time:.0f} s",
        "PSNR on held-out views": f"{photo['psnr']:.2f} dB",
        "SSIM on held-out views": f"{photo['ssim']:.3f}",
        "rendering, photographic": f"{photo['seconds_per_frame']:.2f} s a frame",
        "rendering, stylised": f"{stylised['seconds_per_frame']:.2f} s a frame",
        "stylised GIF": stylised["gif"],
        "scene, painting, both": str(sheet),
        "stylised video": stylised["mp4"],
        "photographic GIF": photo["gif"],
        "frames and metrics": stylised["directory"],
        "checkpoints": f"{Run(geometry).path}, {Run(style).path}",
        "TensorBoard": f"tensorboard --logdir {geometry.log_dir}",
    }
    print()
    for name, value in rows.items():
        print(f"{name:<26}{value}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0]).parse_args()
    main()
