"""``--visible_weight``: which cells a step finds visible, and when they are given up."""

import pytest
import torch

from datasets.load import load_scene
from models.occupancy import OccupancyGrid
from opt import parse_train
from systems.geometry import new_renderer, training_pixels
from systems.growth import HULL
from systems.photometric_task import PhotometricTask
from tests.conftest import write_sphere_scene
from tests.systems.test_semantic import Alone
from utils.errors import UserError


def task_of(root, *words):
    argv = ["--stage", "geometry", "--field", "voxels", "--voxel_resolution", "24"]
    options = parse_train([*argv, "--root_dir", str(root), "--batch_size", "64", *words])
    scene, pixels = training_pixels(load_scene(options))
    renderer = new_renderer(options, scene)
    generator = torch.Generator().manual_seed(3)
    raw = renderer.field.geometry.raw
    raw.data = 2 * torch.randn(raw.shape, generator=generator)
    task = PhotometricTask(options, scene, renderer, pixels, 100, 24)
    task.engine = Alone()
    return task


def stepped(task, step):
    (terms,) = task.gradients(step)
    return terms, [p.grad for p in task.renderer.parameters()]


def test_cells_of_which_no_ray_gets_its_share_of_colour_are_not_marked(tmp_path):
    root, step = write_sphere_scene(tmp_path), 35
    before, after = task_of(root), task_of(root, "--visible_weight", "0.05")
    (terms, gradients), (same, others) = stepped(before, step), stepped(after, step)
    assert terms == same
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))

    rays, _ = after._rays(after.pixels.draw(64, after.generator(step)))
    samples = after.renderer.sample(rays, after.generator(step, 1))
    weights = after.renderer.render(rays, samples).weights
    seen = samples.take((weights > 0.05).nonzero()[:, 0])
    grid = after.renderer.sampler.grid
    expected = OccupancyGrid(torch.zeros_like(grid.occupied), grid.bounds)
    expected.mark(rays.points(seen.ray_index, seen.t))
    assert torch.equal(grid.lit, expected.lit)
    every = before.renderer.sampler.grid.lit
    assert 0 < grid.lit.sum() < every.sum()
    assert not (grid.lit & ~every).any()


def test_while_all_is_fog_no_cell_is_given_up_for_a_small_share(tmp_path):
    root, step = write_sphere_scene(tmp_path), 34
    before, after = task_of(root), task_of(root, "--visible_weight", "0.05")
    stepped(before, step), stepped(after, step)
    assert torch.equal(before.renderer.sampler.grid.lit, after.renderer.sampler.grid.lit)


def test_cells_are_given_up_until_the_end_with_it_alone(tmp_path):
    root = write_sphere_scene(tmp_path)
    assert task_of(root).growth == HULL
    growth = task_of(root, "--visible_weight", "0.05").growth
    assert growth.pruning == (*HULL.pruning, 0.85, 0.95)
    assert growth.resolutions == HULL.resolutions


@pytest.mark.parametrize("value", ["1", "-0.1", "nan"])
def test_impossible_weights(value, tmp_path):
    with pytest.raises(UserError, match="--visible_weight"):
        parse_train(["--stage", "geometry", "--root_dir", str(tmp_path), "--visible_weight", value])
