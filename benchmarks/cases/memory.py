"""What the training data of a full-sized scene takes: 100 views of 800 x 800 pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.inputs import options_for
from benchmarks.settings import Settings
from benchmarks.table import Row
from benchmarks.work import geometry_system
from datasets.embedded.scene import FIELD_OF_VIEW, camera
from datasets.scene import Scene, View
from models.renderer import Renderer
from models.voxels import VoxelField

VIEWS, SIZE = 100, 800
BOUND = 400e6  # bytes that the training data must stay under
OBJECT = 0.6  # diameter of the object in the images, of their side
RAY, COLOUR = 8, 3  # numbers of a ray and a pixel in the published systems' tables
SINGLE = 4


def run_case(settings: Settings) -> list[Row]:
    """Everything that our stage 1 holds of its data, against tables of all rays and colours."""
    n_views, size = (3, 32) if settings.quick else (VIEWS, SIZE)
    scene = disc_scene(n_views, size)
    box = torch.ones(4, 4, 4, dtype=torch.bool)
    options = options_for(settings, "geometry", "voxels", settings.data)
    spec = VoxelField.specs_of(options)
    renderer = Renderer.build(spec, scene.bounds, scene.background, box)
    (task,) = geometry_system(options, scene, renderer).tasks
    parts = {"views": task.scene.train, "pixels to draw from": task.pixels}
    parts["cameras"] = (task.cameras, task.val_cameras)
    total = tensor_bytes(*parts.values())
    plain = n_views * size**2 * (RAY + COLOUR) * SINGLE
    what = f"{n_views} views of {size} x {size}, RGBA"
    row = Row("memory", what, total, plain, plain / total, unit="B")
    each = {name: tensor_bytes(part) for name, part in parts.items()}
    listed = ", ".join(f"{name} {size / 1e6:.3g} MB" for name, size in each.items())
    verdict = "kept" if total < BOUND else "NOT kept"
    row.note = (
        f"all tensors of the training data, what is shared counted once: {listed}; bound of "
        f"{BOUND / 1e6:.0f} MB: {verdict}; plain: all rays and colours as float32, computed"
    )
    row.details = {"bytes": each, "total": total, "bound": BOUND}
    return [row]


def disc_scene(n_views: int, size: int) -> Scene:
    """Views of a disc with alpha, from the demo's cameras."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    disc = (axis[:, None] ** 2 + axis**2).sqrt() < OBJECT / 2
    focal = 0.5 * size / math.tan(FIELD_OF_VIEW / 2)
    views = []
    for index in range(n_views):
        image = torch.full((size, size, 3), 255, dtype=torch.uint8)
        image[disc] = index % 200
        pose = camera(index, n_views)[:3].float()
        alpha = 255 * disc.to(torch.uint8)
        views.append(View(image, alpha, pose, focal, focal, size / 2, size / 2, f"r_{index}"))
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    return Scene("discs", views, views[:1], views[:1], 2.0, 6.0, bounds)


def tensor_bytes(*objects: object) -> int:
    """Bytes of all tensors in the objects; memory that several share is counted once."""
    storages = {}
    for tensor in _tensors(objects):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _tensors(thing: object) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, list | tuple):
        for item in thing:
            yield from _tensors(item)
    elif hasattr(thing, "__dict__"):
        yield from _tensors(list(vars(thing).values()))
