import numpy as np
import pytest
import torch
from PIL import Image

from utils.errors import UserError
from utils.images import over, over_white, read_image, resize, to_uint8, write_image

RED = (200, 30, 10)


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "tiff", "webp", "ppm"])
def test_rgb_of_every_format(tmp_path, extension):
    Image.new("RGB", (7, 5), RED).save(tmp_path / f"a.{extension}", quality=100)
    rgb, alpha = read_image(tmp_path / f"a.{extension}")
    assert rgb.shape == (5, 7, 3)
    assert rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - RED).max() <= 3  # lossy formats
    assert alpha is None


@pytest.mark.parametrize(
    ("mode", "color", "rgb", "alpha"),
    [
        ("1", 1, (255, 255, 255), None),
        ("L", 77, (77, 77, 77), None),
        ("LA", (77, 9), (77, 77, 77), 9),
        ("RGB", RED, RED, None),
        ("RGBA", (*RED, 9), RED, 9),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), None),
        ("YCbCr", (77, 128, 128), (77, 77, 77), None),
        ("F", 0.2, (51, 51, 51), None),
        ("F", 1.7, (255, 255, 255), None),
    ],
)
def test_every_mode(tmp_path, mode, color, rgb, alpha):
    name = "a.tiff" if mode in ("CMYK", "YCbCr", "F") else "a.png"
    Image.new(mode, (3, 2), color).save(tmp_path / name)
    try:
        with Image.open(tmp_path / name) as file:
            file.load()
    except OSError:  # YCbCr before Pillow 13
        pytest.skip("this Pillow cannot read what it has written")
    got, cover = read_image(tmp_path / name)
    assert (got == np.array(rgb)).all()
    assert cover is None if alpha is None else (cover == alpha).all()


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png")
    rgb, alpha = read_image(tmp_path / "a.png")
    assert rgb.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert alpha is None
    image.save(tmp_path / "b.png", transparency=1)
    rgb, alpha = read_image(tmp_path / "b.png")
    assert rgb.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert alpha.tolist() == [[255, 0]]


@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_sixteen_bit_grey_is_scaled(tmp_path, extension):
    levels = np.array([[0, 257, 128 * 257, 128 * 257 + 200, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{extension}")
    rgb, alpha = read_image(tmp_path / f"a.{extension}")
    assert rgb[0, :, 0].tolist() == [0, 1, 128, 129, 255]
    assert alpha is None


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (16, 8), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 8, 8))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=100)
    rgb, _ = read_image(tmp_path / "a.jpg")
    assert rgb.shape == (16, 8, 3)
    assert rgb[:7].min() > 240
    assert rgb[9:].max() < 15


def test_result_is_writable(tmp_path):
    Image.new("RGBA", (3, 2), (*RED, 9)).save(tmp_path / "a.png")
    rgb, alpha = read_image(tmp_path / "a.png")
    assert rgb.flags.writeable
    assert alpha.flags.writeable


class TestUnreadable:
    def check(self, path, reason):
        with pytest.raises(UserError) as error:
            read_image(path)
        assert str(path) in str(error.value)
        assert reason in str(error.value)
        assert "\n" not in str(error.value)

    def test_missing(self, tmp_path):
        self.check(tmp_path / "a.png", "no such image")

    def test_directory(self, tmp_path):
        self.check(tmp_path, "not a readable image")

    def test_no_image(self, tmp_path):
        (tmp_path / "a.png").write_text("hello")
        self.check(tmp_path / "a.png", "not a readable image")

    def test_empty(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"")
        self.check(tmp_path / "a.png", "not a readable image")

    @pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tiff", "gif"])
    def test_truncated(self, tmp_path, extension):
        path = tmp_path / f"a.{extension}"
        noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.check(path, "not a readable image")


class TestResize:
    def test_size_and_identity(self):
        image = torch.rand(5, 7, 4, generator=torch.Generator().manual_seed(0))
        assert resize(image, 3, 9).shape == (9, 3, 4)
        assert torch.equal(resize(image, 7, 5), image)

    def test_constant_stays_constant(self):
        image = torch.full((11, 6, 3), 0.37)
        torch.testing.assert_close(resize(image, 4, 3), torch.full((3, 4, 3), 0.37))

    def test_fine_pattern_becomes_grey(self):
        """Lines of one pixel, which plain interpolation would step over."""
        lines = (torch.arange(32) % 4 == 0).float()[None, :, None].expand(32, 32, 1)
        small = resize(lines, 8, 8)[:, 1:-1]
        torch.testing.assert_close(small, torch.full((8, 6, 1), 0.25), atol=0.01, rtol=0)

    def test_premultiplied_has_no_dark_fringe(self):
        """Red over white, black hidden under alpha 0: every pixel is a mix of red and white."""
        alpha = torch.zeros(40, 40)
        alpha[9:31, 13:29] = 1.0
        red = torch.tensor([0.8, 0.1, 0.1])
        premultiplied = alpha[..., None] * red
        layer = resize(torch.cat([premultiplied, alpha[..., None]], dim=2), 13, 11)
        image = over(layer[..., :3], layer[..., 3], torch.ones(3))
        share = layer[..., 3:]
        assert ((share > 0.01) & (share < 0.99)).any()
        torch.testing.assert_close(image, share * red + 1.0 - share)


def test_over_known_values():
    alpha = torch.tensor([0.0, 0.25, 1.0])
    color = torch.tensor([0.4, 0.6, 0.8])
    mixed = over(alpha[:, None] * color, alpha, torch.tensor([1.0, 0.0, 0.2]))
    expected = torch.tensor([[1.0, 0.0, 0.2], [0.85, 0.15, 0.35], [0.4, 0.6, 0.8]])
    torch.testing.assert_close(mixed, expected)


class TestWrite:
    def test_clamps_and_rounds(self, tmp_path):
        levels = torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.0 + 1e-6, 7.0])
        write_image(tmp_path / "new" / "a.png", levels[None, :, None].expand(1, 7, 3))
        rgb, _ = read_image(tmp_path / "new" / "a.png")
        assert rgb[0, :, 1].tolist() == [0, 0, 0, 1, 255, 255, 255]

    @pytest.mark.parametrize("channels", [(), (3,), (4,)])
    def test_bytes_survive(self, tmp_path, channels):
        values = np.random.default_rng(0).integers(0, 256, (4, 6, *channels), dtype=np.uint8)
        write_image(tmp_path / "a.png", values)
        assert (np.asarray(Image.open(tmp_path / "a.png")) == values).all()

    def test_any_float_becomes_bytes(self):
        levels = torch.tensor([127.6 / 255, torch.inf])
        assert to_uint8(levels).tolist() == [128, 255]
        assert to_uint8(torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)).min() == 255

    def test_bytes_are_not_scaled(self):
        values = torch.tensor([0, 1, 255], dtype=torch.uint8)
        assert torch.equal(to_uint8(values), values)

    def test_unknown_format_and_blocked_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "a.nothing", tmp_path / "file" / "a.png"):
            with pytest.raises(UserError, match="cannot be written"):
                write_image(path, torch.zeros(2, 2, 3))


def test_what_is_transparent_shows_white():
    rgb = np.full((1, 3, 3), 100, np.uint8)
    shown = over_white(rgb, np.array([[0, 51, 255]], np.uint8))  # 51 is a fifth
    assert shown[0, :, 0].tolist() == [255, 224, 100]
    assert over_white(rgb, None) is rgb
