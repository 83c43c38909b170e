"""Whose picture is made next: every window has its pace, and all share one processor, chunk by
chunk.  Knows no browser, and has no thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Condition
from typing import Any, Protocol

import numpy as np
import torch

from utils.errors import UserError
from utils.images import resize, to_uint8
from viewer.exhibits import Exhibit
from viewer.look import Look
from viewer.pace import FRAME_SECONDS, SHARP_SECONDS, Frame, Pace
from viewer.picture import Making, Over, make_picture

OTHERS_EVERY = 4  # turns, of which one is not for those who move, if somebody else waits
CHUNK_SECONDS = 0.05  # that a chunk of rays may take: what it delays is whoever else moves
LEAST_CHUNK = 1024  # rays
FIRST_CHUNK = 4096
PART_SECONDS = 0.4  # of work on a sharp picture after which what is done of it is shown

log = logging.getLogger(__name__)


class Screen(Protocol):
    """Where a window's pictures go."""

    def picture(self, image: np.ndarray, frame: Frame, seconds: float) -> None:
        """Shows a picture (H, W, 3) uint8, which took so long to make."""

    def part(self, image: np.ndarray) -> None:
        """Shows a picture (H, W, 3) uint8 that is sharp in part, in place of the coarser one."""

    def trouble(self, words: str) -> None:
        """Shows why there is none."""


@dataclass(eq=False)
class Window:
    """One browser's window.

    Attributes:
        screen: where its pictures go.
        pace: when they are due.
        frame, making, seconds: the one in work, and how long it has been worked on.
        shown: the last picture (H, W, 3) uint8.
        parted: seconds of work at which a part of the one in work was shown.
    """

    screen: Screen
    pace: Pace
    frame: Frame | None = None
    making: Making | None = None
    seconds: float = 0.0
    shown: np.ndarray | None = None
    parted: float = 0.0


@dataclass(eq=False)
class Errand:
    """Something longer than a picture, done beside them.

    Attributes:
        work: yields after each piece of it, and returns what ``result`` is to be.
        result: cancelled where nobody wants it any more.
    """

    work: Generator[None, None, Any]
    result: Future


