"""What is in the folder of a rendering."""

import torch

from assets.frames import Frames
from models.renderer import Picture


def test_a_shorter_rendering_leaves_nothing_of_a_longer_one(tmp_path):
    frames = Frames(tmp_path, 1.0, 3.0, ("png", "pfm"))
    picture = Picture(torch.rand(4, 5, 3), torch.ones(4, 5), torch.ones(4, 5))
    for index in range(4):
        frames.write(index, picture)
    for name in ("kept.png", "clip.gif", "metrics.json"):
        (tmp_path / name).write_text("")
    frames.drop_after(2)
    left = {path.name for path in tmp_path.iterdir()}
    assert {"kept.png", "clip.gif", "metrics.json", "000.png", "depth_001.pfm"} <= left
    assert not any("002" in name or "003" in name for name in left)
    assert len(left) == 3 + 2 * 4


def test_frames_of_two_sizes_make_no_video(tmp_path, capsys):
    frames, gif, mp4 = Frames(tmp_path, 1.0, 3.0, ()), tmp_path / "a.gif", tmp_path / "a.mp4"
    for index, (height, width) in enumerate([(16, 16), (16, 32)]):
        picture = Picture(torch.rand(height, width, 3), *torch.ones(2, height, width))
        frames.write(index, picture)
    assert frames.write_videos([0, 0], gif, mp4, 10) == [gif, mp4] and gif.is_file()
    assert frames.write_videos([0, 1], gif, mp4, 10) == []
    assert not gif.exists() and not mp4.exists()  # those were of other frames
    assert "no GIF and no MP4" in capsys.readouterr().out
