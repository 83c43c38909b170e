"""One view of a field seen from another: which pixels show the same surface, and the picture taken
over from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from datasets.cameras.rays import Cameras
from models.render import ColourFunction, compositing_weights, median_depth, segment_sum
from models.renderer import Renderer, ray_chunks
from utils.images import pixel_centres, sample_bilinear

OPAQUE = 0.5  # opacity from which a pixel shows a surface
LEAST_COVERAGE = 0.3  # of a pair that counts
TOLERANCE = 0.01  # of its distance, by which a surface may lie before or behind another
SHIFT = 1.0  # pixels: noise of the depth that moves a point by less does little harm
HOLES = 2  # of the 3 x 3 pixels around one that counts; beside a straight edge there are three
WHOLE = 0.999  # interpolated opacity where all pixels around are opaque, to rounding


@dataclass
class Surface:
    """What the pixels of a view show.

    Attributes:
        points: (H, W, 3) world positions at the median depth; meaningless where not opaque.
        distance: (H, W) from the camera, scene units.
        opaque: (H, W) bool, whether there is a surface.
    """

    points: Tensor
    distance: Tensor
    opaque: Tensor


@dataclass
class Frame:
    """A view in several colourings.

    Attributes:
        view: number of its camera.
        surface: what it shows.
        pictures: (H, W, 3) in [0, 1] by name.
    """

    view: int
    surface: Surface
    pictures: dict[str, Tensor]


@torch.no_grad()
def render_frame(
    renderer: Renderer,
    cameras: Cameras,
    view: int,
    styles: Mapping[str, ColourFunction],
    chunk: int = 0,
) -> Frame:
    """Renders a view in several styles; its geometry is computed once.

    Args:
        renderer: whose geometry it is.
        cameras: on the renderer's device.
        view: number of the camera.
        styles: by name, ``style(feature, x, d, code) -> rgb (M, 3)`` as `models.style.Style`.
        chunk: rays at once; 0: by field and device.
    """
    height, width = cameras.sizes[view].tolist()

    def part(pixels: slice) -> tuple[Tensor, Tensor, list[Tensor]]:
        rays = renderer.clip(cameras.view_rays(view, pixels.start, pixels.stop))
        samples = renderer.sample(rays)
        geometry = renderer.geometry(rays, samples)
        weights = compositing_weights(geometry[0], samples)
        depth = median_depth(weights, samples)
        points = rays.points(torch.arange(len(rays), device=depth.device), depth)
        opacity = segment_sum(weights, samples.ray_index, samples.n_rays)
        colours = [
            renderer.render(rays, samples, geometry=geometry, style=style).rgb.float()
            for style in styles.values()
        ]
        return cameras.space.to_world(points), opacity, colours

    parts = ray_chunks(renderer, chunk).over(height * width, part)
    points = torch.cat([p for p, _, _ in parts]).view(height, width, 3)
    opacity = torch.cat([o for _, o, _ in parts]).view(height, width)
    pictures = {
        name: torch.cat([c[i] for _, _, c in parts]).clamp(0, 1).view(height, width, 3)
        for i, name in enumerate(styles)
    }
    distance = (points - cameras.c2w[view, :, 3]).norm(dim=-1)
    return Frame(view, Surface(points, distance, opacity > OPAQUE), pictures)


def correspondence(cameras: Cameras, target: Frame, source: Frame) -> tuple[Tensor, Tensor]:
    """Where a view shows what another one shows.

    A pixel counts where both views are opaque, its point lies within the source's image, and is not
    occluded there: the source shows a surface at its distance, to `TOLERANCE`, or one so near to
    it that the two are less than `SHIFT` apart in the target.  Pixels beside the edge of what
    counts do not count either, see `eroded`.

    Args:
        cameras: of both views.
        target: the frame whose points are looked for.
        source: the frame where they are looked for.

    Returns:
        pixel: (H, W, 2) column and row in the source, pixel centres at halves.
        valid: (H, W) bool.
    """
    height, width = target.surface.distance.shape
    own, other = target.surface, source.surface
    eye, points = cameras.c2w[source.view, :, 3], own.points.view(-1, 3)
    pixel, _, inside = cameras.project(source.view, points)
    # between the outermost pixel centres, so that nothing is extrapolated
    corner = pixel.new_tensor([other.distance.shape[1] - 0.5, other.distance.shape[0] - 0.5])
    inside = inside & (pixel >= 0.5).all(-1) & (pixel <= corner).all(-1)
    pixel = pixel.view(height, width, 2)
    there = torch.stack([other.distance, other.opaque.to(other.distance)], -1)
    seen, opaque = sample_bilinear(there, pixel).flatten(0, 1).unbind(-1)
    distance = (points - eye).norm(dim=-1)
    same = (seen - distance).abs() < TOLERANCE * distance
    # the point that the source shows in that pixel, back in the target
    back, _, front = cameras.project(target.view, eye + (points - eye) * (seen / distance)[:, None])
    home = pixel_centres(height, width, back.device).view(-1, 2)
    near = front & ((back - home).norm(dim=-1) < SHIFT)
    visible = inside & (opaque > WHOLE) & (same | near)
    return pixel, eroded(own.opaque & visible.view(height, width))


def eroded(mask: Tensor) -> Tensor:
    """The mask (H, W) without the pixels beside its edges: those that touch (3 x 3) more than
    `HOLES` pixels outside it.  A few are holes that noise has made, and take nothing with them."""
    around = functional.pad((~mask)[None, None].float(), (1, 1, 1, 1), mode="replicate")
    outside = functional.avg_pool2d(around, 3, stride=1)
    return mask & (9 * outside[0, 0] < HOLES + 0.5)


def masked_rmse(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """``sqrt(sum_M |a - b|^2 / (3 |M|))`` of images (H, W, 3) over the pixels M of ``mask (H, W)``,
    which is not empty."""
    return float((a[mask].double() - b[mask].double()).square().mean().sqrt())
