"""Look at a trained field in a browser.

python view.py --ckpt_path ckpts/lego_starry_night.ckpt
"""

from __future__ import annotations

from opt import ViewOptions, parse_view
from utils.errors import exits_cleanly
from utils.threads import spin_briefly

spin_briefly()  # before PyTorch is imported
if __name__ == "__main__":  # help and mistakes do not wait for what takes seconds to import
    exits_cleanly(parse_view)()

import logging
from contextlib import closing

import torch

from assets.weights import read_trained
from utils.machine import accelerator, keep_memory, mixed_precision
from viewer.exhibits import Trained
from viewer.page import Page, import_viser
from viewer.studio import Studio

IDLE = 1.0  # seconds to sleep where nobody asks for anything, at most


def serve(options: ViewOptions) -> None:
    """Serves the page until it is interrupted.

    Raises:
        UserError: bad input, or viser is not installed.
    """
    import_viser()
    checkpoint = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    device = accelerator(options.device)
    networks = mixed_precision(options.precision, device)
    exhibit = Trained(checkpoint, options, torch.device(device))
    studio = Studio(None, networks, chunk=options.chunk)
    with closing(Page(studio, options.host, options.port, options.output_dir)) as page:
        page.exhibit(exhibit)
        print(page.announcement, flush=True)
        while True:
            if studio.turn() is None:
                studio.wait(IDLE)


@exits_cleanly
def main() -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    keep_memory()
    serve(parse_view())


if __name__ == "__main__":
    main()
