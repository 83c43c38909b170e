"""Stage joint end to end: what pairs train, what is shared, and swaps from the file alone."""

import json
import shutil

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

import analysis.path
from analyse import analyse
from analysis.features import Plane
from analysis.maps import decoded
from assets.weights import read_weights
from datasets.cameras.rays import Cameras
from datasets.portable import scene_from
from eval import evaluate
from export import export
from losses.registry import OVERLAPS
from models.checkpoint import Checkpoint
from models.encoded import contributing_points
from opt import parse_analyse, parse_eval, parse_export, parse_train
from pipeline import train
from systems.system import System, Task
from tests.crashes import run_until
from utils.errors import UserError

QUICK = {
    "nerf": "--N_samples 6 --N_importance 6 --batch_size 24 --precision 32",
    "voxels": "--field voxels --voxel_resolution 24 --batch_size 64 --precision 32",
}
PAIRS = "--pairs a=first,plain b=second,plain b_red=second,red"
SCENES = "--scenes a=sphere b=other,near=1.5 b_red=red,img_wh=18x15"


@pytest.fixture
def at(tmp_path, monkeypatch, write_scene):
    """A working directory with three data sets: a sphere, one of other pictures, that one in red
    and of another size."""
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "sphere")
    write_scene(tmp_path / "other", width=20, height=16)
    shutil.copytree(tmp_path / "other", tmp_path / "red")
    for file in (tmp_path / "red").rglob("*.png"):
        image = np.array(Image.open(file))
        image[..., 1:3] //= 4
        Image.fromarray(image).save(file)
    return tmp_path


def options(field="voxels", steps=6, more="", scenes=SCENES, pairs=PAIRS):
    line = f"--stage joint --suffix j --prefix x --max_steps {steps} --device cpu"
    return parse_train(f"{line} {scenes} {pairs} {QUICK[field]} {more}".split())


def joint(*arguments, **more):
    return train(options(*arguments, **more))


def content(path):
    """All tensors of a checkpoint by name."""
    checkpoint = Checkpoint.read(path)
    records = [*checkpoint.fields.items(), *checkpoint.decoders.items()]
    return {f"{name}.{key}": x for name, record in records for key, x in record.state.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("field", ["nerf", "voxels"])
def test_every_pair_out_of_one_file(at, field):
    path = joint(field)[0]
    checkpoint = Checkpoint.read(path)
    assert list(checkpoint.fields) == ["first", "second"]
    assert list(checkpoint.decoders) == ["plain", "red"]
    assert checkpoint.decoders["plain"].encoders == ["first", "second"]
    for folder in ("sphere", "other", "red"):
        shutil.rmtree(folder)
    frames = {}
    for encoder in ("first", "second"):
        for decoder in ("plain", "red"):
            report = evaluate(
                parse_eval(f"--ckpt_path {path} --encoder {encoder} --decoder {decoder}".split())
            )
            assert (report["field"], report["style"]) == (encoder, decoder)
            assert "psnr" not in report  # the photos are gone
            frames[encoder, decoder] = np.array(Image.open(f"{report['directory']}/000.png"))
    assert not np.array_equal(frames["first", "plain"], frames["first", "red"])
    assert not np.array_equal(frames["first", "red"], frames["second", "red"])


def test_photos_measure_the_pairs_that_they_show_and_no_other(at):
    path = joint()[0]

    def report(pair, more=""):
        encoder, decoder = pair.split("_")
        line = f"--ckpt_path {path} --encoder {encoder} --decoder {decoder} {more}"
        return evaluate(parse_eval(line.split()))

    assert "psnr" in report("first_plain")
    assert "psnr" in report("second_red")
    assert "psnr" not in report("first_red")
    # unless they are said to be the truth
    assert "psnr" in report("first_red", "--root_dir red")
    sizes = [
        Image.open(f"{report(pair)['directory']}/000.png").size
        for pair in ("first_plain", "second_plain", "second_red")
    ]
    assert sizes == [(24, 20), (20, 16), (18, 15)]


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("nerf", "--pattern plain red"),
        ("voxels", "--overlap adversarial --pattern red"),
    ],
)
def test_every_parameter_moves_and_is_in_the_checkpoint(at, field, more, monkeypatch):
    before, system = {}, []
    step = System.step

    def first_step(self, number, *more):
        if number == 0:
            system.append(self)
            before.update({n: p.detach().clone() for n, p in self.named_parameters()})
        step(self, number, *more)

    monkeypatch.setattr(System, "step", first_step)
    path = joint(field, 2, more)[0]
    (system,) = system
    optimised = {id(p) for g in system.parameter_groups() for p in g["params"]}
    saved = content(path)
    for name, parameter in system.named_parameters():
        assert id(parameter) in optimised, name
        assert not torch.equal(parameter, before[name]), name
        if "adversaries" not in name:
            found = (
                x.shape == parameter.shape and torch.equal(x, parameter) for x in saved.values()
            )
            assert any(found), name


