"""Lens distortion: the camera models of COLMAP and of transforms files; undistorted images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from utils.images import pixel_centres, sample_bilinear

Distort = Callable[[Tensor, Sequence[float]], Tensor]

ZOOM = (0.8, 4.0)  # least and largest change of the focal length by which blank corners are avoided
ZOOM_STEP = 1.01
BORDER = 64  # points along each side of an image that stand for its border


def distort(model: str, coefficients: Sequence[float], xy: Tensor) -> Tensor:
    """Where a lens images a direction.

    Args:
        model: a key of `MODELS`.
        coefficients: those of the model after focal lengths and centre, in COLMAP's order.
        xy: (..., 2) ideal (pinhole) image position over the focal length, y down.

    Returns:
        (..., 2) distorted position over the focal length.
    """
    return MODELS[model][1](xy, coefficients)


def is_ideal(model: str, coefficients: Sequence[float]) -> bool:
    """True where the lens is a pinhole, in name or in effect."""
    return MODELS[model][1] in (_brown, _division) and not any(coefficients)


@cache
def undistorted_zoom(
    model: str,
    coefficients: tuple[float, ...],
    lens: tuple[float, float, float, float],
    size: tuple[int, int],
) -> float:
    """The smallest factor of the focal lengths with which an undistorted image of the same size and
    centre has no pixel that the distorted one does not show.

    Args:
        model, coefficients: see `distort`.
        lens: fx, fy, cx, cy in pixels.
        size: width, height in pixels.

    Returns:
        A factor within `ZOOM`; at its upper end there may be pixels that are not shown.
    """
    border = _border(*size)
    zoom = ZOOM[1]
    while zoom / ZOOM_STEP >= ZOOM[0]:
        if not _is_shown(model, coefficients, lens, size, border, zoom / ZOOM_STEP):
            break
        zoom /= ZOOM_STEP
    return zoom


def undistort(
    image: Tensor,
    model: str,
    coefficients: tuple[float, ...],
    lens: tuple[float, float, float, float],
) -> tuple[Tensor, float]:
    """An image as a pinhole with the same centre would have seen it, bilinear.

    Args:
        image: (H, W, C) float.
        model, coefficients: see `distort`.
        lens: fx, fy, cx, cy in pixels of the image.

    Returns:
        (H, W, C) image, and the factor of fx and fy that goes with it.
    """
    height, width = image.shape[:2]
    zoom = undistorted_zoom(model, coefficients, lens, (width, height))
    source = _source(model, coefficients, lens, pixel_centres(height, width), zoom)
    return sample_bilinear(image, source), zoom


def _source(
    model: str,
    coefficients: tuple[float, ...],
    lens: tuple[float, ...],
    pixels: Tensor,
    zoom: float,
) -> Tensor:
    """Positions (..., 2) in the distorted image of ``pixels (..., 2)`` of the undistorted one."""
    focal, centre = torch.tensor(lens[:2]), torch.tensor(lens[2:])
    ideal = (pixels - centre) / (zoom * focal)
    return distort(model, coefficients, ideal) * focal + centre


def _is_shown(
    model: str,
    coefficients: tuple[float, ...],
    lens: tuple[float, ...],
    size: tuple[int, int],
    border: Tensor,
    zoom: float,
) -> bool:
    """Whether the border's sources are in the image, and distortion does not fold over there."""
    corner = torch.tensor(size, dtype=border.dtype)
    source = _source(model, coefficients, lens, border, zoom)
    inside = ((source >= -0.01) & (source <= corner + 0.01)).all()
    # a little further out the source has to be further out as well
    centre = torch.tensor(lens[2:], dtype=border.dtype)
    outer = _source(model, coefficients, lens, border, zoom / ZOOM_STEP)
    grows = ((outer - centre).norm(dim=-1) > (source - centre).norm(dim=-1)).all()
    return bool(inside & grows)


def _border(width: int, height: int) -> Tensor:
    """(4 * BORDER, 2) float64 points along the edge of an image."""
    t = torch.linspace(0, 1, BORDER, dtype=torch.double)
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    sides = [(t, zero), (t, one), (zero, t), (one, t)]
    points = torch.cat([torch.stack(side, dim=-1) for side in sides])
    return points * torch.tensor([width, height], dtype=torch.double)


# -- the models ----------------------------------------------------------------------------------


def _polynomial(square: Tensor, k: Sequence[float]) -> Tensor:
    """k1 s + k2 s^2 + ... for s = ``square``."""
    total = torch.zeros_like(square)
    for coefficient in reversed(k):
        total = (total + coefficient) * square
    return total


def _tangential(xy: Tensor, p: Sequence[float]) -> Tensor:
    """Decentring (Brown 1966), coefficients in OpenCV's order."""
    square, product = xy.square().sum(-1), 2.0 * xy[..., 0] * xy[..., 1]
    x = p[0] * product + p[1] * (square + 2.0 * xy[..., 0].square())
    y = p[1] * product + p[0] * (square + 2.0 * xy[..., 1].square())
    return torch.stack([x, y], dim=-1)


