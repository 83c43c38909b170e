"""The scripts that put the pictures of the README together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def run(script: str, *words: object) -> None:
    subprocess.run([sys.executable, DOCS / script, *map(str, words)], check=True)


@pytest.fixture
def picture(tmp_path):
    def make(name, colour, size=(30, 40)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        return path

    return make


def close(image, place, colour):
    return max(abs(a - b) for a, b in zip(image.getpixel(place), colour, strict=True)) < 30


def test_gallery_has_paintings_above_and_a_row_for_a_scene(tmp_path, picture):
    picture("paintings/wave.png", BLUE)
    for style, colour in (("photo", RED), ("wave", GREEN)):
        picture(f"{style}/000.png", colour)
        written = {"style": style, "options": {"root_dir": str(tmp_path)}}
        (tmp_path / style / "metrics.json").write_text(json.dumps(written))
    out = tmp_path / "sheet.jpg"
    run("gallery.py", out, tmp_path / "paintings", tmp_path / "wave", tmp_path / "photo")
    sheet = Image.open(out)
    width, height = sheet.size
    assert close(sheet, (width // 4, height // 4), (255, 255, 255))
    assert close(sheet, (3 * width // 4, height // 4), BLUE)
    assert close(sheet, (width // 4, 3 * height // 4), RED)
    assert close(sheet, (3 * width // 4, 3 * height // 4), GREEN)


def test_strips_have_a_word_and_pictures_in_order(tmp_path, picture):
    red, blue = picture("a.png", RED), picture("b.png", BLUE)
    out = tmp_path / "strips.jpg"
    run("strips.py", out, "--row", "strength", red, blue, "--row", "mixture", blue)
    sheet = Image.open(out)
    word = sheet.crop((0, 0, 90, sheet.height // 2)).convert("L")
    assert min(word.getextrema()) < 100
    assert close(sheet, (96 + 100, 90), RED)
    assert close(sheet, (96 + 242 + 100, 90), BLUE)
    assert close(sheet, (96 + 100, 183 + 90), BLUE)
    assert close(sheet, (96 + 242 + 100, 183 + 90), (255, 255, 255))
