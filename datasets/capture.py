"""Photos without poses -> transforms.json, by structure from motion (pycolmap)."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image, ImageOps

from datasets.cameras.poses import around_look_at, checked_pose, moved
from datasets.formats.colmap import range_of_points
from datasets.formats.colmap_model import SparseModel, read_model
from datasets.formats.frames import Frame, load_view
from datasets.formats.transforms import FILE
from datasets.load import WHITE
from utils.errors import UserError
from utils.files import replacing
from utils.images import DAMAGE

REQUIREMENTS = "requirements-capture.txt"
FEWEST = 3  # photos
MATCH_ALL = 200  # photos up to which every pair is matched; else neighbours by name
NEIGHBOURS = 15
LONGEST = 1600  # pixels of the longer side in which features are extracted
FEATURES = (2048, 8192)  # per photo; the second where the first leaves photos without a pose
QUALITY = 95


@dataclass(frozen=True)
class Solved:
    """The result of structure from motion.

    Attributes:
        model: the largest reconstruction; its images are named as in ``photos``.
        photos: the files, by their names in the model, whether registered or not.
        error: mean reprojection error in pixels.
        groups: images in each reconstruction, largest first; several are not connected.
    """

    model: SparseModel
    photos: dict[str, Path]
    error: float
    groups: list[int]

    @property
    def unregistered(self) -> list[Path]:
        """The photos without a pose."""
        posed = {image.name for image in self.model.images}
        return [path for name, path in self.photos.items() if name not in posed]


def import_pycolmap() -> ModuleType:
    """pycolmap, which only preparing photos needs.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("pycolmap")
    except ImportError as error:
        raise UserError(
            f"pycolmap: cannot be imported ({error}); pip install -r {REQUIREMENTS}"
        ) from None


def upright_copies(photos: Sequence[Path], work: Path) -> tuple[dict[str, Path], list[Path]]:
    """Upright copies of photos, in one folder per size, so that each size is one camera.

    Args:
        photos: image files.
        work: an empty folder.

    Returns:
        The originals by the name of their copy below ``work``, and those that are unreadable.
    """
    copies, unreadable = {}, []
    count = Counter(photo.stem for photo in photos)
    for index, photo in enumerate(photos):
        stem = photo.stem if count[photo.stem] == 1 else f"{photo.stem}_{index}"
        try:
            with Image.open(photo) as file:
                image = ImageOps.exif_transpose(file)  # which keeps the rest: the focal length
                name = f"{image.width}x{image.height}/{stem}.jpg"
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                exif = image.getexif()
                image.convert("RGB").save(work / name, quality=QUALITY, exif=exif)
        except DAMAGE:
            unreadable.append(photo)
            continue
        copies[name] = photo
    return copies, unreadable


def solve(photos: dict[str, Path], work: Path) -> Solved:
    """Camera poses and lenses of the photos; with more features if any photo gets none.

    Args:
        photos: see `upright_copies`, which wrote them to ``work/photos``.
        work: for COLMAP's files.

    Raises:
        UserError: no two photos could be connected.
    """
    best = None
    for features in FEATURES:
        found = attempt(photos, work, features)
        if found is not None and (best is None or len(found.model.images) > len(best.model.images)):
            best = found
        if best is not None and not best.unregistered:
            break
    if best is None:
        raise UserError(
            f"{len(photos)} photos: no two could be matched; take sharp photos that overlap by two "
            "thirds, of something textured that does not move"
        )
    return best


def attempt(photos: dict[str, Path], work: Path, features: int) -> Solved | None:
    """Structure from motion with ``features`` per photo; None where no two photos match."""
    colmap = import_pycolmap()
    colmap.logging.minloglevel = 3  # errors are reported in one line of ours
    colmap.set_random_seed(0)
    images, folder = work / "photos", work / str(features)
    (folder / "best").mkdir(parents=True)
    extraction = colmap.FeatureExtractionOptions(max_image_size=LONGEST)
    extraction.sift.max_num_features = features
    database = folder / "database.db"
    colmap.extract_features(
        database,
        images,
        camera_mode=colmap.CameraMode.PER_FOLDER,
        reader_options=colmap.ImageReaderOptions(camera_model="RADIAL"),
        extraction_options=extraction,
    )
    if len(photos) <= MATCH_ALL:
        colmap.match_exhaustive(database)
    else:
        pairing = colmap.SequentialPairingOptions(overlap=NEIGHBOURS, quadratic_overlap=True)
        colmap.match_sequential(database, pairing_options=pairing)
    found = colmap.incremental_mapping(database, images, folder)
    models = sorted(found.values(), key=lambda model: -model.num_reg_images())
    if not models:
        return None
    models[0].write(folder / "best")
    groups = [model.num_reg_images() for model in models]
    error = models[0].compute_mean_reprojection_error()
    return Solved(read_model(folder / "best"), photos, error, groups)


def write_capture(solved: Solved, output_dir: Path) -> Path:
    """Write the registered photos, undistorted, and their poses: z up, the origin where the cameras
    look, and the cameras at mean distance 1 from it.

    Returns:
        The transforms.json.

    Raises:
        UserError: the folder cannot be written.
    """
    model = solved.model
    where = str(model.folder)
    c2w = torch.stack(
        [checked_pose(image.camera_to_world(), where, "pose") for image in model.images]
    )
    origin, axes, scale = around_look_at(c2w)
    points = scale * (torch.from_numpy(model.points).float() - origin) @ axes
    entries, ranges = [], []
    try:
        (output_dir / "images").mkdir(parents=True, exist_ok=True)
        for image, pose in zip(model.images, moved(c2w, origin, axes, scale), strict=True):
            photo = solved.photos[image.name]
            frame = Frame(photo, pose, model.lenses[image.camera], photo.stem, upright=True)
            view = replace(load_view(frame, None, torch.tensor(WHITE)), alpha=None)
            name = f"images/{Path(image.name).stem}.jpg"
            Image.fromarray(view.image.numpy()).save(
                output_dir / name, quality=QUALITY, subsampling=0
            )
            ranges.append(range_of_points([view], points))
            matrix = torch.cat([pose, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
            lens = {"fl_x": view.fx, "fl_y": view.fy, "cx": view.cx, "cy": view.cy}
            size = {"w": view.width, "h": view.height}
            entries.append({"file_path": name, **lens, **size, "transform_matrix": matrix.tolist()})
        content = {"camera_model": "PINHOLE", "frames": entries}
        seen = [r for r in ranges if r is not None]
        if seen:
            content |= {"near": min(r[0] for r in seen), "far": max(r[1] for r in seen)}
        file = output_dir / FILE
        with replacing(file) as partial:
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output_dir}: cannot be written ({error}); choose another") from None
    return file
