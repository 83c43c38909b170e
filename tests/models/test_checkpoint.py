"""Checkpoints: several of everything, either colours, older versions; each damage has its line
(random damage: `tests/fuzz/test_checkpoints.py`)."""

import copy
from dataclasses import replace

import pytest
import torch

from datasets.cameras.rays import Rays
from datasets.cameras.space import NDC, WORLD, Contracted
from datasets.portable import scene_from, scene_state
from datasets.scene import Scene, View
from models.checkpoint import (
    ONLY_FIELD,
    Checkpoint,
    FieldRecord,
    Progress,
    geometry_digest,
    plain_state,
    restore_optimizers,
    style_name,
)
from models.latent_voxels import LatentVoxelStyle, rows_of
from tests.renderers import nerf_renderer, voxel_renderer
from utils.checkpoint import FORMAT, content_digest, require_plain, save_checkpoint
from utils.errors import NumericalError, UserError

BOUNDS = torch.tensor([[-1.0, -1, -1], [1, 1, 0.5]])
OPTIONS = {
    **{"stage": "geometry", "root_dir": "ball", "dataset_name": "blender", "scene_name": "ball"},
    **{"suffix": "geometry", "img_wh": [4, 3], "near": None, "seed": 0, "lr": 1e-3},
}


def renderer_of(kind, seed=0, n_fine=2):
    torch.manual_seed(seed)
    occupied = torch.rand(6, 6, 5) < 0.5
    if kind == "nerf":
        return nerf_renderer(BOUNDS, occupied, 3, n_fine)
    renderer = voxel_renderer(BOUNDS, occupied, torch.rand(4, 4, 3) < 0.5, n_features=2)
    torch.nn.init.normal_(renderer.field.geometry.raw, 0.0, 3.0)
    renderer.field.style.reset()
    return renderer


def scene(space=WORLD):
    def view(i):
        c2w = torch.eye(4)[:3] + torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 3.0 + i]])
        image = torch.zeros(3, 4, 3, dtype=torch.uint8)
        return View(image, None, c2w, 5.0, 5.0, 2.0, 1.5, f"r_{i}")

    views = [view(0), view(1)], [view(2)], [view(2)]
    return Scene("ball", *views, 1.0, 5.0, BOUNDS, space=space)


def geometry_of(kind, **more):
    field = FieldRecord.of(renderer_of(kind, **more))
    return Checkpoint(
        "geometry", {ONLY_FIELD: field}, {ONLY_FIELD: scene_state(scene())}, options=OPTIONS
    )


def painted(checkpoint, name, seed=5, other_shape=False):
    """One more style, as if it had been trained; of another specification than the photographic
    colours with ``other_shape``."""
    renderer = checkpoint.renderer()
    torch.manual_seed(seed)
    renderer.field.style.reset()
    if other_shape:
        renderer.field.style.decoder.view_dependent = False
        renderer.field.style.decoder.set_colour_map(torch.rand(3, 3), torch.rand(3))
    return checkpoint.with_style(name, renderer, {**OPTIONS, "stage": "style", "suffix": name})


def unfinished(checkpoint):
    """With the state of an optimiser that has made a step, and something of a task."""
    optimizer = optimizer_of(checkpoint.renderer())
    state = [plain_state(optimizer.state_dict())]
    return replace(checkpoint, progress=Progress(3, 9, state, {"appearance": torch.zeros(2, 3, 4)}))


def optimizer_of(renderer, steps=1):
    style = renderer.field.style
    groups = [{"params": list(style.parameters()), "lr": 0.1, "base_lr": 0.1, "eps": 1e-10}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)
    for _ in range(steps):
        for p in style.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    return optimizer


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def ordered(content):
    """With the names of every mapping in order."""
    if isinstance(content, dict):
        return {name: ordered(content[name]) for name in sorted(content)}
    return content


def same_content(a, b):
    return content_digest(ordered(a.content())) == content_digest(ordered(b.content()))


