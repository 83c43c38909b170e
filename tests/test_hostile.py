"""Input that is made to hurt, and disks that fail: one line, bounded memory, and nothing lost."""

import logging
import resource
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.formats.blender import load_blender
from datasets.load import LoadOptions
from eval import evaluate
from export import export
from features.weights import read_weights
from models.checkpoint import Checkpoint
from opt import parse_eval, parse_export, parse_train
from pipeline import train
from systems.run import Run
from utils.errors import UserError
from utils.images import read_image, read_painting, write_image
from utils.lock import lock
from utils.machine import accelerator
from utils.video import write_gif, write_mp4

GEOMETRY = "--stage geometry --root_dir sphere --field voxels --voxel_resolution 16 --max_steps 2"


@pytest.fixture
def at(tmp_path, monkeypatch, tiny_scene_dir):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trained(at):
    train(parse_train(f"{GEOMETRY} --suffix g --batch_size 64".split()))
    return at / "ckpts/sphere_g.ckpt"


def empty_file(path, size):
    """A file of zeros that takes no space."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


@contextmanager
def disk_full(after):
    """No file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(directory):
    return sorted(path.name for path in directory.iterdir())


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "--max_steps 1000000000000",
        f"--batch_size {10**30}",
        f"--chunk {10**30}",
        f"--checkpoint_every {10**30}",
        "--voxel_resolution 1000000",
        "--img_wh 100000 100000",
        "--num_gpus 1000000",
        "--lr 1e10",
        "--near 1e300",
        "--far 1e301",
        "--far 1e-30",
        "--gram_weight 1e300",
        "--suffix a\udcffb",
        "--root_dir a\0b",
        f"--prefix {'ä' * 150}",
    ],
)
def test_values_beyond_all_reason(line):
    words = line.split(" ")
    with pytest.raises(UserError) as caught:
        parse_train([*GEOMETRY.split(), *words])
    assert str(caught.value).startswith(f"{words[0]}: ")
    str(caught.value).encode()


def test_seeds_may_be_larger_than_other_numbers():
    assert parse_train([*GEOMETRY.split(), "--seed", str(2**32 - 1)]).seed == 2**32 - 1


def test_more_processes_than_cores():
    assert accelerator("cpu", 2) == "cpu"
    with pytest.raises(UserError, match="--num_gpus 1000: this machine has"):
        accelerator("cpu", 1000)


def test_flags_of_another_stage_are_named(at, caplog):
    config = at / "both.yaml"
    config.write_text("patch_size: 9")  # for both stages
    with caplog.at_level(logging.WARNING):
        train(parse_train(f"{GEOMETRY} --small_size 9 --config {config}".split()))
    assert "--small_size: not used by --stage geometry" in caplog.text
    assert "patch_size" not in caplog.text


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--field voxels --N_importance 0", "--N_importance: not used by --field voxels"),
        ("--field nerf --stereo", "--stereo: not used by --field nerf"),
        ("--field nerf --N_importance 0 --sampling occupancy", None),
    ],
)
def test_flags_of_the_other_field_are_named(flags, line):
    unread = parse_train(f"--stage geometry --root_dir sphere {flags}".split()).unread
    assert unread == ((line,) if line else ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scenes:\n  a: &a [x, x]\n  b: [*a, *a]", "aliases"),
        ("scenes: &a\n  b: *a", "aliases"),
        ("[" * 20000, "recursion"),
        ("lr: \udcff", "decode"),
    ],
)
def test_configurations(at, text, words):
    path = at / "recipe.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=rf"recipe\.yaml: is not YAML \(.*{words}"):
        parse_train([*GEOMETRY.split(), "--config", str(path)])


def test_a_configuration_of_a_gigabyte(at):
    path = empty_file(at / "recipe.yaml", 1 << 30)
    with pytest.raises(UserError, match=r"recipe\.yaml: cannot be read \(1074 MB, more than 1\)"):
        parse_train([*GEOMETRY.split(), "--config", str(path)])


# -- data sets ----------------------------------------------------------------------------------


def test_a_list_of_frames_of_a_gigabyte(at):
    empty_file(at / "sphere/transforms_train.json", 1 << 30)
    with pytest.raises(UserError, match=r"transforms_train\.json: .*1074 MB, more than 67"):
        load_blender(at / "sphere", LoadOptions())


def test_a_camera_path_of_a_gigabyte(trained):
    path = empty_file(trained.parent / "path.json", 1 << 30)
    with pytest.raises(UserError, match=r"path\.json: .*1074 MB, more than 67"):
        evaluate(parse_eval(["--ckpt_path", str(trained), "--path", str(path)]))


# -- images -------------------------------------------------------------------------------------


def test_a_large_image_is_shrunk_before_it_takes_memory(tmp_path):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (12, 10, 4), dtype=np.uint8)
    levels[:6, :, 3], levels[6:, :, 3] = 255, 0
    Image.fromarray(levels.repeat(30, 0).repeat(30, 1)).save(tmp_path / "x.png")
    rgb, alpha = read_image(tmp_path / "x.png", least=(5, 6))
    assert rgb.shape == (12, 10, 3)
    assert np.array_equal(alpha, levels[..., 3])
    assert np.array_equal(rgb[:6], levels[:6, :, :3])
    assert read_image(tmp_path / "x.png", least=(150, 180))[0].shape == (360, 300, 3)


