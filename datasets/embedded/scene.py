"""The demo scene: toys on a round plinth, traced from signed distances, and written as an ordinary
Blender (NeRF-synthetic) data set."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from datasets.embedded.toys import TOYS, Part, World, colour, dot, length, mix
from utils.errors import UserError

FIELD_OF_VIEW = 0.69  # radians over the shorter side of the image
RADIUS = 4.0  # distance of the cameras from the origin; the scene fits in [-1.2, 1.2]^3
SUN = (0.42, -0.52, 0.74)
SUN_SIZE = 0.07  # its radius as seen from the scene, radians: bigger than the real one
CHUNK = 1 << 18  # rays traced at once
SUBPIXELS = 3  # 3 x 3 samples a pixel
TOLERANCE = 1e-5  # where a ray counts as arrived, scene units


def surface_distance(points: Tensor) -> Tensor:
    """Signed distance (N,) of ``points (N, 3)`` to the scene's surface, scene units: exact outside,
    negative and no more than a bound inside."""
    return TOYS.union(points.T.contiguous())


def _march(part: Part, o: Tensor, d: Tensor) -> Tensor:
    """Distance (N,) along rays (3, N) to one part, inf where they miss: sphere tracing (Hart 1996)
    that starts at the part's box."""
    result = o.new_full((o.shape[1],), math.inf)
    offset = o - o.new_tensor(part.centre)[:, None]
    closest = dot(offset, offset) - dot(offset, d) ** 2
    index = (closest < sum(h * h for h in part.half)).nonzero().squeeze(1)
    o, d = part.local(o[:, index], True), part.local(d[:, index], False)
    half = o.new_tensor(part.half)[:, None] + TOLERANCE
    low, high = (-half - o) / d, (half - o) / d
    near = torch.minimum(low, high).amax(dim=0).clamp(min=0)
    far = torch.maximum(low, high).amin(dim=0)
    inside = (near < far).nonzero().squeeze(1)
    index, t, far, o, d = index[inside], near[inside], far[inside], o[:, inside], d[:, inside]
    distance, step = torch.full_like(t, math.inf), torch.zeros_like(t)
    for _ in range(64):
        if len(index) == 0:
            break
        for _ in range(4):  # cheaper than sorting out the finished rays after every step
            before, distance = distance, part.shape(torch.addcmul(o, d, t))
            # of a convex solid the distance along a ray is convex: the secant never oversteps
            secant = step / (before - distance).clamp(min=1e-12)
            step = distance * secant.clamp(1, 8 if part.convex else 1)
            t = t + step
        arrived = distance < TOLERANCE
        result[index[arrived]] = t[arrived]
        alive = (~arrived & (t < far)).nonzero().squeeze(1)
        index, t, far, o, d = index[alive], t[alive], far[alive], o[:, alive], d[:, alive]
        distance, step = distance[alive], step[alive]
    return result


def _sky(d: Tensor) -> Tensor:
    """What a mirror would see: a bright zenith, a pale horizon, a warm floor, a window."""
    up = d[2]
    below, horizon, zenith = (colour(c, d) for c in ("6b5f55", "e6e9ea", "7aa7dc"))
    sky = mix(mix(below, horizon, up * 3 + 0.5), zenith, up * 1.3 - 0.2)
    across, along = d[1] - 0.1, d[0] + 0.9 * up
    window = (6 * along - 5.5).clamp(0, 1) * (2.8 - 8 * across.abs()).clamp(0, 1)
    return sky + 2.0 * window


def _in_sunlight(world: World, points: Tensor, sun: Tensor, own: Tensor) -> Tensor:
    """Which of the points (3, M), on the parts ``own (M,)``, see the sun."""
    sunlit = torch.ones_like(own, dtype=torch.bool)
    for i, part in enumerate(world.parts[1:], start=1):  # the plinth lies under everything
        index = (sunlit & ((own != i) | (not part.convex))).nonzero().squeeze(1)
        sunlit[index] = _march(part, points[:, index], sun[:, index]).isinf()
    return sunlit