def picture(renderer):
    generator = torch.Generator().manual_seed(0)
    ends = torch.rand(2, 20, 3, generator=generator) * 2 - 1
    directions = torch.nn.functional.normalize(ends[0] - 2 * ends[1], dim=-1)
    near = torch.zeros(20)
    with torch.no_grad():
        return renderer.eval()(Rays(2 * ends[1], directions, near, near + 4)).rgb


def refused(make, *words):
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# -- what is in it ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_round_trip(kind, tmp_path):
    before = unfinished(painted(painted(geometry_of(kind), "starry_night"), "wave", 6))
    before.write(tmp_path / "x.ckpt")
    torch.manual_seed(7)
    draw = torch.rand(2)
    torch.manual_seed(7)
    after = Checkpoint.read(tmp_path / "x.ckpt")
    assert torch.equal(torch.rand(2), draw)  # reading leaves the random numbers as they were
    assert content_digest(after.content()) == content_digest(before.content())
    for style in ("photo", "starry_night", "wave"):
        states = [c.renderer(style=style).state_dict() for c in (before, after)]
        assert same(*states)
    assert same(after.renderer().state_dict(), after.renderer(style="wave").state_dict())
    assert scene_from(after.scenes[ONLY_FIELD]).far == 5.0


@pytest.mark.parametrize(
    ("kind", "n_fine"), [("nerf", 2), ("nerf", 0), ("voxels", 2)], ids=["nerf", "coarse", "voxels"]
)
def test_photographic_and_painted_colours_of_one_field(kind, n_fine):
    before = renderer_of(kind, n_fine=n_fine)
    photo = picture(before)
    checkpoint = geometry_of(kind, n_fine=n_fine)
    renderer = checkpoint.renderer()
    torch.manual_seed(5)
    renderer.field.style.reset()
    expected = picture(renderer)
    assert not torch.equal(photo, expected)
    checkpoint = checkpoint.with_style("wave", renderer, {**OPTIONS, "stage": "style"})
    assert torch.equal(picture(checkpoint.renderer()), expected)
    assert torch.equal(picture(checkpoint.renderer(style="wave")), expected)
    assert torch.equal(picture(checkpoint.renderer(style="photo")), photo)
    digests = {geometry_digest(checkpoint.renderer(style=s).state_dict()) for s in ("photo", None)}
    assert digests == {checkpoint.fields[ONLY_FIELD].digest}


@pytest.mark.parametrize("kind", ["nerf", "voxels"])
def test_a_style_of_another_specification(kind, tmp_path):
    checkpoint = painted(painted(geometry_of(kind), "flat", other_shape=True), "wave", 6)
    photographic, flat = checkpoint.fields[ONLY_FIELD].spec["style"], checkpoint.styles["flat"].spec
    assert flat == photographic | {"view_dependent": False, "colour_map": True}
    checkpoint.write(tmp_path / "x.ckpt")
    read = Checkpoint.read(tmp_path / "x.ckpt")
    assert read.renderer(style="photo").spec["style"] == photographic
    renderer = read.renderer(style="flat")
    assert renderer.spec["style"] == flat
    assert torch.equal(picture(renderer), picture(checkpoint.renderer(style="flat")))
    x, d = torch.zeros(2, 3), torch.eye(3)[:2]
    with torch.no_grad():
        assert torch.equal(*renderer.field.colours(x, d))
    field = read.fields[ONLY_FIELD]
    state = {k: x for k, x in field.state.items() if not k.startswith("field.style.")}
    bare = replace(
        read, fields={ONLY_FIELD: replace(field, state=state)}
    )  # without photographic ones
    bare.write(tmp_path / "x.ckpt")
    again = Checkpoint.read(tmp_path / "x.ckpt")
    for style in ("flat", "wave"):
        states = [c.renderer(style=style) for c in (read, again)]
        assert states[0].spec == states[1].spec
        assert same(*(renderer.state_dict() for renderer in states))


