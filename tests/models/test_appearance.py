import pytest
import torch

from models.appearance import AffineAppearance

WHITE = torch.ones(3)


def pixels(n=40, views=5, dtype=torch.float32):
    """Colours and coverage of an object, what it makes over white, and views."""
    torch.manual_seed(0)
    colour, opacity = torch.rand(n, 3, dtype=dtype), torch.rand(n, dtype=dtype)
    opacity[:5], opacity[5:10] = 0, 1
    rgb = opacity[:, None] * colour + (1 - opacity)[:, None] * WHITE.to(dtype)
    return colour, opacity, rgb, torch.randint(views, (n,))


def exposed(background, views=5, dtype=torch.float32):
    torch.manual_seed(1)
    appearance = AffineAppearance(views, background).to(dtype)
    torch.nn.init.normal_(appearance.raw, 0.3)
    return appearance


@pytest.mark.parametrize("background", [None, WHITE])
def test_the_identity_at_the_start_to_the_bit(background):
    appearance = AffineAppearance(5, background)
    _, opacity, rgb, view = pixels()
    rgb.requires_grad_()
    shown = appearance(rgb, opacity, view)
    assert torch.equal(shown, rgb)
    assert torch.equal(appearance.gains(), torch.ones(5))
    factor = torch.randn_like(rgb)
    assert torch.equal(torch.autograd.grad((shown * factor).sum(), rgb)[0], factor)


def test_the_mean_over_the_views_is_the_identity():
    appearance = exposed(None)
    assert appearance.departures().abs().mean() > 0.1
    torch.testing.assert_close(
        appearance.departures().mean(0), torch.zeros(3, 4), atol=1e-7, rtol=0
    )
    assert float(appearance.gains().detach().mean()) == pytest.approx(1, abs=1e-6)
    # no step can leave it: the gradient has no part along it
    _, opacity, rgb, view = pixels()
    (appearance(rgb, opacity, view) ** 3).sum().backward()
    torch.testing.assert_close(appearance.raw.grad.sum(0), torch.zeros(3, 4), atol=1e-4, rtol=0)


def test_a_lone_view_is_the_average():
    _, opacity, rgb, _ = pixels()
    shown = exposed(None, 1)(rgb, opacity, torch.zeros(len(rgb), dtype=torch.int64))
    assert torch.equal(shown, rgb)


def test_only_what_covers_the_background_is_exposed():
    """The plain twin maps the object's colour, and lays it over the background then."""
    colour, opacity, rgb, view = pixels(dtype=torch.float64)
    appearance = exposed(WHITE, dtype=torch.float64)
    matrix = torch.eye(3, 4, dtype=torch.float64) + appearance.departures()[view]
    mapped = (matrix[:, :, :3] @ colour[:, :, None])[:, :, 0] + matrix[:, :, 3]
    plain = opacity[:, None] * mapped + (1 - opacity)[:, None] * WHITE
    torch.testing.assert_close(appearance(rgb, opacity, view), plain)
    assert torch.equal(appearance(rgb, opacity, view)[:5], rgb[:5])


def test_without_alpha_all_of_the_photo_is_exposed():
    _, opacity, rgb, view = pixels(dtype=torch.float64)
    appearance = exposed(None, dtype=torch.float64)
    matrix = torch.eye(3, 4, dtype=torch.float64) + appearance.departures()[view]
    plain = (matrix[:, :, :3] @ rgb[:, :, None])[:, :, 0] + matrix[:, :, 3]
    torch.testing.assert_close(appearance(rgb, opacity, view), plain)


@pytest.mark.parametrize("background", [None, WHITE])
def test_gradient(background):
    _, opacity, rgb, view = pixels(6, 3, torch.float64)
    appearance = exposed(background, 3, torch.float64)
    inputs = (rgb.requires_grad_(), opacity.requires_grad_())
    assert torch.autograd.gradcheck(lambda *x: appearance(*x, view), inputs)

    def of_raw(raw):
        return torch.func.functional_call(appearance, {"raw": raw}, (rgb, opacity, view))

    assert torch.autograd.gradcheck(of_raw, (appearance.raw.detach().requires_grad_(),))


def test_gains_are_of_matrix_and_offset():
    appearance = AffineAppearance(2)
    with torch.no_grad():
        appearance.raw[0, :, :3] = 0.2 * torch.eye(3)
        appearance.raw[0, :, 3] = 0.05
    # less the mean: half of it on either side
    torch.testing.assert_close(appearance.gains(), torch.tensor([1.15, 0.85]))
