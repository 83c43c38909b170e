import pytest
import torch

import models.nerf
import models.voxels
from models.nerf import NerfField
from models.voxels import VoxelField

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


def both(make):
    torch.manual_seed(0)
    field = make().double()
    x = torch.rand(50, 3, dtype=torch.float64) * 2 - 1
    density, feature = field.geometry(x)
    rgb = field.style(feature, x, torch.nn.functional.normalize(x, dim=1))
    loss = (density.sum() + (rgb * x).sum()) ** 2
    with torch.no_grad():
        again = field.geometry(x)
    found = torch.autograd.grad(loss, list(field.parameters()), allow_unused=True)
    return density, rgb, *again, *found


@pytest.mark.parametrize(
    ("module", "make"),
    [
        (models.nerf, lambda: NerfField(BOUNDS)),
        (models.voxels, lambda: VoxelField(torch.ones(4, 4, 4, dtype=torch.bool), BOUNDS)),
    ],
)
def test_blocks_change_nothing(module, make, monkeypatch):
    """The plain twin takes all rows at once."""
    whole = both(make)
    monkeypatch.setattr(module, "ROWS", 7)
    torch.testing.assert_close(both(make), whole, rtol=1e-10, atol=1e-12)
