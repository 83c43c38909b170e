"""Estimators of optical flow: a picture that is moved by a known distance."""

import pytest
import torch

from measures.flow import best_flow, raft_cache, tv_l1
from tests.utils.test_octaves import painted


def test_tv_l1_finds_a_shift():
    picture = painted()
    there = tv_l1(picture, picture.roll((-2, 3), (0, 1)))[16:-16, 16:-16]
    torch.testing.assert_close(
        there.median(0)[0].median(0)[0], torch.tensor([3.0, -2]), atol=0.1, rtol=0
    )


def test_dis_finds_a_shift():
    pytest.importorskip("cv2")
    picture, (name, flow) = painted(), best_flow(torch.device("cpu"))
    assert name in ("RAFT", "DIS")
    there = flow(picture, picture.roll((-2, 3), (0, 1)))[16:-16, 16:-16]
    torch.testing.assert_close(
        there.median(0)[0].median(0)[0], torch.tensor([3.0, -2]), atol=0.1, rtol=0
    )


def test_raft_is_taken_where_its_weights_are(tmp_path, monkeypatch):
    """Random weights find nothing, but a flow of the right shape, also for small and odd sizes."""
    from torchvision.models.optical_flow import raft_large

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert best_flow(torch.device("cpu"))[0] in ("DIS", "TV-L1")
    raft_cache().parent.mkdir()
    torch.manual_seed(0)
    torch.save(raft_large().state_dict(), raft_cache())
    monkeypatch.setattr("measures.flow.RAFT_UPDATES", 1)
    name, flow = best_flow(torch.device("cpu"))
    assert name == "RAFT"
    there = flow(torch.rand(33, 50, 3), torch.rand(33, 50, 3))
    assert there.shape == (33, 50, 2)
    assert bool(there.isfinite().all())