def test_one_geometry_learns_from_all_its_data_sets(at, monkeypatch):
    """Without the photos of the third data set the second encoder would be another."""
    both = content(joint(more="--suffix both")[0])
    scenes, pairs = SCENES.rsplit(" ", 1)[0], PAIRS.rsplit(" ", 1)[0]
    alone = content(joint(scenes=scenes, pairs=pairs, more="--suffix alone")[0])
    assert not torch.equal(both["second.field.geometry.raw"], alone["second.field.geometry.raw"])


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("voxels", "--overlap adversarial --pattern red"),
        ("nerf", "--overlap support --pattern red"),
    ],
)
def test_resumed_is_the_same_to_the_bit(at, field, more):
    more += " --n_features 3 --checkpoint_every 4"
    whole = content(joint(field, 8, more + " --suffix whole")[0])
    run_until(6, lambda: joint(field, 8, more))
    assert same(content(joint(field, 8, more + " --resume")[0]), whole)


def test_smooth_features_let_colours_of_a_swap_turn_less_with_the_camera(at):
    turning = {}
    for weight in (0, 0.1):
        more = f"--n_features 8 --feature_smoothness {weight}"
        file = Checkpoint.read(joint("voxels", 100, more)[0])
        renderer, scene = file.renderer("first", "red"), scene_from(file.scenes["first"])
        cameras = Cameras.within(scene, scene.train)
        rays = renderer.clip(cameras.view_rays(0))
        x, d = contributing_points(renderer, rays, 400, torch.Generator().manual_seed(0))
        other = cameras.view_rays(3).view_directions[: len(d)]
        with torch.no_grad():
            colours = renderer.field.colours(x, d)
            turned = renderer.field.colours(x, other)
        turning[weight] = float((colours - turned).abs().mean())
    assert turning[0.1] < turning[0] / 2


def test_a_weight_of_nothing_is_bit_identical_to_no_overlap(at):
    none = content(joint()[0])
    assert same(content(joint(more="--overlap mmd --overlap_weight 0")[0]), none)
    assert not same(content(joint(more="--overlap mmd")[0]), none)


@pytest.mark.parametrize("overlap", list(OVERLAPS))
def test_encoders_with_different_numbers_of_data_sets_overlap(at, overlap):
    shutil.copytree("other", "blue")
    more = f"--n_features 3 --overlap {overlap}"
    scenes, pairs = f"{SCENES} b_blue=blue", f"{PAIRS} b_blue=second,blue"
    assert joint(steps=2, more=more, scenes=scenes, pairs=pairs)


def test_a_name_does_not_take_another_terms_place(at, monkeypatch):
    found = []
    descend = Task.descend

    def noted(self, terms, step):
        found.append(set(terms))
        descend(self, terms, step)

    monkeypatch.setattr(Task, "descend", noted)
    pairs = PAIRS.replace("second,", "first_smoothness,")
    joint(steps=1, more="--n_features 3 --overlap kl", pairs=pairs)
    assert {"first", "smoothness/first"} in found


def test_joint_training_learns_every_pair(at):
    path = joint("voxels", 100, "--batch_size 256 --lr_scheduler cosine --n_features 4")[0]
    for encoder, decoder in (("first", "plain"), ("second", "plain"), ("second", "red")):
        line = f"--ckpt_path {path} --encoder {encoder} --decoder {decoder}"
        assert evaluate(parse_eval(line.split()))["psnr"] > 22


