"""Which format a scene's folder has, told by the files in it."""

from __future__ import annotations

from pathlib import Path

FORMATS = ("blender", "llff", "transforms", "colmap")
AUTO = "auto"
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
