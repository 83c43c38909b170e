"""Checkpoints: fields, scenes and styles by name, with all that it takes to render them or to train
on.  The only file that knows the format; what is read is checked before anything is made of it."""

from __future__ import annotations

import math
import platform
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.cameras.space import space_from
from models.checkpoint_v1 import converted
from models.renderer import Renderer
from models.style import build_style
from utils.checkpoint import content_digest, digest, load_checkpoint, save_checkpoint
from utils.errors import NumericalError, UserError, ran_out_of_memory

VERSION = 2
FIELD = "scene"  # the name of the field, and of its scene, where there is but one
PHOTO = "photo"  # the name of the colours that stage geometry learned
STYLE = "field.style."
COARSE = "sampler.coarse."
# what the names of a hierarchical NeRF's tensors start with, by the file that they are in
NETWORKS = {"coarse": COARSE, "fine": "field."}
PARTS = {
    "whole": "a whole field (--ckpt_path)",
    "coarse": "a coarse network (--coarse_path)",
    "fine": "a fine network (--fine_path)",
}
LARGEST = 1 << 16  # whole number in a spec, side of an image
FARTHEST = 1e9  # scene units
SHORTEST = 1e-9
SWITCHES = ("view_dependent", "colour_map")  # in the spec of a style
SPLITS = ("train", "val", "test")


def geometry_digest(state: Mapping[str, Tensor]) -> str:
    """Digest of everything but the style modules: proof that the geometry has not moved."""
    return digest({name: t for name, t in state.items() if ".style." not in name})


def style_name(painting: Path) -> str:
    """The name of the style that is trained on a painting.

    Raises:
        UserError: it is the name of the photographic colours.
    """
    if painting.stem == PHOTO:
        raise UserError(
            f"--style_dir {painting}: '{PHOTO}' is what the photographic colours are called; "
            "rename the file"
        )
    return painting.stem


def versions() -> dict[str, str]:
    """Versions of what a field was trained with."""
    return {"torch": str(torch.__version__), "python": platform.python_version()}


@dataclass(frozen=True)
class FieldRecord:
    """A field with its sampler and background.

    Attributes:
        spec: plain values from which the modules are built.
        state: their tensors; those of `STYLE` are the photographic colours, and may be missing.
        digest: `geometry_digest` of ``state``.
    """

    spec: dict[str, Any]
    state: dict[str, Tensor]
    digest: str

    @classmethod
    def of(cls, renderer: Renderer) -> FieldRecord:
        """A renderer as it is now."""
        state = _on_cpu(renderer.state_dict())
        return cls(renderer.spec, state, geometry_digest(state))

    @property
    def photographic(self) -> bool:
        """Whether the photographic colours are there."""
        return any(name.startswith(STYLE) for name in self.state)


