"""What the cases work on, without any download: the demo scene at any size, fields with its
geometry, and VGG-shaped random weights.

The fields' geometry is written or fitted from the scene's own signed distance.  How many samples
have weight decides how long a style step takes, so neither fog nor a lucky surface would do: the
surface is as soft as that of a trained field, and the tables say how many samples a pixel has.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.settings import FIELDS, Settings
from datasets.embedded.painting import paint
from datasets.embedded.scene import surface_distance, write_demo_scene
from datasets.load import load_scene
from datasets.scene import Scene
from features.vgg import Vgg, convolutions, torchvision_indices
from models.occupancy import grid_shape
from models.renderer import Renderer
from models.voxels import VoxelField
from opt import TrainOptions, parse_train
from systems.geometry import new_renderer

# such that an object pixel of the voxels has as many samples with weight (23) as after training on
# the demo scene's photos for minutes (24)
PEAK = 30.0  # density inside, per scene unit
SOFT = 0.006  # width of the surface, scene units
CELL_REACH = 1.5  # cells outside the surface that the voxels keep
CELL_DEPTH = 14.0  # and inside
RESOLUTION = 160  # voxels, as in the demo
STEPS, POINTS = 400, 4096  # of fitting the NeRF
INTERVAL = 0.03  # along a ray, over which the NeRF's opacity is fitted, scene units


def demo_directory(settings: Settings, size: int) -> Path:
    """The demo scene with square images of ``size`` pixels, written once."""
    directory = settings.data / f"scene_{size}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    write_demo_scene(directory, (size, size))
    return directory


def options_for(settings: Settings, stage: str, field: str, root: Path, *more: str) -> TrainOptions:
    """Options of a run, as the command line would make them."""
    words = ["--stage", stage, *FIELDS[field], "--root_dir", str(root)]
    return parse_train([*words, "--device", settings.device, *more])


@cache
def _loaded(root: Path) -> Scene:
    words = ["--stage", "geometry", "--root_dir", str(root)]
    return load_scene(parse_train(words))


def learning_scene(settings: Settings) -> tuple[Path, Scene]:
    """The demo scene with views enough to learn from, and where it is."""
    root = demo_directory(settings, 24 if settings.quick else 100)
    return root, replace(_loaded(root))


def one_view(settings: Settings, size: int) -> Scene:
    """The demo scene with a single training view of ``size`` pixels; its photo is an enlargement,
    which nothing here takes longer or shorter for."""
    _, scene = learning_scene(settings)
    view = scene.train[0]
    scale = size / view.width
    rgba = torch.cat([view.image, view.alpha[..., None]], -1).float() / 255
    planes = rgba.permute(2, 0, 1)[None]
    large = functional.interpolate(planes, (size, size), mode="bilinear")[0].permute(1, 2, 0)
    image, alpha = (large * 255).round().to(torch.uint8).split([3, 1], -1)
    lens = {name: getattr(view, name) * scale for name in ("fx", "fy", "cx", "cy")}
    view = replace(view, image=image.contiguous(), alpha=alpha[..., 0].contiguous(), **lens)
    return replace(scene, train=[view])


def opacity(density: Tensor) -> Tensor:
    """Of ``density (M,)`` over `INTERVAL`."""
    return -torch.expm1(-density * INTERVAL)


def density(x: Tensor) -> Tensor:
    """Density (M,) per scene unit of the demo scene at ``x (M, 3)``."""
    return PEAK * torch.sigmoid(-surface_distance(x) / SOFT)


@torch.no_grad()
def voxel_renderer(settings: Settings) -> Renderer:
    """A voxel field with the demo scene's geometry and random colours."""
    root, scene = learning_scene(settings)
    shape = grid_shape(scene.bounds, 24 if settings.quick else RESOLUTION)
    axes = [(torch.arange(n) + 0.5) / n for n in shape]
    unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
    extent = scene.bounds[1] - scene.bounds[0]
    distance = surface_distance(scene.bounds[0] + unit * extent).view(shape)
    cell = float(extent.max()) / max(shape)
    active = (distance < CELL_REACH * cell) & (distance > -CELL_DEPTH * cell)
    spec = VoxelField.specs_of(options_for(settings, "geometry", "voxels", root))
    renderer = Renderer.build(spec, scene.bounds, scene.background, active)
    geometry = renderer.field.geometry
    wanted = (density(geometry.lattice.vertices()) * geometry.unit).clamp(min=1e-4)
    geometry.raw[:, 0] = wanted.expm1().log()  # the inverse of softplus
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        renderer.field.style.reset()
    return renderer