def _brown(xy: Tensor, k: Sequence[float]) -> Tensor:
    """Radial polynomial k1, k2, ... alone."""
    return xy * (1.0 + _polynomial(xy.square().sum(-1, keepdim=True), k))


def _opencv(xy: Tensor, c: Sequence[float]) -> Tensor:
    """k1, k2, p1, p2, and further numerators k3, k4."""
    return _brown(xy, (*c[:2], *c[4:])) + _tangential(xy, c[2:4])


def _full_opencv(xy: Tensor, c: Sequence[float]) -> Tensor:
    """k1, k2, p1, p2, k3, k4, k5, k6: k4 to k6 are a denominator."""
    square = xy.square().sum(-1, keepdim=True)
    below = 1.0 + _polynomial(square, c[5:8])
    above = 1.0 + _polynomial(square, (c[0], c[1], c[4]))
    return xy * above / below + _tangential(xy, c[2:4])


def _equidistant(xy: Tensor) -> Tensor:
    """The direction's angle from the axis in place of its tangent."""
    radius = xy.norm(dim=-1, keepdim=True)
    return xy * torch.where(radius > 1e-8, torch.atan(radius) / radius.clamp(min=1e-8), 1.0)


def _fisheye(xy: Tensor, k: Sequence[float]) -> Tensor:
    """Polynomial of the angle (Kannala & Brandt 2006)."""
    return _brown(_equidistant(xy), k)


def _thin_prism_fisheye(xy: Tensor, c: Sequence[float]) -> Tensor:
    """k1, k2, p1, p2, k3, k4, sx1, sy1 on the angle."""
    uv = _equidistant(xy)
    prism = uv.square().sum(-1, keepdim=True) * uv.new_tensor(c[6:8])
    return _opencv(uv, c[:6]) + prism


def _rad_tan_thin_prism_fisheye(xy: Tensor, c: Sequence[float]) -> Tensor:
    """k0 to k5 on the angle, then p0, p1 and s0 to s3 on the result (Project Aria)."""
    uv = _fisheye(xy, c[:6])
    square = uv.square().sum(-1)
    prism = [_polynomial(square, c[8:10]), _polynomial(square, c[10:12])]
    return uv + _tangential(uv, (c[7], c[6])) + torch.stack(prism, dim=-1)


def _field_of_view(xy: Tensor, c: Sequence[float]) -> Tensor:
    """One angle omega (Devernay & Faugeras 2001)."""
    omega = c[0]
    if abs(omega) < 1e-6:
        return xy
    radius = xy.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    return xy * torch.atan(2.0 * radius * math.tan(0.5 * omega)) / (radius * omega)


def _division(xy: Tensor, c: Sequence[float]) -> Tensor:
    """Inverse of ``x / (1 + k |x|^2)`` (Fitzgibbon 2001)."""
    k = c[0] if c else 0.0
    root = (1.0 - 4.0 * k * xy.square().sum(-1, keepdim=True)).clamp(min=0.0).sqrt()
    return 2.0 * xy / (1.0 + root)


def _eucm(xy: Tensor, c: Sequence[float]) -> Tensor:
    """Enhanced unified model, alpha and beta (Khomutenko et al. 2016)."""
    alpha, beta = c
    distance = (1.0 + beta * xy.square().sum(-1, keepdim=True)).sqrt()
    return xy / (alpha * distance + 1.0 - alpha)


# name: (focal lengths, function of (xy, coefficients), number of coefficients), by COLMAP's names;
# TRANSFORMS is that of transforms files, with two more numerators than OPENCV.
MODELS: dict[str, tuple[int, Distort, int]] = {
    "SIMPLE_PINHOLE": (1, _brown, 0),
    "PINHOLE": (2, _brown, 0),
    "SIMPLE_RADIAL": (1, _brown, 1),
    "RADIAL": (1, _brown, 2),
    "OPENCV": (2, _opencv, 4),
    "OPENCV_FISHEYE": (2, _fisheye, 4),
    "FULL_OPENCV": (2, _full_opencv, 8),
    "FOV": (2, _field_of_view, 1),
    "SIMPLE_RADIAL_FISHEYE": (1, _fisheye, 1),
    "RADIAL_FISHEYE": (1, _fisheye, 2),
    "THIN_PRISM_FISHEYE": (2, _thin_prism_fisheye, 8),
    "RAD_TAN_THIN_PRISM_FISHEYE": (2, _rad_tan_thin_prism_fisheye, 12),
    "SIMPLE_DIVISION": (1, _division, 1),
    "DIVISION": (2, _division, 1),
    "SIMPLE_FISHEYE": (1, _fisheye, 0),
    "FISHEYE": (2, _fisheye, 0),
    "EUCM": (2, _eucm, 2),
    "TRANSFORMS": (2, _opencv, 6),
}
