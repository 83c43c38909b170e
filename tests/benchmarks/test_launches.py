"""The pretended GPU refuses and counts; our steps do not grow; nothing mixes devices on it."""

import pytest
import torch

import eval as evaluation
import export
from benchmarks.cases import launches
from benchmarks.pretended import CUDA, pretended_gpu
from benchmarks.settings import MODES, Settings
from datasets.embedded.painting import paint
from opt import parse_eval, parse_export, parse_train
from pipeline import train
from systems.run import Run
from utils.images import write_image

pytestmark = [
    pytest.mark.usefixtures("apart"),
    pytest.mark.filterwarnings("ignore:.*treespec"),
    pytest.mark.filterwarnings("ignore:.*Tensor Cores"),
]
QUICK = Settings(quick=True)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(3),
        lambda x: x.index_select(0, torch.zeros(1, dtype=torch.int64)),
        lambda x: torch.ones(3)[x.long()],
        lambda x: torch.cat([x, torch.zeros(2)]),
        lambda x: x.numpy(),
        lambda x: torch.rand(3, generator=torch.Generator(CUDA)),
    ],
)
def test_what_a_gpu_refuses_is_refused(mix):
    with pretended_gpu(), pytest.raises((RuntimeError, TypeError)):
        mix(torch.zeros(3, device=CUDA))


def test_it_computes_what_the_cpu_does():
    x, weight = torch.randn(5, 3), torch.randn(4, 3)
    leaf = weight.clone().requires_grad_()
    (x @ leaf.T).relu().square().sum().backward()
    with pretended_gpu():
        there = weight.to(CUDA).requires_grad_()
        loss = (x.to(CUDA) @ there.T).relu().square().sum()
        (gradient,) = torch.autograd.grad(loss, there)
        assert gradient.device == CUDA
        assert torch.equal(gradient.cpu(), leaf.grad)


def test_operations_and_waits_are_counted():
    with pretended_gpu() as counts:
        x = torch.arange(4.0, device=CUDA)
        counts.reset()
        y = x.view(2, 2).T * 2 + torch.tensor(1.0)
        assert [name for name, _ in counts.operations] == ["mul", "add"]
        assert not counts.waits
        x[x > 1] = 0.0  # fills: nobody has to know how many
        torch.repeat_interleave(x.long(), output_size=1)
        assert not counts.waits
        float(y.sum()), x[x > 0], x.nonzero(), x.cpu(), x.tolist()
        assert counts.waits.total() == 5
        assert all(place.startswith("tests/benchmarks/") for _, place in counts.waits)
    assert not torch.cuda.is_available() or torch.cuda.get_device_name() != "a pretended GPU"


# as measured, and a little: what makes them grow has to be worth it
@pytest.mark.parametrize(
    ("count", "operations", "waits"),
    [
        (lambda: launches.geometry_launches(QUICK, "voxels"), 305, 6),
        (lambda: launches.geometry_launches(QUICK, "nerf"), 440, 3),
        (lambda: launches.geometry_launches(QUICK, "nerf_occupancy"), 315, 5),
        (lambda: launches.style_launches(QUICK, "voxels", "memory_saving"), 250, 3),
        (lambda: launches.frame_launches(QUICK), 220, 7),
    ],
    ids=["voxels", "nerf", "nerf_occupancy", "style", "frame"],
)
def test_steps_and_frames_ask_a_gpu_for_no_more(count, operations, waits):
    found = count()
    asked, waited = found.each()
    assert 100 < asked <= operations, found.operations.most_common(20)
    assert 0 < waited <= waits, found.waits


def run_on_gpu(tmp_path, scene, field):
    """The words that all runs have in common, and the trained geometry."""
    common = ["--root_dir", str(scene), "--device", "cuda", "--precision", "32"]
    places = ["--ckpt_dir", str(tmp_path / "ckpts"), "--log_dir", str(tmp_path / "runs")]
    small = ["--batch_size", "64", "--N_samples", "8", "--N_importance", "8"]
    words = [*common, *places, *small, "--max_steps", "34", "--voxel_resolution", "16"]
    options = parse_train([*words, "--stage", "geometry", "--field", *field])
    train(options)
    return common, places, Run(options).path


@pytest.mark.parametrize("field", ["voxels", pytest.param("nerf", marks=pytest.mark.slow)])
def test_devices_are_kept_apart(field, tmp_path, tiny_scene_dir):
    """Both stages, with pruning, growth and validation; every mode; rendering; exports."""
    painting = tmp_path / "painting.png"
    write_image(painting, torch.from_numpy(paint((64, 48))).float() / 255)
    with pretended_gpu():
        common, places, geometry = run_on_gpu(tmp_path, tiny_scene_dir, [field])
        for mode in MODES:
            words = ["--style_dir", str(painting), "--ckpt_path", str(geometry), "--max_steps", "2"]
            words += ["--style_mode", mode, "--features", "own", "--suffix", mode]
            words += ["--small_size", "16", "--patch_size", "16"]
            options = parse_train([*common, *places, "--stage", "style", *words])
            train(options)
        trained = ["--ckpt_path", str(Run(options).path), "--device", "cuda"]
        trained += ["--output_dir", str(tmp_path / "results")]
        evaluation.evaluate(parse_eval([*trained, "--root_dir", str(tiny_scene_dir)]))
        for asset in ("mesh", "volume", "cameras", "weights"):
            size = ["--resolution", "24"] if asset in ("mesh", "volume") else []
            export.export(parse_export([asset, *trained, *size]))
