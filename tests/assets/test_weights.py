"""A field alone: small, whole, in the colours asked for, and a checkpoint again."""

import json
import os
import random
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from assets.weights import (
    PLACE,
    file_digest,
    packed_bits,
    read_trained,
    read_weights,
    unpacked_bits,
    write_weights,
)
from datasets.cameras.rays import Rays
from models.checkpoint import ONLY_FIELD, VERSION, Checkpoint, FieldRecord, geometry_digest
from tests.renderers import nerf_renderer, voxel_renderer
from utils.checkpoint import FORMAT
from utils.errors import UserError

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 0.5]])
OPTIONS = {"stage": "geometry", "root_dir": "b", "dataset_name": "blender", "scene_name": "ball"}
SCENE = {"name": "ball", "near": 1.0, "far": 4.0, "space": {"kind": "world"}}
CHANGES = int(os.environ.get("CHECKPOINT_CHANGES", 100))


def checkpoint_of(kind, resolution=128, n_fine=64):
    torch.manual_seed(0)
    occupied = torch.rand(resolution, resolution, 3 * resolution // 4) < 0.3
    if kind == "nerf":
        renderer = nerf_renderer(BOUNDS, occupied, n_fine=n_fine)
    else:
        active = torch.rand(16, 16, 12) < 0.5
        renderer = voxel_renderer(BOUNDS, occupied, active)
        torch.nn.init.normal_(renderer.field.geometry.raw, 0.0, 3.0)
        renderer.field.style.reset()
    renderer.sampler.grid.mark(torch.zeros(1, 3))
    return Checkpoint(
        "geometry", {ONLY_FIELD: FieldRecord.of(renderer)}, {ONLY_FIELD: SCENE}, options=OPTIONS
    )


def painted(checkpoint):
    renderer = checkpoint.renderer()
    torch.manual_seed(5)
    renderer.field.style.reset()
    return checkpoint.with_style("wave", renderer, {**OPTIONS, "stage": "style"})


def picture(renderer):
    generator = torch.Generator().manual_seed(0)
    ends = torch.rand(2, 60, 3, generator=generator) * 2 - 1
    directions = torch.nn.functional.normalize(ends[0] - 2 * ends[1], dim=-1)
    near = torch.zeros(60)
    with torch.no_grad():
        return renderer.eval()(Rays(2 * ends[1], directions, near, near + 4)).rgb


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_round_trip(kind, tmp_path):
    checkpoint, path = checkpoint_of(kind), tmp_path / "field.safetensors"
    write_weights(path, checkpoint, half=False)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    again = read_trained(path, None, None)
    assert torch.equal(picture(again.renderer()), picture(checkpoint.renderer()))
    record = again.fields[ONLY_FIELD]
    assert record.digest == geometry_digest(record.state)
    assert record.spec == checkpoint.fields[ONLY_FIELD].spec
    for name in ("stage", "options", "scenes", "versions", "styles"):
        assert getattr(again, name) == getattr(checkpoint, name)


@pytest.mark.parametrize(("kind", "n_fine"), [("nerf", 64), ("nerf", 0), ("voxels", 64)])
def test_either_colours(kind, n_fine, tmp_path):
    checkpoint, path = painted(checkpoint_of(kind, 16, n_fine)), tmp_path / "f.safetensors"
    for style, other in (("wave", "photo"), ("photo", "wave")):
        write_weights(path, checkpoint, half=False, style=style)
        again = read_weights(path)
        assert again.chosen() == (ONLY_FIELD, style)
        assert torch.equal(picture(again.renderer()), picture(checkpoint.renderer(style=style)))
        with pytest.raises(UserError, match=f"--style {other}: not in the checkpoint"):
            again.renderer(style=other)
    write_weights(path, checkpoint, half=False)
    assert read_weights(path).styles["wave"].options == checkpoint.options


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_half_precision_looks_the_same_and_takes_half(kind, tmp_path):
    checkpoint = checkpoint_of(kind)
    write_weights(tmp_path / "single.safetensors", checkpoint, half=False)
    write_weights(tmp_path / "half.safetensors", checkpoint, half=True)
    again = read_weights(tmp_path / "half.safetensors")
    assert all(t.dtype != torch.float16 for t in again.fields[ONLY_FIELD].state.values())
    assert (picture(again.renderer()) - picture(checkpoint.renderer())).abs().max() < 0.02
    sizes = [(tmp_path / f"{p}.safetensors").stat().st_size for p in ("half", "single")]
    assert sizes[0] < (0.6 if kind == "nerf" else 0.8) * sizes[1]


def test_a_nerf_takes_less_than_5_megabytes_in_either_precision(tmp_path):
    write_weights(tmp_path / "f.safetensors", checkpoint_of("nerf"), half=False)
    assert (tmp_path / "f.safetensors").stat().st_size < 5e6


def test_a_nerf_without_a_fine_network(tmp_path):
    checkpoint = checkpoint_of("nerf", 8, n_fine=0)
    write_weights(tmp_path / "f.safetensors", checkpoint, half=False)
    again = read_weights(tmp_path / "f.safetensors").renderer()
    assert torch.equal(picture(again), picture(checkpoint.renderer()))


def header_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def test_the_metadata_are_json_that_any_program_reads(tmp_path):
    checkpoint, path = checkpoint_of("voxels"), tmp_path / "f.safetensors"
    write_weights(path, checkpoint, half=True)
    header = header_of(path)
    assert json.loads(header["__metadata__"]["spec"]) == checkpoint.fields[ONLY_FIELD].spec
    assert header["__metadata__"]["source_digest"] == checkpoint.fields[ONLY_FIELD].digest
    assert header["field.geometry.raw"]["dtype"] == "F16"


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    checkpoint = checkpoint_of("voxels")
    checkpoint.fields[ONLY_FIELD].state["field.geometry.raw"][3] = 1e6
    with pytest.raises(UserError, match=r"--half: field\.geometry\.raw"):
        write_weights(tmp_path / "f.safetensors", checkpoint, half=True)
    assert list(tmp_path.iterdir()) == []


def test_version_1_is_refused(tmp_path):
    path = tmp_path / "f.safetensors"
    write_weights(path, checkpoint_of("voxels", 16), half=False)
    metadata = header_of(path)["__metadata__"] | {"version": "1"}
    save_file(load_file(path), path, metadata)
    with pytest.raises(UserError, match=r"of version 1.*export it again"):
        read_weights(path)


# -- damage -------------------------------------------------------------------------------------


def test_every_flipped_bit_is_seen(tmp_path):
    path, bad = tmp_path / "f.safetensors", tmp_path / "bad.safetensors"
    write_weights(path, painted(checkpoint_of("voxels", 16)), half=False)
    good, rng = path.read_bytes(), random.Random(0)
    for _ in range(60):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        bad.write_bytes(flipped)
        with pytest.raises(UserError, match=r"bad\.safetensors"):
            read_weights(bad)


def test_bad_files(tmp_path):
    path = tmp_path / "f.safetensors"
    with pytest.raises(UserError, match="no such file"):
        read_weights(path)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match=r"f\.safetensors: damaged"):
        read_weights(path)
    write_weights(path, checkpoint_of("voxels"), half=False)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"f\.safetensors: damaged"):
        read_weights(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="not a field of this project"):
        read_weights(path)
    header = {"format": FORMAT, "version": str(VERSION), "shapes": "{}", "spec": "{}"}
    tensors = {"a": torch.zeros(2)}
    for content in ("[]", "3", "{}", "[" * 200_000):
        metadata = header | {"content": content}
        metadata["digest"] = file_digest(tensors, metadata)
        save_file(tensors, path, metadata)
        with pytest.raises(UserError, match="not a field of this project"):
            read_weights(path)


