"""The surface: where it is, that it is closed, that slabs do not show, and which parts are kept."""

import json
import struct

import numpy as np
import pytest
import torch

from assets.density import density_of, occupied_box
from assets.mesh import Mesh, kept_parts, level_set
from assets.mesh_files import linear, write_mesh
from assets.visibility import Visibility, transmittance, viewing_directions, visibility
from tests.assets.conftest import BOUNDS, CENTRE, RADIUS

BOX = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


def ball_density(x, centre=(0.0, 0, 0), radius=0.6):
    return 50 * (20 * (radius - (x - torch.tensor(centre)).norm(dim=-1))).sigmoid()


def volume(mesh):
    return (mesh.corners()[:, 0] * mesh.face_normals()).sum() / 6


def is_closed(mesh):
    """Every edge is met by two triangles that run along it in opposite directions."""
    a, b, c = mesh.faces.T
    edges = np.concatenate([np.stack(e, 1) for e in ((a, b), (b, c), (c, a))])
    there, back = {tuple(e) for e in edges}, {tuple(e) for e in edges[:, ::-1]}
    return len(there) == len(edges) and there == back


def test_a_ball_is_where_it_is_closed_and_faces_outward():
    mesh = level_set(ball_density, BOX, 40, 25.0)
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert np.abs(radii - 0.6).max() < 0.2 * 2 / 40
    assert is_closed(mesh)
    assert volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.01)
    outward = (mesh.normals() * mesh.vertices).sum(1) / radii
    assert outward.min() > 0.98


@pytest.mark.parametrize("slab", [1, 5000, 12345])
def test_slabs_do_not_show(slab):
    box = torch.tensor([[-1.0, -0.7, -0.9], [1, 0.8, 1]])
    whole, parts = (level_set(ball_density, box, 24, 25.0, size) for size in (1 << 23, slab))
    assert len(whole.vertices) == len(parts.vertices)
    assert len(whole.faces) == len(parts.faces)
    assert is_closed(parts)
    order = [np.lexsort(m.vertices.round(6).T) for m in (whole, parts)]
    assert np.allclose(whole.vertices[order[0]], parts.vertices[order[1]], atol=1e-6)


def test_what_the_box_cuts_is_closed():
    box = torch.tensor([[0.0, -1, -1], [1, 1, 1]])
    mesh = level_set(ball_density, box, 40, 25.0)
    assert is_closed(mesh)
    assert volume(mesh) == pytest.approx(2 / 3 * np.pi * 0.6**3, rel=0.06)


def test_nothing_gives_an_empty_mesh():
    mesh = level_set(lambda x: torch.zeros(len(x)), BOX, 8, 1.0)
    assert len(mesh.faces) == 0
    assert kept_parts(mesh, 0.01)[1] == 0


def test_small_parts_and_cavities_go():
    def density(x):
        large = ball_density(x, (-0.3, 0, 0), 0.5) - ball_density(x, (-0.3, 0, 0), 0.3)
        return large.clamp(min=0) + ball_density(x, (0.6, 0, 0), 0.2)

    mesh = level_set(density, BOX, 60, 25.0)
    both, n = kept_parts(mesh, 0.01)
    assert n == 2
    assert volume(both) == pytest.approx(4 / 3 * np.pi * (0.5**3 + 0.2**3), rel=0.03)
    largest, n = kept_parts(mesh, 1.0)
    assert n == 1
    assert largest.vertices[:, 0].max() < 0.25
    assert is_closed(largest)


def test_the_box_is_around_what_is_occupied(ball):
    occupied = torch.zeros_like(ball.sampler.grid.occupied)
    occupied[3:10, 20, 7:9] = True
    ball.sampler.grid.set(occupied)
    box = occupied_box(ball)
    cell = ball.sampler.grid.cell
    ends = torch.tensor([[3.0, 20, 7], [10, 21, 9]])
    assert torch.allclose(box, BOUNDS[0] + ends * cell)
    assert density_of(ball, CENTRE[None]).tolist() == [0.0]


# -- what is hidden -----------------------------------------------------------------------------


def test_light_is_the_transmittance_along_each_direction():
    optical = torch.full((7, 6, 5), 0.3)
    for direction in ((1, 0, 0), (0, -1, 0), (1, 1, -1), (0, 1, 1)):
        light = transmittance(optical, direction)
        length = sum(d * d for d in direction) ** 0.5
        distance = [
            torch.arange(n) if d > 0 else torch.arange(n).flip(0) if d < 0 else torch.full((n,), 99)
            for d, n in zip(direction, optical.shape, strict=True)
        ]
        steps = torch.stack(torch.meshgrid(*distance, indexing="ij")).amin(0)
        axis = next(i for i in range(3) if direction[i])
        enters = torch.stack(torch.meshgrid(*distance, indexing="ij"))[axis] == 0
        # half a step from outside to the first plane; full steps in from the other sides
        expected = torch.exp(-0.3 * length * (steps + 0.5))
        assert torch.allclose(light[enters], expected[enters])
        inner = light[2:-2, 2:-2, 2:-2]
        assert torch.allclose(inner, expected[2:-2, 2:-2, 2:-2])


def test_a_pore_in_one_direction_lets_no_light_in():
    optical = torch.zeros(11, 11, 11)
    optical[3:8, 3:8, 3:8] = 9.0
    optical[:, 5, 5] = 0.0
    directions = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1)]
    light = visibility(optical, directions)
    assert light[5, 5, 5] < 1e-3
    assert light[1, 1, 1] == 1
    assert visibility(optical, directions[:1])[5, 5, 5] == 1


