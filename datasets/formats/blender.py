"""Blender data sets: transforms_{train,val,test}.json beside images, as NeRF introduced them."""

from __future__ import annotations

import logging
from pathlib import Path

from datasets.formats.folders import frames_in_size
from datasets.formats.frames import EXTENSIONS, Frame, load_views, split_frames
from datasets.formats.transforms import read_frames, read_json
from datasets.load import LoadOptions, make_scene
from datasets.scene import Scene
from utils.errors import UserError

log = logging.getLogger(__name__)


def load_blender(root_dir: Path, options: LoadOptions) -> Scene:
    """Load a data set of posed images, with or without alpha, of any size.

    The focal length comes from ``camera_angle_x``, or from ``fl_x, fl_y, cx, cy, w, h`` of the
    file or of a frame.  Val and test stand in for each other; where both are missing, training
    views are held out.

    Args:
        root_dir: the folder with transforms_train.json.
        options: sizes, range, background and held-out views.

    Returns:
        The scene, with bounds from the alpha masks where there are any (see `scene_bounds`).

    Raises:
        UserError: anything missing, unreadable or contradictory, naming the file or option.
    """
    frames = {split: _frames(root_dir, split) for split in ("train", "val", "test")}
    frames = {s: frames_in_size(root_dir, part, options.img_wh) for s, part in frames.items()}
    if not frames["val"] and not frames["test"]:
        frames = split_frames(root_dir, frames["train"], options.hold_out)
    for split, other in (("val", "test"), ("test", "val")):
        if not frames[split]:
            log.warning("%s: no %s split; the %s views are used", root_dir, split, other)
            frames[split] = frames[other]
    frames["train"] = options.selection.of(frames["train"])
    views = load_views(frames, options.img_wh, options.background)
    return make_scene(root_dir, views, options)


def _frames(root_dir: Path, split: str) -> list[Frame]:
    """Frames of one split, all of whose images are there; none where val or test has no file."""
    file = root_dir / f"transforms_{split}.json"
    if split != "train" and not file.exists():
        return []
    data = read_json(file)
    frames, missing = read_frames(root_dir, file, data)
    if missing:
        index = next(i for i, f in enumerate(data["frames"]) if f["file_path"] == missing[0])
        tried = " ".join(EXTENSIONS[:3])
        raise UserError(
            f"{file}: frame {index} ({missing[0]}): image {root_dir / missing[0]} is missing, "
            f"as is and with {tried} and others appended"
        )
    return frames