def nerf_renderer(settings: Settings) -> Renderer:
    """A NeRF whose two networks have been fitted to the demo scene's density; kept on disk."""
    renderer = _new_nerf(settings, "nerf")
    steps, points = (3, 64) if settings.quick else (STEPS, POINTS)
    kept = settings.data / f"fitted_nerf_{steps}_{points}_{PEAK:g}_{SOFT:g}.pt"
    if kept.is_file():
        renderer.load_state_dict(torch.load(kept, weights_only=True))
        return renderer
    print(f"fitting the benchmarks' NeRF to the demo scene, once: {steps} steps", flush=True)
    renderer.to(settings.device)
    fit(renderer, steps, points)
    renderer.cpu()
    torch.save(renderer.state_dict(), kept)
    return renderer


def occupancy_nerf_renderer(settings: Settings) -> Renderer:
    """The fine network of `nerf_renderer` alone, sampled evenly where the hull is."""
    renderer = _new_nerf(settings, "nerf_occupancy")
    renderer.field.load_state_dict(nerf_renderer(settings).field.state_dict())
    return renderer


def _new_nerf(settings: Settings, field: str) -> Renderer:
    root, scene = learning_scene(settings)
    counts = ["--N_samples", "8", "--N_importance", "8"] if settings.quick else []
    return new_renderer(options_for(settings, "geometry", field, root, *counts), scene)


def fit(renderer: Renderer, steps: int, points: int) -> None:
    """Fits the fine network's opacity over short intervals, and copies it to the coarse one."""
    geometry, bounds = renderer.field.geometry, renderer.bounds
    generator = torch.Generator().manual_seed(0)
    rate = 1e-3
    optimizer = torch.optim.Adam(geometry.parameters(), lr=rate, fused=True)
    for step in range(steps):
        unit = torch.rand(4 * points, 3, generator=generator)
        x = bounds[0].cpu() + unit * (bounds[1] - bounds[0]).cpu()
        distance = surface_distance(x)
        # half of them anywhere, half of them near the surface, where it matters
        near = distance.abs().topk(points // 2, largest=False).indices
        chosen = torch.cat([near, torch.arange(points - points // 2)])
        x, wanted = x[chosen].to(bounds), density(x[chosen]).to(bounds)
        optimizer.param_groups[0]["lr"] = rate * 0.1 ** (step / steps)
        loss = functional.mse_loss(opacity(geometry(x)[0]), opacity(wanted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    renderer.sampler.coarse.geometry.load_state_dict(geometry.state_dict())


# of each of `FIELDS`, with the demo scene's geometry
RENDERERS = {
    "voxels": voxel_renderer,
    "nerf": nerf_renderer,
    "nerf_occupancy": occupancy_nerf_renderer,
}


@cache
def painting() -> Tensor:
    """The embedded painting, (H, W, 3) uint8."""
    return torch.from_numpy(paint((256, 192)))


def vgg_file(settings: Settings) -> Path:
    """VGG-19's weights: those given, or random ones, written in torchvision's naming."""
    if settings.vgg_weights is not None:
        return settings.vgg_weights
    path = settings.data / "vgg19_random.pth"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = Vgg(convolutions((2, 2, 1), (64, 128, 256)), "vgg19")
        indices = torchvision_indices(network.convs)
        state = {
            f"features.{indices[layer]}.{name}": tensor
            for layer, conv in network.convs.items()
            for name, tensor in conv.state_dict().items()
        }
        torch.save(state, path)
    return path