def _shade(world: World, p: Tensor, d: Tensor, own: Tensor, sun: Tensor) -> Tensor:
    """Linear colour (3, M) of the points that were hit."""
    albedo, normal, gloss = torch.empty_like(p), torch.empty_like(p), torch.empty_like(p[0])
    for i, part in enumerate(world.parts):
        index = (own == i).nonzero().squeeze(1)
        mine = p[:, index]
        albedo[:, index] = world.repaint(part.paint(part.local(mine, True)))
        normal[:, index] = part.normals(mine)
        gloss[index] = part.gloss
    outside = p + 2e-3 * normal
    facing = dot(normal, sun).clamp(min=0)
    toward = (facing > 0).nonzero().squeeze(1)
    facing[toward] *= _in_sunlight(world, outside[:, toward], sun[:, toward], own[toward])
    open_sky = torch.ones_like(facing)
    for reach, weight in ((0.06, 0.35), (0.22, 0.5)):
        open_sky -= weight * (1 - world.union(p + reach * normal) / reach).clamp(0, 1)
    up = 0.5 + 0.5 * normal[2]
    ambient = mix(colour("8a6a55", p), colour("b9cdf0", p), up) * open_sky
    light = 2.1 * facing * colour("fff1d6", p) + 1.2 * ambient
    mirror = d - 2 * dot(normal, d) * normal
    halfway = sun - d
    shine = (dot(normal, halfway) / length(*halfway)).clamp(min=0) ** 90 * (facing > 0)
    fresnel = 0.05 + 0.6 * (1 + dot(normal, d)).clamp(0, 1) ** 4
    reflected = _sky(mirror) * fresnel * open_sky + 1.3 * shine
    return albedo * light + gloss * reflected


def trace(
    origins: Tensor, directions: Tensor, sun: Tensor | None = None, world: World = TOYS
) -> tuple[Tensor, Tensor, Tensor]:
    """What rays see of the demo scene.

    Args:
        origins: (N, 3) world positions, outside the solids.
        directions: (N, 3) unit length.
        sun: (N, 3) direction of the light for each ray, any length; None is `SUN` for all.
        world: what there is.

    Returns:
        rgb (N, 3) linear in [0, 1] (pictures hold its power 1 / 2.2), 0 where nothing is hit;
        depth (N,) along the unit ray, inf where nothing is hit; hit (N,) bool.
    """
    o, d = origins.T.contiguous(), directions.T.contiguous()
    depth = o.new_full((o.shape[1],), math.inf)
    own = torch.zeros_like(depth, dtype=torch.int64)
    for i, part in enumerate(world.parts):
        t = _march(part, o, d)
        own[t < depth] = i
        depth = torch.minimum(depth, t)
    hit = depth.isfinite()
    index = hit.nonzero().squeeze(1)
    o, d = o[:, index], d[:, index]
    suns = o.new_tensor(SUN).expand_as(origins) if sun is None else sun
    light = functional.normalize(suns[index], dim=-1).T.contiguous()
    rgb = torch.zeros_like(origins)
    rgb[index] = _film(_shade(world, torch.addcmul(o, d, depth[index]), d, own[index], light)).T
    return rgb, depth, hit


def _film(x: Tensor) -> Tensor:
    """Rolls highlights off instead of clipping them (Narkowicz 2015, ACES fit)."""
    x = 0.72 * x
    return (x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)).clamp(0, 1)


def camera(index: float, count: int, offset: float = 0.0) -> Tensor:
    """Camera-to-world (4, 4), float64, OpenGL axes, of one of ``count`` cameras on a golden-angle
    spiral from 5 degrees under the horizon to 75 over it, looking at the origin."""
    low, high = math.sin(math.radians(-5)), math.sin(math.radians(75))
    z = low + (high - low) * (index + 0.5) / count
    azimuth = index * math.pi * (3 - math.sqrt(5)) + offset
    r = math.sqrt(1 - z * z)
    back = torch.tensor([r * math.cos(azimuth), r * math.sin(azimuth), z], dtype=torch.float64)
    right = torch.tensor([-math.sin(azimuth), math.cos(azimuth), 0.0], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3] = torch.stack([right, torch.linalg.cross(back, right), back, RADIUS * back], dim=1)
    return pose


