"""Both stages and evaluation end to end, on a tiny scene: in process where that is enough, as
commands where exit codes and interruptions matter."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.plugins.precision import MixedPrecision

from eval import evaluate
from models.checkpoint import ONLY_FIELD, Checkpoint, geometry_digest
from models.renderer import render_view
from opt import parse_eval, parse_train
from pipeline import train
from systems.frozen import FrozenGeometry
from systems.photometric_task import PhotometricTask
from systems.system import System
from tests.crashes import run_until
from tests.datasets.conftest import Captures
from utils.errors import NumericalError

ROOT = Path(__file__).resolve().parents[1]
QUICK = {
    "nerf": "--N_samples 8 --N_importance 8 --batch_size 64 --precision 32",
    "nerf_in_steps": "--N_samples 8 --N_importance 8 --batch_size 64 --precision 32"
    " --sampling occupancy",
    "voxels": "--field voxels --voxel_resolution 24 --batch_size 64",
}


@pytest.fixture
def at(tmp_path, monkeypatch, tiny_scene_dir):
    """A working directory with the scene `sphere` and a painting in it."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((64, 48)).save(tmp_path / "painting.png")
    return tmp_path


def geometry(field, steps=6, more=""):
    line = (
        f"--stage geometry --root_dir sphere --max_steps {steps} --suffix g {QUICK[field]} {more}"
    )
    return train(parse_train(line.split()))


def style(more="", ckpt="ckpts/sphere_g.ckpt"):
    line = (
        f"--stage style --root_dir sphere --style_dir painting.png --features own --suffix s {more}"
    )
    return train(parse_train([*line.split(), "--ckpt_path", ckpt]))


