"""Photos -> a scene: camera poses by structure from motion, undistorted images.

python prepare.py PHOTOS_DIR
python pipeline.py --stage geometry --root_dir data/NAME
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from datasets.capture import FEWEST, Solved, import_pycolmap, solve, upright_copies, write_capture
from datasets.formats.folders import images_in
from datasets.load import named
from utils.errors import UserError, exits_cleanly

PLAIN_NAMES = ("images", "photos", "input")  # which say nothing about the scene


def prepare(photos_dir: Path, output_dir: Path | None = None) -> Path:
    """Turn a folder of photos into a scene.

    Args:
        photos_dir: the photos, also in folders below it; they are not changed.
        output_dir: where images/ and transforms.json go; None: data/NAME, after ``photos_dir``.

    Returns:
        The folder of the scene.

    Raises:
        UserError: no photos, no pycolmap, or no two photos that match.
    """
    start = time.perf_counter()
    photos = photos_of(photos_dir)
    output_dir = output_dir or Path("data") / name_of(photos_dir)
    if (output_dir / "images").resolve() == photos_dir.resolve():
        raise UserError(f"{output_dir}: its images would replace the photos; give --output_dir")
    import_pycolmap()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        copies, unreadable = upright_copies(photos, work / "photos")
        if unreadable:
            print(f"{len(unreadable)} photos are unreadable, left out: {named(unreadable)}")
        if len(copies) < FEWEST:
            raise UserError(f"{photos_dir}: has {len(copies)} readable photos; take 20 or more")
        print(f"{len(copies)} photos: extracting features, matching them, solving for the cameras")
        solved = solve(copies, work)
        file = write_capture(solved, output_dir)
    report(solved)
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    print(f"written in {minutes} min {seconds} s: {file}")
    print(f"next: python pipeline.py --stage geometry --root_dir {output_dir}")
    return output_dir


def photos_of(photos_dir: Path) -> list[Path]:
    """The photos of a folder.

    Raises:
        UserError: there are none, or too few.
    """
    if not photos_dir.is_dir():
        raise UserError(f"{photos_dir}: no such directory; give the folder of the photos")
    photos = images_in(photos_dir)
    if not photos:
        raise UserError(f"{photos_dir}: has no photos; they end in .jpg, .png, .webp, .tif or .bmp")
    if len(photos) < FEWEST:
        raise UserError(f"{photos_dir}: has {len(photos)} photos, too few; take 20 or more")
    return photos


def name_of(photos_dir: Path) -> str:
    """What to call the scene."""
    path = photos_dir.resolve()
    plain = path.name.split("_")[0].lower() in PLAIN_NAMES
    return path.parent.name or path.name if plain else path.name


def report(solved: Solved) -> None:
    """Print what was registered, and what to do about what was not."""
    count, total = len(solved.model.images), len(solved.photos)
    print(f"{count} of {total} photos registered, mean error {solved.error:.2f} pixels")
    if count == total:
        return
    print(f"not registered: {named([path.name for path in solved.unregistered])}")
    if len(solved.groups) > 1:
        sizes = " + ".join(map(str, solved.groups))
        print(f"the photos fall into unconnected groups ({sizes}); the largest is used")
    print(
        "to register them: add photos from viewpoints between these and the others, so that "
        "neighbours overlap by two thirds; leave out blurred photos and other subjects"
    )


@exits_cleanly
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="prepare.py", description="Turn photos into a scene to train on."
    )
    parser.add_argument("photos_dir", type=Path, help="folder of the photos")
    parser.add_argument("--output_dir", type=Path, help="folder of the scene (default: data/NAME)")
    given = parser.parse_args()
    prepare(given.photos_dir, given.output_dir)


if __name__ == "__main__":
    main()
