"""COLMAP's sparse models, binary and text: cameras, images, points3D."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.cameras.distortion import MODELS
from datasets.cameras.lens import Lens
from utils.errors import UserError

LARGEST = 1 << 30  # bytes of a file: thousands of images
FILES = ("cameras", "images", "points3D")
# by the numbers of COLMAP's binary files
NAMES = (
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "OPENCV_FISHEYE",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "THIN_PRISM_FISHEYE",
    "RAD_TAN_THIN_PRISM_FISHEYE",
    "SIMPLE_DIVISION",
    "DIVISION",
    "SIMPLE_FISHEYE",
    "FISHEYE",
    "EUCM",
    "EQUIRECTANGULAR",
)
PARAMETERS = {name: f + 2 + n for name, (f, _, n) in MODELS.items()} | {"EQUIRECTANGULAR": 2}


@dataclass(frozen=True)
class PosedImage:
    """One registered image: rotation as quaternion (w, x, y, z) and translation, world to camera
    with OpenCV axes (x right, y down, z forward), in the units of the model."""

    name: str
    camera: int
    quaternion: tuple[float, float, float, float]
    translation: tuple[float, float, float]

    def camera_to_world(self) -> np.ndarray:
        """(3, 4) float64 pose with OpenGL axes."""
        w, x, y, z = np.array(self.quaternion) / np.linalg.norm(self.quaternion)
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        position = -rotation.T @ np.array(self.translation)
        return np.column_stack([rotation.T * (1.0, -1.0, -1.0), position])


@dataclass(frozen=True)
class SparseModel:
    """A sparse reconstruction.

    Attributes:
        folder: of its files.
        lenses: by camera number.
        images: registered ones, by name.
        points: (P, 3) float64.
    """

    folder: Path
    lenses: dict[int, Lens]
    images: list[PosedImage]
    points: np.ndarray


def has_model(folder: Path) -> bool:
    """Whether a folder has a model's files, all binary or all text; points may be missing."""
    return any(
        all((folder / f"{name}{suffix}").is_file() for name in FILES[:2])
        for suffix in (".bin", ".txt")
    )


def read_model(folder: Path) -> SparseModel:
    """Read one model.

    Raises:
        UserError: a file is missing or damaged, or a lens is of a kind that is not known.
    """
    suffix = ".bin" if (folder / "images.bin").is_file() else ".txt"
    readers = _BINARY if suffix == ".bin" else _TEXT
    found = []
    for name, read in zip(FILES, readers, strict=True):
        file = folder / f"{name}{suffix}"
        if name == "points3D" and not file.is_file():
            found.append([])
            continue
        try:
            if file.stat().st_size > LARGEST:
                raise ValueError(f"more than {LARGEST >> 20} MB")
            found.append(list(read(file)))
        except FileNotFoundError:
            raise UserError(f"{file}: no such file; write the model again") from None
        except (OSError, ValueError, IndexError, struct.error) as error:
            raise UserError(
                f"{file}: damaged or cut short ({error}); write the model again"
            ) from None
    cameras, images, points = found
    lenses = {number: _lens(folder, number, *rest) for number, *rest in cameras}
    for image in images:
        numbers = (*image.quaternion, *image.translation)
        if not np.isfinite(numbers).all() or not any(image.quaternion):
            raise UserError(f"{folder}: {image.name} has NaN in its pose; write the model again")
        if image.camera not in lenses:
            raise UserError(
                f"{folder}: {image.name} has the camera {image.camera}, which is not among the "
                "cameras; write the model again"
            )
    images = sorted(images, key=lambda image: image.name)
    points = np.array(points, dtype=np.float64).reshape(-1, 3)
    return SparseModel(folder, lenses, images, points[np.isfinite(points).all(axis=1)])


def count_images(folder: Path) -> int:
    """Registered images of a model, 0 where its file is unreadable."""
    try:
        if (folder / "images.bin").is_file():
            with (folder / "images.bin").open("rb") as file:
                return struct.unpack("<Q", file.read(8))[0]
        return sum(1 for _ in _text_images(folder / "images.txt"))
    except (OSError, ValueError, IndexError, struct.error):
        return 0


