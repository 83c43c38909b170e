"""Few views end to end: coarse only with the semantic term, resumed, as GIFs, and painted."""

import numpy as np
import pytest
import torch
from PIL import Image

from eval import evaluate, spin
from opt import parse_eval, parse_train
from pipeline import train
from systems import semantic_task, style
from tests.conftest import write_sphere_scene
from tests.crashes import run_until
from tests.encoders import Colours
from utils.errors import UserError

FIELDS = {
    "voxels": "--field voxels --voxel_resolution 16 --density_smoothness 1e-3",
    "coarse_only": "--N_samples 8 --N_importance 0 --precision 32 --coarse_to_fine 0.5",
}


@pytest.fixture
def at(tmp_path, monkeypatch):
    """A working directory with a portrait scene."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(semantic_task, "SIDE", 13)
    write_sphere_scene(tmp_path / "sphere", 37, 53)
    return tmp_path


def learn(field, more=""):
    line = "--stage geometry --root_dir sphere --few_shot 3 --batch_size 64 --max_steps 6 "
    line += f"--suffix g --semantic own --semantic_every 2 {FIELDS[field]} {more}"
    return train(parse_train(line.split()))


def learned():
    state = torch.load("ckpts/sphere_g.ckpt", weights_only=True)
    (field,) = state["fields"].values()
    return field["digest"]


@pytest.mark.parametrize("field", FIELDS)
def test_a_resumed_run_ends_with_the_same_weights(at, field):
    learn(field)
    whole = learned()
    run_until(4, lambda: learn(field, "--checkpoint_every 2 --ckpt_dir again"))
    learn(field, "--checkpoint_every 2 --ckpt_dir again --resume")
    (at / "again" / "sphere_g.ckpt").rename(at / "ckpts" / "sphere_g.ckpt")
    assert learned() == whole


@pytest.mark.parametrize("field", FIELDS)
def test_gifs_and_nothing_else(at, field):
    learn(field)
    before = {*at.rglob("*")}
    files = spin(
        parse_eval(["--ckpt_path", "ckpts/sphere_g.ckpt", "--gif_only", "--n_frames", "3"])
    )
    new = {path.relative_to(at) for path in {*at.rglob("*")} - before if path.is_file()}
    assert new == {*files}
    assert [file.name for file in files] == ["sphere_g.gif", "sphere_g_depth.gif"]
    for file in files:
        with Image.open(file) as gif:
            assert (gif.n_frames, gif.size) == (3, (37, 53))
            frames = []
            for i in range(3):
                gif.seek(i)
                frames.append(np.asarray(gif.convert("RGB")).astype(int))
        # the first is not repeated at the end, and something is there
        assert np.abs(frames[0] - frames[2]).max() > 0
        assert frames[0].min() < 250


def test_gifs_exclude_measures():
    with pytest.raises(UserError, match="--gif_only: writes no files"):
        parse_eval(["--ckpt_path", "x.ckpt", "--gif_only", "--measure", "quality"])


def test_a_few_view_scene_is_painted_like_any_other(at):
    learn("voxels")
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(at / "painting.png")
    line = "--stage style --root_dir sphere --style_dir painting.png --features own --suffix s "
    line += "--max_steps 2 --ckpt_path ckpts/sphere_g.ckpt"
    train(parse_train(line.split()))
    state = torch.load("ckpts/sphere_s.ckpt", weights_only=True)
    assert state["options"]["few_shot"] == 3


@pytest.mark.parametrize("words", ["--prompt red", "--style_dir red.png --objective directional"])
def test_a_prompt_or_a_painting_gives_the_direction(at, words, monkeypatch):
    """Painted after a word, or after a picture of the same: it turns red."""
    learn("voxels", "--max_steps 40")
    Image.fromarray(np.full((20, 20, 3), (230, 25, 25), np.uint8)).save(at / "red.png")
    monkeypatch.setattr(style, "load_encoder", lambda name, option: Colours())
    line = "--stage style --root_dir sphere --features own --content_weight 0 --max_steps 16 "
    line += f"--ckpt_path ckpts/sphere_g.ckpt --no-colour_transfer {words}"
    train(parse_train(line.split()))
    (painted,) = set(at.glob("ckpts/sphere_*.ckpt")) - {at / "ckpts" / "sphere_g.ckpt"}
    assert painted.stem == "sphere_red"
    redness = []
    for colours in ("photo", "red"):
        evaluate(parse_eval(f"--ckpt_path {painted} --style {colours}".split()))
        folder = at / "results" / "sphere_red" / colours
        frames = [np.asarray(Image.open(f)) for f in sorted(folder.glob("???.png"))]
        pixels = np.concatenate([f.reshape(-1, 3) for f in frames]).astype(float)
        redness.append((pixels[:, 0] - pixels[:, 1:].mean(1)).mean())
    assert redness[1] > redness[0] + 2


def test_messages_of_prompts(at):
    learn("voxels")
    line = "--stage style --root_dir sphere --ckpt_path ckpts/sphere_g.ckpt --prompt red"
    with pytest.raises(UserError, match="--prompt: our own encoder knows no words; take"):
        train(parse_train([*line.split(), "--directional_encoder", "own", "--features", "own"]))
    with pytest.raises(UserError, match="without a painting there is nothing for nnfm, stat"):
        train(parse_train([*line.split(), "--objective", "nnfm"]))
