"""What there is to choose from, and that it is what eval.py renders."""

import pytest
import torch

from models.checkpoint import PHOTO, Checkpoint, DecoderRecord, FieldRecord
from models.encoded import FeatureDecoder, wear
from models.mixing import Mixture
from models.renderer import Renderer
from opt import parse_view
from utils.errors import UserError
from viewer.exhibits import Trained
from viewer.look import Colours


def colours_of(subject):
    """At some places of the field."""
    g = torch.Generator().manual_seed(1)
    x = torch.rand(50, 3, generator=g) - 0.5
    d = torch.nn.functional.normalize(torch.randn(50, 3, generator=g), dim=-1)
    with torch.no_grad():
        return subject.style(subject.renderer.field.geometry.feature(x), x, d, None)


def test_choices_and_what_is_first(trained):
    exhibit = trained()
    assert exhibit.choices == (["a", "b", PHOTO], True, True, (), ())
    assert exhibit.first == Colours("b")
    given = trained("--style", "a:1", "b:3", "--strength", "0.5")
    assert given.first == Colours("b", "a", 0.25, 0.5)
    assert trained("--style", PHOTO).first == Colours(PHOTO)
    with pytest.raises(UserError, match="--style c: not in the checkpoint"):
        trained("--style", "c")


@pytest.mark.parametrize(
    "colours, words, strength",
    [
        (Colours("a"), ["a"], 1.0),
        (Colours(PHOTO), ["photo"], 1.0),
        (Colours("a", strength=0.3), ["a"], 0.3),
        (Colours("a", "b", 0.25, 0.8), ["a:0.75", "b:0.25"], 0.8),
        (Colours("a", "a", 0.25), ["a"], 1.0),
    ],
)
def test_colours_are_the_mixture_that_eval_renders(trained, checkpoint, colours, words, strength):
    exhibit = trained()
    wanted = Mixture.asked(checkpoint, words, strength).renderer(checkpoint)
    found = colours_of(exhibit.subject(colours))
    expected = colours_of(
        (lambda r: type("S", (), {"renderer": r, "style": r.field.style}))(wanted)
    )
    assert torch.equal(found, expected)
    # mixing changes nothing of what is mixed
    assert torch.equal(colours_of(exhibit.subject(colours)), found)


def test_geometry_is_shared_by_all_colours(trained):
    exhibit = trained()
    first, second = exhibit.subject(Colours("a")), exhibit.subject(Colours("a", "b", 0.5))
    assert first.renderer is second.renderer
    assert exhibit.photographic(Colours("a")).renderer is first.renderer


def test_photos_where_they_are(trained, scene, tmp_path):
    exhibit = trained()
    assert torch.equal(exhibit.photo(exhibit.first, 3), scene.train[3].image)
    missing = trained("--root_dir", str(tmp_path / "no"))
    assert missing.photo(missing.first, 3) is None
    assert len(missing.scene(missing.first).train) == len(scene.train)


def test_any_encoder_wears_any_decoder(checkpoint, scene, scene_dir):
    """Each pair as `Checkpoint.renderer` makes it, and none changes another."""
    spec = {
        "field": {"kind": "voxels"},
        "style": {"kind": "encoded_voxels", "n_features": 2},
        "sampler": {"kind": "occupancy", "n_steps": 0},
    }
    fields, decoders = {}, {}
    for number, name in enumerate(("one", "two")):
        torch.manual_seed(number)
        cells = torch.ones(8, 8, 8, dtype=torch.bool)
        renderer = Renderer.build(spec, scene.box, torch.ones(3), cells)
        for parameter in renderer.field.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        decoder = FeatureDecoder(2)
        wear(renderer, decoder)
        fields[name] = FieldRecord.of(renderer)
        decoders[f"of_{name}"] = DecoderRecord.of(decoder, [name])
    options = checkpoint.options | {
        "stage": "joint",
        "scenes": [f"{name}={scene_dir}" for name in fields],
        "pairs": [f"{name}={name},of_{name}" for name in fields],
    }
    scenes = dict.fromkeys(fields, checkpoint.scenes["scene"])
    joint = Checkpoint("joint", fields, scenes, decoders=decoders, options=options)
    exhibit = Trained(joint, parse_view(["--ckpt_path", "x"]), torch.device("cpu"))
    assert exhibit.choices == ((), False, False, ["one", "two"], ["of_one", "of_two"])
    assert exhibit.first == Colours(encoder="one", decoder="of_one")
    pairs = [(e, d) for e in fields for d in decoders]
    found = [colours_of(exhibit.subject(Colours(encoder=e, decoder=d))) for e, d in pairs]
    for (encoder, decoder), mine in zip(pairs, found, strict=True):
        wanted = joint.renderer(encoder, decoder)
        subject = type("S", (), {"renderer": wanted, "style": wanted.field.style})
        assert torch.equal(mine, colours_of(subject))
    assert len({tuple(mine.flatten().tolist()) for mine in found}) == 4
    assert exhibit.photo(Colours(encoder="two", decoder="of_one"), 0).shape == (20, 24, 3)