class Studio:
    """Makes the pictures of all windows.

    Args:
        exhibit: what they look at; None: nothing yet.
        networks: the precision of the networks, see `mixed_precision`.
        frame_seconds, sharp_seconds: see `Pace`.
        chunk: rays per chunk; 0: as many as take `CHUNK_SECONDS`.
    """

    def __init__(
        self,
        exhibit: Exhibit | None,
        networks: AbstractContextManager,
        frame_seconds: float = FRAME_SECONDS,
        sharp_seconds: float = SHARP_SECONDS,
        chunk: int = 0,
    ) -> None:
        self.exhibit, self.networks, self.chunk = exhibit, networks, chunk
        self.frame_seconds, self.sharp_seconds = frame_seconds, sharp_seconds
        self._windows: list[Window] = []
        self._errands: list[Errand] = []
        self._changed = Condition()  # guards all of this: browsers' threads ask, one thread works
        self._turns = 0
        self._quick_chunk = FIRST_CHUNK

    def making(self, look: Look, width: int, height: int) -> Making:
        """A picture of the exhibit, see `make_picture`."""
        chunk = self.chunk or self._quick_chunk
        return make_picture(self.exhibit, look, width, height, self.networks, chunk)

    # -- for the browsers ---------------------------------------------------------------------

    def open(self, screen: Screen) -> Window:
        """A new window."""
        window = Window(screen, Pace(self.frame_seconds, self.sharp_seconds))
        with self._changed:
            self._windows.append(window)
        return window

    def close(self, window: Window) -> None:
        """A window is gone."""
        with self._changed:
            self._windows.remove(window)

    def show(self, window: Window, look: Look, canvas: tuple[int, int]) -> None:
        """A window is to show a look, on so many pixels: width, height."""
        with self._changed:
            if window.pace.show(look, canvas, time.monotonic()):
                self._changed.notify()

    def limit(self, window: Window, natural: int, finest: int) -> None:
        """Sets `Pace.natural` and `Pace.finest`."""
        with self._changed:
            window.pace.natural, window.pace.finest = natural, finest
            self._changed.notify()

    def send(self, work: Generator[None, None, Any]) -> Future:
        """Something is to be done beside the pictures, see `Errand`."""
        errand = Errand(work, Future())
        with self._changed:
            self._errands.append(errand)
            self._changed.notify()
        return errand.result

    def refresh(self) -> None:
        """The exhibit is another than it was: what stands still is made again."""
        with self._changed:
            for window in self._windows:
                window.pace.refresh()

    # -- for the one thread that works --------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Until there is something to do, or so long."""
        with self._changed:
            if self._errands or any(map(self._has_work, self._windows)):
                return
            now = time.monotonic()
            waits = [window.pace.wait(now) for window in self._windows]
            self._changed.wait(min([seconds, *(wait for wait in waits if wait > 0)]))

    def turn(self) -> float | None:
        """Makes one chunk of a picture, or a piece of an errand.

        Returns:
            Seconds that it took; None: there is nothing to do.
        """
        start = time.perf_counter()
        with self._changed:
            chosen = None if self.exhibit is None else self._chosen()
        if chosen is None:
            return None
        if isinstance(chosen, Window):
            self._picture(chosen)
        else:
            self._piece(chosen)
        return time.perf_counter() - start

    def _chosen(self) -> Window | Errand | None:
        """Whose turn it is: that of somebody who moves, mostly."""
        self._turns += 1
        due = [window for window in self._windows if self._has_work(window)]
        moving = [window for window in due if window.frame.coarse]
        others = [window for window in due if not window.frame.coarse] + self._errands
        if moving and not (others and self._turns % OTHERS_EVERY == 0):
            return moving[self._turns % len(moving)]
        if not others:
            return None
        return others[(self._turns // OTHERS_EVERY if moving else self._turns) % len(others)]

    def _has_work(self, window: Window) -> bool:
        """Whether there is something to do for a window; drops what nobody wants any more."""
        if window.frame is not None and window.pace.wants(window.frame):
            return True
        window.making, window.seconds, window.parted = None, 0.0, 0.0
        window.frame = window.pace.next(time.monotonic())
        return window.frame is not None

    def _picture(self, window: Window) -> None:
        """The next chunk of a window's picture."""
        frame, start, image, words = window.frame, time.perf_counter(), None, ""
        over = None
        try:
            if window.making is None:
                window.making = self.making(frame.look, frame.width, frame.height)
            over = next(window.making)
        except StopIteration as end:
            image = end.value
        except Exception as error:  # a picture that fails is no reason to stop
            log.debug("a picture failed", exc_info=True)
            words = words_of(error)
        window.seconds += time.perf_counter() - start
        if image is None and not words:
            if not frame.coarse and window.seconds - window.parted > PART_SECONDS:
                self._part(window, over)
            return
        with self._changed:
            seconds, window.frame = window.seconds, None
            if image is None:
                window.pace.failed(frame)
            else:
                window.pace.finished(frame, seconds)
                quick = int(frame.pixels / max(seconds, 1e-4) * CHUNK_SECONDS)
                self._quick_chunk = max(LEAST_CHUNK, quick)
        try:
            if image is None:
                window.screen.trouble(words)
            else:
                window.shown = image
                window.screen.picture(image, frame, seconds)
        except Exception:  # nor is a browser that has gone
            log.debug("a picture could not be shown", exc_info=True)

    def _part(self, window: Window, over: Over) -> None:
        """Shows what is done of a window's picture, over the coarser one before it."""
        frame, window.parted = window.frame, window.seconds
        coarser = torch.from_numpy(window.shown).float() / 255
        try:
            window.screen.part(over(to_uint8(resize(coarser, frame.width, frame.height)).numpy()))
        except Exception:  # a browser that has gone
            log.debug("a part could not be shown", exc_info=True)

    def _piece(self, errand: Errand) -> None:
        """The next piece of an errand."""
        try:
            if errand.result.cancelled():
                errand.work.close()
            else:
                next(errand.work)
                return
        except StopIteration as end:
            if errand.result.set_running_or_notify_cancel():
                errand.result.set_result(end.value)
        except Exception as error:
            log.debug("an errand failed", exc_info=True)
            if errand.result.set_running_or_notify_cancel():
                errand.result.set_exception(error)
        with self._changed:
            self._errands.remove(errand)


def words_of(error: Exception) -> str:
    """What is said about an error on a page."""
    line = " ".join(str(error).split())
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"
