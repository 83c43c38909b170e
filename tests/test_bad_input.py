"""Bad input gets one line that names the file or option, exit code 2 and no traceback."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval import evaluate
from opt import parse_eval, parse_train
from pipeline import train
from tests.crashes import run_until
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
FIRST = "--stage geometry --root_dir sphere --field voxels --voxel_resolution 16 --max_steps 2"
STYLE = "--stage style --root_dir sphere --style_dir painting.png --suffix s --max_steps 1"


@pytest.fixture
def at(tmp_path, monkeypatch, tiny_scene_dir):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save("painting.png")
    return tmp_path


@pytest.fixture
def trained(at):
    train(parse_train([*FIRST.split(), "--suffix", "g"]))
    return at / "ckpts/sphere_g.ckpt"


def refuses(line, *words):
    """The run raises a one-line `UserError` with these words in it."""
    with pytest.raises(UserError) as error:
        train(parse_train(line.split()))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_the_scripts_end_with_one_line_and_exit_code_2(tmp_path):
    for script, line in (
        ("pipeline.py", "--stage geometry --root_dir nowhere"),
        ("eval.py", "--ckpt_path nowhere.ckpt"),
        ("pipeline.py", "--stage geometry --root_dir . --img_wh 0 0"),
        ("pipeline.py", "--stage geometry --root_dir . --batch_sise 3"),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / script), *line.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert done.stderr.strip().startswith("error: ")
        assert len(done.stderr.strip().splitlines()) == 1


def test_missing_directory(at):
    refuses(FIRST.replace("sphere", "cube"), "cube")


def test_json_broken_or_without_frames(at):
    path = at / "sphere/transforms_train.json"
    path.write_text(path.read_text()[:200])
    refuses(FIRST, "transforms_train.json")
    path.write_text(json.dumps({"camera_angle_x": 0.7, "frames": []}))
    refuses(FIRST, "transforms_train.json", "frames")


def test_image_missing_or_truncated(at):
    image = at / "sphere/train/r_3.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    refuses(FIRST, "r_3")
    image.unlink()
    refuses(FIRST, "r_3")


@pytest.mark.parametrize("pose", [[[1, 0], [0, 1]], [[float("nan")] * 4] * 4])
def test_pose_not_a_finite_4x4(at, pose):
    path = at / "sphere/transforms_train.json"
    data = json.loads(path.read_text())
    data["frames"][2]["transform_matrix"] = pose
    path.write_text(json.dumps(data))
    refuses(FIRST, "transforms_train.json")


def test_sizes_that_differ(at):
    Image.open("sphere/train/r_2.png").resize((30, 30)).save("sphere/train/r_2.png")
    refuses(FIRST, "r_2", "--img_wh")


def test_style_image_unreadable(trained):
    Path("painting.png").write_bytes(b"not an image")
    refuses(f"{STYLE} --ckpt_path {trained}", "painting.png")
    Path("painting.png").unlink()
    refuses(f"{STYLE} --ckpt_path {trained}", "painting.png")


def test_not_a_checkpoint(at):
    Path("text.ckpt").write_text("hello")
    refuses(f"{STYLE} --ckpt_path text.ckpt", "text.ckpt")
    torch.save({"a": 1}, "other.ckpt")
    refuses(f"{STYLE} --ckpt_path other.ckpt", "other.ckpt")


def test_a_pickle_with_code_is_refused_and_not_run(at):
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch exploded",)

    torch.save({"state": Bomb()}, "bomb.ckpt")
    refuses(f"{STYLE} --ckpt_path bomb.ckpt", "bomb.ckpt")
    Path("bare.ckpt").write_bytes(pickle.dumps(Bomb()))
    refuses(f"{STYLE} --ckpt_path bare.ckpt", "bare.ckpt")
    assert not Path("exploded").exists()


def test_networks_of_two_runs_do_not_mix(at):
    line = "--stage geometry --root_dir sphere --max_steps 1 --N_samples 4 --N_importance 4"
    for seed in (0, 1):
        train(parse_train([*line.split(), "--suffix", str(seed), "--seed", str(seed)]))
    pair = "--coarse_path ckpts/sphere_nerf_coarse_0.pt --fine_path ckpts/sphere_nerf_fine_1.pt"
    refuses(f"{STYLE} {pair}", "coarse_0", "fine_1")
    swapped = "--coarse_path ckpts/sphere_nerf_fine_0.pt --fine_path ckpts/sphere_nerf_coarse_0.pt"
    refuses(f"{STYLE} {swapped}", "fine_0")


def test_another_field_than_the_checkpoints(trained):
    refuses(f"{STYLE} --ckpt_path {trained} --field nerf", "--field")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_directory_not_writable(at):
    Path("locked").mkdir(mode=0o500)
    refuses(f"{FIRST} --ckpt_dir locked/ckpts", "locked")


def test_output_directory_is_a_file(at):
    Path("taken").write_text("")
    refuses(f"{FIRST} --ckpt_dir taken", "taken")


def test_vgg_weights_without_the_needed_layers(trained):
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "vgg.pth")
    refuses(f"{STYLE} --ckpt_path {trained} --vgg_weights vgg.pth", "vgg.pth", "features.2.weight")


def test_a_run_of_another_length_is_not_resumed(at):
    line = f"{FIRST} --suffix g --checkpoint_every 2".replace("--max_steps 2", "--max_steps 9")
    run_until(5, lambda: train(parse_train(line.split())))
    line = line.replace("--max_steps 9", "--max_steps 12 --resume")
    refuses(line, "step_4.ckpt", "--max_steps 12 was 9")


def test_evaluation_of_nothing(at):
    with pytest.raises(UserError, match=r"missing\.ckpt"):
        evaluate(parse_eval(["--ckpt_path", "missing.ckpt"]))


def test_evaluation_in_what_the_machine_does_not_do(trained):
    with pytest.raises(UserError, match="--precision 16"):
        evaluate(parse_eval(f"--ckpt_path {trained} --precision 16 --device cpu".split()))


@pytest.mark.parametrize(
    "line, words",
    [
        ("--path spirl", "--path: must be one of none, circle, spiral, interpolate, or a file"),
        ("--path_views r_1 r_2", "--path_views: names stops of --path interpolate"),
        ("--path circle --n_frames 0", "--n_frames: must be from 1 to 100000"),
        ("--split circle", "--split: 'circle' is not one of test, val, train, test_train"),
    ],
)
def test_paths_that_are_none(line, words):
    with pytest.raises(UserError) as error:
        parse_eval(["--ckpt_path", "x", *line.split()])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_path_with_unknown_views_and_a_file_that_is_no_path(trained):
    for path, words in (
        ("interpolate --path_views r_1 r_77", "--path_views r_77"),
        (f"{trained}", "not readable as JSON"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate(parse_eval(f"--ckpt_path {trained} --path {path}".split()))