def weights(path):
    return Checkpoint.read(Path(path)).renderer().state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def command(*words, cwd, timeout=300):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(ROOT / words[0]), *words[1:]]
    return subprocess.run(
        script, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.parametrize(
    ("field", "mode"),
    [(f, m) for f in ("nerf", "voxels") for m in ("memory_saving", "patch", "small")]
    + [pytest.param("nerf_in_steps", "memory_saving", marks=pytest.mark.slow)],
)
def test_photos_and_a_painting_in_a_stylised_gif_out(at, field, mode):
    geometry(field)
    (path, *_) = style(f"--style_mode {mode} --patch_size 9 --small_size 10 --max_steps 3")
    before, after = Checkpoint.read(at / "ckpts/sphere_g.ckpt"), Checkpoint.read(path)
    assert (after.stage, list(after.styles)) == ("style", ["painting"])
    # law 2: the geometry has not moved by a bit, the style has
    painted = after.renderer().state_dict()
    assert (
        before.fields[ONLY_FIELD].digest
        == after.fields[ONLY_FIELD].digest
        == geometry_digest(painted)
    )
    assert not same(before.fields[ONLY_FIELD].state, painted)
    # law 6: the photographic colours are still there
    assert same(before.fields[ONLY_FIELD].state, after.renderer(style="photo").state_dict())
    report = evaluate(parse_eval(["--ckpt_path", str(path)]))
    assert report["digest"] == before.fields[ONLY_FIELD].digest
    assert report["style"] == "painting"
    assert "psnr" not in report
    assert report["style_distance"] > 0
    frames = imageio.mimread("results/sphere_s/sphere_s.gif")
    assert len(frames) == 2
    assert frames[0].shape[:2] == (20, 24)
    assert len(list((at / "runs").rglob("events.*"))) == 2


def test_a_folder_of_paintings_shares_the_frozen_geometry(at, monkeypatch, capsys):
    """Each painting's field is the one that it would have got alone."""
    (at / "paintings").mkdir()
    Image.open("painting.png").save(at / "paintings" / "b.png")
    Image.open("painting.png").rotate(90).save(at / "paintings" / "a.jpg")
    (at / "paintings" / "notes.txt").write_text("not a painting")
    geometry("voxels")
    computed = []
    compute = FrozenGeometry._compute
    monkeypatch.setattr(
        FrozenGeometry, "_compute", lambda self, i: computed.append(i) or compute(self, i)
    )
    paths = style("--style_dir paintings --max_steps 3")
    assert [path.name for path in paths] == ["sphere_s_a.ckpt", "sphere_s_b.ckpt"]
    assert sorted(computed) == list(range(8))
    (alone,) = style("--style_dir paintings/b.png --max_steps 3 --suffix alone")
    assert same(weights(paths[1]), weights(alone))
    assert not same(weights(paths[0]), weights(alone))
    # and one checkpoint has them all
    together = Checkpoint.read(Path("ckpts/sphere_s.ckpt"))
    for name, path in zip("ab", paths, strict=True):
        assert same(together.renderer(style=name).state_dict(), weights(path))
    assert same(together.renderer(style="photo").state_dict(), weights("ckpts/sphere_g.ckpt"))
    # done is done
    capsys.readouterr()
    assert style("--style_dir paintings --max_steps 3 --resume") == []
    assert capsys.readouterr().out.count("finished already") == 2


def test_learning_learns(at):
    geometry("voxels", 150, "--batch_size 512 --lr_scheduler cosine")
    report = evaluate(parse_eval(["--ckpt_path", "ckpts/sphere_g.ckpt"]))
    assert report["psnr"] > 24
    assert report["ssim"] > 0.8
    written = json.loads(Path("results/sphere_g/metrics.json").read_text())
    assert written["psnr"] == pytest.approx(
        np.mean([view["psnr"] for view in written["views"].values()])
    )
    assert written["seconds_per_frame"] > 0
    depth = np.asarray(Image.open("results/sphere_g/depth_000.png"))
    assert depth.dtype in (np.uint16, np.int32)
    assert 0 < (depth > 0).mean() < 1
    assert Image.open("results/sphere_g/000.png").size == (24, 20)


@pytest.mark.slow
def test_the_seeds_commands_verbatim(at):
    common = "--dataset_name blender --root_dir sphere --img_wh 18 16"
    small = "--max_steps 2 --N_samples 8 --N_importance 8"
    first = (
        f"--stage geometry --prefix P --suffix S {common} --num_epochs_density 1 "
        f"--batch_size 1024 --lr 5e-4 {small}"
    )
    networks = "--coarse_path ckpts/P_nerf_coarse_{0}.pt --fine_path ckpts/P_nerf_fine_{0}.pt"
    second = (
        f"--stage style --prefix P --suffix S2 --style_dir painting.png --style_mode patch "
        f"{networks.format('S')} {common} --num_epochs_style 1 --lr 1e-3 {small} --features own"
    )
    third = f"{common} --scene_name lego {networks.format('S2')} --gif_name G"
    for script, line in (("pipeline.py", first), ("pipeline.py", second), ("eval.py", third)):
        done = command(script, *line.split(), cwd=at)
        assert done.returncode == 0, done.stderr
    for name in ("P_nerf_coarse_S", "P_nerf_fine_S", "P_nerf_coarse_S2", "P_nerf_fine_S2"):
        assert (at / f"ckpts/{name}.pt").is_file()
    assert len(imageio.mimread("results/lego/G.gif")) == 2
    assert (at / "results/lego/000.png").is_file()
    assert (at / "results/lego/metrics.json").is_file()


@pytest.mark.parametrize("mode", ["memory_saving", "small --small_size 10"])
def test_what_a_mask_ignores_leaves_no_trace_in_either_stage(at, mode, write_scene):
    """The same scene twice, once with a painter's hand before every lens: the same weights."""
    source = write_scene(at / "source", counts={"train": 10}, lens={"fl_x": 26.0})
    found = []
    for name, hand in (("clean", None), ("hand", (250, 30, 90))):
        root = Captures.transforms(source, at / name / "sphere")
        data = json.loads((root / "transforms.json").read_text())
        mask = Image.new("L", (24, 20), 255)
        mask.paste(0, (8, 6, 14, 20))
        mask.save(root / "mask.png")
        for frame in data["frames"]:
            frame["mask_path"] = "mask.png"
            image = Image.open(root / frame["file_path"])
            if hand:
                image.paste(hand, (8, 6, 14, 20))
            image.save(root / frame["file_path"])
        (root / "transforms.json").write_text(json.dumps(data))
        size = f"--root_dir {root} --img_wh 18 15"
        first = weights(geometry("voxels", 8, size)[0])
        painted = weights(style(f"--max_steps 4 --style_mode {mode} {size}")[0])
        found.append({**first, **{f"painted {key}": value for key, value in painted.items()}})
    assert same(*found)


@pytest.mark.parametrize("field", [pytest.param("nerf", marks=pytest.mark.slow), "voxels"])
def test_a_style_on_the_weights_alone(at, field):
    """What `export.py weights` writes is enough to paint on."""
    from export import export
    from opt import parse_export

    ckpt = str(geometry(field)[0])
    painted = weights(style("--max_steps 3", ckpt)[0])
    export(parse_export(["weights", "--ckpt_path", ckpt]))
    light = "results/sphere_g/sphere_g.safetensors"
    again = weights(style("--max_steps 3", light)[0])
    names = [name for name in painted if name.startswith("field.")]
    assert same({k: again[k] for k in names}, {k: painted[k] for k in names})


def rendered(more):
    return evaluate(parse_eval(f"--ckpt_path ckpts/sphere_g.ckpt {more}".split()))


def test_rendering_computes_as_asked(at, monkeypatch):
    geometry("nerf")
    types, rgb = [], []

    def render_and_note(*given):
        on = torch.is_autocast_enabled("cpu")
        types.append(torch.get_autocast_dtype("cpu") if on else torch.float32)
        picture = render_view(*given)
        rgb.append(picture.rgb)
        return picture

    monkeypatch.setattr("eval.render_view", render_and_note)
    for precision in ("32", "bf16"):
        rendered(f"--precision {precision} --path circle --n_frames 1")
    assert types == [torch.float32, torch.bfloat16]
    assert not torch.equal(*rgb)
    torch.testing.assert_close(*rgb, rtol=0, atol=0.01)


def test_paths_where_asked(at):
    geometry("voxels")
    out = Path("results/sphere_g")
    for path in ("circle", "spiral", "interpolate", "interpolate --path_views r_1 5 r_3"):
        report = rendered(f"--path {path} --n_frames 5 --fps 7 --gif_name c")
        assert len(report["views"]) == 5
        assert "psnr" not in report
        assert (report["split"], report["path"]) == (None, path.split()[0])
        assert len(imageio.mimread(out / "c.mp4")) == 5
        assert imageio.get_reader(out / "c.mp4").get_meta_data()["fps"] == 7
    frame = (out / "000.png").read_bytes()
    (at / "sphere").rename(at / "hidden")  # the checkpoint knows the cameras
    rendered(f"--path {path} --n_frames 5")
    assert (out / "000.png").read_bytes() == frame
    rendered(f"--path {path} --n_frames 2 --img_wh 36 30")
    assert Image.open(out / "000.png").size == (36, 30)


def test_a_path_from_a_file_shows_what_the_photos_show(at):
    geometry("voxels", 30)
    view = json.loads(Path("sphere/transforms_test.json").read_text())["frames"][1]
    matrix = np.array(view["transform_matrix"]).flatten().tolist()
    fov = 2 * np.degrees(np.arctan(20 / 24 * np.tan(0.9 / 2)))
    camera = {"camera_to_world": matrix, "fov": fov, "aspect": 1.2}
    path = {"render_height": 20, "render_width": 24, "fps": 12, "camera_path": [camera] * 3}
    Path("path.json").write_text(json.dumps(path))
    rendered("")
    photo = np.asarray(Image.open("results/sphere_g/001.png")).astype(int)
    report = rendered("--path path.json")
    assert len(report["views"]) == 3
    assert report["options"]["fps"] == 12
    frame = np.asarray(Image.open("results/sphere_g/002.png")).astype(int)
    assert np.abs(frame - photo).max() <= 1
    assert rendered("--path path.json --fps 3 --n_frames 4")["options"]["fps"] == 3


def test_the_report_says_how_it_came_about(at, monkeypatch, capsys):
    geometry("voxels")
    monkeypatch.setattr(sys, "argv", ["eval.py", "--gif_name", "a name"])
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    report = rendered("--split test_train --fps 4")
    written = json.loads(Path("results/sphere_g/metrics.json").read_text())
    assert {name: report[name] for name in written} == written
    assert written["command"] == "eval.py --gif_name 'a name'"
    assert written["options"]["fps"] == 4
    assert written["options"]["ckpt_path"] == "ckpts/sphere_g.ckpt"
    assert written["training_options"]["stage"] == "geometry"
    read = Checkpoint.read(at / "ckpts/sphere_g.ckpt")
    assert (written["digest"], written["style"]) == (read.fields[ONLY_FIELD].digest, "photo")
    assert written["versions"]["torch"] == torch.__version__
    assert {"python", "numpy", "pytorch-lightning"} <= written["versions"].keys()
    # nerf_pl's test_train: the views of training, rendered whole and measured
    assert len(written["views"]) == 8
    assert written["psnr"] == rendered("--split train")["psnr"]
    assert all(view.keys() == {"psnr", "ssim"} for view in written["views"].values())
    assert "torchvision" in written["left_out"]["lpips"]
    assert "lpips is left out: torchvision cannot be imported" in capsys.readouterr().out


@pytest.mark.parametrize("field", ["nerf", "voxels"])
def test_a_resumed_run_ends_with_the_same_weights(at, field):
    """Stopped after a checkpoint in both stages; growth and optimiser state included."""
    whole = weights(geometry(field, 12)[0])
    style("--max_steps 9 --checkpoint_every 1000")
    painted = weights("ckpts/sphere_s.ckpt")
    for stop, every in ((7, 3), (11, 5))[: 1 if field == "nerf" else 2]:
        run_until(stop, lambda e=every: geometry(field, 12, f"--checkpoint_every {e}"))
        again = geometry(field, 12, f"--checkpoint_every {every} --resume")
        assert same(weights(again[0]), whole)
    run_until(36, lambda: style("--max_steps 9 --checkpoint_every 17"))
    assert same(weights(style("--max_steps 9 --checkpoint_every 17 --resume")[0]), painted)


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_a_signal_in_training_says_how_to_go_on(at, number, said):
    """With the exit code that shells expect, and what was trained so far."""
    line = "--stage geometry --root_dir sphere --suffix k --checkpoint_every 5 --max_steps 100000"
    line = [*line.split(), *QUICK["voxels"].split(), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "pipeline.py"), *line],
        **{"cwd": at, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "text": True},
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE},
    )
    unfinished = at / "ckpts/sphere_geometry_k"
    while not list(unfinished.glob("step_*.ckpt")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"{said}; to continue from the newest checkpoint" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert list(unfinished.glob("step_*.ckpt"))


def test_the_plans_name_voxels_as_fine_as_pixels_and_the_network(at, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(at))  # no VGG weights at hand
    geometry("voxels", 2, "--voxel_resolution 12")
    assert "as fine as the pixels" not in capsys.readouterr().out
    style("--max_steps 1 --objective nnfm --features auto")
    assert "features of own (longer strokes: --features vgg16" in capsys.readouterr().out
    style("--max_steps 1 --objective nnfm --features own")
    assert "features of own;" in capsys.readouterr().out
    geometry("voxels", 2, "--voxel_resolution 100")
    assert "voxels along the longest side, as fine as the pixels" in capsys.readouterr().out


def test_each_part_of_a_run_has_a_bar_of_its_own(at, capsys):
    """--max_steps is the length of the painting's, which the photographic start does not count to;
    a resumed run's bar goes on where it was."""

    geometry("voxels", 12)
    assert re.findall(r"geometry: 100%[^\r\n]* 12/12 ", capsys.readouterr().out)
    style("--max_steps 3")
    said = capsys.readouterr().out
    assert "plan: 3 steps after 32 of photographic start; " in said
    assert "style: 3 steps after 32 of photographic start in " in said
    assert re.findall(r"photographic start: +0%[^\r\n]* 0/32 ", said)
    assert re.findall(r"style: 100%[^\r\n]* 3/3 ", said)
    style("--max_steps 3 --style_init random --suffix r")
    assert "style: 3 steps in " in capsys.readouterr().out
    run_until(34, lambda: style("--max_steps 3 --checkpoint_every 33"))
    capsys.readouterr()
    style("--max_steps 3 --checkpoint_every 33 --resume")
    said = capsys.readouterr().out
    assert "photographic start:" not in said
    shown = re.findall(r" ([1-3]/3) ", said)  # a slow machine's bar shows more
    assert (shown[0], shown[-1]) == ("1/3", "3/3")


def test_a_run_of_slow_steps_is_saved_by_time(at, monkeypatch, capsys):
    monkeypatch.setattr("systems.lightning.SAVE_AFTER", 0.0)
    run_until(3, lambda: geometry("voxels", 10))
    assert list((at / "ckpts/sphere_geometry_g").glob("step_*.ckpt"))
    geometry("voxels", 10, "--resume")
    assert "no checkpoint to resume" not in capsys.readouterr().out
    geometry("voxels", 5, "--resume --ckpt_dir elsewhere")
    assert "no checkpoint to resume; starting anew" in capsys.readouterr().out


def test_a_damaged_newest_checkpoint_is_named_and_passed_over(at, caplog):
    whole = weights(geometry("voxels", 10)[0])
    run_until(9, lambda: geometry("voxels", 10, "--checkpoint_every 3"))
    newest_file = sorted((at / "ckpts/sphere_geometry_g").glob("step_*.ckpt"))[-1]
    newest_file.write_bytes(newest_file.read_bytes()[:1000])
    again = geometry("voxels", 10, "--checkpoint_every 3 --resume")
    assert newest_file.name in caplog.text
    assert same(weights(again[0]), whole)


def test_not_a_number_stops_with_step_term_and_tensor(at):
    def spoil(self, step, *more):
        if step == 3:
            with torch.no_grad():
                self.tasks[0].renderer.field.style.head.table[:] = float("nan")
        original(self, step, *more)

    original = System._move
    System._move = spoil
    try:
        with pytest.raises(NumericalError, match=r"step 4: the term 'fine'.*style\.head\.table"):
            geometry("voxels", 8)
    finally:
        System._move = original


def test_initial_weights_are_a_function_of_the_seed(at):
    first = weights(geometry("nerf", 2)[0])
    assert same(weights(geometry("nerf", 2)[0]), first)
    assert not same(weights(geometry("nerf", 2, "--seed 1")[0]), first)


@pytest.mark.parametrize("field", ["nerf", "voxels"])
def test_a_batch_that_finds_no_memory_is_learnt_in_chunks(field, at, monkeypatch):
    """The random numbers, the loss and the weights are those of the batch at once."""
    plain = "--precision 32 --optimizer sgd --lr 0.01"
    geometry(field, more=f"{plain} --ckpt_dir whole")
    learn, tried = PhotometricTask._learn, []

    def short_of_memory(self, step, rays, flat, view, own):
        tried.append(own.stop - own.start)
        if tried[-1] > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return learn(self, step, rays, flat, view, own)

    monkeypatch.setattr(PhotometricTask, "_learn", short_of_memory)
    geometry(field, more=f"{plain} --chunk 50 --ckpt_dir parts")
    assert tried[:4] == [50, 25, 12, 12]
    whole, parts = (weights(f"{name}/sphere_g.ckpt") for name in ("whole", "parts"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-5)


def test_warm_up_and_painting_each_have_the_whole_schedule(at, monkeypatch):
    geometry("voxels", 4)
    rates, share = [], System._share_gradients

    def watched(system, optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        share(system, optimizer)

    monkeypatch.setattr(System, "_share_gradients", watched)
    style("--max_steps 4 --lr_scheduler cosine --lr 0.1")
    assert rates[0] == rates[-4] == 0.1
    assert rates[-1] < 0.02 and rates[-5] < 0.001


@pytest.mark.parametrize("stage", ["geometry", "style"])
def test_float16_learns_what_float32_does(stage, at, monkeypatch):
    """Its gradients are scaled, and scaled back; plain steps would show it if they were not."""

    def run(directory, rate, steps=2):
        line = f"--precision 32 --optimizer sgd --lr {rate} --ckpt_dir {directory}"
        if stage == "geometry":
            geometry("nerf", steps, line)
        else:
            more = f"--style_init random --no-colour_transfer --objective gram --max_steps {steps}"
            style(f"{more} {line}")
        state = weights(f"{directory}/sphere_{stage[0]}.ckpt")
        return torch.cat([x.flatten() for x in state.values() if x.is_floating_point()])

    geometry("nerf", 4)
    rate = {"geometry": 0.05, "style": 1e-5}[stage]
    start, exact = run("nothing", 1e-12), run("float32", rate)
    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", 2.0**-4))
    trainer = pl.Trainer
    monkeypatch.setattr(pl, "Trainer", lambda precision, **more: trainer(plugins=[half], **more))
    assert (exact - start).norm() > 1e-3
    assert (run("float16", rate) - exact).norm() < 0.05 * (exact - start).norm()
