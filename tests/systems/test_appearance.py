"""Stage 1 on photos of differing exposure: what it gains, and what it must not change."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import systems.system
from eval import evaluate
from models.checkpoint import ONLY_FIELD, Checkpoint
from opt import parse_eval, parse_train
from pipeline import train
from systems.lightning import LightningEngine
from tests.crashes import run_until
from utils.errors import UserError
from utils.team import Team

QUICK = {
    "nerf": "--N_samples 8 --N_importance 8 --batch_size 64 --precision 32",
    "voxels": "--field voxels --voxel_resolution 24 --batch_size 64 --precision 32",
}
# their mean is 1: the held-out photos are of the average exposure
GAINS = np.array([1.3, 0.8, 1.2, 0.7, 1.1, 0.75, 1.25, 0.9])
DARK = 0.8  # all photos, so that no gain clips


@pytest.fixture
def at(tmp_path, monkeypatch, tiny_scene_dir):
    """A working directory with the scene `sphere` in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def geometry(field, steps, more=""):
    line = f"--stage geometry --root_dir sphere --max_steps {steps} --suffix g --device cpu "
    return train(parse_train(f"{line} {QUICK[field]} {more}".split()))


def weights(path):
    return Checkpoint.read(Path(path)).renderer().state_dict()


def same(a, b):
    """Equal to the bit, whatever containers the tensors are in."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("field", QUICK)
def test_the_first_step_is_the_one_without(at, field, monkeypatch):
    losses = []
    original = systems.system.require_finite

    def note(task, terms, step):
        losses.append({name: float(term.detach()) for name, term in terms.items()})
        original(task, terms, step)

    monkeypatch.setattr(systems.system, "require_finite", note)
    without, with_maps = (
        weights(geometry(field, 1, f"--appearance {kind}")[0]) for kind in ("none", "affine")
    )
    assert losses[0] == losses[1]
    assert same(without, with_maps)
    two = [weights(geometry(field, 2, f"--appearance {kind}")[0]) for kind in ("none", "affine")]
    assert not same(*two)


def expose(root):
    """The training photos with gains, every photo darker."""
    for path in root.rglob("*.png"):
        image = np.asarray(Image.open(path)).astype(float)
        training = path.parent.name == "train"
        gain = GAINS[int(path.stem.split("_")[1])] if training else 1.0
        image[..., :3] *= DARK * gain
        assert image.max() <= 255
        Image.fromarray(np.rint(image).astype(np.uint8)).save(path)


def test_photos_of_differing_exposure(at, capsys):
    """The scene comes out in the average exposure, and the photos' own are found."""
    expose(at / "sphere")
    quality = {}
    for kind in ("none", "affine"):
        more = f"--appearance {kind} --batch_size 512 --lr_scheduler cosine --log_dir runs_{kind}"
        (path,) = geometry("voxels", 200, more)
        assert Checkpoint.read(path).progress is None
        quality[kind] = evaluate(parse_eval(["--ckpt_path", str(path), "--device", "cpu"]))["psnr"]
        said = capsys.readouterr().out
        if kind == "none":
            assert "appearance:" not in said
    assert quality["affine"] > quality["none"] + 3
    (line,) = [line for line in said.splitlines() if line.startswith("appearance:")]
    found = re.findall(r"photo r_(\d) gain (\d\.\d\d)", line)
    assert len(found) == 3
    for photo, gain in found:
        assert float(gain) == pytest.approx(GAINS[int(photo)], abs=0.06)
    (events,) = (at / "runs_affine").rglob("events.*")
    log = EventAccumulator(str(events)).Reload()
    course = [point.value for point in log.Scalars("appearance")]
    assert course[-1] > course[0] > 0


@pytest.mark.parametrize("field", QUICK)
def test_gradients_sum_over_the_processes(at, field, monkeypatch):
    """Each of a team's shares of a step, added up, is the step of one process."""

    def gradient(team):
        kept = []
        monkeypatch.setattr(LightningEngine, "team", property(lambda _: team))
        monkeypatch.setattr(Team, "add", lambda *_: None)  # there are no others
        run_until(
            0,
            lambda: geometry(field, 3, "--appearance affine --batch_size 65"),
            lambda system: kept.append(system.tasks[0].appearance.raw.grad),
        )
        return kept[0]

    whole = gradient(Team())
    assert whole.abs().max() > 0
    parts = gradient(Team(0, 3)) + gradient(Team(1, 3)) + gradient(Team(2, 3))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("field", QUICK)
def test_a_resumed_run_has_the_same_maps(at, field):
    """Maps, optimiser and field of the later checkpoint; voxels grow on the way."""
    more = "--appearance affine --checkpoint_every 5"
    last = at / "ckpts/sphere_geometry_g/step_10.ckpt"
    finished = weights(geometry(field, 12, more)[0])
    run_until(11, lambda: geometry(field, 12, more))
    whole = Checkpoint.read(last)
    maps = whole.progress.task["0"]["appearance"]
    assert maps.shape == (8, 3, 4)
    assert maps.abs().max() > 0
    run_until(7, lambda: geometry(field, 12, more))
    assert not last.exists()
    run_until(11, lambda: geometry(field, 12, f"{more} --resume"))
    again = Checkpoint.read(last)
    assert same(again.progress.task, whole.progress.task)
    assert same(again.progress.optimizers, whole.progress.optimizers)
    assert same(again.fields[ONLY_FIELD].state, whole.fields[ONLY_FIELD].state)
    assert same(weights(geometry(field, 12, f"{more} --resume")[0]), finished)


@pytest.mark.parametrize(("first", "then"), [("none", "affine"), ("affine", "none")])
def test_resuming_another_appearance_is_refused(at, first, then):
    run_until(4, lambda: geometry("voxels", 5, f"--appearance {first} --checkpoint_every 3"))
    with pytest.raises(UserError, match=f"--appearance {then} was {first}"):
        geometry("voxels", 5, f"--appearance {then} --resume")


def test_a_robust_loss_learns_otherwise_and_reports_the_same_psnr(at):
    """The PSNR of a run is of the squared error, whatever the loss."""
    found, learned = {}, {}
    for scale in ("0", "0.005"):
        path = geometry("voxels", 1, f"--robust {scale} --log_dir runs_{scale}")[0]
        (events,) = (at / f"runs_{scale}").rglob("events.*")
        log = EventAccumulator(str(events)).Reload()
        found[scale] = [log.Scalars(name)[0].value for name in ("psnr", "fine")]
        learned[scale] = weights(path)
    assert found["0"][0] == pytest.approx(found["0.005"][0], rel=1e-6)
    assert found["0.005"][1] < 0.05**2 < found["0"][1]  # ten times as wide at first
    assert not same(learned["0"], learned["0.005"])