def test_a_swap_as_mesh_and_as_weights(at):
    path = joint("voxels", 30, "--batch_size 256 --pattern red")[0]
    line = f"--ckpt_path {path} --encoder first --decoder red"
    mesh = export(parse_export(f"mesh {line} --resolution 24 --mesh_format ply".split()))
    assert mesh["colours"] == "those of the decoder 'red'"
    assert mesh["vertices"] > 50
    file = export(parse_export(f"weights {line} --name swap".split()))["files"][0]
    checkpoint = Checkpoint.read(path)
    swap = checkpoint.renderer("first", "red").state_dict()
    again = read_weights(next(p for p in at.rglob("swap.safetensors"))).renderer().state_dict()
    assert str(file).endswith("swap.safetensors")
    kept = [name for name in swap if name != "sampler.grid.lit"]
    assert all(torch.equal(swap[name], again[name]) for name in kept)


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenes", "pairs", "words"),
    [
        ("--scenes a=sphere", "", "nothing is trained by the data set 'a'"),
        (SCENES, "--pairs a=first,plain", "nothing is trained by the data set 'b'"),
        ("--scenes a=sphere", "--pairs a=first,plain b=first,red", "no data set 'b'"),
        (SCENES, "--pairs a=e,d b=e,d b_red=e,r", "encoder 'e' with decoder 'd' is given twice"),
        ("--scenes a=sphere a=other", "--pairs a=e,d", "'a' is given twice"),
        ("--scenes a=sphere", "--pairs a=e,d a=e,r", "the data set 'a' is given twice"),
        ("--scenes sphere", "--pairs a=e,d", "must be NAME=FOLDER"),
        ("--scenes a=sphere,imgwh=3x3", "--pairs a=e,d", "OPTION=VALUE,... with .*img_wh"),
        ("--scenes a=near=2", "--pairs a=e,d", "must be NAME=FOLDER"),
        ("--scenes a=sphere", "--pairs a=e", "must be DATA_SET=ENCODER,DECODER"),
        ("", "", "--scenes: missing"),
        ("--scenes a=sphere", "--pairs a=e,d --pattern b", "--pattern b: no decoder of --pairs"),
        ("--scenes a=sphere,near=close", "--pairs a=e,d", "--scenes a: near: expected a number"),
        ("--scenes a=nowhere", "--pairs a=e,d", "nowhere: no such directory"),
    ],
)
def test_one_line_for_bad_pairs(at, scenes, pairs, words):
    with pytest.raises(UserError, match=words) as caught:
        joint(scenes=scenes, pairs=pairs)
    assert "\n" not in str(caught.value)


def test_one_line_for_data_sets_of_one_encoder_in_different_spaces(at, write_scene):
    write_scene(at / "room", mode="RGB")
    for file in (at / "room").rglob("*.png"):  # a background that is not plain
        noise = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
    with pytest.raises(UserError, match="'e' has data sets with and without a background"):
        joint(scenes="--scenes a=sphere b=room", pairs="--pairs a=e,d b=e,r")