@dataclass(frozen=True)
class StyleRecord:
    """A style module that was trained on a field.

    Attributes:
        field: name of the field.
        spec: plain values from which the module is built, see `Style.spec`.
        state: the module's tensors.
        options: of the run that trained it.
    """

    field: str
    spec: dict[str, Any]
    state: dict[str, Tensor]
    options: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """How far an unfinished run has come.

    Attributes:
        step: steps done, of ``n_steps``.
        optimizers: the state dict of each optimiser.
        task: what else the tasks need, in plain containers.
    """

    step: int
    n_steps: int
    optimizers: list[dict[str, Any]]
    task: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """Several fields, scenes and styles.

    Attributes:
        stage: that wrote it.
        fields: by name, at least one.
        scenes: `datasets.portable.scene_state` of each field, by the field's name.
        styles: by name, in the order of their training.
        options: of the run that wrote it.
        inputs: digests of what the run was given, by name.
        progress: of an unfinished run; None for a finished one.
        versions: of what it was trained with.
    """

    stage: str
    fields: dict[str, FieldRecord]
    scenes: dict[str, dict[str, Any]]
    styles: dict[str, StyleRecord] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    progress: Progress | None = None
    versions: dict[str, str] = field(default_factory=versions)

    # -- what is in it --------------------------------------------------------------------------

    def chosen(self, field: str | None = None, style: str | None = None) -> tuple[str, str]:
        """Names of the field and of the colours that are meant.

        Args:
            field: None for that of the style, or the only one.
            style: `PHOTO` for the photographic colours; None for the style that was trained last,
                and where there is none for the photographic colours.

        Raises:
            UserError: there is no such field or style.
        """
        if field is not None and field not in self.fields:
            raise UserError(f"no field '{field}' in the checkpoint; it has {_listed(self.fields)}")
        own = [n for n, s in self.styles.items() if field is None or s.field == field]
        style = style or (own[-1] if own else PHOTO)
        if style in own:
            return self.styles[style].field, style
        name = field or next(iter(self.fields))
        photographic = self.fields[name].photographic
        if style == PHOTO and photographic:
            return name, PHOTO
        names = [PHOTO, *own] if photographic else own
        raise UserError(f"--style {style}: not in the checkpoint, which has {_listed(names)}")

    def renderer(self, field: str | None = None, style: str | None = None) -> Renderer:
        """A field in the colours of a style, see `chosen`, on the CPU."""
        field, style = self.chosen(field, style)
        renderer = Renderer.from_state(self._spec(field, style), self._state(field, style))
        if style != PHOTO:
            _dress(renderer, self.styles[style].spec, self.styles[style].state)
        return renderer

    def with_style(
        self,
        name: str,
        renderer: Renderer,
        options: dict[str, Any],
        field: str | None = None,
        scene: dict[str, Any] | None = None,
    ) -> Checkpoint:
        """This checkpoint and one more style, that of ``renderer``.

        Args:
            name: of the style; one of the same name is replaced.
            renderer: the field, on which a style was trained.
            options: of the run.
            field: name of the field; None where there is but one.
            scene: what it was trained on, in place of the field's.

        Raises:
            RuntimeError: training has moved the geometry.
        """
        field, state = field or self.chosen()[0], renderer.state_dict()
        if geometry_digest(state) != self.fields[field].digest:
            raise RuntimeError(f"the geometry of '{field}' has moved while '{name}' was trained")
        style = StyleRecord(
            field, renderer.field.style.spec(), _on_cpu(_without_prefix(state, STYLE)), options
        )
        others = {n: s for n, s in self.styles.items() if n != name}
        return replace(
            self,
            stage=options["stage"],
            scenes={**self.scenes, field: scene or self.scenes[field]},
            styles={**others, name: style},
            options=options,
            progress=None,
            versions=versions(),
        )

    def _spec(self, field: str, style: str) -> dict[str, Any]:
        """Of what `_state` is the state."""
        spec = self.fields[field].spec
        if self.fields[field].photographic:
            return spec
        return spec | {"style": self.styles[style].spec}

    def _state(self, field: str, style: str) -> dict[str, Tensor]:
        """The field's tensors, complete: without photographic colours in those of ``style``."""
        state = self.fields[field].state
        if self.fields[field].photographic:
            return state
        return {**state, **{STYLE + k: x for k, x in self.styles[style].state.items()}}

    # -- files ----------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Raises a `UserError` where a file is missing, damaged, or not as `write` writes it."""
        return cls.checked(_read(path, "whole"), path)

    @classmethod
    def read_networks(cls, coarse_path: Path, fine_path: Path) -> Checkpoint:
        """As `read`, from a file for each network.

        Raises:
            UserError: a file is missing or damaged, or the two are not of one field.
        """
        coarse, fine = _read(coarse_path, "coarse"), _read(fine_path, "fine")

        def merged() -> dict[str, Any]:
            for name, record in _mapping(fine.get("fields"), "fields").items():
                other = _mapping(_mapping(coarse.get("fields"), "fields").get(name), "fields")
                _need(other.get("digest") == record["digest"], "of another field")
                record["state"] = {**other["state"], **record["state"]}
            return fine

        words = (
            f"--coarse_path {coarse_path}: does not belong to --fine_path {fine_path}; "
            "give the two files of one run"
        )
        return cls.checked(_guarded(merged, lambda _: words), fine_path)

    @classmethod
    def checked(cls, content: dict[str, Any], path: Path) -> Checkpoint:
        """The checkpoint that plain ``content``, read from ``path``, describes.

        Raises:
            UserError: a part is missing, of a wrong type or shape or not finite, or parts do not
                fit together.
        """
        return _guarded(
            lambda: _parsed(content),
            lambda words: f"{path}: damaged checkpoint: {words}; copy or train it again",
        )

    def write(self, path: Path) -> None:
        """Writes everything to one file, whole or not at all.

        Raises:
            UserError: the place cannot be written.
            NumericalError: a number is not finite.
        """
        _write(path, self.content())

    def write_networks(self, coarse_path: Path, fine_path: Path) -> None:
        """Writes the networks of hierarchical NeRFs to a file each, as styleNeRF does; the rest
        is in both."""
        for network, path in (("coarse", coarse_path), ("fine", fine_path)):
            other = NETWORKS["fine" if network == "coarse" else "coarse"]
            content = self.content() | {"part": network}
            for record in content["fields"].values():
                kept = {k: x for k, x in record["state"].items() if not k.startswith(other)}
                record["state"] = kept
            _write(path, content)

    @property
    def has_networks(self) -> bool:
        """Whether `write_networks` has anything to part."""
        return any(name.startswith(COARSE) for f in self.fields.values() for name in f.state)

    def content(self) -> dict[str, Any]:
        """Everything in plain containers, from which `checked` makes it again."""
        return {
            "version": VERSION,
            "part": "whole",
            "stage": self.stage,
            "fields": {name: dict(vars(record)) for name, record in self.fields.items()},
            "scenes": self.scenes,
            "styles": {name: dict(vars(record)) for name, record in self.styles.items()},
            "options": self.options,
            "inputs": self.inputs,
            "progress": None if self.progress is None else dict(vars(self.progress)),
            "versions": self.versions,
        }


