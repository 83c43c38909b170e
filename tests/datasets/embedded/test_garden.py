"""The second embedded scene and the second style: what differs between them, and what must not."""

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.embedded.garden import GARDEN, WORLDS, blue_for_yellow, write_worlds
from datasets.embedded.scene import write_demo_scene
from datasets.embedded.toys import FLOOR, TOYS
from utils.errors import UserError

SMALL = {"size": (20, 14), "n_train": 2, "n_val": 1, "n_test": 1}


def picture(folder, name="train/r_0.png"):
    return np.array(Image.open(folder / name)).astype(int)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_worlds(tmp_path_factory.mktemp("worlds"), **SMALL)


def test_a_style_changes_colours_and_nothing_else(folders):
    for plain, styled in (("toys", "toys_blue"), ("garden", "garden_blue")):
        a, b = picture(folders[plain]), picture(folders[styled])
        assert np.array_equal(a[..., 3], b[..., 3])
        assert np.abs(a - b)[..., :3].max() > 60
        # redder is not bluer: what was yellow has lost red and gained blue
        changed = np.abs(a - b)[..., :3].sum(-1) > 60
        assert (b[changed][:, 2] > a[changed][:, 2]).mean() > 0.9


def test_the_scenes_differ_and_the_cameras_do_not(folders):
    assert not np.array_equal(picture(folders["toys"])[..., 3], picture(folders["garden"])[..., 3])
    texts = [(folders[n] / "transforms_train.json").read_text() for n in ("toys", "garden")]
    assert texts[0].split('"frames"')[1] == texts[1].split('"frames"')[1]
    assert '"scene": "garden"' in texts[1]


def test_the_same_is_reused_and_another_style_is_not_mistaken_for_it(folders):
    before = (folders["garden"] / "train/r_0.png").stat().st_mtime_ns
    write_demo_scene(folders["garden"], world=WORLDS["garden"], **SMALL)
    assert (folders["garden"] / "train/r_0.png").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds something other"):
        write_demo_scene(folders["garden"], world=WORLDS["garden_blue"], **SMALL)


def test_blue_for_yellow_leaves_the_rest():
    yellow, red, grey = (torch.tensor(c)[:, None] for c in ([0.9, 0.6, 0], [0.6, 0, 0], [0.5] * 3))
    assert torch.allclose(blue_for_yellow(yellow), torch.tensor([[0.0], [0.27], [0.9]]))
    for kept in (red, grey, torch.tensor([[0.1], [0.3], [0.8]])):
        assert torch.equal(blue_for_yellow(kept), kept)


def test_everything_in_the_garden_stands_on_its_ground_inside_the_demo_box():
    for part in GARDEN[1:]:
        assert part.centre[2] > FLOOR
        assert max(abs(c) for c in part.centre[:2]) + min(part.half) < 1.12
    assert TOYS.parts is not GARDEN
