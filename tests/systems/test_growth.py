"""Where a field starts: what is not empty at first."""

import pytest
import torch

from datasets.cameras.rays import Cameras
from datasets.cameras.space import Contracted, World
from datasets.load import load_scene
from datasets.scene import Scene, View
from losses.photometric import transparency_loss
from models.occupancy import with_sides
from opt import parse_train
from systems.geometry import first_occupancy, length_of, new_renderer, training_pixels
from systems.growth import HULL, OPEN, final_resolution, growth_of
from systems.photometric_task import FAINT, PhotometricTask
from tests.conftest import write_sphere_scene
from tests.datasets.test_stereo import EYES, forward
from tests.systems.test_semantic import Alone

FOREGROUND = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


def view_from(x, alpha=None):
    """A camera at (x, 0, 3) that looks along -z, 60 degrees wide."""
    c2w = torch.eye(3, 4)
    c2w[:, 3] = torch.tensor([x, 0.0, 3.0])
    image = torch.zeros(16, 16, 3, dtype=torch.uint8)
    return View(image, alpha, c2w, 13.9, 13.9, 8.0, 8.0, f"{x}")


def scene_of(eyes, **more):
    views = [view_from(x) for x in eyes]
    return Scene("s", views, views, [], 0.1, 5.0, FOREGROUND, space=Contracted(FOREGROUND), **more)


def occupied_at(grid, scene, *points):
    place = scene.space.from_world(torch.tensor(points))
    size = (scene.box[1] - scene.box[0]) / torch.tensor(grid.shape)
    cells = ((place - scene.box[0]) / size).long()
    return grid[tuple(cells.T)].tolist()


def test_what_a_single_camera_sees_of_an_unbounded_scene_starts_empty():
    scene = scene_of([-0.5, 0.5])
    grid = first_occupancy(scene, 128)
    both, behind, close, far = (0.1, 0.1, 0.1), (0.0, 0.0, 9.0), (-0.5, 0.0, 2.7), (3.0, 1, -20)
    assert occupied_at(grid, scene, both, behind, close, far) == [True, False, False, True]


def test_what_a_single_photo_shows_of_an_object_starts_empty():
    """Both photos show all of it, so it is where both see."""
    alpha = torch.zeros(16, 16, dtype=torch.uint8)
    alpha[1:-1, 1:-1] = 255
    views = [view_from(x, alpha) for x in (-1.5, 1.5)]
    scene = Scene("s", views, views, [], 0.1, 5.0, FOREGROUND)
    grid = first_occupancy(scene, 64)
    assert occupied_at(grid, scene, (0.0, 0.1, -0.9), (0.9, 0.1, 0.9)) == [True, False]


def test_one_photo_is_enough_where_there_is_no_other():
    scene = scene_of([0.0])
    grid = first_occupancy(scene, 64)
    assert occupied_at(grid, scene, (0.1, 0.1, 0.1), (0.0, 0.0, 2.5)) == [True, True]


def test_without_masks_the_fog_is_thin_and_the_start_coarse(tmp_path):
    words = ["--stage", "geometry", "--root_dir", str(tmp_path), "--field", "voxels"]
    options = parse_train([*words, "--dataset_name", "blender", "--voxel_resolution", "64"])
    scene = scene_of([-0.5, 0.5])
    assert growth_of(scene) is OPEN
    renderer = new_renderer(options, scene)
    assert renderer.field.geometry.lattice.active.shape == (16, 16, 16)
    assert (renderer.field.geometry.raw == OPEN.raw_density).all()
    torch.testing.assert_close(renderer.bounds, scene.box)
    for view in scene.train:
        view.alpha = torch.full((16, 16), 255, dtype=torch.uint8)
    assert growth_of(scene) is HULL


def test_a_field_may_start_from_stereo(tmp_path):
    words = ["--stage", "geometry", "--root_dir", str(tmp_path), "--dataset_name", "llff"]
    words += ["--field", "voxels", "--voxel_resolution", "48"]
    scene = forward(EYES, wall=-3.0)
    even, likely = (
        new_renderer(parse_train([*words, *more]), scene) for more in ([], ["--stereo"])
    )
    assert (even.field.geometry.raw == OPEN.raw_density).all()
    lattice, raw = likely.field.geometry.lattice, likely.field.geometry.raw
    assert max(lattice.active.shape) == 24 and raw.min() == OPEN.raw_density
    # the densest vertices in the middle of the photos are on the wall
    x = lattice.vertices()
    middle = (x[:, :2].abs() < 0.3).all(1) & (raw[:, 0] > 0)
    place = scene.space.from_world(torch.tensor([0.0, 0.0, -3.0]))[2]
    assert middle.any() and ((x[middle, 2] - place) > -1.5 * lattice.cell[2]).all()


