"""Reading and writing of images: any format and mode that Pillow reads, as 8-bit RGB and alpha."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from utils.errors import UserError
from utils.files import replacing

LONGEST_SIDE = 4096  # pixels of a painting
SHORTEST_SIDE = 8
NARROWEST = 16  # how many times as long as wide it may be
EXIF_ORIENTATION = 0x0112
SHRINKABLE = ("L", "RGB", "LA", "RGBA", "CMYK", "YCbCr")
LUMA = (0.299, 0.587, 0.114)  # of sRGB (Rec. 601)

# Errors that Pillow's decoders raise on damaged files.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)


# Images of more than 179 million pixels Pillow refuses, which is what we go by.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(
    path: Path | str, upright: bool = True, least: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads an image file.

    16-bit greyscale is rounded to 8 bits; from 16-bit colour Pillow keeps the high byte, which is
    within one level of the rounded value.  Floats are expected in [0, 1].  Only the first frame of
    an animation is read.

    Args:
        path: a file of any format and mode that Pillow reads.
        upright: rotate the image as its EXIF data say.
        least: width and height that are enough; an image more than twice as large, in both, is
            shrunk to twice that, by averages over areas, before anything else takes memory.

    Returns:
        rgb (H, W, 3) uint8, not premultiplied, and alpha (H, W) uint8, or None if the file has no
        alpha.

    Raises:
        UserError: the file is missing, not an image, or damaged.
    """
    try:
        with Image.open(path) as file:
            file.load()
            image = ImageOps.exif_transpose(file) if upright else file
            return _eight_bit(image if least is None else _shrunk(image, least))
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file; check the path") from None
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path}: not a readable image ({reason}); it may be damaged or cut short, replace it"
        ) from None


def read_painting(path: Path | str) -> np.ndarray:
    """Reads a painting, its longer side at most `LONGEST_SIDE` pixels.

    What is transparent shows white, as in a viewer, and margins that are transparent all along are
    cut off.

    Args:
        path: a file of any format and mode that Pillow reads.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: as `read_image`, or there is nothing to see, or no more than a line of it.
    """
    width, height = image_size(path)
    scale = LONGEST_SIDE / 2 / max(width, height, 1)
    least = (max(1, round(width * scale)), max(1, round(height * scale)))
    rgb, alpha = read_image(path, least=least)
    if alpha is not None:
        rows, columns = alpha.any(1).nonzero()[0], alpha.any(0).nonzero()[0]
        if len(rows) == 0:
            raise UserError(f"{path}: is transparent everywhere; give a painting that shows")
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        rgb = over_white(rgb[part], alpha[part])
    shorter, longer = sorted(rgb.shape[:2])
    if shorter < SHORTEST_SIDE or longer > NARROWEST * shorter:
        raise UserError(
            f"{path}: is {width}x{height}; a painting needs {SHORTEST_SIDE} pixels along its "
            f"shorter side, and at most {NARROWEST} times as many along the other; crop it"
        )
    return rgb


def over_white(rgb: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Colours (H, W, 3) uint8 of ``rgb (H, W, 3)``, not premultiplied, with ``alpha (H, W)``, both
    uint8, on white; None: as they are."""
    if alpha is None:
        return rgb
    cover = alpha[:, :, None] / np.float32(255)
    return np.rint(rgb * cover + 255 * (1 - cover)).astype(np.uint8)


def image_size(path: Path | str, upright: bool = True) -> tuple[int, int]:
    """Width and height of an image file, turned as its EXIF data say, from its header; (0, 0) if
    unreadable."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            turned = upright and file.getexif().get(EXIF_ORIENTATION, 1) >= 5
    except DAMAGE:
        return 0, 0
    return (height, width) if turned else (width, height)


def _shrunk(image: Image.Image, least: tuple[int, int]) -> Image.Image:
    """The image, or where it is more than twice as large as ``least`` one of twice that size."""
    size = (2 * least[0], 2 * least[1])
    if image.width <= size[0] or image.height <= size[1] or image.mode not in SHRINKABLE:
        return image
    # Pillow premultiplies alpha for it
    return image.resize(size, Image.Resampling.BOX)


def _eight_bit(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it has NaN or infinity")
        top = 1.0 if image.mode == "F" else 65535.0
        grey = np.rint(np.clip(values / top, 0.0, 1.0) * 255.0).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2), None
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        rgba = np.array(image.convert("RGBA"))
        return rgba[:, :, :3], rgba[:, :, 3]
    return np.array(image.convert("RGB")), None


def write_image(path: Path | str, image: Tensor | np.ndarray) -> None:
    """Writes an image in the format of the file's extension; folders are created as needed.

    Args:
        path: the file; an existing one is overwritten.
        image: (H, W), (H, W, 3) or (H, W, 4); floats are in [0, 1] (see `to_uint8`), or uint8.

    Raises:
        UserError: the file cannot be written.
    """
    values = to_uint8(torch.as_tensor(image)).cpu().numpy()
    with replacing(Path(path)) as partial:
        try:
            Image.fromarray(values).save(partial)
        except ValueError as error:  # no such format, or too large for it
            raise UserError(f"{path}: cannot be written ({error}); choose another name") from None


def to_uint8(image: Tensor) -> Tensor:
    """Converts an image in [0, 1] to 8 bits; values outside are clamped, not wrapped.

    Args:
        image: float of any shape; uint8 is passed through.

    Returns:
        uint8 of the same shape.
    """
    if image.dtype == torch.uint8:
        return image
    return image.detach().float().clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)


def resize(image: Tensor, width: int, height: int) -> Tensor:
    """Resizes with an antialiasing triangle filter, whose weights are never negative.

    Colour with alpha must be premultiplied: otherwise the colour hidden under alpha 0 bleeds out
    as a dark or bright fringe around the object.

    Args:
        image: (H, W, C) float.
        width, height: the new size in pixels.

    Returns:
        (height, width, C) float.
    """
    if tuple(image.shape[:2]) == (height, width):
        return image
    planes = image.permute(2, 0, 1)[None]
    planes = functional.interpolate(planes, size=(height, width), mode="bilinear", antialias=True)
    return planes[0].permute(1, 2, 0)


def pixel_centres(height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """(H, W, 2) column and row of the centres of an image's pixels: halves."""
    row, column = (torch.arange(n, device=device) + 0.5 for n in (height, width))
    return torch.stack(torch.meshgrid(column, row, indexing="xy"), -1)


def sample_bilinear(image: Tensor, pixel: Tensor) -> Tensor:
    """Bilinear values (..., C) of an ``image (H, W, C)`` at ``pixel (..., 2)``, column and row,
    pixel centres at halves; beyond the border its nearest value."""
    height, width, channels = image.shape
    grid = 2 * pixel / pixel.new_tensor([width, height]) - 1
    values = functional.grid_sample(
        image.permute(2, 0, 1)[None],
        grid.reshape(1, 1, -1, 2).to(image.dtype),
        padding_mode="border",
        align_corners=False,
    )
    return values[0, :, 0].T.reshape(*pixel.shape[:-1], channels)


def over(premultiplied: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """Composites over a background: ``C + (1 - alpha) * background`` (Porter & Duff 1984, "over").

    Args:
        premultiplied: (..., 3) colour times alpha, in [0, 1].
        alpha: (...) coverage in [0, 1].
        background: (3,) in [0, 1], or (..., 3).

    Returns:
        (..., 3) opaque colour.
    """
    return premultiplied + (1.0 - alpha)[..., None] * background
