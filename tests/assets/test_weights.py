"""The field alone: small, whole, and a field again."""

import json
import struct

import pytest
import torch

from assets.weights import load_any_field, packed_bits, read_weights, unpacked_bits, write_weights
from datasets.cameras.rays import Rays
from models.renderer import Renderer
from systems.checkpoints import geometry_digest
from utils.checkpoint import FORMAT, VERSION
from utils.errors import UserError

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 0.5]])


def payload_of(kind, resolution=128):
    torch.manual_seed(0)
    occupied = torch.rand(resolution, resolution, 96) < 0.3
    if kind == "nerf":
        renderer = Renderer.nerf(BOUNDS, torch.ones(3), occupied)
    else:
        active = torch.rand(16, 16, 12) < 0.5
        renderer = Renderer.voxels(BOUNDS, torch.ones(3), occupied, active)
        torch.nn.init.normal_(renderer.field.geometry.raw, 0.0, 3.0)
        renderer.field.style.reset()
    renderer.sampler.grid.mark(torch.zeros(1, 3))
    state = renderer.state_dict()
    return {
        "kind": "geometry",
        "options": {"scene_name": "ball", "img_wh": None},
        "scene": {"name": "ball", "near": 1.0, "far": 4.0},
        "spec": renderer.spec,
        "state": state,
        "digest": geometry_digest(state),
    }


def picture(payload):
    renderer = Renderer.from_state(payload["spec"], payload["state"]).eval()
    generator = torch.Generator().manual_seed(0)
    ends = torch.rand(2, 60, 3, generator=generator) * 2 - 1
    directions = torch.nn.functional.normalize(ends[0] - 2 * ends[1], dim=-1)
    near = torch.zeros(60)
    with torch.no_grad():
        return renderer(Rays(2 * ends[1], directions, near, near + 4)).rgb


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_round_trip(kind, tmp_path):
    payload, path = payload_of(kind), tmp_path / "field.safetensors"
    write_weights(path, payload, half=False)
    again = load_any_field(path, None, None)
    assert torch.equal(picture(again), picture(payload))
    assert again["digest"] == geometry_digest(again["state"])
    assert again["source_digest"] == payload["digest"]
    for name in ("kind", "options", "scene", "spec"):
        assert again[name] == payload[name]


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_half_precision_looks_the_same_and_takes_half(kind, tmp_path):
    payload = payload_of(kind)
    write_weights(tmp_path / "single.safetensors", payload, half=False)
    write_weights(tmp_path / "half.safetensors", payload, half=True)
    again = read_weights(tmp_path / "half.safetensors")
    assert again["digest"] == geometry_digest(again["state"])
    assert all(t.dtype != torch.float16 for t in again["state"].values())
    assert (picture(again) - picture(payload)).abs().max() < 0.02
    sizes = [(tmp_path / f"{p}.safetensors").stat().st_size for p in ("half", "single")]
    assert sizes[0] < (0.6 if kind == "nerf" else 0.8) * sizes[1]


def test_a_nerf_takes_less_than_5_megabytes_in_either_precision(tmp_path):
    write_weights(tmp_path / "f.safetensors", payload_of("nerf"), half=False)
    assert (tmp_path / "f.safetensors").stat().st_size < 5e6


def test_a_nerf_without_a_fine_network(tmp_path):
    torch.manual_seed(0)
    renderer = Renderer.nerf(BOUNDS, torch.ones(3), torch.ones(8, 8, 8).bool(), n_fine=0)
    state = renderer.state_dict()
    payload = payload_of("nerf", 8) | {"spec": renderer.spec, "state": state}
    write_weights(tmp_path / "f.safetensors", payload, half=False)
    assert torch.equal(picture(read_weights(tmp_path / "f.safetensors")), picture(payload))


def test_the_metadata_are_json_that_any_program_reads(tmp_path):
    payload, path = payload_of("voxels"), tmp_path / "f.safetensors"
    write_weights(path, payload, half=True)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert json.loads(header["__metadata__"]["spec"]) == payload["spec"]
    assert header["field.geometry.raw"]["dtype"] == "F16"


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    payload = payload_of("voxels")
    payload["state"]["field.geometry.raw"][3] = 1e6
    with pytest.raises(UserError, match=r"--half: field\.geometry\.raw"):
        write_weights(tmp_path / "f.safetensors", payload, half=True)


def test_bad_files(tmp_path):
    path = tmp_path / "f.safetensors"
    with pytest.raises(UserError, match="no such file"):
        read_weights(path)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match=r"f\.safetensors: damaged"):
        read_weights(path)
    write_weights(path, payload_of("voxels"), half=False)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"f\.safetensors: damaged"):
        read_weights(path)
    save = pytest.importorskip("safetensors.torch").save_file
    save({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="not a field of this project"):
        read_weights(path)
    header = {"format": FORMAT, "version": str(VERSION), "shapes": "{}"}
    for payload in ("[]", "3", "{}", "[" * 200_000):
        save({"a": torch.zeros(2)}, path, {**header, "payload": payload})
        with pytest.raises(UserError, match="not a field of this project"):
            read_weights(path)


def test_bits():
    grid = torch.rand(3, 5, 7) < 0.5
    assert len(packed_bits(grid)) == 14
    assert torch.equal(unpacked_bits(packed_bits(grid), [3, 5, 7]), grid)
