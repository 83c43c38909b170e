"""When somebody's next picture is due, and in which size: coarse while anything moves, sharp once
it stands still.  A state machine with time as an argument; it knows no browser, field or clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from viewer.look import Look

STILL_AFTER = 0.15  # seconds without a change after which nothing counts as moving
FRAME_SECONDS = 0.1  # that a picture may take while something moves
SHARP_SECONDS = 0.7  # that the first sharp one may: it is there a second after a stop
FIRST_RATE = 2e4  # pixels a second, until some are measured
LEAST_HEIGHT = 24
WORTHWHILE = 1.15  # a picture that is not this much higher than the last one is not made


@dataclass(frozen=True)
class Frame:
    """A picture to be made.

    Attributes:
        look: what of.
        width, height: pixels.
        coarse: whether it is one of those that are shown while something moves.
    """

    look: Look
    width: int
    height: int
    coarse: bool

    @property
    def pixels(self) -> int:
        return self.width * self.height


class Pace:
    """The pictures of one window.

    Args:
        frame_seconds: that a coarse picture may take.
        sharp_seconds: that the first sharp one may.

    Attributes:
        look: what is to be seen; None: nothing yet.
        canvas: width and height of the window, pixels: no picture has more.
        natural: height of a picture that shows all that the field knows: after the first sharp one
            comes one as high, however long it takes (parts of it are shown before), and a higher
            one only where that takes at most ``sharp_seconds``.
        finest: height that no picture exceeds.
    """

    def __init__(
        self, frame_seconds: float = FRAME_SECONDS, sharp_seconds: float = SHARP_SECONDS
    ) -> None:
        self.frame_seconds, self.sharp_seconds = frame_seconds, sharp_seconds
        self.look: Look | None = None
        self.canvas = (1, 1)
        self.natural = LEAST_HEIGHT
        self.finest = 1080
        self._changed = -math.inf  # when the look did
        self._shown = 0  # height of the picture of this look that is on show; 0: there is none
        self._stale = False  # whether that picture is of what the field was before
        self._rates: dict[bool, float] = {}  # pixels a second, of coarse pictures and of others

    def show(self, look: Look, canvas: tuple[int, int], now: float) -> bool:
        """Somebody asks for another look, or has another window; whether it is another."""
        if look == self.look and canvas == self.canvas:
            return False
        self.look, self.canvas = look, canvas
        self._changed, self._shown, self._stale = now, 0, False
        return True

    def refresh(self) -> None:
        """The field is another: what stands still is to be made again, quickly."""
        self._stale = self._shown > 0

    def next(self, now: float) -> Frame | None:
        """The picture that is due; None: none is (for now, see `wait`)."""
        if self.look is None:
            return None
        if self._shown == 0:
            return self._frame(self._affordable(self.frame_seconds, True), coarse=True)
        if self.wait(now):
            return None
        quick = self._affordable(self.sharp_seconds, False)
        if self._stale:
            return self._frame(min(quick, self._shown), coarse=False)
        target = min(self._limit, max(self.natural, quick))
        if target < WORTHWHILE * self._shown:
            return None
        if quick >= WORTHWHILE * self._shown:
            target = min(target, quick)
        return self._frame(target, coarse=False)

    def wait(self, now: float) -> float:
        """Seconds until what has moved counts as standing still; 0 from then on."""
        return max(0.0, self._changed + STILL_AFTER - now)

    def wants(self, frame: Frame) -> bool:
        """Whether a picture that is being made is still worth finishing: a coarse one always, or
        nothing would be seen while moving."""
        return frame.coarse or frame.look is self.look

    def finished(self, frame: Frame, seconds: float) -> None:
        """A picture is on show, and took so many seconds to make."""
        rate = frame.pixels / max(seconds, 1e-4)
        self._rates[frame.coarse] = (rate + self._rates.get(frame.coarse, rate)) / 2
        if frame.look is self.look:
            self._shown, self._stale = frame.height, False

    def failed(self, frame: Frame) -> None:
        """A picture cannot be made: it is not tried again before something changes."""
        if frame.look is self.look:
            self.look = None

    @property
    def sharp(self) -> bool:
        """Whether what is on show is as good as it gets."""
        return self._shown > 0 and self.next(math.inf) is None

    @property
    def _limit(self) -> int:
        return max(1, min(self.canvas[1], self.finest))

    def _affordable(self, seconds: float, coarse: bool) -> int:
        """Height of a picture that takes so long."""
        rate = self._rates.get(coarse) or self._rates.get(not coarse, FIRST_RATE)
        width, height = self.canvas
        affordable = int(math.sqrt(rate * seconds * height / width))
        return min(self._limit, max(LEAST_HEIGHT, affordable))

    def _frame(self, height: int, coarse: bool) -> Frame:
        width = max(1, round(height * self.canvas[0] / self.canvas[1]))
        return Frame(self.look, width, height, coarse)
