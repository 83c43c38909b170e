"""transforms.json as nerfstudio and instant-ngp write it: one file of frames with poses and lenses.

The frames of Blender data sets (transforms_train.json and so on) have the same form and are read
here as well.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

from datasets.cameras.lens import Lens
from datasets.cameras.poses import checked_pose
from datasets.formats.folders import below, frames_in_size
from datasets.formats.frames import Frame, distinct_names, find_image, load_views, split_frames
from datasets.load import LoadOptions, make_scene, named
from datasets.scene import Scene
from utils.errors import UserError
from utils.files import read_text

log = logging.getLogger(__name__)

FILE = "transforms.json"
POSITIVE = ("camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "w", "h")
PERSPECTIVE = ("k1", "k2", "p1", "p2", "k3", "k4")
FISHEYE = ("k1", "k2", "k3", "k4")
RATIONAL = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
LENSES = {
    "PINHOLE": ("PINHOLE", ()),
    "SIMPLE_PINHOLE": ("PINHOLE", ()),
    "SIMPLE_RADIAL": ("TRANSFORMS", PERSPECTIVE),
    "RADIAL": ("TRANSFORMS", PERSPECTIVE),
    "OPENCV": ("TRANSFORMS", PERSPECTIVE),
    "FULL_OPENCV": ("FULL_OPENCV", RATIONAL),
    "OPENCV_FISHEYE": ("OPENCV_FISHEYE", FISHEYE),
}
LARGEST = 64 << 20  # bytes: some 80,000 frames; what is read takes up to 20 times as much
LONGEST_PATH = 1000  # characters of a file_path
HUGE = 1e30  # beyond every real focal length; JSON integers may be too long for a float


def load_transforms(root_dir: Path, options: LoadOptions) -> Scene:
    """Load posed images listed in one transforms.json.

    Intrinsics are the file's or a frame's; images and their masks (mask_path) are undistorted.
    Frames whose image is missing are named and left out.  ``train_filenames``, ``val_filenames``
    and ``test_filenames`` split the frames where they are given (nerfstudio); val and test stand in
    for each other.

    Args:
        root_dir: the folder with transforms.json.
        options: sizes, range, background and held-out views.

    Returns:
        The scene, in the file's own units; near and far are the file's, where it has them.

    Raises:
        UserError: anything missing, unreadable or contradictory, naming the file or option.
    """
    file = root_dir / FILE
    data = read_json(file)
    frames, missing = read_frames(root_dir, file, data)
    if missing:
        log.warning("%s: %d images are missing, left out: %s", file, len(missing), named(missing))
    if not frames:
        raise UserError(
            f"{file}: none of its {len(missing)} images is there; put them where file_path says, "
            f"the first is to be {root_dir / missing[0]}"
        )
    splits = _listed(file, data, frames) or split_frames(root_dir, frames, options.hold_out)
    splits = {s: frames_in_size(root_dir, part, options.img_wh) for s, part in splits.items()}
    splits["train"] = options.selection.of(splits["train"])
    views = load_views(splits, options.img_wh, options.background)
    return make_scene(root_dir, views, options, _range(file, data))


def read_json(file: Path) -> dict:
    """The contents of a transforms file, which has frames.

    Raises:
        UserError: there is no such file, it is no JSON, or has no frames.
    """
    try:
        data = json.loads(read_text(file, LARGEST))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; is this the data set's folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON ({error}); write it again") from None
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{file}: has no frames; it needs a list 'frames' of posed images")
    return data


def read_frames(root_dir: Path, file: Path, data: dict) -> tuple[list[Frame], list[str]]:
    """The frames of a transforms file, checked.

    Returns:
        Those whose image is there, with distinct names, and the file_path of the others.

    Raises:
        UserError: a frame has no usable path, pose or lens.
    """
    frames, missing = [], []
    for index, entry in enumerate(data["frames"]):
        where = f"{file}: frame {index}"
        if not isinstance(entry, dict):
            raise UserError(f"{where}: not an object with file_path and transform_matrix")
        file_path = _name(entry.get("file_path"), "file_path", where, "name its image")
        where = f"{where} ({file_path})"
        c2w = checked_pose(entry.get("transform_matrix"), where, "transform_matrix")
        lens = _lens({**data, **entry}, where)
        path = find_image(below(root_dir, file_path.replace("\\", "/"), where))
        mask = _mask(root_dir, entry, where)
        if path is None:
            missing.append(file_path)
        else:
            frames.append(Frame(path, c2w, lens, path.stem, mask=mask))
    return distinct_names(root_dir, frames), missing


def _mask(root_dir: Path, entry: dict, where: str) -> Path | None:
    """The file of a frame's mask (nerfstudio's mask_path: black is not to be trained on)."""
    if entry.get("mask_path") is None:
        return None
    advice = "name the mask's image, or leave it out"
    name = _name(entry["mask_path"], "mask_path", where, advice).replace("\\", "/")
    return below(root_dir, name, where)


def _name(value: object, key: str, where: str, advice: str) -> str:
    """The name of a file that an entry has."""
    if value is None:
        raise UserError(f"{where}: has no {key}; {advice}")
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_PATH:
        shown = f"{len(value)} characters long" if isinstance(value, str) else repr(value)
        raise UserError(f"{where}: {key} is {shown}; {advice}")
    return value


def _lens(data: dict, where: str) -> Lens:
    """The lens that a frame's entries and the file's, taken together, describe."""
    numbers = {key: _number(data, key, where) for key in (*POSITIVE, "cx", "cy", *RATIONAL)}
    if numbers["fl_x"] is None and numbers["camera_angle_x"] is None:
        raise UserError(f"{where}: no focal length; give camera_angle_x, or fl_x (and fl_y)")
    name = data.get("camera_model") or "OPENCV"
    if data.get("is_fisheye"):
        name = "OPENCV_FISHEYE"
    if not isinstance(name, str) or name not in LENSES:
        raise UserError(f"{where}: camera_model {name!r} is not known; use {', '.join(LENSES)}")
    model, keys = LENSES[name]
    coefficients = tuple(numbers[key] or 0.0 for key in keys)
    if model == "TRANSFORMS" and not any(coefficients):
        model, coefficients = "PINHOLE", ()
    return Lens(
        *(numbers[key] for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")),
        *(numbers[key] for key in ("camera_angle_x", "camera_angle_y")),
        *(model, coefficients),
    )


def _number(data: dict, key: str, where: str) -> float | None:
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or not -HUGE < value < HUGE:
        raise UserError(f"{where}: {key} is {value!r}; it has to be a finite number")
    if key in POSITIVE and value <= 0:
        raise UserError(f"{where}: {key} is {value!r}; it has to be above 0")
    if key.startswith("camera_angle") and value >= math.pi:
        raise UserError(f"{where}: {key} is {value!r}; it has to be below pi (radians)")
    return float(value)


def _listed(file: Path, data: dict, frames: list[Frame]) -> dict[str, list[Frame]] | None:
    """The frames by the file's own lists of names; None where it has none for val and test."""
    lists = {split: data.get(f"{split}_filenames") for split in ("train", "val", "test")}
    for split, names in lists.items():
        if names is not None and not isinstance(names, list):
            raise UserError(f"{file}: {split}_filenames is not a list of file_path entries")
    if not lists["val"] and not lists["test"]:
        return None
    root_dir = file.parent
    paths = {
        split: {find_image(below(root_dir, str(name), f"{file}: {split}")) for name in names or ()}
        for split, names in lists.items()
    }
    if not paths["train"]:
        held = paths["val"] | paths["test"]
        paths["train"] = {frame.path for frame in frames} - held
    splits = {s: [frame for frame in frames if frame.path in paths[s]] for s in paths}
    if not splits["train"]:
        raise UserError(f"{file}: its lists of filenames leave no training image; correct them")
    splits["test"] = splits["test"] or splits["val"] or splits["train"][:1]
    splits["val"] = splits["val"] or splits["test"]
    return splits


def _range(file: Path, data: dict) -> tuple[float, float] | None:
    """near and far where the file has both, as `prepare.py` writes them."""
    near, far = (_number(data, key, str(file)) for key in ("near", "far"))
    if near is None or far is None:
        return None
    if not 0 <= near < far:
        raise UserError(f"{file}: near {near:g} and far {far:g} are no range; correct them")
    return near, far