def test_several_fields_scenes_and_styles(tmp_path):
    fields = {"a": FieldRecord.of(renderer_of("voxels")), "b": FieldRecord.of(renderer_of("nerf"))}
    scenes = dict.fromkeys(fields, scene_state(scene()))
    both = Checkpoint("joint", fields, scenes, options=OPTIONS)
    for field, style in (("a", "wave"), ("b", "night"), ("a", "scream")):
        renderer = both.renderer(field, "photo")
        both = both.with_style(style, renderer, {**OPTIONS, "stage": "joint"}, field)
    both.write(tmp_path / "x.ckpt")
    read = Checkpoint.read(tmp_path / "x.ckpt")
    assert read.chosen() == ("a", "scream")
    assert read.chosen("b") == ("b", "night")
    assert read.chosen("b", "photo") == ("b", "photo")
    assert read.chosen(style="wave") == ("a", "wave")
    assert read.renderer("b").spec["field"]["kind"] == "nerf"
    refused(lambda: read.chosen("c"), "'c'", "'a', 'b'")
    refused(lambda: read.chosen("b", "wave"), "--style wave", "'photo', 'night'")
    refused(lambda: read.renderer(style="waves"), "'photo', 'wave', 'night', 'scream'")


def test_the_style_trained_last_is_meant():
    checkpoint = painted(painted(geometry_of("voxels"), "a"), "b", 6)
    assert checkpoint.chosen() == (ONLY_FIELD, "b")
    again = painted(checkpoint, "a", 7)
    assert again.chosen() == (ONLY_FIELD, "a")
    assert list(again.styles) == ["b", "a"]
    assert again.stage == "style"


def test_a_style_on_geometry_that_has_moved_is_a_mistake_of_the_code():
    checkpoint = geometry_of("voxels")
    renderer = checkpoint.renderer()
    with torch.no_grad():
        renderer.field.geometry.raw[0] += 1e-3
    with pytest.raises(RuntimeError, match="geometry of 'scene' changed"):
        checkpoint.with_style("a", renderer, OPTIONS)


def test_a_record_does_not_follow_the_training():
    renderer = renderer_of("voxels")
    record = FieldRecord.of(renderer)
    with torch.no_grad():
        renderer.field.geometry.raw += 1
    assert record.digest == geometry_digest(record.state)


def test_no_painting_is_called_photo(tmp_path):
    assert style_name(tmp_path / "wave.jpg") == "wave"
    refused(lambda: style_name(tmp_path / "photo.png"), "photo.png", "rename")


def test_what_is_not_finite_is_not_written(tmp_path):
    checkpoint = geometry_of("voxels")
    checkpoint.fields[ONLY_FIELD].state["field.geometry.raw"][3] = float("inf")
    with pytest.raises(NumericalError, match=r"field\.geometry\.raw: a value is not finite"):
        checkpoint.write(tmp_path / "x.ckpt")
    assert list(tmp_path.iterdir()) == []


# -- files --------------------------------------------------------------------------------------


def test_a_file_for_each_network(tmp_path):
    paths = [tmp_path / "coarse.pt", tmp_path / "fine.pt"]
    checkpoint = painted(geometry_of("nerf"), "wave")
    assert checkpoint.is_hierarchical
    checkpoint.write_networks(*paths)
    read = Checkpoint.read_networks(*paths)
    assert content_digest(read.content()["options"]) == content_digest(checkpoint.options)
    for style in ("photo", "wave"):
        states = [c.renderer(style=style).state_dict() for c in (checkpoint, read)]
        assert same(*states)
    words = "holds a fine network (--fine_path), not a coarse network (--coarse_path)"
    refused(lambda: Checkpoint.read_networks(*paths[::-1]), "fine.pt", words)
    refused(lambda: Checkpoint.read(paths[0]), "coarse.pt", "not a whole field (--ckpt_path)")
    geometry_of("nerf", seed=1).write_networks(tmp_path / "other.pt", tmp_path / "fine.pt")
    words = "give the two files of one run"
    refused(lambda: Checkpoint.read_networks(*paths), "coarse.pt", "fine.pt", words)
    assert not geometry_of("voxels").is_hierarchical