def test_one_line_for_names_that_are_not_in_the_checkpoint(at):
    path = joint(steps=2)[0]
    for line, words in (
        ("--encoder third", "no field 'third' in the checkpoint; it has 'first', 'second'"),
        ("--decoder red --style plain", "--style: names a decoder"),
        ("--decoder blue", "no decoder 'blue' in the checkpoint; it has 'plain', 'red'"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate(parse_eval(f"--ckpt_path {path} {line}".split()))
    style = f"--stage style --root_dir sphere --style_dir p.png --ckpt_path {path}"
    with pytest.raises(UserError, match="a checkpoint of several fields"):
        train(parse_train(style.split()))


def test_yaml_says_it_in_mappings(at):
    (at / "recipe.yaml").write_text(
        "scenes:\n  a: sphere\n  b: {root_dir: other, img_wh: [18, 15]}\n"
        "pairs:\n  a: [first, plain]\n  b: [second, red]\n"
    )
    found = parse_train(["--config", "recipe.yaml", "--stage", "joint"])
    assert found.scenes == ("a=sphere", "b=root_dir=other,img_wh=18x15")
    assert found.pairs == ("a=first,plain", "b=second,red")
    assert (found.scene_name, str(found.root_dir)) == ("a_b", "sphere")
    again = type(found).from_dict(json.loads(json.dumps(found.to_dict())))
    assert (again.scenes, again.pairs) == (found.scenes, found.pairs)


def test_a_damaged_decoder_is_refused(at):
    path = joint(steps=2)[0]
    for change, words in (
        (lambda c: c["decoders"]["red"]["state"].pop("unit"), "missing or unexpected tensors"),
        (lambda c: c["decoders"]["red"]["spec"].update(n_features=3), "wrong shape"),
        (lambda c: c["decoders"]["red"].update(encoders=["x"]), "unknown encoders"),
        (lambda c: c["decoders"].pop("plain"), "no decoder of its own"),
    ):
        damaged = Checkpoint.read(path).content()
        change(damaged)
        with pytest.raises(UserError, match=words):
            Checkpoint.checked(damaged, path)


# -- what is drawn and measured -----------------------------------------------------------------


def test_every_analysis_writes_pictures_and_numbers(at):
    path = joint("voxels", 30, "--batch_size 256 --n_features 3 --pattern red")[0]
    line = f"--ckpt_path {path} --n_points 2000"
    for name, files in (
        ("material_map", ["material_map.png"]),
        ("feature_map", ["feature_map.png"]),
        ("overlap", ["overlap.png"]),
    ):
        report = analyse(parse_analyse([name, *line.split()]))
        folder = at / "results" / "x_j"
        assert all((folder / file).stat().st_size > 5000 for file in files)
        assert json.loads((folder / f"{name}.json").read_text())["plane"] == report["plane"]
        assert "first two principal components of 3 features" in report["plane"]
    assert report["points"] == {"first": 2000, "second": 2000}
    numbers = report["pairs"]["first - second"]
    assert numbers["kl_forward"] > 0
    assert numbers["kl_backward"] > 0


def test_the_path_is_written_as_gif_and_mp4(at, monkeypatch):
    monkeypatch.setattr(analysis.path, "FRAMES", 4)
    path = joint("voxels", 30, "--batch_size 256")[0]
    report = analyse(parse_analyse(["path", "--ckpt_path", str(path), "--decoders", "red"]))
    assert [file.rsplit(".")[-1] for file in report["files"]] == ["gif", "mp4", "png"]
    assert report["decoder"] == "red"
    assert imageio.get_reader(report["files"][1]).count_frames() == 4
    assert 1 < len(imageio.mimread(report["files"][0])) <= 4  # equal ones are one, shown longer
    # what is told of a place is what the encoder says there
    place = next(i for i, x in enumerate(report["places"]) if x is not None)
    assert len(report["features"][place]) == 2


def test_a_path_does_not_go_back_the_way_it_came():
    rows, columns = analysis.path.lissajous(torch.ones(80, 100, dtype=torch.bool))
    points = torch.stack([rows, columns], 1)
    assert len(torch.unique((points * 100).round(), dim=0)) > 0.95 * len(points)


def test_a_map_shows_what_the_decoder_gives(at):
    """With its sigmoid, and where the axes say."""
    checkpoint = Checkpoint.read(joint(steps=2)[0])
    decoder = checkpoint.decoders["red"].build()
    points = torch.randn(500, 2).double()
    plane = Plane.of({"a": points})
    colours = decoded(decoder, plane, size=8)
    left, right, bottom, top = plane.extent
    u, v = left + (right - left) * 2.5 / 8, bottom + (top - bottom) * 6.5 / 8
    expected = decoder(torch.tensor([[u, v]]), torch.zeros(1, 3))
    torch.testing.assert_close(colours[6, 2], expected[0].detach(), atol=1e-4, rtol=0)


def test_principal_components_hold_the_variance():
    spread = torch.tensor([5.0, 0.1, 2.0, 0.1]).double()
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)).double() * spread
    plane = Plane.of({"a": x})
    axes = torch.eye(4).double()[[0, 2]]
    torch.testing.assert_close(plane.axes, axes, atol=0.02, rtol=0)


def test_one_line_for_what_cannot_be_analysed(at):
    path = joint(steps=2)[0]
    line = ["overlap", "--ckpt_path", str(path), "--encoders", "third"]
    with pytest.raises(UserError, match="no field 'third'"):
        analyse(parse_analyse(line))
    alone = train(
        parse_train(f"--stage geometry --root_dir sphere --max_steps 2 {QUICK['voxels']}".split())
    )[0]
    with pytest.raises(UserError, match="not of a joint training"):
        analyse(parse_analyse(["overlap", "--ckpt_path", str(alone)]))
