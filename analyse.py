"""Look at the feature space that jointly trained fields share.

python analyse.py material_map|feature_map|overlap|path --ckpt_path ckpts/relight_joint.ckpt
"""

from __future__ import annotations

from opt import AnalyseOptions, parse_analyse
from utils.errors import UserError, exits_cleanly
from utils.threads import spin_briefly

spin_briefly()  # before PyTorch is imported
if __name__ == "__main__":  # help and mistakes do not wait for what takes seconds to import
    exits_cleanly(parse_analyse)()

import json
import logging
from collections.abc import Callable
from typing import Any

from analysis.features import Analysis
from analysis.maps import feature_map, material_map
from analysis.overlap import overlap
from analysis.path import path
from models.checkpoint import Checkpoint
from utils.checkpoint import ensure_writable
from utils.files import replacing
from utils.machine import accelerator, keep_memory

# draws pictures into the analysis's directory; returns what is in them
ANALYSES: dict[str, Callable[[Analysis], dict[str, Any]]] = {
    "material_map": material_map,
    "feature_map": feature_map,
    "overlap": overlap,
    "path": path,
}


def analyse(options: AnalyseOptions) -> dict[str, Any]:
    """Writes one analysis: pictures, and beside them the numbers as JSON.

    Returns:
        What is in the JSON.

    Raises:
        UserError: bad input, or a file cannot be written.
    """
    checkpoint = Checkpoint.read(options.ckpt_path)
    if not checkpoint.decoders:
        raise UserError(f"{options.ckpt_path}: not of a joint training; give one of --stage joint")
    for name in options.encoders:
        checkpoint.chosen(field=name)
    for name in options.decoders:
        checkpoint.chosen(style=name)
    directory = ensure_writable(options.directory)
    analysis = Analysis(
        checkpoint,
        list(options.encoders or checkpoint.fields),
        list(options.decoders or checkpoint.decoders),
        options.n_points,
        options.seed,
        accelerator(options.device),
        directory,
    )
    report = {"analysis": options.analysis, **ANALYSES[options.analysis](analysis)}
    report |= {"ckpt_path": str(options.ckpt_path), "seed": options.seed}
    file = directory / f"{options.analysis}.json"
    with replacing(file) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for pair, numbers in report.get("pairs", {}).items():
        print(f"{pair}: " + "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    print("written:", *report["files"], file)
    return report


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    keep_memory()
    analyse(parse_analyse())


if __name__ == "__main__":
    main()
