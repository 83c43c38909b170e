"""export.py end to end on a tiny scene, what eval.py does with its files, and its mistakes."""

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval import evaluate
from export import export
from models.checkpoint import Checkpoint
from opt import parse_eval, parse_export, parse_train
from pipeline import train
from tests.utils.test_depth import read_pfm
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
CKPT = "ckpts/sphere_g.ckpt"
OUT = Path("results/sphere_g")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory with the scene `sphere` and a field that has learned it a little."""
    from tests.conftest import write_sphere_scene

    directory = tmp_path_factory.mktemp("export")
    write_sphere_scene(directory / "sphere", 60, 50)
    line = (
        "--stage geometry --field voxels --voxel_resolution 40 --batch_size 1024 --max_steps 150 "
        f"--lr_scheduler cosine --suffix g --root_dir {directory}/sphere "
        f"--ckpt_dir {directory}/ckpts --log_dir {directory}/runs"
    )
    train(parse_train(line.split()))
    return directory


@pytest.fixture
def at(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckpts").symlink_to(trained / "ckpts")
    return tmp_path


def run(line):
    return export(parse_export(line.split()))


def opened(path):
    trimesh = pytest.importorskip("trimesh")
    return trimesh.load(path, process=False)


@pytest.mark.parametrize("colour", ["field", "photos"])
def test_the_mesh_is_the_sphere_in_its_colours(at, sphere, colour):
    report = run(f"mesh --ckpt_path {CKPT} --resolution 48 --colour {colour} --mesh_format ply")
    mesh = opened(OUT / "sphere_g.ply")
    centre, radius = sphere
    arms = mesh.vertices - centre
    distance = np.linalg.norm(arms, axis=1)
    upper = arms[:, 2] > 0.1  # which the cameras have seen
    assert np.median(np.abs(distance - radius)[upper]) < 0.01 * 2 * radius
    assert mesh.is_watertight
    truth = 0.5 + 0.4 * arms[upper] / distance[upper, None]
    error = np.abs(mesh.visual.vertex_colors[upper, :3] / 255 - truth)
    assert np.median(error) < 0.06
    assert report["vertices"] == len(mesh.vertices)
    assert report["parts"] == 1
    written = json.loads((OUT / "sphere_g.mesh.json").read_text())
    assert written["axes"] == report["axes"]
    assert "threshold" in written


def test_mesh_and_cameras_agree_in_either_axes(at, sphere):
    for axes in ("scene", "y_up"):
        run(f"mesh --ckpt_path {CKPT} --resolution 24 --axes {axes} --mesh_format glb")
        run(f"cameras --ckpt_path {CKPT} --axes {axes} --no-images")
        data = json.loads((OUT / "sphere_g_cameras/transforms.json").read_text())
        middle = opened(OUT / "sphere_g.glb").bounds.mean(0)
        for frame in data["frames"]:  # all cameras look at the sphere's centre
            pose = np.array(frame["transform_matrix"])
            arm = middle - pose[:3, 3]
            assert -arm @ pose[:3, 2] / np.linalg.norm(arm) > 0.999
    assert np.linalg.norm(middle - [sphere[0][0], sphere[0][2], -sphere[0][1]]) < 0.1


def test_options_are_obeyed(at):
    box = "--bounds -0.2 -1 -1 0.5 1 1"
    report = run(f"mesh --ckpt_path {CKPT} --resolution 16 --threshold 7 --name x {box}")
    assert report["threshold"] == 7
    lower, upper = report["bounds"]
    assert lower[0] > -0.35
    assert upper[0] < 0.65
    assert [Path(f).suffix for f in report["files"]] == [".ply", ".obj", ".glb"]
    assert all((OUT / f"x{s}").is_file() for s in (".ply", ".obj", ".glb"))


def test_a_checkpoint_alone_is_enough_for_mesh_and_volume(at, trained):
    Path("alone").mkdir()
    read = Checkpoint.read(Path(CKPT))
    moved = replace(read, options={**read.options, "root_dir": "gone"})
    moved.write(Path("alone/sphere_g.ckpt"))
    run("mesh --ckpt_path alone/sphere_g.ckpt --resolution 24 --mesh_format ply")
    run("volume --ckpt_path alone/sphere_g.ckpt --resolution 24")
    for line in ("mesh --colour photos", "cameras"):
        with pytest.raises(UserError, match=r"--root_dir gone: no such directory"):
            run(f"{line} --ckpt_path alone/sphere_g.ckpt")


@pytest.mark.parametrize("asset", ["mesh --mesh_format glb", "volume", "cameras", "weights"])
def test_a_full_disk_leaves_what_was_there(at, asset, monkeypatch):
    line = f"{asset} --ckpt_path {CKPT} --resolution 16"
    run(line)
    before = {path: path.read_bytes() for path in OUT.rglob("*") if path.is_file()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("utils.files.os.fsync", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        run(line)
    assert {path: path.read_bytes() for path in OUT.rglob("*") if path.is_file()} == before


def test_volume(at):
    report = run(f"volume --ckpt_path {CKPT} --resolution 20")
    assert (OUT / "sphere_g.vol").stat().st_size == 8 * report["voxels"] > 0
    with np.load(OUT / "sphere_g.npz") as file:
        assert len(file["index"]) == report["voxels"]


@pytest.mark.parametrize("half", ["--half", "--no-half"])
def test_eval_renders_the_weights_alone(at, half):
    run(f"weights --ckpt_path {CKPT} {half}")
    whole = evaluate(parse_eval(["--ckpt_path", CKPT]))
    alone = evaluate(parse_eval(["--ckpt_path", str(OUT / "sphere_g.safetensors")]))
    assert alone["psnr"] == pytest.approx(whole["psnr"], abs=0.05)


def test_weights_are_not_written_over_their_own_file(at):
    run(f"weights --ckpt_path {CKPT}")
    path = OUT / "sphere_g.safetensors"
    before = path.read_bytes()
    with pytest.raises(UserError, match="would overwrite --ckpt_path"):
        run(f"weights --ckpt_path {path} --half")
    assert path.read_bytes() == before


def test_eval_renders_a_scene_without_its_photos(at, trained):
    whole = evaluate(parse_eval(["--ckpt_path", CKPT, "--output_dir", "whole"]))
    assert "psnr" in whole
    (trained / "sphere").rename(trained / "hidden")
    try:
        line = f"--ckpt_path {CKPT} --depth_format png pfm raw"
        report = evaluate(parse_eval(line.split()))
        same = (OUT / "000.png").read_bytes()
        circle = evaluate(parse_eval([*line.split(), "--path", "circle", "--n_frames", "2"]))
    finally:
        (trained / "hidden").rename(trained / "sphere")
    assert "psnr" not in report
    assert len(circle["views"]) == 2
    assert same == Path("whole/sphere_g/000.png").read_bytes()


def test_depth_files_beside_the_frames(at):
    evaluate(parse_eval(["--ckpt_path", CKPT, "--depth_format", "pfm", "raw"]))
    pfm = read_pfm(OUT / "depth_000.pfm")
    raw = np.fromfile(OUT / "depth_000.raw", "<f4").reshape(50, 60)
    assert (pfm == raw).all()
    assert 2.0 < pfm[25, 30] < 2.6  # cameras are 3 from the centre of a ball of 0.7
    assert pfm[0, 0] == 0
    assert not (OUT / "depth_000.png").exists()


@pytest.mark.parametrize(
    "line, words",
    [
        ("scene --ckpt_path x", "--asset: 'scene' is not one of mesh, volume, cameras, weights"),
        ("mehs --ckpt_path x", "--asset: 'mehs' is not one of mesh, volume"),
        ("--ckpt_path x", "--asset: missing; give --asset mesh|volume|cameras|weights"),
        ("mesh", "--ckpt_path: missing"),
        ("mesh --ckpt_path missing.ckpt", "missing.ckpt: no such file"),
        (f"mesh --ckpt_path {CKPT} --threshold 1e9", "no surface at this density"),
        (f"mesh --ckpt_path {CKPT} --threshold 0", "--threshold: must be greater than 0"),
        (f"mesh --ckpt_path {CKPT} --bounds 0 0 0 1 1 0", "--bounds: each lower corner"),
        (f"mesh --ckpt_path {CKPT} --bounds 0 0 0", "--bounds: expected 6 arguments"),
        (f"mesh --ckpt_path {CKPT} --min_part 2", "--min_part: must be from 0 to 1"),
        (f"mesh --ckpt_path {CKPT} --mesh_format stl", "'stl' is not one of ply, obj, glb"),
        (f"volume --ckpt_path {CKPT} --resolution 2048", "at most 1625 cells"),
    ],
)
def test_mistakes_have_one_line(at, line, words):
    with pytest.raises(UserError) as caught:
        run(line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_script_ends_with_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "export.py"), "mesh", "--ckpt_path", "nowhere.ckpt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error: nowhere.ckpt")
