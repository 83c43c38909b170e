"""A second embedded scene, and a second style of both: what a joint training needs, without a
download."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from datasets.embedded.scene import write_demo_scene
from datasets.embedded.toys import (
    FLOOR,
    PARTS,
    TOYS,
    Part,
    World,
    ball,
    block,
    drum,
    layers,
    mix,
    plain,
    rings,
    taper,
    wood,
)


def blue_for_yellow(albedo: Tensor) -> Tensor:
    """The second style: what is yellow, gold or of light wood is blue, everything else as it was.

    No map of all colours together does that, so a transfer of means and covariances cannot.

    Args:
        albedo: (3, M) linear.

    Returns:
        (3, M).
    """
    red, green, blue = albedo
    yellowness = (torch.minimum(red, green) - blue) / albedo.amax(0).clamp(min=1e-3)
    return mix(albedo, torch.stack([blue, 0.45 * green, red]), (yellowness - 0.25) * 4)


def _parts() -> list[Part]:
    balls = [
        (0.30, "f2c21d", (-0.62, 0.30)), (0.24, "c8202f", (-0.10, 0.72)),
        (0.26, "2166b8", (0.56, 0.52)), (0.20, "3f9c46", (0.86, -0.10)),
        (0.22, "f3e6c4", (0.30, -0.86)), (0.24, "6b2f8a", (-0.46, -0.74)),
        (0.16, "ee7b1c", (-0.88, -0.22)), (0.15, "1d5f74", (0.74, -0.56)),
    ]  # fmt: skip
    return [
        Part(drum(1.12, 0.1, 0.025), (1.12, 1.12, 0.1), wood("dcae70", "8a5527"),
             (0, 0, FLOOR - 0.1), 0.15),
        *(Part(ball(r), (r,) * 3, plain(code), (*at, FLOOR + r), 0.6) for r, code, at in balls),
        Part(block(0.24, 0.035), (0.24,) * 3, layers(("e5a21a", "f4ead6", "b3214f"), (-0.08, 0.08)),
             (0.02, 0.04, FLOOR + 0.24), 0.35, turn=0.6),
        Part(taper(0.2, 0.03, 0.5), (0.2, 0.2, 0.45), layers(("2f9e8f", "f6d34a"), (0.0,)),
             (0.02, 0.04, FLOOR + 0.48 + 0.25), 0.3),
        Part(rings((0.26, 0.08, 0.0)), (0.34, 0.34, 0.08), plain("d23a5a"),
             (0.22, -0.42, FLOOR + 0.2), 0.6, turn=0.9, tilt=math.pi / 3, convex=False),
    ]  # fmt: skip


GARDEN = _parts()
WORLDS = {
    "toys": TOYS,
    "toys_blue": World("toys, blue for yellow", PARTS, blue_for_yellow),
    "garden": World("garden", GARDEN),
    "garden_blue": World("garden, blue for yellow", GARDEN, blue_for_yellow),
}


def write_worlds(
    directory: Path, names: tuple[str, ...] = tuple(WORLDS), **arguments: object
) -> dict[str, Path]:
    """Writes both scenes in both styles, each as a Blender data set, where they are not there.

    Args:
        directory: where a folder for each goes.
        names: which of `WORLDS`.
        arguments: of `datasets.embedded.scene.write_demo_scene`.

    Returns:
        The folders, by name.
    """
    folders = {name: directory / name for name in names}
    for name, folder in folders.items():
        write_demo_scene(folder, world=WORLDS[name], **arguments)
    return folders