def test_infinity_has_cells_where_rays_are_endless(tmp_path):
    words = ["--stage", "geometry", "--root_dir", str(tmp_path), "--dataset_name", "blender"]
    options = parse_train([*words, "--field", "voxels", "--voxel_resolution", "32"])
    scene = scene_of([-0.5, 0.5])
    renderer = new_renderer(options, scene)
    sides = with_sides(torch.zeros(8, 8, 8, dtype=torch.bool))
    assert renderer.field.geometry.lattice.active[sides].all()
    assert not renderer.sampler.grid.occupied.all()  # it takes no samples there
    scene, pixels = training_pixels(scene)
    task = PhotometricTask(options, scene, renderer, pixels, 100, 32)
    task.engine = Alone()
    assert task.before_step(12)  # refined
    sides = with_sides(torch.zeros(16, 16, 16, dtype=torch.bool))
    assert renderer.field.geometry.lattice.active[sides].all()


@pytest.mark.parametrize(("size", "few"), [(40, 3), (160, 4)])
def test_every_ray_that_meets_the_hull_is_learned_from(tmp_path, size, few):
    """Or nothing would clear the fog around the silhouettes."""
    root = write_sphere_scene(tmp_path, size, size, {"train": 8, "test": 1})
    words = ["--stage", "geometry", "--root_dir", str(root), "--few_shot", str(few)]
    options = parse_train([*words, "--field", "voxels", "--voxel_resolution", "128"])
    scene, pixels = training_pixels(load_scene(options))
    renderer, cameras = new_renderer(options, scene), Cameras.within(scene, scene.train)
    meets = torch.zeros(len(pixels), dtype=torch.bool)
    for view in range(few):
        rays = renderer.clip(cameras.view_rays(view))
        meets[view * size * size + renderer.sampler(None, rays).ray_index] = True
    assert meets.any()
    meets[pixels.candidates.long()] = False
    assert not meets.any()


@pytest.mark.parametrize(
    ("words", "step", "share"),
    [("", 0, 1.0), ("", 34, 1.0), ("", 35, FAINT), ("--stereo", 0, FAINT)],
)
def test_rays_may_run_on_to_infinity_once_there_are_surfaces(tmp_path, words, step, share):
    argv = ["--stage", "geometry", "--root_dir", str(tmp_path), "--dataset_name", "blender"]
    argv += ["--field", "voxels", "--voxel_resolution", "16", "--batch_size", "64"]
    scene, pixels = training_pixels(scene_of([-0.5, 0.5]))
    renderer = new_renderer(parse_train(argv), scene)
    task = PhotometricTask(parse_train([*argv, *words.split()]), scene, renderer, pixels, 100, 16)
    task.engine = Alone()
    (terms,) = task.gradients(step)
    rays, _ = task._rays(pixels.draw(64, task.generator(step)))
    samples = renderer.sample(rays, task.generator(step, 1))
    whole = transparency_loss(renderer.render(rays, samples).opacity)
    torch.testing.assert_close(terms["fine_transparency"], share * whole.detach())


def test_how_long_the_stage_takes():
    _, pixels = training_pixels(scene_of([-0.5, 0.5]))  # 512 pixels
    words = ["--stage", "geometry", "--root_dir", "s", "--batch_size", "64"]
    lengths = [
        length_of(parse_train([*words, *more.split()]), pixels)
        for more in (
            "",
            "--num_epochs_density 3",
            "--num_steps_density 9",
            "--num_steps_density 9 --max_steps 5",
        )
    ]
    assert lengths == [8, 24, 9, 5]


def test_an_object_has_no_cells_finer_than_pixels(tmp_path):
    """Cameras 3 away with 13.9 pixels to a tangent of 1: a pixel there is 3 / 13.9 wide."""
    words = ["--stage", "geometry", "--root_dir", str(tmp_path), "--dataset_name", "blender"]
    options = parse_train([*words, "--field", "voxels", "--voxel_resolution", "64"])
    scene = scene_of([0.0])
    assert final_resolution(options, scene) == 64  # in contracted space
    scene.space = World()
    assert final_resolution(options, scene) == round(2 / (3 / 13.9))
    coarse = scene_of([0.0])
    coarse.space = World()
    for view in scene.train:
        view.fy *= 100
    assert final_resolution(options, scene) == 64
    assert (
        final_resolution(options, coarse, scene) == final_resolution(options, scene, coarse) == 64
    )
    for view in coarse.train:
        view.c2w[:, 3] = coarse.box.mean(0)
    assert final_resolution(options, coarse) == 64
    nerf = parse_train([*words, "--field", "nerf"])
    assert final_resolution(nerf, scene) == final_resolution(nerf, scene_of([0.0]))


@pytest.mark.parametrize("growth", [HULL, OPEN])
def test_growth_happens_when_cells_are_given_up(growth):
    assert {at for at, _ in growth.resolutions[1:]} <= set(growth.pruning)
    assert growth.resolutions[-1][1] == 1.0


def test_hidden_cells_are_given_up_when_enough_rays_have_been_seen():
    """Counted from the last time, not from the last pruning: often pruned is not less pruned."""
    steps = [round(at * 1000) for at in OPEN.pruning]  # 30, 60, 120, 220, 350, 500, 700
    hidden = {step: OPEN.due(step, 1000, enough=100).lit_only for step in steps}
    assert [step for step, due in hidden.items() if due] == [120, 220, 350, 500, 700]
    assert not any(OPEN.due(step, 1000, enough=10_000).lit_only for step in steps)
    assert OPEN.due(0, 1000, 1) is OPEN.due(31, 1000, 1) is None
    assert OPEN.due(350, 1000, 1).resolution == 1.0
