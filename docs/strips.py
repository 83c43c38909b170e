"""Strips of the README: rows of pictures, each row with a word in front.

python docs/strips.py docs/strips.jpg --row strength A.png B.png --row mixture C.png D.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gallery import CELL, GAP, cell
from PIL import Image, ImageDraw, ImageFont

MARGIN = 96  # pixels in front of a row, for its word


def main() -> None:
    """Writes the strips."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--row", nargs="+", action="append", required=True, metavar=("WORD", "PICTURE")
    )
    args = parser.parse_args()
    width, height = (side + GAP for side in CELL)
    longest = max(len(row) - 1 for row in args.row)
    sheet = Image.new("RGB", (MARGIN + width * longest, height * len(args.row) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for line, (word, *pictures) in enumerate(args.row):
        top = GAP + height * line
        draw.text((GAP, top + CELL[1] // 2), word, "black", font, anchor="lm")
        for column, picture in enumerate(pictures):
            sheet.paste(cell(Path(picture)), (MARGIN + width * column, top))
    sheet.save(args.out, quality=88, optimize=True)
    print(f"written: {args.out} ({args.out.stat().st_size / 1024:.0f} KB)")


if __name__ == "__main__":
    main()
