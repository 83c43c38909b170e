"""Training that is killed at random moments and resumed ends as if nothing had happened."""

import pytest
import torch

from benchmarks.experiments import kills
from models.checkpoint import Checkpoint
from utils.errors import UserError


@pytest.mark.slow
@pytest.mark.parametrize("stage", kills.STAGES)
def test_killed_and_resumed(stage, tmp_path):
    (row,) = kills.killed_stages(tmp_path, [stage], kills=3)
    landed = ("while writing", "between checkpoints", "before the first checkpoint")
    assert sum(row.get(name, 0) for name in landed) == 3
    assert row["weights"] == "identical"


@pytest.mark.slow
def test_other_weights_are_noticed(tmp_path, monkeypatch):
    kills.killed_stages(tmp_path, ["geometry, voxels"], kills=1)
    (path,) = (tmp_path / "killed").glob("*.ckpt")
    found = Checkpoint.read(path)
    before = kills.weights_of(path)
    kills.require_same("geometry", path, before)
    state = found.fields["scene"].state
    (name, *_) = (n for n, x in state.items() if ".style." in n and x.is_floating_point())
    state[name].view(-1)[0] += torch.finfo(torch.float32).eps
    found.write(path)
    with pytest.raises(UserError, match="other weights after kills"):
        kills.require_same("geometry", path, before)
