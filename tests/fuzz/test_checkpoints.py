"""Checkpoints and weights, damaged: what they held, or one line.

Values are replaced, left out, renamed, of another type or shape, moved; with digests that belong to
the change, so that it is looked at, or without.
"""

import copy
import json
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as to_safetensors

from assets.weights import file_digest, read_weights, write_weights
from datasets.cameras.rays import Cameras
from datasets.portable import place_as, scene_from
from features.vgg import load_vgg19
from features.weights import read_weights as read_network
from models.checkpoint import ONLY_FIELD, Checkpoint, restore_optimizers
from tests.fuzz.damage import damaged_bytes, damaged_tree, one_line_or_fine
from tests.models.test_checkpoint import (
    first_version,
    geometry_of,
    optimizer_of,
    painted,
    picture,
    scene,
    unfinished,
    written,
)

RANDOM = st.randoms(use_true_random=False)


def places_of(content, place=()):
    """Every place in nested containers."""
    items = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    for key, value in items:
        yield (*place, key)
        yield from places_of(value, (*place, key))


VALUES = [
    *(None, True, False, -1, 0, 1, 2, 7, 10**12, 2**62, 2**80, -0.5, 1.5, 1e300),
    *(float("nan"), float("inf"), "", "x", "photo", "nerf", "voxels", "../x", "x\ny", "x" * 300),
    *([], [1], {}, {"a": 1}, (), (1, 2), [[[]]], {1: 2}, "\ud800"),
    *(torch.zeros(()), torch.zeros(3), torch.zeros(2, 3), torch.ones(0), torch.eye(4).bool()),
    *(torch.full((3,), float("nan")), torch.zeros(2, 2, 2).bool(), torch.zeros(1).expand(10**9)),
    *(torch.zeros(3, dtype=torch.complex64), torch.nn.Parameter(torch.zeros(3))),
]


def other(value, rng):
    """Another value in the place of ``value``, often one that looks like it."""
    if rng.random() < 0.4:
        return rng.choice(VALUES)
    if isinstance(value, torch.Tensor):
        x = value.clone()
        if x.numel() and x.is_floating_point() and rng.random() < 0.4:
            number = rng.choice([float("nan"), float("inf"), -1.0, 0.0, 1e30, 1e-30])
            x.view(-1)[rng.randrange(x.numel())] = number
            return x
        makers = [
            *(
                x.double,
                x.half,
                x.bool,
                x.long,
                x.flatten,
                lambda: x[None],
                lambda: x.unsqueeze(-1),
            ),
            *(lambda: x[:1], lambda: x[:0], lambda: torch.cat([x, x]), lambda: x.tolist()),
            *(
                lambda: torch.zeros_like(x),
                lambda: x.logical_not(),
                lambda: -x,
                lambda: x * 3,
                lambda: x.flip(0),
            ),
        ]
        try:
            return rng.choice(makers)()
        except (RuntimeError, IndexError):
            return None
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice([value + 1, value - 1, -value, value * 1000, str(value), [value]])
    if isinstance(value, str):
        return rng.choice([value + "x", value[:-1], value.upper(), [value], 3])
    if isinstance(value, dict):
        return rng.choice(
            [list(value), list(value.values()), {**value, "new": 1}, dict(list(value.items())[1:])]
        )
    return rng.choice([value[1:], [*value, *value], dict(enumerate(value)), [*value, None]])


def change(content, rng):
    """One random change somewhere in nested containers."""
    places = list(places_of(content))
    # top parts count as much as each of the many tensors
    depth = rng.randint(1, max(map(len, places)))
    *way, key = rng.choice([p for p in places if len(p) <= depth])
    at = content
    for step in way:
        at = at[step]
    if isinstance(at, tuple):
        return
    action = rng.random()
    if isinstance(at, dict) and action < 0.2:
        del at[key]
    elif isinstance(at, dict) and action < 0.3:
        at[rng.choice(["new", "photo", 3, f"{key}x"])] = at.pop(key)
    elif action < 0.4:
        siblings = list(places_of(content))
        *from_way, from_key = rng.choice(siblings)
        value = content
        for step in (*from_way, from_key):
            value = value[step]
        at[key] = copy.deepcopy(value)
    else:
        at[key] = other(at[key], rng)


