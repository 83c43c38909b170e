"""Every benchmark runs and says what it should; nothing here is about how long anything takes."""

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import inputs, settings, table
from benchmarks.settings import FIELDS, MODES, Settings
from datasets.cameras.rays import Cameras
from models.renderer import render_view

pytestmark = [
    pytest.mark.usefixtures("apart"),
    pytest.mark.filterwarnings("ignore:.*treespec"),  # Lightning's own, of a newer PyTorch
]

QUICK = Settings(quick=True)


def run(tmp_path, *words):
    arguments = command.parser().parse_args([*words, "--quick", "--device", "cpu"])
    (name,) = arguments.cases
    command.run_one(name, command.settings_of(arguments), tmp_path)
    rows, machine = table.read(tmp_path / f"{name}.json")
    assert "float32 products" in machine
    assert (tmp_path / f"{name}.md").is_file()
    return rows


@pytest.mark.parametrize("case", ["geometry_step", "rendering"])
def test_both_fields_against_the_plain_one(case, tmp_path):
    rows = run(tmp_path, case)
    assert [row.what.split(",")[0] for row in rows] == list(FIELDS)
    for row in rows:
        assert min(row.ours, row.plain, row.ratio, row.floor) > 0


def test_style_step_in_every_mode(tmp_path):
    rows = run(tmp_path, "style_step", "--field", "voxels")
    assert [row.what.split(", ")[1] for row in rows] == list(MODES)
    for row in rows:
        assert min(row.ours, row.plain, row.ratio, row.floor) > 0
        assert "samples per object pixel" in row.note
        assert "scaled from 1/64 of the rays" in row.note


def test_style_step_without_the_plain_one(tmp_path):
    words = ["--fields", "nerf", "--modes", "small", "--sizes", "20", "--no-plain"]
    (row,) = run(tmp_path, "style_step", *words)
    assert row.what == "nerf, small, 20 x 20"
    assert row.plain is None
    assert row.floor > 0


def test_fast_field_has_a_curve(tmp_path):
    *_, row = run(tmp_path, "fast_field", "--no-plain")
    steps = [step for step, _, _ in row.details["curve"]]
    assert steps == [10, 15, 20]
    seconds = [when for _, when, _ in row.details["curve"]]
    assert seconds == sorted(seconds)


def test_memory_counts_the_training_data(tmp_path):
    (row,) = run(tmp_path, "memory")
    assert row.plain == 3 * 32 * 32 * 11 * 4
    assert row.ours >= 3 * 32 * 32 * 4
    assert row.details["bound"] == 400e6


def test_arguments_are_passed_on_whole():
    words = "style_step --device cpu --sizes 20 30 --mode small --field nerf --no-plain --full "
    words += "--rounds 2 --budget 3 --plain_rays 7 --vgg_weights /x/y.pth --lego /z"
    arguments = command.parser().parse_args(words.split())
    again = command.parser().parse_args(["style_step", *command.passed_on(arguments)])
    assert command.settings_of(again) == command.settings_of(arguments)


def test_default_selection_is_every_case():
    assert command.parser().parse_args([]).cases == []
    for name in command.CASES:
        assert (settings.ROOT / "benchmarks" / "cases" / f"{name}.py").is_file()


def test_voxels_show_the_demo_scene():
    """The geometry is the scene's own: opacity is the photo's alpha, but for a soft edge."""
    renderer = inputs.voxel_renderer(QUICK)
    geometry = renderer.field.geometry
    x = geometry.lattice.vertices()
    density, cell = geometry(x)
    inside = cell >= 0
    least = 1.01e-4 / float(geometry.unit)
    torch.testing.assert_close(density[inside], inputs.density(x[inside]), rtol=1e-4, atol=least)
    assert inside.float().mean() > 0.5
    scene = inputs.one_view(QUICK, 24)
    opacity = render_view(renderer, Cameras.within(scene, scene.train), 0).opacity
    assert (opacity - scene.train[0].alpha.float() / 255).abs().mean() < 0.05


def test_fitting_a_nerf_learns_the_demo_scene():
    renderer = inputs.nerf_renderer(QUICK)
    generator = torch.Generator().manual_seed(1)
    low, high = renderer.bounds
    x = low + torch.rand(5000, 3, generator=generator) * (high - low)
    wanted = inputs.opacity(inputs.density(x))

    def error():
        with torch.no_grad():
            return (inputs.opacity(renderer.field.geometry(x)[0]) - wanted).square().mean()

    # to know nothing is to say the mean everywhere
    nothing = wanted.var()
    assert error() > nothing
    inputs.fit(renderer, 60, 128)
    assert error() < 0.75 * nothing
    coarse = renderer.sampler.coarse.geometry.state_dict()
    for name, tensor in renderer.field.geometry.state_dict().items():
        assert torch.equal(coarse[name], tensor)


def test_random_weights_have_the_shape_of_vgg():
    path = inputs.vgg_file(QUICK)
    state = torch.load(path, weights_only=True)
    assert state["features.10.weight"].shape == (256, 128, 3, 3)
    assert inputs.vgg_file(Settings(vgg_weights=path)) == path
