"""Turns, memory, counted work and tables: the bookkeeping of the benchmarks, never a duration."""

import math
import time

import pytest
import torch

from benchmarks import table
from benchmarks.cases.memory import tensor_bytes
from benchmarks.cases.style_step import plain_shares
from benchmarks.measure import Contest, PeakMemory, bandwidth, matrix_rate, ratio, run_outside
from benchmarks.table import Row, markdown, shown
from benchmarks.work import WorkCounter
from datasets.cameras.rays import Rays
from models.renderer import Renderer

BOUNDS = torch.tensor([[-1.0] * 3, [1.0] * 3])


def test_turns_alternate_and_first_and_last_are_not_timed():
    order = []
    contest = Contest("cpu", rounds=3, budget=1e9)
    contest.take_turns(a=lambda: order.append("a"), b=lambda: order.append("b"))
    assert order == ["a", "b"] * 5
    assert set(contest.bytes) == {"a", "b"}
    assert {name: len(s) for name, s in contest.seconds.items()} == {"a": 3, "b": 3}
    assert all(seconds >= 0 for times in contest.seconds.values() for seconds in times)


def test_without_memory_there_is_no_last_turn():
    order = []
    contest = Contest("cpu", rounds=2, budget=1e9, weighs=False)
    contest.take_turns(a=lambda: order.append("a"))
    assert (order, contest.bytes) == (["a"] * 3, {})


def test_asking_twice_skips_no_turn():
    contest = Contest("cpu", rounds=1, budget=1e9)
    while not (contest.over() or contest.over()):
        with contest.turn("a"):
            pass
    assert len(contest.seconds["a"]) == 1
    assert "a" in contest.bytes


def test_a_budget_that_is_used_up_leaves_two_rounds():
    contest = Contest("cpu", rounds=50, budget=0.0)
    contest.take_turns(a=lambda: time.sleep(0.001))
    assert len(contest.seconds["a"]) == 2
    assert contest.median("a") >= 0.001


def test_ratios_are_taken_pair_by_pair():
    # the machine is three times slower in the second round, for both
    assert ratio([2.0, 6.0, 2.0], [1.0, 3.0, 1.0]) == 2.0
    contest = Contest("cpu", 2, 1e9)
    contest.seconds = {"a": [1.0, 2.0], "b": [10.0, 20.0]}
    assert contest.sums({"a": 3.0, "b": 1.0}) == [13.0, 26.0]


def test_peak_memory_sees_what_is_freed_again():
    peak = PeakMemory("cpu")
    seen = []
    for megabytes in (60, 20):
        peak.start()
        if peak.before is None:
            pytest.skip("the kernel does not tell")
        torch.ones(megabytes << 18).sum()
        seen.append(peak.stop() / 2**20)
    assert seen == pytest.approx([60, 20], abs=8)


def test_a_process_is_measured_from_outside():
    seconds, peak, output = run_outside("-c", "x = bytearray(50 << 20); print('done')")
    assert (seconds > 0, peak > 50 << 20, output) == (True, True, "done\n")
    with pytest.raises(RuntimeError, match="exit code 3"):
        run_outside("-c", "import sys; sys.exit(3)")


def test_rates_of_the_machine_are_positive():
    assert matrix_rate("cpu", torch.float32, quick=True) > 0
    assert bandwidth("cpu", quick=True) > 0


def nerf_flops(n, training):
    """By hand: two for each weight and sample; backward, as many for the weights and as many for
    the layers' inputs, but for the first, whose input needs no gradient."""
    trunk = 63 * 256 + 6 * 256 * 256 + 319 * 256 + 256
    style = (256 + 27) * 128 + 5 * 128 * 128 + 128 * 3
    joined = 2 * 128 * 256 * 256  # bottleneck and first style layer made one
    if not training:
        return 2 * n * (trunk + style) + joined
    return 2 * n * (3 * (trunk + style) - 63 * 256) + 3 * joined


@pytest.mark.parametrize("training", [False, True])
def test_counted_work_of_a_nerf(training, make_nerf):
    renderer = make_nerf(BOUNDS, 6)
    near = torch.full((5,), 0.1)
    directions = torch.eye(3)[[0, 1, 2, 0, 1]]
    rays = Rays(torch.zeros(5, 3), directions, near, torch.full((5,), 0.9))
    counter = WorkCounter(renderer)
    for _ in range(2):  # the second time is not counted
        with counter.once(), torch.set_grad_enabled(training):
            clipped = renderer.clip(rays)
            rgb = renderer.render(clipped, renderer.sample(clipped)).rgb
            if training:
                rgb.sum().backward()
    assert (counter.positions, counter.colours) == (30, 30)
    assert counter.flops == nerf_flops(30, training)
    assert counter.table_bytes(training) == 0


def test_bytes_of_a_voxel_field():
    everywhere = torch.ones(4, 4, 4, dtype=torch.bool)
    spec = {
        "field": {"kind": "voxels"},
        "style": {"kind": "voxels", "n_features": 5},
        "sampler": {"kind": "occupancy", "n_steps": 0},
    }
    renderer = Renderer.build(spec, BOUNDS, torch.ones(3), everywhere)
    counter = WorkCounter(renderer)
    counter.positions, counter.colours = 10, 3
    read = 4 * 8 * (10 + 3 * 5)
    parameters = sum(p.numel() for p in renderer.field.parameters())
    assert counter.table_bytes(training=False) == read
    assert counter.table_bytes(training=True) == 3 * read + 4 * 8 * parameters


def test_parts_of_the_plain_step_add_up_to_the_view():
    facts = {"patches": 3, "empty": 1, "patch_side": 50}
    whole = plain_shares("memory_saving", 10_000, 500, facts)
    assert whole == {"plain forward": 20, "plain backward": 20, "plain loss": 1}
    assert plain_shares("small", 100, 500, facts) == {"plain backward": 1, "plain loss": 1}
    patch = plain_shares("patch", 10_000, 500, facts)
    assert patch == {"plain forward": 5, "plain backward": 15, "plain loss": 3}


def test_shared_memory_is_counted_once():
    x = torch.zeros(100)
    assert tensor_bytes([x, x[:10], {"not": "looked into"}], (torch.zeros(5),)) == 420


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (12.34, "s", "12.3 s"),
        (600, "s", "10 min"),
        (2.5e6, "B", "2.5 MB"),
        (3.2e9, "B", "3.2 GB"),
        (None, "s", "–"),
        (0.0, "s", "0 ms"),
    ],
)
def test_numbers_for_a_person(value, unit, text):
    assert shown(value, unit) == text


def test_a_table_survives_its_file(tmp_path):
    rows = [
        Row("a", "b", 1.0, 4.0, 4.0, 0.5, 1e6, None, "note", details={"seconds": [1.0]}),
        Row("a", "c", None),
    ]
    table.write(tmp_path / "new", "a", rows, {"device": "x"})
    again, machine = table.read(tmp_path / "new" / "a.json")
    assert (again, machine) == (rows, {"device": "x"})
    text = (tmp_path / "new" / "a.md").read_text(encoding="utf-8")
    assert text == markdown(rows, machine)
    assert "| a | b | 1 s | 4 s | 4 x | 500 ms | 2 x | 1 MB | – | note |" in text
    assert not math.isnan(again[0].ratio)