def use(checkpoint):
    """All that loading leads to."""
    for field, record in checkpoint.fields.items():
        own = [name for name, s in checkpoint.styles.items() if s.field == field]
        for style in [*own, *(["photo"] if record.has_photo_colours else [])]:
            rgb = picture(checkpoint.renderer(field, style))
            assert rgb.shape == (20, 3)
        saved = checkpoint.scenes[field]
        place_as(scene(), saved)
        if (again := scene_from(saved)) is not None:
            Cameras.within(again, again.train).rays(*torch.zeros(3, 1, dtype=torch.long))
    if checkpoint.progress is not None:
        optimizer = optimizer_of(checkpoint.renderer(), 0)
        restore_optimizers([optimizer], checkpoint.progress.optimizers)
        optimizer.step()


@cache
def whole(kind):
    checkpoint = painted(geometry_of("nerf" if kind == "nerf" else "voxels"), "wave")
    if kind == "version 1":
        return first_version(checkpoint)
    return unfinished(painted(checkpoint, "flat", 6, other_shape=True)).content()


@given(rng=RANDOM)
@pytest.mark.parametrize("kind", ["voxels", "nerf", "version 1"])
def test_content(tmp_path_factory, kind, rng):
    content = copy.deepcopy(whole(kind))
    for _ in range(rng.choice([1, 1, 2, 4])):
        change(content, rng)
    path = tmp_path_factory.getbasetemp() / "x.ckpt"
    written(content, path, rng.random() < 0.8)
    with one_line_or_fine():
        use(Checkpoint.read(path))


@given(rng=RANDOM)
@pytest.mark.parametrize("kind", ["voxels", "nerf"])
def test_specs(tmp_path_factory, kind, rng):
    """As above, in nothing but what modules are built from."""
    content = copy.deepcopy(whole(kind))
    specs = {name: style["spec"] for name, style in content["styles"].items()}
    specs["field"] = content["fields"][ONLY_FIELD]["spec"]
    for _ in range(rng.choice([1, 1, 2])):
        if spec := rng.choice(list(specs.values())):
            change(spec, rng)
    path = tmp_path_factory.getbasetemp() / "x.ckpt"
    written(content, path)
    with one_line_or_fine():
        use(Checkpoint.read(path))


@given(data=st.data())
def test_bytes(tmp_path_factory, data):
    """Whatever loads is what was written."""
    path = tmp_path_factory.getbasetemp() / "x.ckpt"
    written(whole("voxels"), path)
    path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    with one_line_or_fine():
        found = Checkpoint.read(path)
        assert found.fields[ONLY_FIELD].digest == whole("voxels")["fields"][ONLY_FIELD]["digest"]
        use(found)


@cache
def light(folder):
    """A `.safetensors` of one field: its file, metadata and tensors."""
    from assets.weights import _stored

    path = folder / "light.safetensors"
    write_weights(path, painted(geometry_of("voxels"), "wave"), half=False)
    return path.read_bytes(), *_stored(path)


@given(data=st.data())
def test_light_weights(tmp_path_factory, data):
    """Of what their metadata say some is replaced; the digest belongs to it."""
    folder = tmp_path_factory.getbasetemp()
    _, metadata, tensors = light(folder)
    name = data.draw(st.sampled_from(["spec", "content", "shapes"]))
    tree = data.draw(damaged_tree(json.loads(metadata[name])))
    changed = {k: v for k, v in metadata.items() if k != "digest"} | {name: json.dumps(tree)}
    changed["digest"] = file_digest(tensors, changed)
    (folder / "x.safetensors").write_bytes(to_safetensors(tensors, changed))
    with one_line_or_fine():
        use(read_weights(folder / "x.safetensors"))


@given(data=st.data())
def test_bytes_of_light_weights(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    content = light(folder)[0]
    damaged = data.draw(damaged_bytes(content))
    (folder / "x.safetensors").write_bytes(damaged)
    with one_line_or_fine():
        use(read_weights(folder / "x.safetensors"))
        assert damaged == content


@cache
def network(kind, folder):
    """A file of the first convolution of VGG-19."""
    path = folder / ("vgg.safetensors" if kind == "safetensors" else "vgg.pth")
    state = {"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.ones(64)}
    if kind == "safetensors":
        path.write_bytes(to_safetensors(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    return path.suffix, path.read_bytes()


@given(data=st.data())
@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_networks(tmp_path_factory, kind, data):
    folder = tmp_path_factory.getbasetemp()
    suffix, content = network(kind, folder)
    path = folder / f"x{suffix}"
    path.write_bytes(data.draw(damaged_bytes(content)))
    with one_line_or_fine():
        read_network(path)
        weight = load_vgg19(path, ["conv1_1"]).convs["conv1_1"].weight
        assert weight.isfinite().all()
        # the other formats have no checksum
        assert kind != "zip" or bool((weight == 1).all())
