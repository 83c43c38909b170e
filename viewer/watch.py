"""A training that is looked at while it goes on: pictures are made between its steps, on its
thread, in a fixed share of its time, and only while somebody looks."""

from __future__ import annotations

import time

from opt import TrainOptions
from systems.system import System
from utils.machine import mixed_precision
from viewer.exhibits import InTraining
from viewer.page import Page
from viewer.studio import Studio

SHARE = 0.07  # seconds of pictures for each second of training
MOST = 0.4  # seconds of pictures that can be saved up while nobody moves
FRAME_SECONDS, SHARP_SECONDS = 0.03, 0.2  # of pictures while moving, and standing still
ENDED = "The training has ended. To look at what it has learned: python view.py --ckpt_path ..."
REFRESH = 2.0  # seconds after which what stands still is made anew


class Watching:
    """The page of one training.

    Pictures change nothing of it: rendering is a pure function, and draws no random numbers.

    Args:
        options: of the run.
        device: that it trains on, "cuda" or "cpu".

    Raises:
        UserError: viser is missing, or there is no such address.
    """

    def __init__(self, options: TrainOptions, device: str) -> None:
        networks = mixed_precision(options.precision, device)
        self.studio = Studio(None, networks, FRAME_SECONDS, SHARP_SECONDS, options.chunk)
        self.page = Page(self.studio, options.host, options.port, options.log_dir)
        print(self.page.announcement, flush=True)
        self.credit = 0.0
        self._left = self._refreshed = time.perf_counter()

    def follow(self, system: System) -> None:
        """Shows another system from now on."""
        self.page.exhibit(InTraining(system))
        self._left = time.perf_counter()

    def close(self) -> None:
        """Ends the page."""
        self.page.close(ENDED)

    def after_step(self) -> None:
        """Makes pictures for as long as the training's share allows."""
        now = time.perf_counter()
        self.credit = min(self.credit + SHARE * (now - self._left), MOST)
        if now - self._refreshed > REFRESH:
            self.studio.refresh()
            self._refreshed = now
        while self.credit > 0 and (spent := self.studio.turn()) is not None:
            self.credit -= spent
        self._left = time.perf_counter()
