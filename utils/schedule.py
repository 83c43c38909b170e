"""Schedules: numbers that depend on the training step, for example loss weights."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

LARGEST = 1e30  # single precision holds it


@dataclass(frozen=True)
class Schedule:
    """A number as a function of the step: piecewise linear, constant before and after.

    Attributes:
        points: (step, value) pairs, steps ascending.

    >>> Schedule.parse("0:1,1000:0.5").at(500)
    0.75
    >>> str(Schedule.parse("0.1"))
    '0.1'
    """

    points: tuple[tuple[int, float], ...]

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Parses ``"0.1"``, a constant, or ``"0:1,1000:0.5"``.

        Raises:
            ValueError: the text is neither.
        """
        if ":" not in text:
            return cls.constant(float(text))
        points = []
        for part in text.split(","):
            step, value = part.split(":")
            points.append((int(step), float(value)))
        steps = [step for step, _ in points]
        if steps[0] < 0 or any(a >= b for a, b in pairwise(steps)):
            raise ValueError("the steps must be ascending")
        return cls._checked(points)

    @classmethod
    def constant(cls, value: float) -> Schedule:
        """A schedule with the same value at all steps."""
        return cls._checked([(0, float(value))])

    @classmethod
    def _checked(cls, points: list[tuple[int, float]]) -> Schedule:
        if not all(abs(value) <= LARGEST for _, value in points):
            raise ValueError("a value is not finite")
        return cls(tuple(points))

    def at(self, step: int) -> float:
        """The value at ``step``."""
        after = bisect_right([at for at, _ in self.points], step)
        if after == 0:
            return self.points[0][1]
        before, value = self.points[after - 1]
        if after == len(self.points):
            return value
        end, last = self.points[after]
        return value + (last - value) * (step - before) / (end - before)

    @property
    def least(self) -> float:
        """The smallest value."""
        return min(value for _, value in self.points)

    @property
    def greatest(self) -> float:
        """The largest value."""
        return max(value for _, value in self.points)

    def __str__(self) -> str:
        if len(self.points) == 1:
            return f"{self.points[0][1]:g}"
        return ",".join(f"{step}:{value:g}" for step, value in self.points)
