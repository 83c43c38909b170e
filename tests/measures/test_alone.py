"""Frames painted one by one."""

from pathlib import Path

import pytest
import torch

from measures.alone import FramePainter
from opt import TrainOptions
from utils.errors import UserError
from utils.images import write_image

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path):
    """Options of a run on a painting of noise, through our own encoder."""
    generator = torch.Generator().manual_seed(0)
    write_image(tmp_path / "painting.png", torch.rand(48, 64, 3, generator=generator))
    return TrainOptions(
        stage="style",
        root_dir=tmp_path,
        ckpt_path=Path("none.ckpt"),
        style_dir=tmp_path / "painting.png",
        features="own",
        objective="nnfm",
    )


def test_the_object_is_painted_and_nothing_else(run):
    column = torch.linspace(0.2, 0.8, 64)[None, :, None].expand(48, 64, 3).contiguous()
    mask = torch.zeros(48, 64, dtype=torch.bool)
    mask[8:40, 8:40] = True
    painter = FramePainter(run, CPU, 48)
    with torch.no_grad():  # as its callers may have it
        painted = painter(column, mask)
    assert torch.equal(painted[~mask], column[~mask])
    assert bool((painted[mask] != column[mask]).any(-1).float().mean() > 0.9)
    assert torch.equal(painted, painter(column, mask))
    values = []
    for picture in (column, painted):
        image, photo = (x.permute(2, 0, 1)[None] for x in (picture, column))
        terms = painter.objective(48)(image, photo, mask[None, None].float())
        values.append(float(terms["nnfm"] + terms["statistics"]))
    assert values[1] < 0.8 * values[0]
    assert painter(column, torch.zeros_like(mask)) is column


def test_frames_that_are_alike_are_painted_apart(run):
    """By more than they differ themselves."""
    picture = torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(1))
    other = picture + 0.01 * torch.randn(48, 64, 3, generator=torch.Generator().manual_seed(2))
    whole = torch.ones(48, 64, dtype=torch.bool)
    painter = FramePainter(run, CPU, 48)
    apart = painter(picture, whole) - painter(other.clamp(0, 1), whole)
    assert float(apart.std()) > 3 * float((picture - other).std())


def test_what_is_gone_is_missed_at_once(run):
    run.style_dir.unlink()
    with pytest.raises(UserError, match=r"painting\.png: no such image file"):
        FramePainter(run, CPU, 48)
