"""Strength and mixture: what they are at their ends, and between them."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from models.checkpoint import PHOTO, Checkpoint, FieldRecord
from models.latent_nerf import LatentNerfStyle
from models.latent_voxels import LatentVoxelStyle
from models.mixing import Mixture
from models.style import BlendedColours
from tests.renderers import nerf_renderer, voxel_renderer
from utils.errors import UserError

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
CELLS = torch.ones(4, 4, 4, dtype=torch.bool)
OPTIONS = {"root_dir": "d", "dataset_name": "blender", "scene_name": "s", "stage": "mutual"}
SCENE = {"name": "s", "near": 1.0, "far": 5.0, "space": {"kind": "world"}}


def checkpoint_of(kind, latent):
    """A field with photographic colours and the styles "a", "b" and "x:2"."""
    torch.manual_seed(0)
    make = {"voxels": voxel_renderer, "nerf": nerf_renderer}[kind]
    renderer = make(BOUNDS, CELLS)
    field = FieldRecord.of(renderer)
    before = Checkpoint("geometry", {"scene": field}, {"scene": SCENE}, options=OPTIONS)
    geometry, styles = renderer.field.geometry, {}
    for name in ("a", "b", "x:2"):
        style = renderer.field.style.clone()
        if latent:
            cls = {"voxels": LatentVoxelStyle, "nerf": LatentNerfStyle}[kind]
            style = cls(geometry, 3)
        for parameter in style.parameters():
            nn.init.normal_(parameter.data, std={"voxels": 0.3, "nerf": 0.08}[kind])
        if latent and styles:
            style.share(next(iter(styles.values()))[0])
        styles[name] = (style, OPTIONS)
    return before.with_styles(styles, renderer, OPTIONS, SCENE)


KINDS = pytest.mark.parametrize(
    ("kind", "latent"), [("voxels", False), ("voxels", True), ("nerf", False), ("nerf", True)]
)


def colours(checkpoint, mixture):
    renderer = mixture.renderer(checkpoint)
    g = torch.Generator().manual_seed(1)
    x = torch.rand(50, 3, generator=g) * 2 - 1
    d = nn.functional.normalize(torch.randn(50, 3, generator=g), dim=-1)
    with torch.no_grad():
        return renderer.field.colours(x, d)


@KINDS
def test_the_ends_of_strength_are_the_very_styles(kind, latent):
    checkpoint = checkpoint_of(kind, latent)
    for strength, name in ((0.0, PHOTO), (1.0, "a")):
        mixture = Mixture.asked(checkpoint, ["a"], strength)
        assert (mixture.shares, str(mixture)) == ({name: 1.0}, name)
        found = mixture.renderer(checkpoint).state_dict()
        wanted = checkpoint.renderer(style=name).state_dict()
        assert all(torch.equal(found[k], wanted[k]) for k in wanted)


@KINDS
def test_strength_and_mixture_vary_smoothly_between_the_ends(kind, latent):
    checkpoint = checkpoint_of(kind, latent)
    for asked in (lambda t: (["a"], t), lambda t: ([f"a:{1 - t}", f"b:{t}"], 1.0)):
        steps = [
            colours(checkpoint, Mixture.asked(checkpoint, *asked(t)))
            for t in torch.linspace(0, 1, 9).tolist()
        ]
        whole = (steps[-1] - steps[0]).abs().mean()
        jumps = [float((b - a).abs().mean()) for a, b in pairwise(steps)]
        assert whole > 0.005
        assert max(jumps) < 0.4 * float(whole)


def test_what_lies_between_is_one_style_where_shapes_allow():
    for kind, latent, one in (
        ("voxels", True, False),  # the photographic colours are another network
        ("voxels", False, True),
        ("nerf", True, False),
    ):
        checkpoint = checkpoint_of(kind, latent)
        style = Mixture.asked(checkpoint, ["a"], 0.5).renderer(checkpoint).field.style
        assert isinstance(style, BlendedColours) != one
    # of two paintings of one run on a NeRF everything is mixed
    checkpoint = checkpoint_of("nerf", True)
    style = Mixture.asked(checkpoint, ["a", "b:3"]).renderer(checkpoint).field.style
    for key, found in style.state_dict().items():
        parts = [checkpoint.styles[name].state[key] for name in ("a", "b")]
        torch.testing.assert_close(found, 0.25 * parts[0] + 0.75 * parts[1])


def test_paintings_with_palettes_of_their_own_are_mixed_in_their_colours():
    """Averaged numbers in averaged units would be another colour, and not the limit of a mixture
    with the scene's."""
    checkpoint = checkpoint_of("voxels", True)
    half = ["a", "b"]
    whole = colours(checkpoint, Mixture.asked(checkpoint, half, 1.0))
    nearly = colours(checkpoint, Mixture.asked(checkpoint, half, 0.999))
    torch.testing.assert_close(whole, nearly, atol=5e-3, rtol=0)
    styles = [checkpoint.renderer(style=name).field.style for name in half]
    mixed = Mixture.asked(checkpoint, half, 1.0).renderer(checkpoint).field.style
    cell, x, d = torch.arange(8), torch.zeros(8, 3), torch.zeros(8, 3)
    logits = [torch.logit(style(cell, x, d, None)) for style in styles]
    torch.testing.assert_close(mixed(cell, x, d, None), torch.sigmoid(sum(logits) / 2))


def test_words():
    checkpoint = checkpoint_of("voxels", False)
    assert Mixture.asked(checkpoint, []).shares == {"x:2": 1.0}  # the last one
    assert Mixture.asked(checkpoint, ["x:2"]).shares == {"x:2": 1.0}
    assert Mixture.asked(checkpoint, ["x:2:3", "a:1"]).shares == {"x:2": 0.75, "a": 0.25}
    mixture = Mixture.asked(checkpoint, ["a:1", "b:3"], 0.5)
    assert mixture.shares == {"a": 0.125, "b": 0.375, PHOTO: 0.5}
    assert (mixture.style, mixture.paintings) == ("b", ["b", "a"])
    for words, said in (
        (["a:-1"], "must not be negative"),
        (["a:0"], "all weights are 0"),
        (["c:1"], "--style c: not in the checkpoint"),
        (["a:much"], "--style a:much: not in the checkpoint"),
    ):
        with pytest.raises(UserError, match=said):
            Mixture.asked(checkpoint, words)


def test_what_paintings_share_is_stored_once(tmp_path):
    """And is read back, with the geometry that it was learned on."""
    checkpoint = checkpoint_of("nerf", True)
    checkpoint.write(tmp_path / "c.ckpt")
    one = sum(x.nbytes for x in checkpoint.styles["a"].state.values())
    field = sum(x.nbytes for x in checkpoint.fields["scene"].state.values())
    assert (tmp_path / "c.ckpt").stat().st_size < field + 1.2 * one
    read = Checkpoint.read(tmp_path / "c.ckpt")
    for name in ("a", "b", "x:2"):
        for key, x in checkpoint.styles[name].state.items():
            assert torch.equal(read.styles[name].state[key], x)
