import pytest
import torch

from losses.style_image import prepare_style


@pytest.mark.parametrize(("shape", "expected"), [((40, 60), (20, 30)), ((90, 30), (60, 20))])
def test_style_is_resized_by_its_shorter_side(shape, expected):
    image = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    small = prepare_style(image, 20)
    assert small.shape == (1, 3, *expected)
    assert small.min() >= 0 and small.max() <= 1
    torch.testing.assert_close(prepare_style(image.float() / 255, 20), small)


def test_style_keeps_its_mean_and_does_not_alias():
    stripes = torch.zeros(64, 64, 3)
    stripes[::2] = 1
    torch.testing.assert_close(
        prepare_style(stripes, 8), torch.full((1, 3, 8, 8), 0.5), atol=0.02, rtol=0
    )


def test_style_of_wrong_shape():
    with pytest.raises(ValueError, match=r"\(8, 8, 4\)"):
        prepare_style(torch.zeros(8, 8, 4), 4)
    with pytest.raises(ValueError, match="0"):
        prepare_style(torch.zeros(8, 8, 3), 0)
