"""Write a trained field as files that other programs read.

python export.py mesh --ckpt_path ckpts/lego_geometry.ckpt
python export.py volume|cameras|weights --ckpt_path ckpts/lego_geometry.ckpt
"""

from __future__ import annotations

from opt import SCENE, ExportOptions, parse_export
from utils.errors import UserError, exits_cleanly
from utils.threads import spin_briefly

spin_briefly()  # before PyTorch is imported
if __name__ == "__main__":  # help and mistakes do not wait for what takes seconds to import
    exits_cleanly(parse_export)()

import json
import logging
import time
from typing import Any

from assets.cameras import export_cameras
from assets.job import Export, Job
from assets.mesh_export import export_mesh
from assets.volume import export_volume
from assets.weights import export_weights, read_trained
from datasets.pairs import source_of
from models.mixing import Mixture
from utils.checkpoint import ensure_writable
from utils.files import replacing
from utils.machine import accelerator, keep_memory

EXPORTS: dict[str, Export] = {
    "mesh": export_mesh,
    "volume": export_volume,
    "cameras": export_cameras,
    "weights": export_weights,
}


def job_of(options: ExportOptions) -> Job:
    """The export of a checkpoint, with the options that it was trained with where none are given.

    Raises:
        UserError: the checkpoint cannot be read, or the directory not be written.
    """
    checkpoint = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    mixture = Mixture.asked(
        checkpoint, options.style, options.strength, options.encoder, options.decoder
    )
    if options.asset == "weights" and not mixture.single:
        raise UserError("--style, --strength: weights are of one style; give one name alone")
    field, style = mixture.field, str(mixture)
    saved = checkpoint.options
    if checkpoint.decoders:
        saved, _ = source_of(saved, field, style)
    options = options.filled_from(saved, SCENE)
    directory = ensure_writable(options.directory)
    renderer = mixture.renderer(checkpoint).to(accelerator(options.device))
    return Job(options, checkpoint, field, style, renderer, directory)


def export(options: ExportOptions) -> dict[str, Any]:
    """Writes one asset, and beside it a JSON report of what it is.

    Returns:
        The report.

    Raises:
        UserError: bad input, or a file cannot be written.
    """
    job = job_of(options)
    start = time.perf_counter()
    paths, facts = EXPORTS[options.asset](job)
    report = {
        "asset": options.asset,
        "files": [str(path) for path in paths],
        **facts,
        "style": job.style,
        "digest": job.checkpoint.fields[job.field].digest,
        "seconds": time.perf_counter() - start,
    }
    file = job.path(f"{options.asset}.json")
    with replacing(file) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, value in facts.items():
        print(f"{name:<14}{value}")
    print("written:", *paths, file)
    return report


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    keep_memory()
    export(parse_export())


if __name__ == "__main__":
    main()