def _lens(
    folder: Path, number: int, model: str, width: int, height: int, values: list[float]
) -> Lens:
    where = f"{folder}: camera {number}"
    if model not in NAMES or model not in MODELS:
        known = ", ".join(name for name in NAMES if name in MODELS)
        raise UserError(f"{where}: its model {model} is not known; convert it to one of {known}")
    focals, _, further = MODELS[model]
    if len(values) != focals + 2 + further:
        raise UserError(f"{where}: {model} has {len(values)} parameters; write the model again")
    if not np.isfinite(values).all() or min(*values[:focals], width, height) <= 0:
        raise UserError(f"{where}: has NaN, or a size or focal length of 0; write the model again")
    fx, fy = values[0], values[focals - 1]
    cx, cy, *coefficients = values[focals:]
    size = (float(width), float(height))
    return Lens(fx, fy, cx, cy, *size, model=model, coefficients=tuple(coefficients))


# -- binary --------------------------------------------------------------------------------------


class _Reader:
    """Little-endian values one after another."""

    def __init__(self, file: Path) -> None:
        self.data, self.at = file.read_bytes(), 0

    def __call__(self, form: str) -> tuple:
        values = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        text = self.data[self.at : end].decode("utf-8")
        self.at = end + 1
        return text

    def skip(self, n_bytes: int) -> None:
        self.at += n_bytes
        if self.at > len(self.data):
            raise ValueError("the end is missing")


def _binary_cameras(file: Path) -> Iterator[tuple]:
    read = _Reader(file)
    for _ in range(read("Q")[0]):
        number, kind, width, height = read("iiQQ")
        if not 0 <= kind < len(NAMES):
            raise ValueError(f"camera model {kind} is not known")
        yield number, NAMES[kind], width, height, list(read(f"{PARAMETERS[NAMES[kind]]}d"))


def _binary_images(file: Path) -> Iterator[PosedImage]:
    read = _Reader(file)
    for _ in range(read("Q")[0]):
        _, *pose, camera = read("i7di")
        name = read.text()
        read.skip(24 * read("Q")[0])
        yield PosedImage(name, camera, tuple(pose[:4]), tuple(pose[4:]))


def _binary_points(file: Path) -> Iterator[tuple[float, ...]]:
    read = _Reader(file)
    for _ in range(read("Q")[0]):
        _, *point, _, _, _, _, track = read("Q3d3BdQ")
        read.skip(8 * track)
        yield tuple(point)


# -- text ----------------------------------------------------------------------------------------


def _lines(file: Path) -> Iterator[str]:
    """Lines but for comments; empty ones count (an image without observations)."""
    with file.open(encoding="utf-8") as text:
        yield from (line.strip() for line in text if not line.startswith("#"))


def _text_cameras(file: Path) -> Iterator[tuple]:
    for line in filter(None, _lines(file)):
        number, model, width, height, *values = line.split()
        yield int(number), model, int(width), int(height), [float(value) for value in values]


def _text_images(file: Path) -> Iterator[PosedImage]:
    lines = _lines(file)
    for line in lines:
        if not line:
            continue
        values = line.split(maxsplit=9)
        if len(values) < 10:
            raise ValueError(f"{len(values)} values in place of 10 for an image")
        _, *pose, camera, name = values
        numbers = [float(value) for value in pose]
        next(lines, None)  # its observations
        yield PosedImage(name, int(camera), tuple(numbers[:4]), tuple(numbers[4:]))


def _text_points(file: Path) -> Iterator[tuple[float, ...]]:
    for line in filter(None, _lines(file)):
        point = tuple(float(value) for value in line.split()[1:4])
        if len(point) < 3:
            raise ValueError(f"{len(point)} coordinates in place of 3 for a point")
        yield point


_BINARY: tuple[Callable[[Path], Iterator], ...] = (_binary_cameras, _binary_images, _binary_points)
_TEXT: tuple[Callable[[Path], Iterator], ...] = (_text_cameras, _text_images, _text_points)
