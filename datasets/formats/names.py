"""What options may name: formats of a scene's folder, told by the files in it, and camera paths."""

from __future__ import annotations

from pathlib import Path

FORMATS = ("blender", "llff", "transforms", "colmap")
AUTO = "auto"
NO_PATH = "none"
PATHS = (NO_PATH, "circle", "spiral", "interpolate")
# the first that fits: poses written for this purpose come before the model that they were made of
SIGNS = (
    ("blender", "transforms_train.json"),
    ("transforms", "transforms.json"),
    ("llff", "poses_bounds.npy"),
    ("colmap", "sparse"),
    ("colmap", "colmap/sparse"),
    ("colmap", "images.bin"),
    ("colmap", "images.txt"),
)


def format_of(root_dir: Path) -> str | None:
    """One of `FORMATS`, or None where the folder has the files of none."""
    return next((name for name, sign in SIGNS if (root_dir / sign).exists()), None)


def is_path(value: str) -> bool:
    """Whether ``value`` names a camera path, or a file that is there."""
    return value in PATHS or Path(value).expanduser().is_file()