def render(pose: Tensor, size: tuple[int, int], world: World = TOYS) -> Tensor:
    """One anti-aliased picture with straight alpha.

    Args:
        pose: (4, 4) camera-to-world.
        size: (width, height) in pixels.
        world: what there is.

    Returns:
        (H, W, 4) uint8 sRGB and coverage.
    """
    width, height = size
    rows = max(1, CHUNK // (width * SUBPIXELS**2))
    starts = range(0, height, rows)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many operations on little: threads would wait for one another
    try:
        return torch.cat([_strip(world, pose, size, i, min(i + rows, height)) for i in starts])
    finally:
        torch.set_num_threads(threads)


def _strip(world: World, pose: Tensor, size: tuple[int, int], start: int, stop: int) -> Tensor:
    """The rows ``start:stop`` of a picture."""
    width, height = size
    focal = 0.5 * min(size) / math.tan(FIELD_OF_VIEW / 2)
    n = SUBPIXELS
    k = torch.arange(n * n)
    # every sample of a pixel sees another point of the sun's disc: soft shadows for free
    radius, angle = SUN_SIZE * ((k * 4 % n**2 + 0.5) / n**2).sqrt(), 2.399963 * k
    disc = torch.stack([radius * angle.cos(), radius * angle.sin(), 0 * radius], dim=-1)
    shape = (stop - start, width, n * n)
    row = torch.arange(start, stop)[:, None, None] + (k // n + 0.5) / n
    column = torch.arange(width)[None, :, None] + (k % n + 0.5) / n
    x, y = (column - width / 2) / focal, (height / 2 - row) / focal
    local = torch.stack([x.expand(shape), y.expand(shape), -torch.ones(shape)], dim=-1)
    local = local.reshape(-1, 3)
    directions = functional.normalize(local, dim=-1) @ pose[:3, :3].T.float()
    origins = pose[:3, 3].float().expand_as(directions)
    suns = (disc + torch.tensor(SUN)).repeat(len(directions) // (n * n), 1)
    rgb, _, hit = trace(origins, directions, suns, world)
    cover = hit.reshape(shape).sum(dim=-1, keepdim=True)
    shade = (rgb.reshape(*shape, 3).sum(dim=2) / cover.clamp(min=1)) ** (1 / 2.2)
    rgba = torch.cat([shade, cover / n**2], dim=-1)
    return (rgba * 255 + 0.5).to(torch.uint8)


def write_demo_scene(
    directory: Path,
    size: tuple[int, int] = (128, 128),
    n_train: int = 40,
    n_val: int = 4,
    n_test: int = 8,
    seed: int = 0,
    world: World = TOYS,
) -> None:
    """Write the demo scene as a Blender data set, whole or not at all; the same one is reused.

    Args:
        directory: where transforms_{train,val,test}.json and the folders of PNGs go.
        size: (width, height) in pixels.
        n_train, n_val, n_test: views of each split, at least one.
        seed: turns the cameras of each split about the vertical.
        world: what there is.

    Raises:
        UserError: a size or count is not positive, or the folder holds something else or cannot be
            written.
    """
    counts = {"train": n_train, "val": n_val, "test": n_test}
    if min(*size, *counts.values()) < 1:
        raise UserError(
            f"demo scene: size {size} or views {counts} below 1; use at least 1 of each"
        )
    poses = _poses(counts, seed)
    texts = {
        f"transforms_{split}.json": _transforms(split, poses[split], size, world) for split in poses
    }
    try:
        if all(_holds(directory / name, text) for name, text in texts.items()):
            return
        if directory.exists() and any(directory.iterdir()):
            raise UserError(
                f"{directory}: holds something other than this demo scene; remove it or choose "
                "another folder"
            )
        _write_whole(directory, poses, texts, size, world)
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def _poses(counts: dict[str, int], seed: int) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.rand(len(counts), generator=generator, dtype=torch.float64) * 2 * math.pi
    return {
        split: [camera(i, count, offset) for i in range(count)]
        for (split, count), offset in zip(counts.items(), offsets.tolist(), strict=True)
    }


def _transforms(split: str, poses: list[Tensor], size: tuple[int, int], world: World) -> str:
    width, height = size
    angle = 2 * math.atan(width / min(size) * math.tan(FIELD_OF_VIEW / 2))
    frames = [
        {
            "file_path": f"./{split}/r_{i}",
            "transform_matrix": [[round(value, 9) for value in row] for row in pose.tolist()],
        }
        for i, pose in enumerate(poses)
    ]
    content = {"camera_angle_x": round(angle, 9), "w": width, "h": height}
    content |= {"scene": world.name} if world.name else {}
    content["frames"] = frames
    return json.dumps(content, indent=1) + "\n"


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text


def _write_whole(
    directory: Path,
    poses: dict[str, list[Tensor]],
    texts: dict[str, str],
    size: tuple[int, int],
    world: World,
) -> None:
    """Everything goes to a sibling first, so that an interruption leaves no half data set."""
    partial = directory.parent / f".{directory.name}.{os.getpid()}.part"
    try:
        for split, split_poses in poses.items():
            (partial / split).mkdir(parents=True)
            for i, pose in enumerate(split_poses):
                image = Image.fromarray(render(pose, size, world).numpy())
                image.save(partial / split / f"r_{i}.png")
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        if directory.exists():
            directory.rmdir()
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
