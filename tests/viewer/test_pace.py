"""The state machine: no browser, no field, no clock."""

import math
from itertools import pairwise

import pytest

from viewer.look import Look, Pose
from viewer.pace import LEAST_HEIGHT, STILL_AFTER, WORTHWHILE, Pace

SQUARE = (1000, 1000)


def look(turn=0.0):
    return Look(Pose((1, 0, 0, turn, 0, 1, 0, 0, 0, 0, 1, 3), 0.9))


@pytest.fixture
def pace():
    """Knows that it gets a hundred thousand pixels a second."""
    pace = Pace(frame_seconds=0.1, sharp_seconds=0.4)
    pace.natural = 400
    pace.show(look(), SQUARE, 0.0)
    pace.finished(pace.next(0.0), pace.next(0.0).pixels / 1e5)
    return pace


def finish(pace, now, rate=1e5):
    """Makes the picture that is due."""
    frame = pace.next(now)
    pace.finished(frame, frame.pixels / rate)
    return frame


def test_nothing_is_due_before_anybody_looks():
    pace = Pace()
    assert pace.next(5.0) is None
    assert not pace.sharp


def test_coarse_while_moving_then_sharp_then_nothing(pace):
    pace.show(look(0.1), SQUARE, 1.0)
    coarse = finish(pace, 1.0)
    assert (coarse.coarse, coarse.height, coarse.width) == (True, 100, 100)  # 1e5 pixels/s, 0.1 s
    assert pace.next(1.1) is None  # it may go on moving
    assert pace.wait(1.1) == pytest.approx(STILL_AFTER - 0.1)
    sharp = finish(pace, 1.0 + STILL_AFTER)
    assert (sharp.coarse, sharp.height) == (False, 200)  # 0.4 s: soon
    assert not pace.sharp
    finest = finish(pace, 2.0)
    assert (finest.coarse, finest.height) == (False, 400)  # as sharp as the photos, later
    assert pace.next(9.0) is None
    assert pace.sharp


def test_sharp_is_there_a_second_after_the_last_move(pace):
    pace.sharp_seconds = 0.7
    pace.show(look(0.1), SQUARE, 1.0)
    now = 1.0 + finish(pace, 1.0).pixels / 1e5
    now = max(now, 1.0 + STILL_AFTER)
    assert now + finish(pace, now).pixels / 1e5 <= 2.0


def test_every_move_makes_a_coarse_picture_of_the_newest_look(pace):
    for step in range(1, 6):
        now = 1.0 + 0.05 * step
        pace.show(look(step), SQUARE, now)
        frame = finish(pace, now)
        assert frame.coarse
        assert frame.look == look(step)


def test_a_move_interrupts_what_is_sharp_and_not_what_is_coarse(pace):
    sharp = pace.next(1.0)
    assert pace.wants(sharp)
    pace.show(look(0.1), SQUARE, 1.1)
    assert not pace.wants(sharp)
    coarse = pace.next(1.1)
    pace.show(look(0.2), SQUARE, 1.15)
    assert pace.wants(coarse)
    pace.finished(coarse, 0.1)  # of the look before: shown, but not what is asked for
    assert pace.next(1.2).look == look(0.2)
    assert pace.next(1.2).coarse


def test_the_same_look_is_no_move(pace):
    finish(pace, 1.0)
    assert not pace.show(look(), SQUARE, 1.1)
    assert pace.wait(1.1) == 0
    assert pace.show(look(), (500, 1000), 1.2)  # another window is


@pytest.mark.parametrize("rate, height", [(1e3, LEAST_HEIGHT), (4e5, 200), (1e9, 1000)])
def test_the_size_follows_what_is_measured(pace, rate, height):
    for step in range(30):
        pace.show(look(step + 1), SQUARE, 1.0 + step)
        frame = finish(pace, 1.0 + step, rate)
    assert abs(frame.height - height) <= 2


def test_no_more_pixels_than_the_window_or_the_limit_and_its_shape(pace):
    pace.show(look(0.1), (300, 150), 1.0)
    frames = [finish(pace, 1.0)]
    while (frame := pace.next(9.0)) is not None:
        pace.finished(frame, 1e-3)
        frames.append(frame)
    assert 150 / WORTHWHILE < frames[-1].height <= 150
    assert all(abs(frame.width - 2 * frame.height) <= 1 for frame in frames)
    assert all(a.height < b.height for a, b in pairwise(frames))
    pace.finest = 60
    pace.show(look(0.2), (300, 150), 10.0)
    while (frame := pace.next(19.0)) is not None:
        assert frame.height <= 60
        pace.finished(frame, 1e-3)
    assert pace.sharp


def test_another_field_is_shown_anew_once_it_stands_still(pace):
    while pace.next(9.0) is not None:
        finish(pace, 9.0)
    pace.refresh()
    again = pace.next(9.0)
    assert (again.coarse, again.height) == (False, 200)  # quickly
    finish(pace, 9.0)
    assert finish(pace, 9.0).height == 400
    assert pace.next(9.0) is None


def test_what_fails_is_not_tried_again_until_something_changes(pace):
    pace.show(look(0.1), SQUARE, 1.0)
    pace.failed(pace.next(1.0))
    assert pace.next(math.inf) is None
    pace.show(look(0.2), SQUARE, 2.0)
    failed = pace.next(2.0)
    pace.show(look(0.3), SQUARE, 2.1)
    pace.failed(failed)  # of a look that nobody asks for any more
    assert pace.next(2.1).look == look(0.3)