# names in the modules of version 1 that have changed
OLD_NAMES = {
    "geometry.mlp.layers.": "geometry.layers.",
    "geometry.mlp.out.": "geometry.density.",
    "style.head.linear.": "style.bottleneck.",
    "style.head.table": "style.features",
    "style.decoder.mlp.layers.": "style.hidden.",
    "style.decoder.mlp.out.": "style.rgb.",
    "style.decoder.colour_": "style.colour_",
}


def first_version(checkpoint, style=None, part=""):
    """What version 1 wrote of a field in one style."""
    field, style = checkpoint.chosen(style=style)
    renderer = checkpoint.renderer(field, style)
    state = renderer.state_dict()
    spec, old_spec = renderer.spec, {"field": "voxels"}
    if spec["field"]["kind"] == "voxels":
        old_spec["n_features"] = spec["style"]["n_features"]
    else:
        counts = {name: spec["sampler"].get(name) for name in ("n_coarse", "n_fine")}
        frequencies = {"n_xyz": spec["field"]["n_frequencies"]}
        frequencies["n_dir"] = spec["style"]["n_frequencies"]
        old_spec = {"field": "nerf", **counts, **frequencies, "sampling": spec["sampler"]["kind"]}
        if counts["n_fine"] == 0:  # one network under two names
            own = {k: x for k, x in state.items() if k.startswith("field.")}
            state |= {k.replace("field.", "sampler.coarse.", 1): x for k, x in own.items()}
    for now, then in OLD_NAMES.items():
        state = {name.replace(now, then): x for name, x in state.items()}
    for prefix in {name.split("style.")[0] for name in state if ".style." in name}:
        depends = renderer.field.style.decoder.view_dependent or prefix != "field."
        every = {"view_dependent": torch.tensor(float(depends))}
        every |= {"colour_matrix": torch.eye(3), "colour_offset": torch.zeros(3)}
        state = {f"{prefix}style.{name}": x for name, x in every.items()} | state
    scene = dict(checkpoint.scenes[field])
    space = scene.pop("space")["kind"]
    scene |= {"ndc": space == "ndc", "unbounded": space == "contracted"}
    other = {"": "no", "-coarse": "field.", "-fine": "sampler.coarse."}[part]
    content = {
        "version": 1,
        "kind": checkpoint.stage + part,
        "options": checkpoint.options,
        "scene": scene,
        "spec": old_spec,
        "state": {k: x for k, x in state.items() if not k.startswith(other)},
        "digest": geometry_digest(state),
        "versions": checkpoint.versions,
    }
    if progress := checkpoint.progress:
        content |= {"step": progress.step, "n_steps": progress.n_steps, **progress.task}
        content |= {"optimizer": progress.optimizers[0]}
    return content


@pytest.mark.parametrize("other_shape", [False, True])
@pytest.mark.parametrize(("kind", "n_fine"), [("nerf", 2), ("nerf", 0), ("voxels", 2)])
def test_version_1(kind, n_fine, other_shape, tmp_path):
    path = tmp_path / "x.ckpt"
    checkpoint = geometry_of(kind, n_fine=n_fine)
    save_checkpoint(path, first_version(checkpoint))
    assert same_content(Checkpoint.read(path), checkpoint)

    checkpoint = painted(checkpoint, "wave", other_shape=other_shape)
    save_checkpoint(path, first_version(checkpoint))
    read = Checkpoint.read(path)
    assert read.chosen() == (ONLY_FIELD, "wave")
    assert read.styles["wave"].spec == checkpoint.styles["wave"].spec
    assert torch.equal(picture(read.renderer()), picture(checkpoint.renderer()))
    assert read.fields[ONLY_FIELD].digest == checkpoint.fields[ONLY_FIELD].digest
    refused(lambda: read.renderer(style="photo"), "--style photo", "which has 'wave'")
    read.write(path)  # and as version 2
    again = Checkpoint.read(path)
    assert content_digest(again.content()) == content_digest(read.content())


