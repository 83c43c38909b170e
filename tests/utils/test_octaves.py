"""The normalised error: what may not improve it, and closed forms."""

import math

import pytest
import torch

from utils.octaves import (
    UNSEEN,
    WAVELENGTHS,
    blurred,
    misregistration,
    moved,
    normalised_error,
    octave_energies,
)

SIZE = 96
WHOLE = torch.ones(SIZE, SIZE, dtype=torch.bool)


def wave(length, shift=0.0):
    """A sine along the rows."""
    column = torch.arange(SIZE) + 0.5 - shift
    line = 0.5 + 0.3 * torch.sin(2 * math.pi * column / length)
    return line[None, :, None].expand(SIZE, SIZE, 3).contiguous()


def painted(seed=0):
    """Noise that is about as strong in every octave, as in a picture."""
    noise = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    total, step = torch.zeros_like(noise), 1
    while step < 32:
        noise = blurred(noise, step)
        total, step = total + noise / noise.std(), 2 * step
    return 0.5 + 0.04 * total.permute(1, 2, 0)


def blur(picture, times):
    planes = picture.permute(2, 0, 1)
    for _ in range(times):
        planes = blurred(planes, 1)
    return planes.permute(1, 2, 0)


def test_misregistration_of_a_ramp():
    ramp = (torch.arange(40.0) / 40).repeat(40, 1)[..., None].expand(-1, -1, 3)
    whole = torch.ones(40, 40, dtype=torch.bool)
    # 8 / 40 along the rows, 0 along the columns
    assert misregistration(ramp, whole) == pytest.approx(0.2 / math.sqrt(2), rel=1e-5)
    assert misregistration(torch.full((40, 40, 3), 0.3), whole) == 0
    assert misregistration(ramp[:5, :5], whole[:5, :5]) == 0  # nothing is as far apart


@pytest.mark.parametrize("octave", range(3))
def test_each_octave_sees_its_own_wavelength_most(octave):
    shares = []
    for length in WAVELENGTHS:
        energies, n = octave_energies(wave(length) - 0.5, WHOLE)
        assert n == SIZE**2
        shares.append(float(energies[octave] / energies.sum()))
    assert max(shares) == shares[octave]
    assert shares[octave] > 0.5


def test_the_energy_of_an_octave_is_that_of_its_filter():
    """A sine of amplitude a behind a filter of the gain g has the mean square (a g)^2 / 2."""
    length, inner = 12.0, torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inner[:, 30:66] = True  # three waves; the mask's border is blurred within it
    angle = 2 * math.pi / length
    low = [1.0]
    for step in (1, 2, 4, 8):
        gain = 3 / 8 + math.cos(angle * step) / 2 + math.cos(2 * angle * step) / 8
        low.append(low[-1] * gain)
    whole = wave(length).permute(2, 0, 1) - 0.5
    for level, step in enumerate((1, 2, 4, 8)):
        whole = blurred(whole, step)
        found = whole[:, 40:56, 40:52].square().mean() * 2  # one wave, far from the border
        assert float(found) == pytest.approx((0.3 * low[level + 1]) ** 2, rel=1e-3, abs=1e-6)


def test_a_displacement_scores_its_share_of_8_pixels():
    """sin(pi e / L) / sin(8 pi / L), of rows alone: half of the directions are not displaced."""
    energies = [octave_energies(wave(12) - wave(12, e), WHOLE)[0][1] for e in (1.0, 8.0)]
    expected = math.sin(math.pi / 12) / math.sin(8 * math.pi / 12)
    assert float((energies[0] / energies[1]).sqrt()) == pytest.approx(expected, rel=0.02)


def test_neither_blur_nor_loss_of_contrast_improves_the_score():
    """The error is noise, a displacement, or both; the filter is applied to what was rendered."""
    clean = painted()
    for noise, displaced in ((0.03, 0), (0.0, 1), (0.03, 1)):
        error = noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
        other = clean.roll(displaced, 1) + error
        before = normalised_error(clean, other, WHOLE)
        assert 0.1 < before < 0.6
        for times in (1, 4, 16, 64):
            after = normalised_error(blur(clean, times), blur(other, times), WHOLE)
            assert after > 0.93 * before  # octaves are wide; without them: 0.3
        for contrast in (0.5, 0.1):
            faded = [0.5 + contrast * (x - 0.5) for x in (clean, other)]
            assert normalised_error(*faded, WHOLE) > before


def test_white_noise_scores_the_ratio_of_its_sizes():
    """In each octave the same share of it, which the response to an impulse gives."""
    impulse = torch.zeros(SIZE, SIZE, 3)
    impulse[48, 48] = 1
    gain, _ = octave_energies(impulse, WHOLE)
    generator = torch.Generator().manual_seed(5)
    picture, noise = (torch.randn(SIZE, SIZE, 3, generator=generator) for _ in range(2))
    squares = [gain * size**2 + UNSEEN**2 for size in (0.1, 0.3 * math.sqrt(2))]
    expected = float((squares[0] / squares[1]).sqrt().mean())
    found = normalised_error(0.3 * picture, 0.3 * picture + 0.1 * noise, WHOLE)
    assert found == pytest.approx(expected, rel=0.05)


def test_what_cannot_be_seen_is_the_worst():
    flat = torch.full((SIZE, SIZE, 3), 0.4)
    assert normalised_error(flat, flat, WHOLE) == pytest.approx(1)
    faint = flat + 0.01 * UNSEEN * painted()
    assert normalised_error(faint, faint, WHOLE) == pytest.approx(1, abs=1e-3)


def test_only_the_mask_counts():
    picture, other = painted(), painted(1)
    mask = WHOLE.clone()
    mask[:, 60:] = False
    mixed = torch.where(mask[..., None], picture, other)
    assert normalised_error(picture, mixed, mask) == normalised_error(picture, picture, mask)
    assert normalised_error(picture, mixed, WHOLE) > 0.3
    differences = moved(picture, mask)
    assert [int(inside.sum()) for _, inside in differences] == [52 * SIZE, 60 * (SIZE - 8)]
