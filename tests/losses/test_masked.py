import pytest
import torch

from losses.masked import mask_like, masked_sums, masks_like


def test_no_mask_is_everywhere():
    assert torch.equal(mask_like(torch.zeros(2, 3, 4, 5), None), torch.ones(2, 1, 4, 5))


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 7), (11, 4), (50, 33)])
def test_mask_is_halved_as_max_pooling_halves(height, width):
    image = torch.rand(1, 1, height, width)
    features = image
    for _ in range(2):
        features = torch.nn.functional.max_pool2d(features, 2)
        weight = mask_like(features, torch.ones_like(image))
        assert weight.shape == features.shape
        assert torch.equal(weight, torch.ones_like(weight))


def test_mask_is_averaged_over_the_cells():
    mask = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1]])[None, None]
    weight = mask_like(torch.zeros(1, 8, 2, 2), mask)
    assert torch.equal(weight[0, 0], torch.tensor([[0.25, 0], [1, 0.5]]))


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 3, 8, 8), (8, 8), (1, 1, 8, 9), (1, 1, 2, 2)])
def test_mask_that_does_not_fit(shape):
    with pytest.raises(ValueError, match=str(shape[-1])):
        mask_like(torch.zeros(1, 3, 4, 3), torch.ones(shape))


def test_mean_and_coverage():
    values = torch.tensor([[1.0, 2.0], [3.0, 100.0]])[None, None]
    weight = torch.tensor([[1.0, 1.0], [2.0, 0.0]])[None, None]
    sums = masked_sums(values, weight)
    assert sums.mean().item() == pytest.approx(9 / 4)
    assert sums.coverage().item() == 1
    assert masked_sums(values, torch.zeros_like(weight)).mean().item() == 0
    assert masked_sums(values, weight / 8).coverage().item() == pytest.approx(0.5)


def test_masks_of_several_layers_are_those_of_each():
    mask = torch.rand(1, 1, 21, 13)
    features = {"deep": torch.zeros(1, 2, 5, 3), "fine": torch.zeros(1, 4, 21, 13)}
    features["middle"] = torch.zeros(1, 3, 10, 6)
    for name, found in masks_like(features, mask).items():
        torch.testing.assert_close(found, mask_like(features[name], mask))
    assert masks_like(features, None) == {"deep": None, "fine": None, "middle": None}