def test_version_1_of_a_nerf_with_an_occupancy_grid(tmp_path):
    renderer = nerf_renderer(BOUNDS, torch.rand(6, 6, 5) < 0.5, 3, 2, sampling="occupancy")
    scenes = {ONLY_FIELD: scene_state(scene())}
    checkpoint = Checkpoint(
        "geometry", {ONLY_FIELD: FieldRecord.of(renderer)}, scenes, options=OPTIONS
    )
    content = first_version(checkpoint)
    content["spec"] |= {"n_coarse": 3, "n_fine": 2}
    save_checkpoint(tmp_path / "x.ckpt", content)
    assert same_content(Checkpoint.read(tmp_path / "x.ckpt"), checkpoint)


@pytest.mark.parametrize(
    "space", [WORLD, NDC((*NDC.of(scene().train[0]).scale[:2], 1.0)), Contracted(BOUNDS)]
)
def test_spaces_of_version_1(space, tmp_path):
    checkpoint = geometry_of("voxels")
    checkpoint = replace(checkpoint, scenes={ONLY_FIELD: scene_state(scene(space))})
    save_checkpoint(tmp_path / "x.ckpt", first_version(checkpoint))
    assert same_content(Checkpoint.read(tmp_path / "x.ckpt"), checkpoint)


def test_of_version_1_only_whole_finished_fields_are_read(tmp_path):
    paths = [tmp_path / "coarse.pt", tmp_path / "fine.pt"]
    words = "only complete, finished fields can be read from version 1; train it again"
    checkpoint = geometry_of("nerf")
    for part, path in zip(("-coarse", "-fine"), paths, strict=True):
        save_checkpoint(path, first_version(checkpoint, part=part))
        refused(lambda path=path: Checkpoint.read(path), f"{path}: {words}")
    refused(lambda: Checkpoint.read_networks(*paths), f"{paths[0]}: {words}")
    save_checkpoint(paths[0], first_version(unfinished(checkpoint)))
    refused(lambda: Checkpoint.read(paths[0]), f"{paths[0]}: {words}")


def test_another_version(tmp_path):
    save_checkpoint(tmp_path / "x.ckpt", {"version": 3})
    words = "checkpoint of version 3, this code reads versions 1 and 2"
    refused(lambda: Checkpoint.read(tmp_path / "x.ckpt"), words)


# -- optimisers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Adam", "RAdam", "SGD"])
def test_an_optimiser_goes_on_as_if_never_interrupted(name):
    def made():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        kind = getattr(torch.optim, name)
        return model, kind(model.parameters(), 0.1, **({"momentum": 0.9} if name == "SGD" else {}))

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(3)).square().sum().backward()
        optimizer.step()

    model, optimizer = made()
    step(model, optimizer)
    saved = copy.deepcopy(plain_state(optimizer.state_dict()))
    weights = copy.deepcopy(model.state_dict())
    step(model, optimizer)
    again, fresh = made()
    again.load_state_dict(weights)
    restore_optimizers([fresh], [saved])
    step(again, fresh)
    assert same(again.state_dict(), model.state_dict())


def test_another_optimisers_state_is_refused():
    renderer = renderer_of("voxels")
    good = plain_state(optimizer_of(renderer).state_dict())

    def changed(change):
        state = copy.deepcopy(good)
        change(state)
        refused(
            lambda: restore_optimizers([optimizer_of(renderer, 0)], [state]),
            "the optimiser's state does not fit this run",
        )

    changed(lambda s: s["state"][0].pop("exp_avg"))
    changed(lambda s: s["state"][0].update(exp_avg=torch.zeros(3)))
    changed(lambda s: s["state"].update({77: s["state"][0]}))
    changed(lambda s: s["param_groups"][0].pop("betas"))
    changed(lambda s: s["param_groups"][0].update(betas=[0.9]))
    changed(lambda s: s["param_groups"][0].update(lr="fast"))
    changed(lambda s: s["param_groups"][0]["params"].pop())
    changed(lambda s: s["param_groups"].append(s["param_groups"][0]))
    refused(lambda: restore_optimizers([], [good]), "1 optimisers, not 0")


# -- damage -------------------------------------------------------------------------------------


