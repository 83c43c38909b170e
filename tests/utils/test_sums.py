import torch

from utils.sums import total_of


def test_nothing_is_added_to_the_first():
    first, second = torch.rand(3), torch.rand(3)
    assert total_of([first]) is first
    assert torch.equal(total_of(iter([first, second])), first + second)