def plain_state(value: object) -> Any:
    """A state dict, an optimiser's for example, in plain containers and on the CPU; tensors that
    are there already are shared, not copied."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: plain_state(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_state(item) for item in value]
    return value


def restore_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], saved: Sequence[dict[str, Any]]
) -> None:
    """Loads the optimisers' states from a checkpoint's `Progress`.

    Raises:
        UserError: they are of optimisers of another kind, or for other parameters.
    """

    def restored() -> None:
        _need(len(optimizers) == len(saved), f"{len(saved)} optimisers, not {len(optimizers)}")
        for optimizer, state in zip(optimizers, saved, strict=True):
            _restore(optimizer, state)

    _guarded(
        restored,
        lambda words: (
            f"the optimiser's state does not fit this run ({words}); "
            "give the same options, or start again without --resume"
        ),
    )


def _restore(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Loads a state that is the optimiser's; a ValueError says why it is not."""
    groups = [set(group) for group in optimizer.param_groups]
    found = [set(group) for group in saved["param_groups"]]
    _need(found == groups, "settings are missing, or new")
    numbers = [n for group in saved["param_groups"] for n in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    _need(numbers == list(range(len(parameters))), "it is for other parameters")
    _need(set(saved["state"]) <= set(numbers), "it is for other parameters")
    for number, moments in saved["state"].items():
        _need(set(moments) == _moments_of(optimizer), "its moments are of another kind")
        shape = parameters[number].shape
        for name, x in moments.items():
            scalar = name == "step"
            fits = isinstance(x, Tensor) and x.shape == (() if scalar else shape)
            _need(fits and x.is_floating_point(), f"'{name}' of {number} is of another shape")
    for ours, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for name, value in ours.items():
            _need(name == "params" or _alike(value, theirs[name]), f"'{name}' is no such value")
    optimizer.load_state_dict(saved)


def _moments_of(optimizer: torch.optim.Optimizer) -> set[str]:
    """Names of what the optimiser remembers of each parameter."""
    if isinstance(optimizer, torch.optim.SGD):
        return {"momentum_buffer"}
    return {"step", "exp_avg", "exp_avg_sq"}


def _alike(a: object, b: object) -> bool:
    """Whether two settings of an optimiser are of the same type."""
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_alike, a, b))
    numbers = type(a) in (int, float) and type(b) in (int, float)
    return numbers or type(a) is type(b)


# -- the modules of a record --------------------------------------------------------------------