def test_a_view_shrunk_on_reading_is_the_view(tmp_path, write_scene):
    """Of its pixels and of its lens."""
    root = write_scene(tmp_path / "s", 250, 190, {"train": 3})
    views = load_blender(root, LoadOptions(img_wh=(25, 19))).train
    for view in views:
        large = Image.open(root / f"train/{view.name}.png")
        layer = np.asarray(large.convert("RGBa").resize((25, 19), Image.Resampling.BILINEAR))
        layer = layer.astype(float)
        expected = layer[..., :3] + 255 - layer[..., 3:]
        assert np.abs(view.image.numpy() - expected).mean() < 1
        assert view.fx == pytest.approx(0.5 * 25 / np.tan(0.45))


@pytest.mark.parametrize("size", [(2_000_000, 1), (1, 60_000), (7, 9), (8, 129)])
def test_paintings_that_are_no_pictures(tmp_path, size):
    Image.new("L", size).save(tmp_path / "line.png")
    with pytest.raises(UserError, match=rf"line\.png: is {size[0]}x{size[1]}; a painting needs"):
        read_painting(tmp_path / "line.png")


def test_paintings_without_end(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "bomb.png")
    data = (tmp_path / "bomb.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + data[24:29]
    data = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(UserError, match=r"bomb\.png: not a readable image .*decompression bomb"):
        read_painting(tmp_path / "bomb.png")
    Image.new("L", (5000, 500), 77).save(tmp_path / "large.png")
    painting = read_painting(tmp_path / "large.png")
    assert painting.shape == (410, 4096, 3)
    assert (painting == 77).all()


def test_what_is_transparent_in_a_painting_shows_white(tmp_path):
    rgba = np.full((20, 30, 4), (255, 0, 0, 0), np.uint8)
    rgba[4:16, 5:25] = (0, 0, 200, 255)
    rgba[8, 8] = (0, 0, 200, 51)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    painting = read_painting(tmp_path / "x.png")
    assert painting.shape == (12, 20, 3)
    assert painting[0, 0].tolist() == [0, 0, 200]
    assert painting[4, 3].tolist() == [204, 204, 244]
    rgba[..., 3] = 0
    Image.fromarray(rgba).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="transparent everywhere"):
        read_painting(tmp_path / "x.png")


