"""What options may name: the formats of a scene's folder, and camera paths.  Imports no PyTorch."""

from __future__ import annotations

from pathlib import Path

AUTO = "auto"
NO_PATH = "none"
PATHS = (NO_PATH, "circle", "spiral", "interpolate")
SIDES = ("none", "left", "right")  # from which photos may have been taken
# name: ("module:function" that takes a folder and `LoadOptions` and returns a `Scene`, files by any
# of which the format is recognised).  The first match wins: poses written for NeRF come before the
# COLMAP model that they were made from.
FORMATS = {
    "blender": ("datasets.formats.blender:load_blender", ("transforms_train.json",)),
    "transforms": ("datasets.formats.transforms:load_transforms", ("transforms.json",)),
    "llff": ("datasets.formats.llff:load_llff", ("poses_bounds.npy",)),
    "colmap": (
        "datasets.formats.colmap:load_colmap",
        ("sparse", "colmap/sparse", "images.bin", "images.txt"),
    ),
}


def format_of(root_dir: Path) -> str | None:
    """One of `FORMATS`, or None where the folder has the files of none."""
    for name, (_, signs) in FORMATS.items():
        if any((root_dir / sign).exists() for sign in signs):
            return name
    return None


def is_path(value: str) -> bool:
    """Whether ``value`` names a camera path, or a file that is there."""
    return value in PATHS or Path(value).expanduser().is_file()
