"""A run knows who it is: never another run's weights, never another run's folder."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoint import ONLY_FIELD, Checkpoint, FieldRecord, Progress
from opt import parse_train
from pipeline import train
from systems.run import HARMLESS, Run
from tests.crashes import run_until
from tests.renderers import nerf_renderer, voxel_renderer
from utils.checkpoint import digest
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 0.5]])
LINE = "--stage geometry --root_dir sphere --prefix p --suffix s"


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(more="", inputs=None):
    return Run(parse_train(f"{LINE} {more}".split()), inputs)


def checkpoint_of(step=None, seed=0):
    """A tiny field, as if from a run that had come to ``step``."""
    torch.manual_seed(seed)
    grid = torch.ones(3, 3, 3).bool()
    renderer = voxel_renderer(BOUNDS, grid, n_features=2)
    renderer.field.style.reset()
    place = {"name": "sphere", "near": 1.0, "far": 4.0, "space": {"kind": "world"}}
    progress = step and Progress(step, 1 << 40, [{"state": {}, "param_groups": []}])
    field = FieldRecord.of(renderer)
    return Checkpoint(
        "geometry", {ONLY_FIELD: field}, {ONLY_FIELD: place}, progress=progress or None
    )


def names(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


def leave(steps, more="", inputs=None):
    """Checkpoints of a run that was killed."""
    with run_of(more, inputs) as run:
        for step in steps:
            run.save(checkpoint_of(step))
    return run


# -- going on -----------------------------------------------------------------------------------


def test_the_newest_is_by_number_not_by_name(at):
    run = leave([20, 999, 1_000_000])
    (run.directory / "step_last.ckpt").write_text("not one of them")
    (run.directory / "step_9999999.ckpt.bak").write_text("not one of them")
    path, checkpoint = run_of("--resume").to_resume()
    assert (path.name, checkpoint.progress.step) == ("step_1000000.ckpt", 1_000_000)


def test_two_checkpoints_are_kept(at):
    run = leave([3])
    (run.directory / ".77.step_2.ckpt").touch()
    (run.directory / "notes.txt").touch()
    leave([6, 9, 12], "--resume")
    assert names(run.directory) == ["notes.txt", "step_12.ckpt", "step_9.ckpt"]


def test_a_damaged_newest_is_named_and_the_one_before_it_used(at, caplog):
    run = leave([9, 10])
    (run.directory / "step_10.ckpt").write_bytes(b"cut off")
    with caplog.at_level(logging.WARNING):
        path, _ = run_of("--resume").to_resume()
    assert path.name == "step_9.ckpt"
    assert "step_10.ckpt" in caplog.text
    (run.directory / "step_9.ckpt").write_bytes(b"cut off")
    with pytest.raises(UserError, match="none of its checkpoints can be used"):
        run_of("--resume").to_resume()


def test_nothing_to_resume(at):
    run = run_of("--resume")
    assert run.to_resume() is None
    assert not run.finished()


def test_a_fresh_run_clears_what_another_left(at, capsys):
    """F1: its own checkpoints, of smaller steps, would be the first to go."""
    run = leave([500, 1000])
    with run_of("--seed 7") as fresh:
        assert fresh.to_resume() is None
        assert "p_geometry_s: an earlier run stopped at step 1000" in capsys.readouterr().out
        fresh.save(checkpoint_of(3, seed=7))
        fresh.save(checkpoint_of(6, seed=7))
    assert names(run.directory) == ["step_3.ckpt", "step_6.ckpt"]
    path, checkpoint = run_of("--seed 7 --resume").to_resume()
    assert path.name == "step_6.ckpt"
    assert checkpoint.options["seed"] == 7


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--seed 7", "--seed 7 was 0"),
        ("--lr 0.1", "--lr 0.1 was None"),
        ("--batch_size 9 --optimizer sgd", "--batch_size 9 was 1024; --optimizer sgd was adam"),
        ("--field voxels", "--field voxels was nerf"),
        ("--img_wh 9 8", "--img_wh [9, 8] was None"),
        ("--root_dir other", "--root_dir other was sphere"),
    ],
)
def test_options_that_have_changed_are_named(at, more, words):
    """F4."""
    leave([3])
    with pytest.raises(UserError) as caught:
        run_of(f"--resume {more}").to_resume()
    assert words in str(caught.value)
    assert "step_3.ckpt: belongs to another run" in str(caught.value)


def test_options_that_change_nothing_may_change(at):
    leave([3])
    more = "--num_gpus 2 --chunk 50 --device cpu --log_dir l --checkpoint_every 7 --val_every 9"
    assert run_of(f"--resume {more} --root_dir ./sphere").to_resume() is not None
    assert set(run_of().options.to_dict()) >= HARMLESS


def test_an_option_of_a_later_version_had_its_default(at):
    run = leave([3])
    found = Checkpoint.read(run.directory / "step_3.ckpt")
    options = {k: v for k, v in found.options.items() if k not in ("lr_scheduler", "decay_step")}
    assert run.changed(replace(found, options=options)) == []
    assert run_of("--lr_scheduler cosine").changed(replace(found, options=options)) == [
        "--lr_scheduler cosine was constant"
    ]


def test_inputs_that_have_changed_are_named(at):
    leave([3], inputs={"geometry": "a", "painting": "b"})
    assert run_of("--resume", {"geometry": "a", "painting": "b"}).to_resume() is not None
    with pytest.raises(UserError, match="--style_dir: another painting"):
        run_of("--resume", {"geometry": "a", "painting": "c"}).to_resume()
    with pytest.raises(UserError, match="--ckpt_path: another geometry"):
        run_of("--resume", {"geometry": "c", "painting": "b"}).to_resume()


def test_finished_already(at, capsys):
    leave([3, 6])
    with run_of("--resume") as run:
        assert run.finish(checkpoint_of()) == [Path("ckpts/p_s.ckpt")]
    assert names(run.directory) == []
    assert run.to_resume() is None
    assert run.finished()
    assert "ckpts/p_s.ckpt: finished already" in capsys.readouterr().out
    assert not run_of().finished()
    assert capsys.readouterr().out == ""
    assert not run_of("--resume --seed 7").finished()
    said = capsys.readouterr().out
    assert "belongs to another run: --seed 7 was 0; nothing to resume, starting anew" in said


def test_a_finished_nerf_has_a_file_for_each_network(at):
    torch.manual_seed(0)
    renderer = nerf_renderer(BOUNDS, torch.ones(3, 3, 3).bool())
    checkpoint = replace(checkpoint_of(), fields={ONLY_FIELD: FieldRecord.of(renderer)})
    with run_of() as run:
        paths = run.finish(checkpoint)
    assert [path.name for path in paths] == ["p_s.ckpt", "p_nerf_coarse_s.pt", "p_nerf_fine_s.pt"]
    read = Checkpoint.read_networks(*paths[1:])
    assert digest(read.fields[ONLY_FIELD].state) == digest(renderer.state_dict())


# -- alone --------------------------------------------------------------------------------------


def test_two_runs_never_share_a_folder(at):
    with run_of():
        with pytest.raises(UserError, match="p_geometry_s: another run is training here"):
            run_of("--seed 7").__enter__()
        with run_of("--suffix t"):
            pass
    with run_of():
        pass


def test_a_killed_run_gives_its_folder_back(at):
    code = (
        "import time, systems.run as r, opt\n"
        f"run = r.Run(opt.parse_train({LINE.split()!r})).__enter__()\n"
        "print('locked', flush=True); time.sleep(600)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=at,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match="another run is training here"):
        run_of().__enter__()
    other.kill()
    other.wait()
    with run_of():
        pass


@pytest.mark.parametrize(
    "environment", [{"RANK": "1"}, {"LOCAL_RANK": "1"}, {"LOCAL_RANK": "0", "NODE_RANK": "1"}]
)
def test_only_the_first_of_several_processes_locks_and_writes(at, environment, monkeypatch):
    leave([3])
    with run_of() as leader:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            follower = run_of()
        with follower:
            assert follower.to_resume() is None
            follower.save(checkpoint_of(9))
            assert follower.finish(checkpoint_of()) == []
        assert names(leader.directory) == ["step_3.ckpt"]


# -- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "--ckpt_path ckpts/p_s.ckpt",
        "--ckpt_path ckpts/../ckpts/p_s.ckpt",
        "--coarse_path x --fine_path ckpts/p_nerf_fine_s.pt",
    ],
)
def test_a_run_does_not_write_over_what_it_reads(at, given):
    """F17."""
    line = f"--stage style --root_dir sphere --prefix p --suffix s --style_dir wave.png {given}"
    with pytest.raises(UserError, match=r"would overwrite --(ckpt|fine)_path"):
        Run(parse_train(line.split())).__enter__()


def test_a_name_that_is_too_long_is_found_before_training(at):
    with pytest.raises(UserError, match="--prefix, --suffix: too long"):
        run_of(f"--prefix {'x' * 130} --suffix {'y' * 110}").__enter__()


def test_a_folder_that_turns_read_only_is_one_line(at, monkeypatch):
    """F10."""

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    with run_of() as run:
        run.save(checkpoint_of(3))
        run.save(checkpoint_of(6))
        monkeypatch.setattr(Path, "unlink", denied)
        run.save(checkpoint_of(9))  # cannot clean up, and goes on
        monkeypatch.setattr(Path, "open", denied)
        with pytest.raises(UserError, match=r"step_12\.ckpt: cannot be written \(Permission"):
            run.save(checkpoint_of(12))
    monkeypatch.undo()
    monkeypatch.chdir(at)
    assert names(run.directory) == ["step_3.ckpt", "step_6.ckpt", "step_9.ckpt"]


# -- together -----------------------------------------------------------------------------------


def test_resume_never_takes_another_runs_weights(tmp_path, monkeypatch, tiny_scene_dir):
    """F1 as it was found: a finished run, another seed killed, and that resumed."""
    monkeypatch.chdir(tmp_path)
    line = (
        "--stage geometry --root_dir sphere --field voxels --voxel_resolution 16 --batch_size 64 "
        "--max_steps 9 --checkpoint_every 3 --suffix s"
    )

    def go(more=""):
        return train(parse_train(f"{line} {more}".split()))

    def weights():
        return digest(Checkpoint.read(Path("ckpts/sphere_s.ckpt")).renderer().state_dict())

    go("--seed 7")
    expected = weights()
    go()
    first = weights()
    assert first != expected
    for step in (1, 5):  # before its first checkpoint, and after
        go()
        assert weights() == first
        run_until(step, lambda: go("--seed 7"))
        assert weights() == first
        go("--seed 7 --resume")
        assert weights() == expected
        assert go("--seed 7 --resume") == []


def test_a_fresh_run_that_ends_early_leaves_what_was_there(at):
    """To forget --resume costs nothing until the new run has a checkpoint of its own."""
    run = leave([500])
    with run_of() as fresh:
        assert fresh.to_resume() is None
    assert names(run.directory) == ["step_500.ckpt"]
    assert run_of("--resume").to_resume()[1].progress.step == 500
