"""A training that is looked at: what is learned is the same, and it costs its share."""

import time

import pytest
import torch

from models.checkpoint import Checkpoint
from opt import parse_train
from pipeline import train
from utils.errors import UserError
from viewer.watch import MOST, SHARE, Watching


class Screen:
    def __init__(self):
        self.pictures, self.troubles = [], []

    def picture(self, image, frame, seconds):
        self.pictures.append(image)

    def part(self, image):
        pass

    def trouble(self, words):
        self.troubles.append(words)


def options(scene_dir, folder, more=""):
    words = "--stage geometry --field voxels --voxel_resolution 24 --batch_size 256 --max_steps 40"
    words += f" --root_dir {scene_dir} --ckpt_dir {folder} --log_dir {folder} --precision 32 {more}"
    return parse_train([*words.split(), "--device", "cpu"])


def test_a_look_changes_nothing_of_what_is_learned(tmp_path, scene_dir, look, monkeypatch):
    pytest.importorskip("viser")
    screens = []

    def follow(self, system):
        """As a browser would: another look at every step."""
        original(self, system)
        screens.append(Screen())
        window = self.studio.open(screens[-1])
        steps = iter(range(10**6))
        turn = self.studio.turn

        def moving_turn():
            self.credit = MOST  # with all the time in the world
            if (step := next(steps)) % 40 == 39:
                return None
            changed = look(colours=self.studio.exhibit.first, crop=(-9, -9, -9, 9, 9, 9 + step))
            self.studio.show(window, changed, (24, 20))
            return turn()

        monkeypatch.setattr(self.studio, "turn", moving_turn)

    original = Watching.follow
    monkeypatch.setattr(Watching, "follow", follow)
    (plain,) = train(options(scene_dir, tmp_path / "plain"))
    (watched,) = train(options(scene_dir, tmp_path / "watched", "--view --port 18765"))
    assert len(screens[0].pictures) > 10
    assert screens[0].troubles == []
    one, two = (Checkpoint.read(path).fields["scene"].state for path in (plain, watched))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_pictures_take_their_share_of_the_time_and_no_more(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    watching = Watching.__new__(Watching)
    watching.credit = watching._left = watching._refreshed = 0.0
    turns = []

    class Busy:
        """Somebody who always moves: each turn takes 30 ms."""

        def turn(self):
            clock[0] += 0.03
            turns.append(0.03)
            return 0.03

        def refresh(self):
            pass

    watching.studio = Busy()
    training = 0.0
    for _ in range(2000):
        clock[0] += 0.05
        training += 0.05
        watching.after_step()
    assert sum(turns) <= SHARE * training + MOST + 0.03
    assert sum(turns) > 0.9 * SHARE * training
    assert SHARE <= 0.1


def test_decoder_has_nothing_to_see():
    words = "--stage decoder --root_dir x --style_dir y --ckpt_path z --view"
    with pytest.raises(UserError, match="--view: --stage decoder trains no field"):
        parse_train(words.split())
