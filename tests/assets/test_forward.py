"""Assets of forward-facing scenes, whose field lives in warped space (NDC), in the world."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from assets.colours import Surface
from assets.density import occupied_box
from assets.job import Job, visible_depth
from assets.mesh import level_set
from assets.mesh_export import export_mesh
from assets.volume import export_volume, volume_of
from datasets.cameras.rays import Cameras, Rays
from datasets.cameras.space import NDC, WORLD
from datasets.scene import Scene, View
from models.checkpoint import ONLY_FIELD, PHOTO, Checkpoint
from models.renderer import render_view
from opt import parse_export
from tests.assets.conftest import voxels
from tests.assets.raster import project, rasterised
from utils.errors import UserError

BALL, RADIUS = torch.tensor([0.15, -0.1, -2.6]), 0.5
WALL = -5.0
FOCAL, SIZE = 70.0, (60, 80)  # height, width
SCALE = (2 * FOCAL / SIZE[1], 2 * FOCAL / SIZE[0], 1.0)
BOUNDS = torch.tensor([[-2.2, -2.8, -1.0], [2.2, 2.8, 1.0]])
SHAPE = (110, 140, 50)
CELL = 0.04  # of the field, in warped space
SPACE = NDC(SCALE)


def distance(x):
    """Signed distance in the world to a ball before a wall."""
    return torch.minimum((x - BALL).norm(dim=-1) - RADIUS, x[:, 2] - WALL)


def colour_at(x):
    """(M, 3) in [0, 1]: a colour for every place of the world."""
    return (0.5 + 0.4 * torch.sin(torch.stack([2 * x[:, 0], 2 * x[:, 1], x[:, 2]], -1))).clamp(0, 1)


class Painted(torch.nn.Module):
    """A style module with `colour_at`, which is told places in warped space."""

    reads_features = True

    def forward(self, feature, x, d, code=None):
        return colour_at(SPACE.to_world(x))


@pytest.fixture(scope="module")
def renderer():
    """Dense where `distance` is negative, with a flank of a cell of warped space."""

    def warped_distance(x):
        world = SPACE.to_world(x)
        return (distance(world) * SPACE.stretch(world)).clamp(-9, 9)

    made = voxels(warped_distance, SHAPE, BOUNDS)
    made.field.style = Painted()
    return made


def view_from(x, y, z=0.0, name="v"):
    eye = torch.tensor([x, y, z])
    pose = torch.cat([torch.eye(3), eye[:, None]], 1)
    image = torch.full((*SIZE, 3), 255, dtype=torch.uint8)
    return View(image, None, pose, FOCAL, FOCAL, SIZE[1] / 2, SIZE[0] / 2, name)


@pytest.fixture(scope="module")
def scene():
    views = [view_from(x, y, z) for x, y, z in ((-0.3, 0, 0), (0.3, 0.1, 0.02), (0, -0.2, -0.03))]
    return Scene("s", views, views, views, 0.0, 3.0, BOUNDS, space=SPACE)


@pytest.fixture
def job(renderer, scene, tmp_path, monkeypatch):
    """A job of export.py on the renderer; ``run(line)`` gives the report and the written mesh."""

    def run(line, payload_scene=None):
        options = parse_export(f"{line} --ckpt_path x.ckpt --output_dir {tmp_path}".split())
        checkpoint = Checkpoint("geometry", {}, {ONLY_FIELD: payload_scene or {}})
        made = Job(options, checkpoint, ONLY_FIELD, PHOTO, renderer, tmp_path)
        if payload_scene is None:
            made.scene = scene
        return SimpleNamespace(job=made, path=tmp_path)

    return run


def mesh_of(job, line):
    trimesh = pytest.importorskip("trimesh")
    made = job(f"mesh --mesh_format ply --resolution 96 {line}")
    paths, facts = export_mesh(made.job)
    mesh = trimesh.load(paths[0], process=False)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces), mesh, facts


# -- the warp -----------------------------------------------------------------------------------


def test_there_and_back():
    world = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    world[:, 2] = -1 - 20 * world[:, 2].abs()
    again = SPACE.to_world(SPACE.from_world(world))
    assert torch.allclose(again, world, rtol=1e-9)
    warped = SPACE.from_world(world)
    assert (warped[:, 2].abs() <= 1).all()
    assert SPACE.to_world(torch.tensor([[0.1, 0.2, 1.0]])).isfinite().all()
    assert (SPACE.from_world(torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 3.0]]))[:, 2] < -1).all()


def test_it_is_the_warp_of_the_rays(scene):
    cameras = Cameras.of(scene.train, 0.0, 9.0, space=SPACE)
    rays = cameras.view_rays(1)
    x = SPACE.to_world(rays.origins + 1.3 * rays.directions)
    seen = project(scene.train[1], x.double().numpy())
    row, column = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    assert np.abs(seen[:, 0] - column.ravel()).max() < 1e-3
    assert np.abs(seen[:, 1] - row.ravel()).max() < 1e-3


def test_normals_are_those_of_the_warped_surface():
    """Of the ball, whose normals in warped space come from differences of its distance."""
    arms = functional.normalize(torch.randn(200, 3, dtype=torch.double), dim=1)
    x = SPACE.from_world(BALL + RADIUS * arms).requires_grad_()
    ((SPACE.to_world(x) - BALL).norm(dim=1)).sum().backward()
    normals = functional.normalize(x.grad, dim=1)
    found = SPACE.normals_to_world(x.detach(), normals)
    assert torch.allclose(found, arms, atol=1e-5)


def test_stretch_is_the_length_of_a_short_way_from_the_origin():
    world = torch.tensor([[0.3, -0.2, -1.5], [2.0, 1.0, -7.0]], dtype=torch.double)
    step = 1e-5 * functional.normalize(world, dim=1)
    way = SPACE.from_world(world + step) - SPACE.from_world(world)
    assert torch.allclose(way.norm(dim=1) / 1e-5, SPACE.stretch(world), rtol=1e-4)


def test_a_box_of_the_world_is_held(scene):
    box = torch.tensor([[-0.5, -0.6, -3.0], [0.7, 0.5, 0.5]])
    warped = SPACE.box_from_world(box, BOUNDS)
    x = box[0] + torch.rand(2000, 3) * (box[1] - box[0])
    x = SPACE.from_world(x[x[:, 2] < -1])
    inside = ((x >= BOUNDS[0]) & (x <= BOUNDS[1])).all(1)
    assert ((x[inside] >= warped[0]) & (x[inside] <= warped[1])).all()


def test_how_deep_the_scene_reaches(renderer, scene):
    assert WALL * -1 < visible_depth(renderer, scene) < -1.25 * WALL
    close = [view_from(x, 0.0) for x in (-0.01, 0.01)]
    parallax = visible_depth(renderer, Scene("s", close, close, close, 0, 3, BOUNDS, space=SPACE))
    assert parallax == pytest.approx(FOCAL * 0.02 / 4)


# -- the mesh -----------------------------------------------------------------------------------


def test_the_mesh_lies_in_the_world_and_faces_the_cameras(job):
    vertices, faces, _, facts = mesh_of(job, "")
    off = np.abs(distance(torch.from_numpy(vertices)).numpy())
    cell = facts["cell"] * vertices[:, 2] ** 2 / 2  # in depth, in the world
    assert np.median(off / cell) < 0.5
    assert np.percentile(off / cell, 99) < 2
    assert vertices[:, 2].min() > WALL * 1.1
    a, b, c = vertices[faces].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    towards = -(normals * (a + b + c)).sum(1)  # to the origin, between the cameras
    assert (towards > 0).mean() > 0.98  # a rim may face a camera beside the origin
    assert "y up" in facts["axes"]


def test_the_mesh_has_the_depth_that_is_rendered(job, renderer, scene):
    """Projected with the exported cameras, by a z-buffer that knows nothing of the warp."""
    vertices, faces, mesh, _ = mesh_of(job, "")
    cameras = Cameras.of(scene.train, scene.near, scene.far, space=SPACE)
    for number, view in enumerate(scene.train):
        depth, shown = rasterised(view, vertices, faces, mesh.visual.vertex_colors[:, :3] / 255)
        picture, rays = render_view(renderer, cameras, number), cameras.view_rays(number)
        place = rays.origins + picture.depth.view(-1, 1) * rays.directions
        place = SPACE.to_world(place)
        expected = (view.c2w[2, 3] - place[:, 2]).view(SIZE).numpy()
        hit = np.isfinite(depth) & (picture.opacity > 0.9).numpy()
        assert hit.mean() > 0.95
        wrong = np.abs(2 / depth - 2 / expected)[hit] / CELL  # warped depth is 1 - 2 / depth
        assert np.median(wrong) < 0.75
        assert (wrong < 1.5).mean() > 0.97  # the rest are pixels half on the ball's rim
        colour = np.abs(shown - picture.rgb.numpy())[hit]
        assert np.median(colour) < 0.02


def test_what_no_camera_sees_is_left_out(job):
    """Behind the ball the wall is in the dark; with everything kept, the ball has a back."""
    seen, *_ = mesh_of(job, "--min_part 0")
    every, *_ = mesh_of(job, "--min_part 0 --no-fill_hidden")
    back = lambda x: (np.abs(x[:, 2] - (BALL[2] - RADIUS).item()) < 0.1).sum()  # noqa: E731
    assert back(seen) == 0
    assert back(every) > 0
    dark = WALL / BALL[2].item() * BALL.numpy()  # on the wall, in the middle of the ball's shadow
    assert np.linalg.norm(every - dark, axis=1).min() < 0.3
    assert np.linalg.norm(seen - dark, axis=1).min() > 0.3


def test_bounds_are_of_the_world(job):
    """The box ends before the wall, and cuts the ball in two."""
    vertices, *_ = mesh_of(job, "--bounds -1 -1 -4 0.15 1 -0.5")
    assert vertices[:, 2].min() > BALL[2] - RADIUS
    assert 0.1 < vertices[:, 0].max() < 0.18
    with pytest.raises(UserError, match="--bounds: hold nothing"):
        mesh_of(job, "--bounds -1 -1 2 1 1 3")


def test_photos_show_what_the_warp_hides(renderer, scene):
    """Red photos of the first camera alone: what it sees is red, and nothing else."""
    box = occupied_box(renderer)
    box[1, 2] = 0.7
    mesh = level_set(lambda x: (-distance(SPACE.to_world(x)) * 400).clamp(0, 90), box, 96, 30.0)
    vertices = torch.from_numpy(mesh.vertices).float()
    normals = torch.from_numpy(mesh.normals()).float()
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)
    view = scene.train[0]
    view = View(
        red.expand(*SIZE, 3), None, view.c2w, *(FOCAL, FOCAL, SIZE[1] / 2, SIZE[0] / 2), "r"
    )
    surface = Surface(renderer, [view], vertices, normals, 0.06, SPACE)
    rgb, weight = surface.photo_colours()
    world = SPACE.to_world(vertices).double().numpy()
    column, row, _ = project(view, world).T
    inside = (column > 0) & (column < SIZE[1]) & (row > 0) & (row < SIZE[0])
    seen = (weight > 0).numpy()
    assert not seen[~inside].any()
    assert torch.allclose(rgb[weight > 0], torch.tensor([1.0, 0, 0]).expand(int(seen.sum()), 3))
    on_wall = world[:, 2] < WALL + 0.1
    near = np.hypot(*((world - BALL.numpy()) @ np.eye(3)[:, :2]).T) < RADIUS
    in_front = ~on_wall & near & (world[:, 2] > BALL[2].item() + 0.6 * RADIUS)
    assert seen[inside & in_front].mean() > 0.98
    hidden = on_wall & inside & shadowed(view, world)
    assert hidden.sum() > 20
    assert seen[hidden].mean() < 0.02
    assert surface.seen().tolist() == seen.tolist()


def shadowed(view, points):
    """(N,) bool: whether the way from the camera passes well inside of the ball."""
    eye = view.c2w[:, 3].double().numpy()
    ray = points - eye
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    arm = BALL.double().numpy() - eye
    off = arm - (ray @ arm)[:, None] * ray
    return np.linalg.norm(off, axis=1) < 0.8 * RADIUS


def test_viewpoints_look_along_the_warped_rays(scene):
    middle, poses = torch.zeros(3), torch.stack([v.c2w for v in scene.train])
    directions = -functional.normalize(SPACE.viewpoints(poses, middle), dim=1)
    expected = torch.tensor([[0.3 * SCALE[0], 0.0, 2.0]])
    assert torch.allclose(directions[:1], functional.normalize(expected, dim=1), atol=1e-5)
    assert torch.equal(WORLD.viewpoints(poses, middle), poses[:, :, 3])


# -- volume and files ---------------------------------------------------------------------------


def test_the_volume_lies_in_the_world(renderer):
    box = torch.tensor([[-0.6, -0.9, -3.3], [0.9, 0.6, -1.8]])
    volume = volume_of(renderer, box, 50, SPACE)
    edge = (volume.bounds[1] - volume.bounds[0]) / 50
    place = torch.from_numpy(volume.bounds[0] + (volume.index + 0.5) * edge)
    solid = volume.rgba[:, 3] > 127
    assert (distance(place[solid]) < 0.05).all()
    assert solid.sum() == pytest.approx(4 / 3 * np.pi * RADIUS**3 / edge.prod(), rel=0.15)
    colour = colour_at(place).numpy()
    assert np.abs(volume.rgba[:, :3] / 255 - colour).max() < 0.51 / 255 + 1e-4


def test_the_volumes_light_is_that_of_the_rays(renderer):
    """Thin fog in warped space: what crosses it away from the origin is the same in both."""
    fog = voxels(lambda x: torch.full_like(x[:, 0], 0.02), SHAPE, BOUNDS)
    direction = functional.normalize(torch.tensor([[0.2, -0.1, -1.0]]), dim=1)
    start, end = 1.5, 3.0
    t = start + (torch.arange(3000) + 0.5) * (end - start) / 3000
    world = t[:, None] * direction
    density = fog.field.geometry(SPACE.from_world(world))[0].detach()
    through_world = (density * SPACE.stretch(world)).sum() * (end - start) / 3000
    ends = SPACE.from_world(torch.tensor([[start], [end]]) * direction)
    way = (ends[1] - ends[0]).norm()
    assert float(through_world) == pytest.approx(float(density.mean() * way), rel=0.01)


def test_the_volume_holds_what_is_seen(job):
    made = job("volume --resolution 40 --volume_format npz")
    _, facts = export_volume(made.job)
    lower, upper = np.array(facts["bounds"])
    assert lower[2] < WALL
    assert upper[2] > BALL[2].item() + RADIUS
    assert facts["voxels"] > 0


@pytest.mark.parametrize("asset", ["mesh", "volume"])
def test_without_cameras_one_line_says_what_is_missing(job, asset):
    light = {"name": "s", "near": 0.0, "far": 3.0, "space": SPACE.state()}
    made = job(f"{asset} --resolution 16", payload_scene=light)
    with pytest.raises(UserError, match=r"--root_dir None: no such directory.*give --root_dir"):
        {"mesh": export_mesh, "volume": export_volume}[asset](made.job)


def test_rays_pass_through_untouched_without_a_warp():
    rays = Rays(torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1), torch.ones(1))
    assert WORLD.warp_rays(rays) is rays
