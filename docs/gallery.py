"""The gallery of the README: a row for each scene, a column for each painting.

python docs/gallery.py docs/gallery.jpg FOLDER_OF_PAINTINGS RESULTS... --frame 0

RESULTS are folders that `eval.py` has written, of each scene one with ``--style photo`` and one for
each painting; what they show is read from their ``metrics.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image, ImageOps

CELL = (236, 177)  # pixels
GAP = 6
PHOTO = "photo"


def cell(path: Path) -> Image.Image:
    """A picture that fills a cell; of one that is higher than wide, a part above its middle."""
    return ImageOps.fit(
        Image.open(path).convert("RGB"), CELL, Image.Resampling.LANCZOS, centering=(0.5, 0.2)
    )


def rows_of(results: list[Path]) -> dict[str, dict[str, Path]]:
    """By scene, the folder of each style."""
    rows: dict[str, dict[str, Path]] = {}
    for folder in results:
        written = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        scene = Path(written["options"]["root_dir"]).resolve().as_posix()
        rows.setdefault(scene, {})[written["style"]] = folder
    return rows


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("paintings", type=Path, help="folder of paintings, named as the styles")
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--frame", type=int, default=0)
    args = parser.parse_args()
    rows = rows_of(args.results)
    styles = sorted({style for row in rows.values() for style in row} - {PHOTO})
    header = {path.stem: path for path in args.paintings.iterdir() if path.stem in styles}
    width, height = (side + GAP for side in CELL)
    sheet = Image.new(
        "RGB", (width * (len(styles) + 1) + GAP, height * (len(rows) + 1) + GAP), "white"
    )
    for column, style in enumerate(styles):
        sheet.paste(cell(header[style]), (GAP + width * (column + 1), GAP))
    for line, row in enumerate(rows.values()):
        for column, style in enumerate([PHOTO, *styles]):
            if style in row:
                frame = row[style] / f"{args.frame:03d}.png"
                sheet.paste(cell(frame), (GAP + width * column, GAP + height * (line + 1)))
    sheet.save(args.out, quality=88, optimize=True)
    print(f"written: {args.out} ({args.out.stat().st_size / 1024:.0f} KB)")


if __name__ == "__main__":
    main()
