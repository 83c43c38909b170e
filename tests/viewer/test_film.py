"""Camera paths by keyframes: what is saved is what is filmed."""

import dataclasses
import math

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from datasets.cameras.camera_path import read_camera_path, write_camera_path
from utils.errors import UserError
from viewer.film import along_keyframes, film, poses_of, write_film
from viewer.look import Colours, Pose
from viewer.studio import Studio


@pytest.fixture
def keyframes(scene):
    return [
        Pose(tuple(view.c2w.flatten().tolist()), 0.5 + 0.1 * i)
        for i, view in enumerate(scene.train[:3])
    ]


@pytest.mark.parametrize("closed", [False, True])
def test_the_path_goes_through_its_keyframes_and_eval_reads_it(tmp_path, scene, keyframes, closed):
    cameras = along_keyframes(scene, keyframes, 31, 32, 18, closed)
    assert cameras.sizes.tolist() == [[18, 32]] * 31
    file = tmp_path / "sub" / "path.json"
    write_camera_path(file, cameras, 12, closed)
    read, fps = read_camera_path(file, scene)
    assert fps == 12
    torch.testing.assert_close(read.c2w, cameras.c2w, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read.intrinsics, cameras.intrinsics, atol=1e-3, rtol=1e-4)
    assert (read.near, read.far, read.space) == (scene.near, scene.far, scene.space)
    first = poses_of(cameras)[0]
    assert np.allclose(first.c2w, keyframes[0].c2w, atol=1e-5)
    assert math.isclose(first.fov, keyframes[0].fov, rel_tol=1e-4)
    if not closed:
        assert np.allclose(poses_of(cameras)[-1].c2w, keyframes[-1].c2w, atol=1e-5)
    steps = (cameras.c2w[1:, :, 3] - cameras.c2w[:-1, :, 3]).norm(dim=1)
    assert float(steps.max()) < 1.5 * float(steps.min())


def test_one_keyframe_is_no_path(scene, keyframes):
    with pytest.raises(UserError, match="two keyframes"):
        along_keyframes(scene, keyframes[:1], 10, 8, 8)


def test_a_film_is_its_pictures(tmp_path, scene, keyframes, trained, networks, look):
    studio = Studio(trained(), networks)
    cameras = along_keyframes(scene, keyframes, 3, 16, 12)
    asked, told = look(colours=Colours("a"), channel="opacity"), []
    result = studio.send(film(studio, asked, cameras, lambda *done: told.append(done)))
    while studio.turn() is not None:
        pass
    frames = result.result()
    assert told == [(1, 3), (2, 3), (3, 3)]
    making = studio.making(dataclasses.replace(asked, pose=poses_of(cameras)[1]), 16, 12)
    with pytest.raises(StopIteration) as end:
        while True:
            next(making)
    assert np.array_equal(frames[1], end.value.value)
    write_film(tmp_path / "out" / "film.mp4", frames, 5)
    with imageio.get_reader(tmp_path / "out" / "film.mp4") as video:
        assert video.count_frames() == 3
        shown = video.get_data(1)
    assert np.abs(shown.astype(int) - frames[1]).mean() < 12