def test_only_directions_that_cameras_viewing_directions_count():
    assert viewing_directions(torch.tensor([[0.0, 0, 5]])) == [(0, 0, -1)]
    around = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    assert len(viewing_directions(around)) == 26
    assert all(
        d[2] <= 0 for d in viewing_directions(around * torch.tensor([1, 1, 0]) + torch.eye(3)[2])
    )


def test_the_inside_of_a_shell_is_hidden_and_its_threshold_lies_on_its_flank(shell):
    exposure = Visibility(shell, BOUNDS, 44)
    offsets = torch.tensor([[0.0, 0, 0], [0.3, 0.2, 0], [0, 0.6, 0], [0, 0, 0.8], [-0.9, 0, 0]])
    light = exposure(CENTRE + offsets)
    assert (light[:3] < 0.01).all()
    assert (light[3:] > 0.9).all()
    peak = float(density_of(shell, CENTRE[None] + torch.tensor([[0.6, 0, 0]])))
    assert 0.02 * peak < exposure.threshold() < peak


# -- files --------------------------------------------------------------------------------------


@pytest.fixture
def coloured():
    mesh = level_set(ball_density, BOX, 16, 25.0)
    mesh.colours = (mesh.vertices + 1) / 2
    return mesh


def opened(path):
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.load(path, process=False)
    return mesh.to_geometry() if isinstance(mesh, trimesh.Scene) else mesh


@pytest.mark.parametrize("extension", ["ply", "obj", "glb"])
def test_a_second_program_reads_the_same_mesh(coloured, extension, tmp_path):
    path = tmp_path / f"mesh.{extension}"
    write_mesh(path, coloured, {"axes": "right-handed", "scale": "metres"})
    assert b"right-handed" in path.read_bytes()
    mesh = opened(path)
    assert np.allclose(mesh.vertices, coloured.vertices, atol=1e-6)
    assert (mesh.faces == coloured.faces).all()
    assert mesh.is_watertight
    assert mesh.visual.kind == "vertex"
    shown = linear(coloured.colours) if extension == "glb" else coloured.colours
    assert np.abs(mesh.visual.vertex_colors[:, :3] / 255 - shown).max() < 0.51 / 255 + 1e-4
    assert (mesh.visual.vertex_colors[:, 3] == 255).all()


def test_an_unlit_glb_names_its_material(coloured, tmp_path):
    path = tmp_path / "mesh.glb"
    write_mesh(path, coloured, {}, unlit=True)
    assert b"KHR_materials_unlit" in path.read_bytes()
    assert len(opened(path).vertices) == len(coloured.vertices)


def read_glb(path):
    """Attributes, indices and JSON of a GLB with one mesh, by the letter of glTF 2.0, section 4.4
    (container) and 3.6 (buffers), and by nothing of the writer's."""
    content = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert (kind, size % 4) == (b"JSON", 0)
    tree = json.loads(content[20 : 20 + size])
    start = 20 + size
    size, kind = struct.unpack_from("<I4s", content, start)
    assert (kind, size % 4) == (b"BIN\0", 0)
    binary = content[start + 8 : start + 8 + size]
    assert tree["buffers"] == [{"byteLength": size}]

    def array(number):
        accessor = tree["accessors"][number]
        view = tree["bufferViews"][accessor["bufferView"]]
        kind = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3}[accessor["type"]]
        assert view["byteLength"] == 4 * width * accessor["count"]
        assert view["byteOffset"] % 4 == 0
        flat = np.frombuffer(binary, kind, width * accessor["count"], view["byteOffset"])
        return flat.reshape(-1, width)

    (primitive,) = tree["meshes"][0]["primitives"]
    assert primitive.get("mode", 4) == 4  # triangles
    named = {name: array(number) for name, number in primitive["attributes"].items()}
    return named, array(primitive["indices"]).reshape(-1, 3), tree


def test_a_glb_says_what_gltf_says(coloured, tmp_path):
    path = tmp_path / "mesh.glb"
    write_mesh(path, coloured, {"axes": "right-handed, y up"})
    attributes, faces, tree = read_glb(path)
    place, normal, colour = (attributes[name] for name in ("POSITION", "NORMAL", "COLOR_0"))
    assert np.allclose(place, coloured.vertices, atol=1e-6)
    assert (faces == coloured.faces).all()
    assert np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
    a, b, c = place[faces].transpose(1, 0, 2)
    assert ((np.cross(b - a, c - a) * normal[faces].mean(1)).sum(1) > 0).all()  # anticlockwise
    lit = np.where(colour <= 0.0031308, 12.92 * colour, 1.055 * colour ** (1 / 2.4) - 0.055)
    assert np.abs(lit - coloured.colours).max() < 1e-5  # linear in the file, as section 3.7 asks
    bounds = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert bounds["min"] == place.min(0).tolist()
    assert bounds["max"] == place.max(0).tolist()
    # no node turns or scales what is in the file
    assert all(node.keys() <= {"mesh", "name"} for node in tree["nodes"])
    assert tree["asset"]["extras"]["axes"] == "right-handed, y up"


def test_linear_light():
    assert linear(np.array([0.0, 0.04, 0.5, 1.0])) == pytest.approx(
        [0, 0.003096, 0.214041, 1], rel=1e-4
    )


def test_turning_keeps_the_shape():
    mesh = level_set(lambda x: ball_density(x, (0.2, 0, 0)), BOX, 16, 25.0)
    turned = mesh.turned(np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]))
    assert volume(turned) == pytest.approx(volume(mesh))
    assert isinstance(turned, Mesh)


def test_radius_of_the_known_ball(ball):
    mesh = level_set(lambda x: density_of(ball, x), occupied_box(ball), 50, 10.0)
    distance = np.linalg.norm(mesh.vertices - CENTRE.numpy(), axis=1) - RADIUS
    assert np.median(np.abs(distance)) < 0.02
