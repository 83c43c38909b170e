"""Paintings and camera paths: what they show, or one line."""

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets.cameras.camera_path import read_camera_path
from losses.style_image import painting_size, prepare_style
from tests.fuzz.damage import damaged_bytes, damaged_json, one_line_or_fine
from tests.models.test_checkpoint import scene
from utils.images import NARROWEST, SHORTEST_SIDE, read_painting

FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
}
KINDS = [(form, mode) for form, modes in FORMATS.items() for mode in modes]


def picture(form, mode, width, height, level):
    """The bytes of an image file."""
    levels = (np.arange(width * height).reshape(height, width) * 7 + level).astype(np.uint8)
    image = Image.fromarray(levels)
    if mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 257)
    elif mode == "LAB":
        image = Image.merge("LAB", (image,) * 3)
    elif mode != "L":
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def painted(path):
    """Reads it, and makes it as large as renders."""
    with one_line_or_fine():
        painting = read_painting(path)
        assert painting.dtype == np.uint8
        shorter, longer = sorted(painting.shape[:2])
        assert SHORTEST_SIDE <= shorter <= longer <= NARROWEST * shorter
        made = prepare_style(torch.from_numpy(painting), painting_size(20))
        assert made.isfinite().all()


SIDE = st.integers(1, 40)


@given(kind=st.sampled_from(KINDS), width=SIDE, height=SIDE, level=st.integers(0, 255))
def test_paintings(tmp_path_factory, kind, width, height, level):
    path = tmp_path_factory.getbasetemp() / "painting"
    path.write_bytes(picture(*kind, width, height, level))
    painted(path)


@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_damaged_paintings(tmp_path_factory, data, kind):
    path = tmp_path_factory.getbasetemp() / "painting"
    path.write_bytes(data.draw(damaged_bytes(picture(*kind, 16, 12, 3))))
    painted(path)


PATH = {
    "camera_type": "perspective",
    "render_height": 9,
    "render_width": 12,
    "fps": 24,
    "is_cycle": True,
    "crop": None,
    "camera_path": [
        {"camera_to_world": [1, 0, 0, x, 0, 1, 0, 0, 0, 0, 1, 3, 0, 0, 0, 1], "fov": 50.0}
        for x in (0.0, 0.5, 1.0)
    ],
}


@given(content=damaged_json(PATH), n_frames=st.sampled_from([None, 1, 5]))
def test_camera_paths(tmp_path_factory, content, n_frames):
    path = tmp_path_factory.getbasetemp() / "path.json"
    path.write_bytes(content)
    with one_line_or_fine():
        cameras, fps = read_camera_path(path, scene(), n_frames)
        assert cameras.c2w.isfinite().all()
        assert (cameras.sizes >= 1).all()
        assert fps is None or fps > 0


@pytest.mark.parametrize("n_frames", [None, 5])
def test_a_whole_path(tmp_path, n_frames):
    (tmp_path / "path.json").write_text(json.dumps(PATH))
    assert len(read_camera_path(tmp_path / "path.json", scene(), n_frames)[0]) == (n_frames or 3)