def test_an_image_of_nan_is_not_black(tmp_path):
    values = np.zeros((20, 24), np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match="it has NaN"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("stage", ["style --objective gram", "style --objective swd", "mutual"])
def test_views_too_small_to_paint_on(trained, stage):
    Image.new("RGB", (30, 20), (200, 30, 90)).save("painting.png")
    line = f"--stage {stage} --root_dir sphere --style_dir painting.png --features own --suffix s"
    line += f" --ckpt_path {trained} --max_steps 1 --img_wh"
    with pytest.raises(UserError, match="--img_wh: pictures of 2 pixels are too small"):
        train(parse_train([*line.split(), "3", "2"]))
    if "swd" in stage:
        assert train(parse_train([*line.split(), "8", "8"]))


# -- checkpoints and weights --------------------------------------------------------------------


def test_a_checkpoint_that_expands(trained):
    with zipfile.ZipFile(trained) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile("bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    torch.load("bomb.ckpt", weights_only=True)  # PyTorch would read it
    with pytest.raises(UserError, match=r"bomb\.ckpt: not a checkpoint, or a damaged one"):
        Checkpoint.read(Path("bomb.ckpt"))
    with pytest.raises(UserError, match=r"bomb\.ckpt: not a weights file"):
        read_weights(Path("bomb.ckpt"))


@pytest.mark.parametrize("name", ["../../evil", "a/b", "..", "", "a\\b"])
def test_a_checkpoint_whose_views_are_called_like_paths(trained, name):
    """`export.py cameras` writes images by the names of the views."""
    found = Checkpoint.read(trained)
    found.scenes["scene"]["views"]["train"]["names"][0] = name
    found.write(Path("evil.ckpt"))
    with pytest.raises(UserError, match="is no plain name"):
        export(parse_export(["cameras", "--ckpt_path", "evil.ckpt"]))


def test_weights_that_are_not_what_their_name_says(tmp_path):
    path = tmp_path / "net-01234567.pth"
    torch.save({"x": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="is not what the digest in its name says"):
        read_weights(path)
    assert read_weights(path.rename(tmp_path / "net.pth"))["x"].shape == (3,)


# -- others at the same time --------------------------------------------------------------------


def test_two_runs_towards_one_result(at):
    """Of two stages, so that each has a folder of its own."""
    style = "--stage style --root_dir sphere --style_dir x.png --ckpt_path x.ckpt --suffix s"
    words = r"another run is training .* ckpts/sphere_s\.ckpt"
    with Run(parse_train(f"{GEOMETRY} --suffix s".split())), pytest.raises(UserError, match=words):
        Run(parse_train(style.split())).__enter__()
    with Run(parse_train(style.split())):
        pass


def test_two_renderings_into_one_folder(trained):
    line = ["--ckpt_path", str(trained)]
    evaluate(parse_eval(line))
    with lock(Path("results/sphere_g/.lock"), "busy"):
        with pytest.raises(UserError, match="results/sphere_g: another program renders here"):
            evaluate(parse_eval(line))
        evaluate(parse_eval([*line, "--output_dir", "others"]))
    evaluate(parse_eval(line))


# -- disks --------------------------------------------------------------------------------------


def test_a_disk_that_fills_while_a_checkpoint_is_saved(at, monkeypatch):
    """The run ends in a line, and goes on from the last good checkpoint to the same weights."""
    line = f"{GEOMETRY} --batch_size 64 --checkpoint_every 3".replace("_steps 2", "_steps 9")
    whole = Checkpoint.read(*train(parse_train([*line.split(), "--suffix", "whole"])))
    save, unfinished = Run.save, at / "ckpts/sphere_geometry_g"

    def save_when_full(run, checkpoint):
        if checkpoint.progress.step != 6:
            return save(run, checkpoint)
        with disk_full(after=2000):
            return save(run, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", save_when_full)
        with pytest.raises(UserError, match=r"step_6\.ckpt: cannot be written \(.*free some space"):
            train(parse_train([*line.split(), "--suffix", "g"]))
    assert names(unfinished) == [".lock", "step_3.ckpt"]
    again = Checkpoint.read(*train(parse_train([*line.split(), "--suffix", "g", "--resume"])))
    assert again.fields["scene"].digest == whole.fields["scene"].digest


@pytest.mark.parametrize(
    "asset", ["mesh --resolution 16", "volume --resolution 16", "weights", "cameras"]
)
def test_a_disk_that_fills_during_an_export(trained, asset):
    line = [*asset.split(), "--ckpt_path", str(trained)]
    with disk_full(after=200), pytest.raises(UserError, match="cannot be written"):
        export(parse_export(line))
    left = [path for path in Path("results").rglob("*") if path.is_file()]
    assert [path for path in left if path.stat().st_size >= 200] == []
    assert [path for path in left if path.suffix in (".ply", ".vol", ".safetensors")] == []


@pytest.mark.parametrize("kind", ["png", "gif", "mp4"])
def test_a_disk_that_fills_leaves_the_old_picture(tmp_path, kind):
    frames = list(np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8))
    write = {
        "png": lambda path: write_image(path, frames[0]),
        "gif": lambda path: write_gif(path, frames, 15),
        "mp4": lambda path: write_mp4(path, frames, 15),
    }[kind]
    path = tmp_path / f"x.{kind}"
    path.write_bytes(b"old")
    with disk_full(after=1000), pytest.raises(UserError, match=f"x.{kind}: .*cannot be written"):
        write(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == [path.name]
    write(path)
    assert path.stat().st_size > 1000


def test_outputs_that_cannot_be_written_are_found_before_rendering(trained, monkeypatch):
    monkeypatch.setattr("eval.render_view", None)
    for name in ("results/sphere_g/sphere_g.gif", "results/sphere_g/metrics.json"):
        Path(name).mkdir(parents=True)
        with pytest.raises(UserError, match=f"{name}: is a folder"):
            evaluate(parse_eval(["--ckpt_path", str(trained)]))
        Path(name).rmdir()