def written(content, path, refresh=True):
    """Writes changed content as if it had been written so; digests follow where they can."""
    if refresh:
        content = _refreshed(content)
    torch.save({"format": FORMAT, **content}, path)


def _refreshed(content):
    try:
        require_plain(content)
    except TypeError:
        return content  # is refused whatever the digests say
    try:
        if content.get("version") == 1:
            return {**content, "digest": geometry_digest(content["state"])}
        for record in content["fields"].values():
            record["digest"] = geometry_digest(record["state"])
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        pass
    return {**content, "digest": content_digest(content)}


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("fields", {}, "no fields"),
        ("fields.scene.spec.style.n_features", 10**12, "field 'scene', style, n_features"),
        ("fields.scene.spec.style.n_features", 60_000, "field 'scene': spec and tensors do not"),
        ("fields.scene.spec.style.depth", 2, "unexpected keyword argument 'depth'"),
        ("fields.scene.spec.field", "voxels", "field 'scene'"),
        ("fields.scene.spec.field.kind", "cube", "no field 'cube'; there are nerf, voxels"),
        ("fields.scene.spec.sampler.n_steps", 1.5, "field 'scene', sampler, n_steps: 1.5"),
        ("fields.scene.spec.sampler.n_steps", None, "field 'scene', sampler, n_steps: None"),
        ("fields.scene.state.bounds", torch.zeros(2, 3), "not a box"),
        ("fields.scene.state.bounds", BOUNDS.flip(0), "not a box"),
        ("fields.scene.state.background", torch.ones(4), "not a tensor of shape (3,)"),
        ("fields.scene.state.background", torch.full((3,), 2.0), "colour outside [0, 1]"),
        ("fields.scene.state.extra", torch.zeros(2), "scene"),
        (
            "fields.scene.state.sampler.grid.occupied",
            torch.ones(2, 2, 2),
            "not a boolean grid of cells",
        ),
        ("styles.wave.field", "b", "unknown field"),
        ("styles.wave.state.decoder.mlp.out.bias", torch.zeros(4), "style 'wave': decoder.mlp.out"),
        (
            "styles.wave.state.decoder.mlp.out.bias",
            torch.zeros(3).double(),
            "style 'wave': decoder.mlp.out",
        ),
        (
            "styles.wave.state.decoder.mlp.out.bias",
            torch.tensor([0.0, 0, float("nan")]),
            "not finite",
        ),
        ("styles.wave.spec", {"kind": "head"}, "style 'wave': its style is not for a field of"),
        ("styles.wave.spec", {}, "style 'wave': its style is not for a field of"),
        ("styles.wave.spec.kind", "nerf", "style 'wave': its style is not for a field of"),
        ("styles.wave.spec.depth", 2, "style 'wave': spec and tensors do not fit together"),
        ("styles.wave.spec.kind", ["nerf"], "style 'wave', kind: not a plain value"),
        ("styles.wave.spec.n_code", 2, "style 'wave': decoder.mlp.layers.0.weight"),
        ("styles.wave.spec.colour_map", True, "style 'wave': missing or unexpected tensors"),
        (
            "styles.wave.spec.view_dependent",
            {"a": 1},
            "style 'wave', view_dependent: {'a': 1}, nei",
        ),
        ("styles.wave.spec.view_dependent", 1, "style 'wave', view_dependent: 1, neither"),
        ("scenes", {}, "scenes: there must be one for each field"),
        ("scenes.scene.near", 5.0, "near 5, far 5"),
        ("scenes.scene.far", "far", "near, far"),
        ("scenes.scene.space", None, "scene 'scene', space: missing"),
        ("scenes.scene.space.kind", "hyperbolic", "no space: 'hyperbolic'"),
        ("scenes.scene.space", {"kind": "ndc", "scale": [0, 1, 1]}, "no space: scale 0.0 1.0 1.0"),
        ("scenes.scene.views.train.names", [], "views of train"),
        ("scenes.scene.views.train.sizes", torch.full((2, 2), 1 << 40), "image size out of range"),
        ("options", {}, "options, root_dir"),
        ("progress.step", 9, "progress, step: 9"),
        ("progress.optimizers", None, "optimisers are missing"),
        ("version", "2", "checkpoint of version '2'"),
        ("inputs", [], "inputs: missing"),
    ],
)
def test_each_damage_has_its_line(place, value, words, tmp_path):
    content = unfinished(painted(geometry_of("voxels"), "wave")).content()
    way, state, name = place.partition(".state.")  # names of tensors have points in them
    *way, key = [*way.split("."), "state", name] if state else way.split(".")
    at = content
    for step in way:
        at = at[step]
    at[key] = value
    written(content, tmp_path / "x.ckpt")
    refused(lambda: Checkpoint.read(tmp_path / "x.ckpt"), "x.ckpt", words)


