"""GIF and MP4, read back: the frames that went in, at the rate that was asked for."""

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from utils.errors import UserError
from utils.video import write_gif, write_mp4


def frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A disc with a colour gradient that moves over white."""
    y, x = np.mgrid[:height, :width]
    made = []
    for i in range(count):
        frame = np.full((height, width, 3), 255, np.uint8)
        inside = (x - 20 - 2 * i) ** 2 + (y - 24) ** 2 < 15**2
        colour = np.stack([40 + 3 * x, 60 + 2 * y, 200 - 2 * x], axis=-1).clip(0, 250)
        frame[inside] = colour[inside]
        made.append(frame)
    return made


def noise(a: np.ndarray, b: np.ndarray) -> float:
    """Root of the mean squared difference, in grey levels."""
    return float(np.sqrt(np.mean((a.astype(float) - b.astype(float)) ** 2)))


def test_gif_frames_are_what_went_in(tmp_path):
    made = frames(6)
    write_gif(tmp_path / "x.gif", made, fps=10)
    read = [frame[..., :3] for frame in imageio.mimread(tmp_path / "x.gif")]
    assert len(read) == len(made)
    for got, want in zip(read, made, strict=True):
        assert got.shape == want.shape
        assert noise(got, want) < 4
        # dither must not reach the background
        white = (want == 255).all(axis=-1)
        assert (got[white] == 255).all()


def test_gif_of_a_black_frame_and_of_noise(tmp_path):
    rng = np.random.default_rng(0)
    made = [np.zeros((9, 7, 3), np.uint8), rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)]
    write_gif(tmp_path / "x.gif", made, fps=5)
    read = imageio.mimread(tmp_path / "x.gif")
    assert (read[0][..., :3] == 0).all()
    assert noise(read[1][..., :3], made[1]) < 1


@pytest.mark.parametrize(
    "fps, want",
    [
        (10, [100, 100, 100, 100, 100, 100]),
        (15, [70, 60, 70, 70, 60, 70]),
        (30, [30, 40, 30, 30, 40, 30]),
        (100, [20, 20, 20, 20, 20, 20]),
    ],
)
def test_gif_durations_keep_the_rate_and_it_loops(fps, want, tmp_path):
    write_gif(tmp_path / "x.gif", frames(6), fps)
    with Image.open(tmp_path / "x.gif") as image:
        assert image.info["loop"] == 0
        durations = []
        for i in range(image.n_frames):
            image.seek(i)
            durations.append(image.info["duration"])
    assert durations == want


@pytest.mark.parametrize("height, width", [(48, 64), (47, 63)])
def test_mp4_frames_are_what_went_in(height, width, tmp_path):
    made = frames(5, height, width)
    write_mp4(tmp_path / "x.mp4", made, fps=15)
    read = imageio.mimread(tmp_path / "x.mp4")
    assert len(read) == 5
    for got, want in zip(read, made, strict=True):
        assert got.shape == (48, 64, 3)
        assert noise(got[:height, :width], want) < 8
    with imageio.get_reader(tmp_path / "x.mp4") as reader:
        about = reader.get_meta_data()
    assert about["fps"] == 15
    assert about["codec"] == "h264"
    assert about["pix_fmt"].startswith("yuv420p")


def test_mp4_pads_odd_sizes_with_the_edge(tmp_path):
    frame = np.full((17, 19, 3), 90, np.uint8)
    write_mp4(tmp_path / "x.mp4", [frame] * 2, fps=5)
    read = imageio.mimread(tmp_path / "x.mp4")[0]
    assert read.shape == (18, 20, 3)
    assert abs(read.astype(int) - 90).max() <= 2


def test_mp4_colours_are_true(tmp_path):
    frame = np.zeros((32, 32, 3), np.uint8) + np.array([200, 30, 60], np.uint8)
    write_mp4(tmp_path / "x.mp4", [frame] * 2, fps=5)
    assert abs(imageio.mimread(tmp_path / "x.mp4")[0].astype(int) - frame).max() <= 3


def test_one_frame(tmp_path):
    (made,) = frames(1)
    write_gif(tmp_path / "x.gif", [made], fps=15)
    write_mp4(tmp_path / "x.mp4", [made], fps=15)
    for name in ("x.gif", "x.mp4"):
        read = imageio.mimread(tmp_path / name)
        assert len(read) == 1
        assert noise(read[0][..., :3], made) < 8


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_places_that_cannot_be_written(write, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "file" / "x", frames(1), 15)


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_frames_are_checked(write, tmp_path):
    for bad in (
        [],
        [np.zeros((4, 4, 3))],
        [np.zeros((4, 4), np.uint8)],
        [*frames(1), *frames(1, 8)],
    ):
        with pytest.raises(ValueError):
            write(tmp_path / "x", bad, 15)