def _dress(renderer: Renderer, spec: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Gives the field of a renderer the style that was saved as (spec, state)."""
    style = build_style(spec, renderer.field.geometry)
    style.load_state_dict(state)
    renderer.field.style = style


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of tensors, which goes on being what it is while they are trained."""
    return {name: x.detach().to("cpu", copy=True) for name, x in state.items()}


def _without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {k.removeprefix(prefix): x for k, x in state.items() if k.startswith(prefix)}


def _listed(names: Mapping[str, object] | list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


# -- files --------------------------------------------------------------------------------------


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        _require_finite(content, "")
    except ValueError as error:
        raise NumericalError(
            f"{path}: not written: {error}; lower --lr, or resume from the last checkpoint"
        ) from None
    save_checkpoint(path, content | {"digest": content_digest(content)})


def _read(path: Path, part: str) -> dict[str, Any]:
    """The content of a file, of any version, as this version would have written it."""
    content = load_checkpoint(path)
    version = content.get("version")
    if type(version) is not int or version not in (1, VERSION):
        version = version if type(version) in (int, str) else "unknown"
        raise UserError(
            f"{path}: checkpoint of version {version!r:.40}, this code reads versions 1 and "
            f"{VERSION}; use the code that wrote it"
        )

    def current() -> dict[str, Any]:
        if version == 1:
            return converted(content, path)
        _text(content.get("part"), "part")
        claimed = content.pop("digest", None)
        content.pop("format")
        _need(claimed == content_digest(content), "its content is not what was written")
        return content

    content = _guarded(
        current, lambda words: f"{path}: damaged checkpoint: {words}; copy or train it again"
    )
    if content["part"] != part:
        found = PARTS.get(content["part"], "an unknown part of a field")
        raise UserError(f"{path}: holds {found}, not {PARTS[part]}")
    return content


# -- checks: a ValueError says in a few words what is wrong ----------------------------------------


def _guarded(make: Callable[[], Any], line: Callable[[str], str]) -> Any:
    """What ``make`` returns; if it fails a `UserError`, with the ``line`` made of the reason."""
    try:
        return make()
    except (UserError, MemoryError):
        raise
    # what others wrote can make the building of modules fail in any way whatever
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        words = f"{error}" if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise UserError(line(" ".join(words.split())[:200])) from None


def _need(holds: bool, words: str) -> None:
    if not holds:
        raise ValueError(words)


def _mapping(value: object, place: str) -> dict[str, Any]:
    _need(type(value) in (dict, OrderedDict), f"{place}: missing, or no mapping")
    fits = all(type(k) is str and 0 < len(k) <= 255 and min(k) >= " " for k in value)
    _need(fits, f"{place}: a name that is none")
    return value


def _text(value: object, place: str) -> str:
    _need(type(value) is str, f"{place}: missing, or no text")
    return value


def _whole(value: object, least: int, most: int, place: str) -> int:
    _need(type(value) is int and least <= value <= most, f"{place}: {value!r:.40}")
    return value


def _tensors(value: object, place: str) -> dict[str, Tensor]:
    state = _mapping(value, place)
    for name, x in state.items():
        _need(isinstance(x, Tensor), f"{place}: {name} is no tensor")
    return state


def _array(value: object, shape: tuple[int, ...], dtype: torch.dtype, place: str) -> Tensor:
    fits = isinstance(value, Tensor) and value.shape == shape and value.dtype == dtype
    _need(fits, f"{place}: no tensor of shape {shape} and type {dtype}")
    return value


def _require_finite(value: object, place: str) -> None:
    if isinstance(value, Tensor):
        finite = not value.is_floating_point() or bool(value.isfinite().all())
        _need(finite, f"{place}: a number that is not finite")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _require_finite(item, f"{place}.{name}" if place else f"{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _require_finite(item, f"{place}[{index}]")


def _require_bounds(x: Tensor, place: str) -> None:
    _array(x, (2, 3), torch.float32, place)
    sides = x[1] - x[0]
    fits = bool((sides >= SHORTEST).all()) and bool((x.abs() <= FARTHEST).all())
    _need(fits, f"{place}: no box, from its lower corner to its upper")


def _require_background(x: object, place: str) -> None:
    _array(x, (3,), torch.float32, place)
    _need(bool(((x >= 0) & (x <= 1)).all()), f"{place}: no colour from 0 to 1")


def _parsed(content: dict[str, Any]) -> Checkpoint:
    _require_finite(content, "")
    fields = {
        name: _parsed_field(record, f"field '{name}'")
        for name, record in _mapping(content.get("fields"), "fields").items()
    }
    _need(len(fields) > 0, "fields: none")
    styles = {
        name: _parsed_style(record, f"style '{name}'", fields)
        for name, record in _mapping(content.get("styles"), "styles").items()
    }
    _need(PHOTO not in styles, f"styles: one is called '{PHOTO}'")
    scenes = _mapping(content.get("scenes"), "scenes")
    _need(scenes.keys() == fields.keys(), "scenes: not one for each field")
    for name, scene in scenes.items():
        _check_scene(scene, f"scene '{name}'")
    inputs = _mapping(content.get("inputs"), "inputs")
    known = _mapping(content.get("versions"), "versions")
    for name, value in {**inputs, **known}.items():
        _text(value, name)
    checkpoint = Checkpoint(
        _text(content.get("stage"), "stage"),
        fields,
        scenes,
        styles,
        _parsed_options(content.get("options"), "options"),
        inputs,
        _parsed_progress(content.get("progress")),
        known,
    )
    for name in fields:
        _check_modules(checkpoint, name)
    return checkpoint


def _parsed_field(record: object, place: str) -> FieldRecord:
    record = _mapping(record, place)
    spec, state = _mapping(record.get("spec"), place), _tensors(record.get("state"), place)
    _check_spec(spec, place)
    for name, x in state.items():
        if name.split(".")[-1] == "bounds":
            _require_bounds(x, f"{place}, {name}")
        if name.split(".")[-1] in ("occupied", "lit", "active"):
            grid = x.dtype == torch.bool and x.ndim == 3 and x.numel() > 0
            _need(grid, f"{place}, {name}: no grid of cells")
    _require_bounds(state.get("bounds"), f"{place}, bounds")
    _require_background(state.get("background"), f"{place}, background")
    claimed = _text(record.get("digest"), f"{place}, digest")
    _need(claimed == geometry_digest(state), f"{place}: its geometry is not that of its digest")
    return FieldRecord(spec, state, claimed)


def _check_spec(spec: object, place: str) -> None:
    """Plain values; counts that modules are built from must not be so large that building them
    never ends."""
    for name, value in _mapping(spec, place).items():
        where = f"{place}, {name}"
        if name in SWITCHES:
            _need(type(value) is bool, f"{where}: {value!r:.40}, neither True nor False")
        elif type(value) is int or name.startswith("n_"):
            _whole(value, 1 if name == "n_coarse" else 0, LARGEST, where)
        elif isinstance(value, Mapping):
            _check_spec(value, where)
        else:
            _need(type(value) in (str, bool, float, type(None)), f"{where}: no plain value")


def _parsed_style(record: object, place: str, fields: Mapping[str, FieldRecord]) -> StyleRecord:
    record = _mapping(record, place)
    field = _text(record.get("field"), place)
    _need(field in fields, f"{place}: of a field that is not there")
    spec = _mapping(record.get("spec"), place)
    _check_spec(spec, place)
    state = _tensors(record.get("state"), place)
    return StyleRecord(field, spec, state, _parsed_options(record.get("options"), place))


def _parsed_options(value: object, place: str) -> dict[str, Any]:
    """Options as JSON; those that name the scene's files have to be there."""
    options = _mapping(value, place)
    for name, option in options.items():
        for single in option if type(option) is list else [option]:
            plain = type(single) in (str, int, float, bool, type(None))
            _need(plain, f"{place}: {name} is no option's value")
    for name in ("root_dir", "dataset_name", "scene_name"):
        _text(options.get(name), f"{place}, {name}")
    return options


def _check_scene(value: object, place: str) -> None:
    """As `datasets.portable.scene_state` makes it; files without cameras may lack what only views
    need."""
    scene = _mapping(value, place)
    whole = "views" in scene
    _text(scene.get("name"), f"{place}, name")
    near, far = scene.get("near"), scene.get("far")
    for distance in (near, far):
        _need(type(distance) in (int, float) and math.isfinite(distance), f"{place}: near, far")
    _need(0 <= near < far <= FARTHEST, f"{place}: near {near:g}, far {far:g}")
    space_from(_mapping(scene.get("space"), f"{place}, space"))
    if whole or "bounds" in scene:
        _require_bounds(scene.get("bounds"), f"{place}, bounds")
    if whole or "background" in scene:
        _require_background(scene.get("background"), f"{place}, background")
    if whole:
        views = _mapping(scene["views"], f"{place}, views")
        for split in SPLITS:
            _check_views(views.get(split), f"{place}, views of {split}", split == "train")


def _check_views(value: object, place: str, needed: bool) -> None:
    views = _mapping(value, place)
    names = views.get("names")
    _need(type(names) is list, f"{place}: no names")
    for name in names:
        _text(name, place)
    n = len(names)
    _need(n > 0 or not needed, f"{place}: none")
    if n == 0:
        _need(len(views) == 1, f"{place}: cameras without names")
        return
    _array(views.get("c2w"), (n, 3, 4), torch.float32, f"{place}, c2w")
    lenses = _array(views.get("intrinsics"), (n, 4), torch.float32, f"{place}, intrinsics")
    _need(bool((lenses[:, :2] > 0).all()), f"{place}: a focal length of 0 or less")
    sizes = _array(views.get("sizes"), (n, 2), torch.int64, f"{place}, sizes")
    _need(bool(((sizes >= 1) & (sizes <= LARGEST)).all()), f"{place}: impossible sizes")


def _parsed_progress(value: object) -> Progress | None:
    if value is None:
        return None
    progress = _mapping(value, "progress")
    n_steps = _whole(progress.get("n_steps"), 1, 1 << 62, "progress, n_steps")
    step = _whole(progress.get("step"), 1, n_steps - 1, "progress, step")
    optimizers = progress.get("optimizers")
    _need(type(optimizers) is list, "progress: no optimisers")
    for state in optimizers:
        _need(_mapping(state, "optimiser").keys() == {"state", "param_groups"}, "optimiser")
    return Progress(step, n_steps, optimizers, _mapping(progress.get("task"), "progress, task"))


def _check_modules(checkpoint: Checkpoint, name: str) -> None:
    """Builds a field's modules without memory for their weights, and compares names, shapes and
    types with what is there."""
    own = [style for style, record in checkpoint.styles.items() if record.field == name]
    record = checkpoint.fields[name]
    place = f"field '{name}'"
    _need(record.photographic or bool(own), f"{place}: no colours")
    first = own[-1] if own else PHOTO
    spec, state = checkpoint._spec(name, first), checkpoint._state(name, first)
    renderer = _built(lambda: Renderer.from_state(spec, state), place)
    _require_same(renderer.state_dict(), state, place)
    step = getattr(renderer.sampler, "step", 1.0)
    _need(step is not None, f"{place}, sampler, n_steps: 0, and the field has no step of its own")
    kind = spec["field"]["kind"]
    _require_kind(spec["style"], kind, place)
    _require_kind(spec["sampler"].get("style", spec["style"]), kind, f"{place}, sampler")
    for style in own:
        place, style = f"style '{style}'", checkpoint.styles[style]
        _require_kind(style.spec, kind, place)
        built = _built(lambda own=style.spec: build_style(own, renderer.field.geometry), place)
        _require_same(built.state_dict(), style.state, place)


def _built(make: Callable[[], Any], place: str) -> Any:
    """The module that ``make`` makes, on a device where it takes no memory, whatever numbers its
    spec may have."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that loading into it does nothing
            return make()
    except Exception as error:  # as in `_guarded`
        if ran_out_of_memory(error):
            raise
        raise ValueError(f"{place}: spec and tensors do not fit together ({error})") from None


def _require_kind(style: Mapping[str, Any], kind: str, place: str) -> None:
    """A style reads the features of fields of its own kind alone."""
    _need(style.get("kind") == kind, f"{place}: a style that is not for a field of kind '{kind}'")


def _require_same(built: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str) -> None:
    """The same names, shapes and types."""
    _need(built.keys() == state.keys(), f"{place}: tensors are missing, or too many")
    for name, x in built.items():
        same = x.shape == state[name].shape and x.dtype == state[name].dtype
        _need(same, f"{place}: {name} is of another shape or type")