def test_a_style_of_a_field_of_another_kind(tmp_path):
    fields = {"a": FieldRecord.of(renderer_of("voxels")), "b": FieldRecord.of(renderer_of("nerf"))}
    both = Checkpoint("joint", fields, dict.fromkeys(fields, scene_state(scene())), options=OPTIONS)
    both = both.with_style("wave", both.renderer("b"), OPTIONS, "b")
    content = both.content()
    content["styles"]["wave"]["field"] = "a"
    written(content, tmp_path / "x.ckpt")
    refused(lambda: Checkpoint.read(tmp_path / "x.ckpt"), "'wave': its style is not for a field")


def test_even_steps_of_no_length(tmp_path):
    renderer = nerf_renderer(BOUNDS, torch.rand(6, 6, 5) < 0.5, sampling="occupancy")
    fields = {ONLY_FIELD: FieldRecord.of(renderer)}
    content = Checkpoint("geometry", fields, {ONLY_FIELD: scene_state(scene())}, options=OPTIONS)
    content = content.content()
    content["fields"][ONLY_FIELD]["spec"]["sampler"]["n_steps"] = 0
    written(content, tmp_path / "x.ckpt")
    refused(lambda: Checkpoint.read(tmp_path / "x.ckpt"), "field 'scene', sampler: n_steps is 0")


def test_a_changed_value_is_seen_by_the_digest(tmp_path):
    content = geometry_of("voxels").content()
    content["digest"] = content_digest(content)
    content["options"] = {**content["options"], "seed": 1}
    save_checkpoint(tmp_path / "x.ckpt", content)
    refused(lambda: Checkpoint.read(tmp_path / "x.ckpt"), "checksum mismatch")


def test_geometry_that_is_not_its_digests(tmp_path):
    content = first_version(geometry_of("voxels"))
    content["state"]["field.geometry.raw"][0] += 1
    save_checkpoint(tmp_path / "x.ckpt", content)
    refused(lambda: Checkpoint.read(tmp_path / "x.ckpt"), "its geometry does not match its digest")


def test_a_painting_on_more_vertices_than_any_module_is_wide(tmp_path):
    """Their number is part of its specification, whose other numbers are bounded more closely."""
    cells = torch.ones(41, 41, 41, dtype=torch.bool)
    renderer = voxel_renderer(BOUNDS, torch.ones(6, 6, 5, dtype=torch.bool), cells, n_features=1)
    field = FieldRecord.of(renderer)
    checkpoint = replace(geometry_of("voxels"), fields={ONLY_FIELD: field})
    style = LatentVoxelStyle(renderer.field.geometry, 2)
    seen = torch.rand(len(style.head.table)) < 0.95
    style.head.keep(seen, rows_of(seen))
    options = {**OPTIONS, "stage": "mutual", "suffix": "mutual"}
    named = {"wave": (style, options)}
    painted = checkpoint.with_styles(named, renderer, options, scene_state(scene()))
    painted.write(tmp_path / "painted.ckpt")
    found = Checkpoint.read(tmp_path / "painted.ckpt").renderer(style="wave").field.style
    assert seen.sum() > 1 << 16
    assert same(found.state_dict(), style.state_dict())
    painted.styles["wave"].state["head.seen"][:] = True
    painted.write(tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="vertices are seen"):
        Checkpoint.read(tmp_path / "other.ckpt")
