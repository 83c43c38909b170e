import pytest
import torch

from losses.masked import mask_like, masked_mean, object_box, presence


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


def test_masked_mean_and_presence():
    values = torch.tensor([[1.0, 2.0], [3.0, 100.0]])[None, None]
    weight = torch.tensor([[1.0, 1.0], [2.0, 0.0]])[None, None]
    assert masked_mean(values, weight).item() == pytest.approx(9 / 4)
    assert masked_mean(values, torch.zeros_like(weight)).item() == 0
    assert presence(weight).item() == 1
    assert presence(weight / 8).item() == pytest.approx(0.5)


def test_box_holds_the_object_with_a_margin():
    mask = torch.zeros(1, 1, 200, 150)
    mask[0, 0, 70:80, 5:40] = 0.01
    rows, columns = object_box(mask)
    assert rows.start <= 70 - 13 and rows.stop >= 80 + 13
    assert columns.start == 0 and 40 + 13 <= columns.stop < 150
    assert rows.start % 16 == 0
    assert object_box(torch.zeros(1, 1, 5, 5)) is None