def test_random_changes_end_in_one_line_or_load(tmp_path):
    """Of metadata and tensors, with a digest that belongs to them."""
    path, bad = tmp_path / "f.safetensors", tmp_path / "bad.safetensors"
    write_weights(path, painted(checkpoint_of("voxels", 16)), half=False)
    good, metadata = load_file(path), header_of(path)["__metadata__"]
    rng, loaded = random.Random(0), 0
    for _ in range(CHANGES):
        tensors, texts = dict(good), dict(metadata)
        if rng.random() < 0.3:
            name = rng.choice(sorted(tensors))
            x = tensors.pop(name)
            makers = [x.half, x.double, lambda x=x: x[None], lambda x=x: x.float() * float("nan")]
            if rng.random() < 0.8:
                tensors[name] = rng.choice(makers)().contiguous()
        else:
            name = rng.choice(["spec", "content", "shapes", "version", "format"])
            texts[name] = changed_json(texts[name], rng)
        texts["digest"] = file_digest(tensors, {k: v for k, v in texts.items() if k != "digest"})
        save_file(tensors, bad, texts)
        try:
            assert picture(read_weights(bad).renderer()).shape == (60, 3)
            loaded += 1
        except UserError as error:
            assert "\n" not in str(error)
    assert 0 < loaded < CHANGES / 2


def changed_json(text, rng):
    """A JSON text with one value replaced or left out, or broken."""
    values = [None, -1, 10**12, 1.5, float("nan"), "x", "photo", [], {}, [1], {"a": 1}, "[" * 9999]
    if not text.startswith("{") or rng.random() < 0.2:
        return rng.choice(["", "[]", "3", "null", "{}", "[" * 9999, text[:-1]])
    content = at = json.loads(text)
    if not at:
        return "{"
    key = rng.choice(sorted(at))
    while isinstance(at[key], dict) and at[key] and rng.random() < 0.7:
        at = at[key]
        key = rng.choice(sorted(at))
    if rng.random() < 0.3:
        del at[key]
    else:
        at[key] = rng.choice(values)
    return json.dumps(content)


def test_the_scene_is_where_it_was(tmp_path):
    checkpoint = checkpoint_of("voxels", 16)
    views = {split: {"names": []} for split in ("train", "val", "test")}
    scene = {
        **SCENE,
        "space": {"kind": "ndc", "scale": [1.5, 2.0, 0.5]},
        "bounds": BOUNDS,
        "views": views,
    }
    path = tmp_path / "f.safetensors"
    write_weights(path, replace(checkpoint, scenes={ONLY_FIELD: scene}), half=False)
    saved = read_weights(path).scenes[ONLY_FIELD]
    assert saved == {name: scene[name] for name in PLACE}


def test_bits():
    grid = torch.rand(3, 5, 7) < 0.5
    assert len(packed_bits(grid)) == 14
    assert torch.equal(unpacked_bits(packed_bits(grid), [3, 5, 7]), grid)
