"""Whose turn it is, and that nothing that goes wrong for one stops the others."""

import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from utils.errors import UserError
from viewer.look import Colours
from viewer.studio import Studio

CANVAS = (144, 120)
NATURAL = 60


class Screen:
    """Keeps what it is shown."""

    def __init__(self):
        self.pictures, self.parts, self.troubles = [], [], []

    def picture(self, image, frame, seconds):
        self.pictures.append((image, frame))

    def part(self, image):
        self.parts.append(image)

    def trouble(self, words):
        self.troubles.append(words)


@pytest.fixture
def studio(trained, networks):
    """Its pictures are small: coarse ones have 24 rows, sharp ones 60."""
    return Studio(trained(), networks, frame_seconds=1e-4, sharp_seconds=1e-3, chunk=300)


@pytest.fixture
def opened(studio, look):
    """``opened()``: a window that shows the first look."""

    def make(**changes):
        window = studio.open(Screen())
        studio.limit(window, NATURAL, 1080)
        studio.show(window, look(colours=Colours("a"), **changes), CANVAS)
        return window

    return make


def work(studio, holds, seconds=60):
    """Until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        if studio.turn() is None:
            studio.wait(0.05)


def test_coarse_first_and_sharp_when_it_stands_still(studio, opened):
    window = opened()
    assert studio.turn() > 0  # a chunk, not yet a picture
    assert window.screen.pictures == []
    work(studio, lambda: window.pace.sharp)
    frames = [frame for _, frame in window.screen.pictures]
    assert frames[0].coarse
    assert not frames[-1].coarse
    assert (frames[0].height, frames[-1].height) == (24, 60)
    assert window.screen.pictures[-1][0].shape == (frames[-1].height, frames[-1].width, 3)
    assert studio.turn() is None


def test_parts_of_a_sharp_picture_are_shown_before_it_is_whole(studio, opened, monkeypatch):
    monkeypatch.setattr("viewer.studio.PART_SECONDS", 0.0)
    window = opened()
    work(studio, lambda: window.pace.sharp)
    whole = window.screen.pictures[-1][0]
    parts = [part for part in window.screen.parts if part.shape == whole.shape]
    assert len(parts) > 3
    same = [(part == whole).all(2).mean() for part in parts]
    assert same == sorted(same)  # ever more of it is sharp
    assert same[0] < 0.9 < same[-1]


def test_a_move_drops_the_sharp_picture_between_two_chunks(studio, opened, look):
    window = opened()
    work(studio, lambda: window.frame is not None and not window.frame.coarse)
    studio.turn()
    making = window.making
    assert making is not None
    studio.show(window, look(colours=Colours("b")), CANVAS)
    work(studio, lambda: window.screen.pictures[-1][1].look.colours.style == "b")
    assert all(frame.coarse for _, frame in window.screen.pictures)  # the sharp one never came
    assert window.making is not making


def test_each_window_has_its_own_camera(studio, opened):
    one, two = opened(), opened(channel="opacity")
    work(studio, lambda: one.pace.sharp and two.pace.sharp)
    assert {frame.look.channel for _, frame in one.screen.pictures} == {"colour"}
    assert {frame.look.channel for _, frame in two.screen.pictures} == {"opacity"}
    studio.close(one)
    seen = len(one.screen.pictures)
    studio.refresh()
    work(studio, lambda: not two.pace._stale)
    assert len(one.screen.pictures) == seen


def test_who_moves_goes_first_and_nobody_starves(studio, opened, look):
    still, mover = opened(), opened()
    work(studio, lambda: still.pace.sharp and mover.pace.sharp)
    studio.refresh()
    before = len(still.screen.pictures)
    for step in range(40):
        studio.show(mover, look(colours=Colours("a"), split=step / 40), CANVAS)
        for _ in range(3):
            studio.turn()
    assert len(mover.screen.pictures) > 10
    assert len(still.screen.pictures) > before


def test_an_error_is_shown_and_kills_nothing(studio, opened, look):
    fine, broken = opened(), opened()
    studio.show(broken, look(colours=Colours("no such")), CANVAS)
    work(studio, lambda: broken.screen.troubles and fine.pace.sharp)
    assert broken.screen.troubles == [
        "--style no such: not in the checkpoint, which has 'photo', 'a', 'b'"
    ]
    assert studio.turn() is None  # it is not tried again and again
    studio.show(broken, look(colours=Colours("b")), CANVAS)
    work(studio, lambda: broken.screen.pictures)


def test_any_exception_of_a_render_is_shown_as_such(studio, opened, monkeypatch):
    window = opened()
    renderer = studio.exhibit.subject(Colours("a")).renderer

    def fail(*_):
        raise RuntimeError("the sampler\nis broken")

    monkeypatch.setattr(renderer.sampler, "forward", fail)
    work(studio, lambda: window.screen.troubles)
    assert window.screen.troubles == ["RuntimeError: the sampler is broken"]


def test_a_browser_that_has_gone_stops_nobody(studio, opened):
    gone, other = opened(), opened()

    def closed(*_):
        raise ConnectionError("closed")

    gone.screen.picture = closed
    work(studio, lambda: other.pace.sharp and gone.pace.sharp)


def test_errands_are_done_beside_pictures(studio, opened):
    window = opened()

    def count(n):
        for _ in range(n):
            yield
        return n

    def fail():
        yield
        raise UserError("no")

    found, failed, unwanted = (studio.send(e) for e in (count(5), fail(), count(10**9)))
    work(studio, lambda: found.done() and failed.done() and window.pace.sharp)
    assert found.result() == 5
    with pytest.raises(UserError, match="no"):
        failed.result()
    assert not unwanted.done()
    unwanted.cancel()
    work(studio, lambda: studio.turn() is None)
    with pytest.raises(CancelledError):
        unwanted.result()


def test_waiting_ends_when_somebody_asks(studio, opened):
    start = time.monotonic()
    studio.wait(0.02)
    assert time.monotonic() - start > 0.01
    opened()
    studio.wait(1e6)  # returns at once: there is something to do


def test_no_exhibit_no_work(networks):
    assert Studio(None, networks).turn() is None


def test_a_picture_is_the_same_whatever_the_size_of_its_chunks(trained, networks, look):
    images = []
    for chunk in (50, 1000):
        studio = Studio(trained(), networks, chunk=chunk)
        making = studio.making(look(colours=Colours("a")), 36, 30)
        while True:
            try:
                next(making)
            except StopIteration as end:
                images.append(end.value.astype(int))
                break
    assert np.abs(images[0] - images[1]).max() <= 1
