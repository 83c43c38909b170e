"""The measure of quality: what is equal has no distance, and only the object counts."""

import pytest
import torch

from measures.quality import (
    CONTENT,
    CROPS,
    PAINTING,
    PHOTO,
    STYLE,
    STYLISED,
    Quality,
    quality_report,
    quality_table,
)
from tests.measures.test_consistency import Pixels

LAYERS, CPU = ["coarse", "fine"], torch.device("cpu")


@pytest.fixture
def painting():
    """(24, 24, 3) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (24, 24, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture
def photo():
    """(24, 24, 3) in [0, 1]."""
    return torch.rand(24, 24, 3, generator=torch.Generator().manual_seed(1)) ** 2


WHOLE = torch.ones(24, 24, dtype=torch.bool)


def test_the_painting_has_its_own_style_and_the_photo_its_own_content(painting, photo):
    found = Quality(painting, Pixels(), LAYERS, CPU)(painting.float() / 255, photo, WHOLE)
    assert [found[STYLISED][key] for key in STYLE] == pytest.approx([0] * 4, abs=1e-6)
    assert all(found[PHOTO][key] > 1e-3 for key in STYLE)
    assert found[PHOTO]["structure"] == 0
    assert found[PHOTO]["ssim"] == pytest.approx(1)
    # the painting in the photo's place is what was given as the picture
    assert found[PAINTING] == pytest.approx({key: found[STYLISED][key] for key in CONTENT})
    assert found[STYLISED]["structure"] > 0
    assert found[STYLISED]["ssim"] < 0.5


def test_the_photo_unchanged_scores_as_the_photo(painting, photo):
    found = Quality(painting, Pixels(), LAYERS, CPU)(photo, photo, WHOLE)
    assert found[STYLISED] == found[PHOTO]


def test_what_is_not_the_object_does_not_count(painting, photo):
    quality, mask = Quality(painting, Pixels(), LAYERS, CPU), WHOLE.clone()
    mask[:, 12:] = False
    other = torch.where(mask[..., None], photo, 1 - photo)
    assert quality(other, photo, mask)[STYLISED]["structure"] == 0
    for key in STYLE:
        values = [quality(picture, photo, mask)[STYLISED][key] for picture in (photo, other)]
        assert values[0] == values[1]


def test_a_view_of_nothing_is_measured_whole(painting, photo):
    quality = Quality(painting, Pixels(), LAYERS, CPU)
    assert quality(photo, photo, ~WHOLE) == quality(photo, photo, WHOLE)


def test_crops_of_a_painting_that_repeats_itself_are_alike(painting, photo):
    repeated = painting[:12, :12].repeat(2, 2, 1)
    alike = Quality(repeated, Pixels(), LAYERS, CPU)(photo, photo, WHOLE)[CROPS]
    assert alike == pytest.approx(dict.fromkeys(STYLE, 0), abs=1e-6)
    half = painting.clone()
    half[:, 12:] //= 4
    assert Quality(half, Pixels(), LAYERS, CPU)(photo, photo, WHOLE)[CROPS]["frechet"] > 0.01


def test_the_report_marks_what_the_run_was_trained_on(painting, photo):
    quality = Quality(painting, Pixels(), LAYERS, CPU)
    views = {name: quality(p, photo, WHOLE) for name, p in (("000", photo), ("001", 1 - photo))}
    report = quality_report(views, {"gram", "tv", "colour_transfer"})
    assert sorted(report["trained_on"]) == ["gram", "histogram"]
    mean = (views["000"][STYLISED]["gram"] + views["001"][STYLISED]["gram"]) / 2
    assert report["pictures"][STYLISED]["gram"] == pytest.approx(mean)
    heading, _, first, *_ = quality_table(report).splitlines()
    names = [cell.strip() for cell in heading.strip("|").split("|")]
    assert names == ["pictures", "gram*", "frechet", "wasserstein", "histogram*", *CONTENT]
    assert first.split("|")[2].strip() == f"{mean:.3g}"
    assert "*" not in quality_table(quality_report(views, ()))
