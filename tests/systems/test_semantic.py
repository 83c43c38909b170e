"""Semantic consistency: the exact gradient of the whole picture, and no trace elsewhere."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from datasets.load import load_scene
from opt import parse_train
from pipeline import train
from systems import semantic_task
from systems.prior_task import PriorTask
from systems.semantic_task import SemanticTask
from tests.conftest import write_sphere_scene
from tests.encoders import StandIn
from tests.renderers import nerf_renderer, voxel_renderer
from utils.errors import UserError
from utils.team import ALONE


@dataclass
class Alone:
    """An engine with one CPU process."""

    device = torch.device("cpu")
    team = ALONE

    def scaled(self, x):
        return x


def task_of(kind, root, chunk=0, every=1, dtype=torch.float64):
    argv = ["--stage", "geometry", "--root_dir", str(root), "--semantic", "own"]
    argv += ["--semantic_every", str(every), "--chunk", str(chunk), "--semantic_weight", "0.3"]
    options = parse_train(argv)
    scene = load_scene(options)
    torch.manual_seed(1)
    cells = torch.ones(12, 12, 12, dtype=torch.bool)
    if kind == "nerf":
        renderer = nerf_renderer(scene.bounds, cells, 8, 8)
        renderer.field.geometry.mlp.out.bias.data.fill_(1.0)
    elif kind == "coarse_only":
        renderer = nerf_renderer(scene.bounds, cells, 8, 0)
    else:
        renderer = voxel_renderer(scene.bounds, cells)
        torch.nn.init.normal_(renderer.field.geometry.raw, mean=-1.0)
        torch.nn.init.normal_(renderer.field.style.head.table)
    renderer = renderer.to(dtype)
    renderer.field.colour_threshold = 0.0
    task = SemanticTask(options, scene, renderer, StandIn().to(dtype).requires_grad_(False))
    task.engine = Alone()
    task._photos = tuple(task._photos)
    task._target = torch.cat(
        [task.encoder(semantic_task._square(v).to(dtype)) for v in task._photos]
    ).mean(0)
    task.unseen = _Double(task.unseen, dtype)
    return task


class _Double:
    """Cameras in the precision of the test."""

    def __init__(self, unseen, dtype):
        self.unseen, self.dtype = unseen, dtype

    def window(self, *args):
        found = self.unseen.window(*args)
        found.c2w, found.intrinsics = found.c2w.to(self.dtype), found.intrinsics.to(self.dtype)
        return found


def gradients(task):
    found = [p.grad for g in task.parameter_groups() for p in g["params"]]
    task.renderer.zero_grad()
    return torch.cat([g.flatten() for g in found if g is not None])


@pytest.mark.parametrize("kind", ["voxels", "nerf", "coarse_only"])
def test_gradient_is_that_of_the_whole_picture(kind, tmp_path, monkeypatch):
    """Deferred, in chunks, equals rendering and encoding with one graph; on both networks."""
    monkeypatch.setattr(semantic_task, "SIDE", 13)
    root = write_sphere_scene(tmp_path, 37, 53)  # portrait
    task = task_of(kind, root, chunk=50)
    (terms,) = task.gradients(0)
    assert set(terms) == ({"fine", "coarse"} if kind == "nerf" else {"fine"})
    deferred = gradients(task)

    camera = task.unseen.window(task.generator(0, semantic_task.STREAM), 13, semantic_task.WINDOW)
    rays = task.renderer.clip(camera.view_rays(0))
    samples = task.renderer.sample(rays, propose=True)
    pictures = [task.renderer.render(rays, samples).rgb]
    if samples.proposal is not None:
        pictures.append(task.renderer.over_background(samples.proposal).rgb)
    loss = 0.0
    for picture in pictures:
        vector = task.encoder(picture.view(1, 13, 13, 3).permute(0, 3, 1, 2))[0]
        loss = loss + 0.3 * (1 - vector @ task._target)
    loss.backward()
    whole = gradients(task)
    assert whole.norm() > 0
    assert (deferred - whole).norm() <= 1e-9 * whole.norm()
    assert float(sum(terms.values())) == pytest.approx(float(loss.detach()), abs=1e-12)


def test_it_marks_no_cell_and_draws_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(semantic_task, "SIDE", 13)
    task = task_of("voxels", write_sphere_scene(tmp_path))
    lit = task.renderer.sampler.grid.lit.clone()
    state = torch.get_rng_state()
    (terms,) = task.gradients(3)
    assert terms
    assert torch.equal(task.renderer.sampler.grid.lit, lit)
    assert torch.equal(torch.get_rng_state(), state)


def test_when_it_is_due(tmp_path):
    task = task_of("voxels", write_sphere_scene(tmp_path), every=4)
    task.options = SimpleNamespace(semantic_every=4, semantic_until=9)
    assert [step for step in range(20) if task.due(step)] == [3, 7]
    assert [*task.gradients(4)] == [{}]
    assert all(p.grad is None for p in task.renderer.parameters())


SMALL = (
    *("--stage", "geometry", "--field", "voxels", "--voxel_resolution", "16"),
    *("--batch_size", "64", "--prefix", "s", "--suffix", "g"),
)


def weights(at, root, name, *words, steps=6):
    argv = [*SMALL, "--root_dir", str(root), "--max_steps", str(steps)]
    argv += ["--ckpt_dir", str(at / name), "--log_dir", str(at / "runs"), *words]
    train(parse_train(argv))
    return torch.load(at / name / "s_g.ckpt", weights_only=True)


def digest(state):
    (field,) = state["fields"].values()
    return field["digest"]


def test_steps_without_it_are_those_of_a_run_without_the_option(tmp_path, monkeypatch):
    monkeypatch.setattr(semantic_task, "SIDE", 13)
    root = write_sphere_scene(tmp_path / "s")
    plain = digest(weights(tmp_path, root, "plain"))
    never = digest(weights(tmp_path, root, "never", "--semantic", "own", "--semantic_every", "99"))
    often = digest(weights(tmp_path, root, "often", "--semantic", "own", "--semantic_every", "2"))
    again = digest(weights(tmp_path, root, "again", "--semantic", "own", "--semantic_every", "2"))
    assert plain == never != often == again


def test_priors_change_what_is_learned_and_nothing_else_does(tmp_path):
    root = write_sphere_scene(tmp_path / "s")
    names = (
        *("density_smoothness", "colour_smoothness", "depth_smoothness"),
        "silhouette_weight",
    )
    plain = digest(weights(tmp_path, root, "plain", steps=3))
    found = {digest(weights(tmp_path, root, n, f"--{n}", "0.5", steps=3)) for n in names}
    assert len(found | {plain}) == 1 + len(names)
    argv = [*SMALL, "--root_dir", str(root)]
    assert not PriorTask.wanted(parse_train(argv))


def test_a_missing_encoder_stops_the_run_before_it_trains(tmp_path):
    root = write_sphere_scene(tmp_path / "s")
    with pytest.raises(UserError, match=r"--semantic nothing\.pth"):
        weights(tmp_path, root, "x", "--semantic", "nothing.pth")
    assert not [*tmp_path.rglob("*.ckpt")]
