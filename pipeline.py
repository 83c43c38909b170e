"""Train: options -> scene -> system -> Trainer.fit -> checkpoint.

python pipeline.py --stage geometry --root_dir SCENE
python pipeline.py --stage style --root_dir SCENE --style_dir PAINTING --ckpt_path CHECKPOINT
python pipeline.py --stage mutual --root_dir SCENE --style_dir PAINTINGS --ckpt_path CHECKPOINT
"""

from __future__ import annotations

from opt import TrainOptions, parse_train
from utils.errors import exits_cleanly
from utils.threads import spin_briefly

spin_briefly()  # before PyTorch is imported
if __name__ == "__main__":  # help and mistakes do not wait for what takes seconds to import
    exits_cleanly(parse_train)()

import logging
import time
from contextlib import ExitStack, closing
from pathlib import Path

from systems import STAGES
from systems.lightning import fit
from utils.checkpoint import ensure_writable
from utils.machine import accelerator, keep_memory
from viewer.page import import_viser
from viewer.watch import Watching

log = logging.getLogger(__name__)


def train(options: TrainOptions) -> list[Path]:
    """Runs one stage: the systems that it is made of, one after the other.

    Returns:
        The files of the finished fields.

    Raises:
        UserError: bad input, before anything is trained.
        NumericalError: NaN or infinity in training.
    """
    for line in options.unread:
        log.warning("%s", line)
    device = accelerator(options.device, options.num_gpus)
    ensure_writable(options.ckpt_dir)
    ensure_writable(options.log_dir)
    if options.view:
        import_viser()  # says so before anything is computed where it is missing
    watching: Watching | None = None
    paths: list[Path] = []
    with ExitStack() as stack:
        for system, run in STAGES[options.stage](options):
            start = time.perf_counter()
            if options.view and run.leads:
                watching = watching or stack.enter_context(closing(Watching(options, device)))
                watching.follow(system)
            if not fit(system, run, options, device, watching.after_step if watching else None):
                continue
            written = run.finish(system.checkpoint())
            minutes, seconds = divmod(round(time.perf_counter() - start), 60)
            print(f"{options.stage}: {system.length} in {minutes} min {seconds} s")
            print("written:", *written)
            paths += written
    return paths


def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    keep_memory()
    train(parse_train())


if __name__ == "__main__":
    exits_cleanly(main, can_resume=True)()
