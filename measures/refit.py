"""Consistency without a warp: colours refitted to stylised training views, and how well they then
predict stylised views that were held out (docs/measures.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.cameras.rays import Cameras
from datasets.scene import Scene, View
from measures.consistency import ALONE, TEXTURE, SolidTexture
from models.render import ColourFunction
from models.renderer import Renderer
from models.style import Style
from models.warp import OPAQUE
from systems.frozen import FrozenGeometry, FrozenView
from systems.optimisation import make_optimizer
from utils.tables import markdown_table

TRAIN, HELD_OUT = 24, 6  # views, at most
STEPS = 400
RAYS = 4096
CACHE = 1e9  # bytes, for frozen views


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of a sequence, evenly."""
    return list(items[:: max(1, -(-len(items) // most))])


def refit_views(scene: Scene) -> tuple[list[View], list[View]]:
    """Views to fit and views to hold out: of the scene's test or validation views or, where it has
    none, every fifth training view."""
    held = scene.test or scene.val or scene.train[4::5]
    names = {id(view) for view in held}
    return (
        evenly([view for view in scene.train if id(view) not in names], TRAIN),
        evenly(held, HELD_OUT),
    )


def measure_refit(
    renderer: Renderer,
    scene: Scene,
    name: str,
    painted: ColourFunction,
    start: Style,
    alone: Callable[[Tensor, Tensor], Tensor] | None,
    chunk: int = 0,
) -> dict[str, Any]:
    """Refits colours, which start from the photographic ones and do not depend on the direction, on
    the frozen geometry.

    Args:
        renderer: whose geometry it is; its style is replaced meanwhile.
        scene: training and held-out views.
        name: of the style that is measured.
        painted: that style.
        start: the photographic colours.
        alone: see `measures.alone.FramePainter`; None: without that control.
        chunk: rays at once; 0: by field and device.

    Returns:
        "train", "held_out": numbers of views; "pictures": PSNR in dB of held-out pixels in which
        the scene is seen, mean over the views, by name.
    """
    train, held = refit_views(scene)
    cameras = Cameras.within(scene, [*train, *held]).to(renderer.bounds.device)
    frozen = FrozenGeometry(renderer, cameras, CACHE, chunk=chunk)

    def pictures(style: ColourFunction, change: Callable | None = None) -> list[Tensor]:
        """The colours (P, 3) of all views."""
        return [
            colours_in(frozen.view(i), renderer, style, change)
            for i in tqdm(range(len(cameras)), desc="refit: views", unit="view")
        ]

    texture = SolidTexture(pixel_of(frozen.view(0))).to(renderer.bounds.device)
    own = renderer.field.style
    targets = {name: pictures(painted)}
    if alone is not None:
        targets[ALONE] = pictures(start, alone)
    targets[TEXTURE] = pictures(texture)
    found = {}
    for label, target in targets.items():
        style = fitted(renderer, frozen, target[: len(train)], start, label)
        found[label] = fmean(
            _psnr(frozen.view(i), colours_in(frozen.view(i), renderer, style), target[i])
            for i in range(len(train), len(cameras))
        )
    renderer.field.style = own
    return {"train": len(train), "held_out": len(held), "pictures": found}


def pixel_of(view: FrozenView) -> float:
    """As `measures.consistency.pixel_in_field`, of frozen samples: neighbours in a row, where their
    rays end."""
    last = view.first[1:] - 1
    count = len(view)
    rays = view.rays(slice(0, count))
    ends = rays.points(torch.arange(count, device=last.device), view.t[last.clamp(min=0)])
    beside = (view.row[1:] == view.row[:-1]) & (view.column[1:] == view.column[:-1] + 1)
    apart = (ends[1:] - ends[:-1]).norm(dim=-1)[beside]
    pixel = float(apart.median()) if len(apart) else 0.0
    return pixel if pixel > 0 else 1.0


@torch.no_grad()
def colours_in(
    view: FrozenView,
    renderer: Renderer,
    style: ColourFunction,
    change: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Colours (P, 3) of a view's pixels in a style; ``change`` sees the picture and its mask."""
    renderer.field.style = style
    parts = [
        view.render(renderer.field, renderer.background, slice(at, min(at + RAYS, len(view))))
        for at in range(0, len(view), RAYS)
    ]
    colours = torch.cat(parts).float()
    if change is None:
        return colours
    picture = view.image(colours, renderer.background)[0].permute(1, 2, 0)
    painted = change(picture, view.mask()[0, 0] > OPAQUE)
    return painted.reshape(-1, 3)[view.places]


def fitted(
    renderer: Renderer, frozen: FrozenGeometry, targets: list[Tensor], start: Style, label: str
) -> Style:
    """A style fitted to the colours ``targets`` (P, 3) of the first views."""
    style = start.clone().requires_grad_()
    style.decoder.view_dependent = False
    renderer.field.style = style
    groups = style.parameter_groups(None)
    optimizer = make_optimizer("adam", groups)
    generator = torch.Generator().manual_seed(0)
    for step in tqdm(range(STEPS), desc=f"refit: {label}", unit="step"):
        for group in optimizer.param_groups:  # ends still
            group["lr"] = group["base_lr"] * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        index = step % len(targets)
        view = frozen.view(index)
        if not len(view):
            continue
        draw = torch.randint(len(view), (RAYS,), generator=generator).sort().values
        draw = draw.to(view.t.device)
        rendered = view.take(draw).render(renderer.field, renderer.background)
        loss = (rendered.float() - targets[index][draw]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return style.requires_grad_(False)


def _psnr(view: FrozenView, a: Tensor, b: Tensor) -> float:
    seen = view.opacity > OPAQUE
    error = float((a[seen].double() - b[seen].double()).square().mean())
    return -10 * math.log10(max(error, 1e-10))


def refit_table(pictures: Mapping[str, float]) -> str:
    """The pictures of `measure_refit` as a Markdown table."""
    return markdown_table(["pictures", "PSNR (dB)"], [[k, x] for k, x in pictures.items()])
