"""Two processes end with the weights of one: the same batch, shared."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parents[1]
GEOMETRY = "--stage geometry --root_dir sphere --max_steps 6 --batch_size 65 --precision 32"
FIELDS = {
    "nerf": "--N_samples 8 --N_importance 8",
    "voxels": "--field voxels --voxel_resolution 24",
}
STYLE = (
    "--stage style --root_dir sphere --style_dir painting.png --features own --precision 32 "
    "--objective gram --num_epochs_style 1 --chunk 50"
)
# Not nnfm: where two neighbours are equally near, rounding decides.  Not Adam for the style: it
# makes whole steps of gradients that are nothing but rounding, and in 40 steps the runs part by
# 2e-5 (the voxels) or 3e-4 (the NeRF).
PLAIN_STEPS = "--optimizer sgd --lr 0.01"


@pytest.fixture
def at(tmp_path, tiny_scene_dir):
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((64, 48)).save(tmp_path / "painting.png")
    return tmp_path


def run(script, line, at, processes=1):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*line.split(), "--device", "cpu", "--num_gpus", str(processes)]
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *words],
        cwd=at,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def difference(a, b):
    """Relative difference of two finished fields' weights; what is not a weight has to be equal."""
    a, b = (Checkpoint.read(path).renderer().state_dict() for path in (a, b))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a if not a[k].is_floating_point())
    one, other = (
        torch.cat([s[k].double().flatten() for k in a if a[k].is_floating_point()]) for s in (a, b)
    )
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(field, at):
    for n in (1, 2):
        run("pipeline.py", f"{GEOMETRY} {FIELDS[field]} --suffix g{n} --ckpt_dir c", at, n)
    # of some vertices the gradient is nothing but rounding, of which Adam makes whole steps
    assert difference(at / "c/sphere_g1.ckpt", at / "c/sphere_g2.ckpt") < 1e-4
    for n in (1, 2):
        said = run(
            "pipeline.py",
            f"{STYLE} {PLAIN_STEPS} --ckpt_path c/sphere_g1.ckpt --suffix s{n} --ckpt_dir c",
            at,
            n,
        )
        assert said.count("written:") == 1
    assert difference(at / "c/sphere_s1.ckpt", at / "c/sphere_s2.ckpt") < 1e-5


@pytest.mark.slow
def test_two_processes_train_jointly_as_one_does(at):
    line = (
        "--stage joint --scenes a=sphere b=sphere,near=1.5 --pairs a=e,plain b=f,red "
        "--overlap sliced --pattern red --max_steps 4 --batch_size 65 --precision 32 --prefix x "
        f"{FIELDS['voxels']} {PLAIN_STEPS} --ckpt_dir c"
    )
    for n in (1, 2):
        run("pipeline.py", f"{line} --suffix j{n}", at, n)
    assert difference(at / "c/x_j1.ckpt", at / "c/x_j2.ckpt") < 1e-5


@pytest.mark.slow
def test_resuming_with_another_number_of_processes(at):
    line = f"{GEOMETRY} {FIELDS['voxels']} --appearance affine --ckpt_dir c --checkpoint_every 2"
    line = f"{line} {PLAIN_STEPS}".replace("--max_steps 6", "--max_steps 12")
    run("pipeline.py", f"{line} --suffix g1", at)
    words = [*line.split(), "--suffix", "g2", "--device", "cpu", "--num_gpus", "2"]
    two = subprocess.Popen(
        [sys.executable, str(ROOT / "pipeline.py"), *words],
        cwd=at,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not list(at.glob("c/sphere_geometry_g2/step_*.ckpt")) and two.poll() is None:
        time.sleep(0.005)
    os.killpg(two.pid, signal.SIGKILL)
    two.wait()
    assert not (at / "c/sphere_g2.ckpt").exists()
    assert "resuming" in run("pipeline.py", f"{line} --suffix g2 --resume", at)
    assert difference(at / "c/sphere_g1.ckpt", at / "c/sphere_g2.ckpt") < 1e-5


@pytest.mark.slow
def test_frames_are_shared_among_processes(at):
    run("pipeline.py", f"{GEOMETRY} {FIELDS['voxels']} --suffix g --ckpt_dir c", at)
    reports = []
    for n in (1, 2):
        line = f"--ckpt_path c/sphere_g.ckpt --split train --output_dir r{n}"
        assert run("eval.py", line, at, n).count("psnr") == 1
        reports.append(json.loads((at / f"r{n}/sphere_g/metrics.json").read_text()))
    one, two = reports
    assert list(one["views"]) == [f"{i:03d}" for i in range(8)]
    assert one["views"] == two["views"]
    assert one["psnr"] == two["psnr"]
    gifs = [at / f"r{n}/sphere_g/sphere_g.gif" for n in (1, 2)]
    assert gifs[0].read_bytes() == gifs[1].read_bytes()
