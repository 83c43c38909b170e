"""Checkpoints: fields, scenes and styles by name, with everything needed to render them or to
resume training.  The only file that knows the format.  Files are untrusted: their content is
checked before any module is built from it."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datasets.cameras.space import space_from
from models import STYLES
from models.checkpoint_v1 import convert
from models.encoded import EncodedStyle, FeatureDecoder, wear
from models.renderer import Renderer
from models.style import Style, build_style
from utils.checkpoint import (
    content_digest,
    digest,
    load_checkpoint,
    save_checkpoint,
    without_prefix,
)
from utils.errors import NumericalError, UserError, ran_out_of_memory
from utils.machine import versions

VERSION = 2
ONLY_FIELD = "scene"  # name of the field, and of its scene, in a checkpoint of a single field
PHOTO = "photo"  # name of the photographic colours, which stage geometry learned
STYLE_PREFIX = "field.style."
COARSE_PREFIX = "sampler.coarse."
# prefix of the names of a hierarchical NeRF's tensors, by the file that holds them
NETWORKS = {"coarse": COARSE_PREFIX, "fine": "field."}
PARTS = {
    "whole": "a whole field (--ckpt_path)",
    "coarse": "a coarse network (--coarse_path)",
    "fine": "a fine network (--fine_path)",
}
LARGEST = 1 << 16  # of the integers in a spec, and of the sides of an image
MOST_VERTICES = (1 << 31) - 1
FARTHEST = 1e9  # scene units
SHORTEST = 1e-9  # scene units
SWITCHES = ("view_dependent", "colour_map")  # booleans in the spec of a style
SPLITS = ("train", "val", "test")


def geometry_digest(state: Mapping[str, Tensor]) -> str:
    """Digest of all tensors outside the style modules: proves that the geometry has not changed."""
    return digest({name: t for name, t in state.items() if ".style." not in name})


def style_name(painting: Path) -> str:
    """The name of the style that is trained on the image file ``painting``.

    Raises:
        UserError: it is the name of the photographic colours.
    """
    if painting.stem == PHOTO:
        raise UserError(
            f"--style_dir {painting}: '{PHOTO}' is the name of the photographic colours; "
            "rename the file"
        )
    return painting.stem


@dataclass(frozen=True)
class FieldRecord:
    """A field with its sampler and background.

    Attributes:
        spec: plain values from which the modules are built.
        state: their tensors; those that start with `STYLE_PREFIX` are the photographic colours, and
            may be missing.
        digest: `geometry_digest` of ``state``.
    """

    spec: dict[str, Any]
    state: dict[str, Tensor]
    digest: str

    @classmethod
    def of(cls, renderer: Renderer) -> FieldRecord:
        """A copy of a renderer's current state."""
        state = _on_cpu(renderer.state_dict())
        return cls(renderer.spec, state, geometry_digest(state))

    @property
    def has_photo_colours(self) -> bool:
        """Whether the state includes the photographic colours."""
        return any(name.startswith(STYLE_PREFIX) for name in self.state)


@dataclass(frozen=True)
class StyleRecord:
    """A style module that was trained on a field.

    Attributes:
        field: name of the field.
        spec: plain values from which the module is built, see `Style.spec`.
        state: the module's tensors.
        options: options of the run that trained it.
    """

    field: str
    spec: dict[str, Any]
    state: dict[str, Tensor]
    options: dict[str, Any]


@dataclass(frozen=True)
class DecoderRecord:
    """A decoder that every field of the checkpoint can wear.

    Attributes:
        spec: plain values from which the module is built, see `FeatureDecoder.spec`.
        state: the module's tensors.
        encoders: names of the fields with which it was trained.
    """

    spec: dict[str, Any]
    state: dict[str, Tensor]
    encoders: list[str]

    @classmethod
    def of(cls, decoder: FeatureDecoder, encoders: list[str]) -> DecoderRecord:
        """A copy of a decoder's current state."""
        return cls(decoder.spec(), _on_cpu(decoder.state_dict()), encoders)

    def build(self) -> FeatureDecoder:
        """The decoder."""
        decoder = FeatureDecoder(**self.spec)
        decoder.load_state_dict(self.state)
        return decoder


@dataclass(frozen=True)
class Progress:
    """How far an unfinished run has come.

    Attributes:
        step: steps done, of ``n_steps``.
        optimizers: state dict of each optimiser.
        task: further state of the tasks, in plain containers.
    """

    step: int
    n_steps: int
    optimizers: list[dict[str, Any]]
    task: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """One or more fields with their scenes and styles.

    Attributes:
        stage: the training stage that wrote it.
        fields: by name, at least one.
        scenes: `datasets.portable.scene_state` of each field, by the field's name.
        styles: by name, in the order of their training.
        decoders: by name; of fields that were trained jointly.
        networks: further networks by name, their tensors: "decoder" of a 2D stylisation network.
        options: options of the run that wrote it.
        inputs: digests of the run's inputs, by name.
        progress: progress of an unfinished run; None: the run is finished.
        versions: versions of Python and the packages used.

    >>> from tempfile import TemporaryDirectory
    >>> spec = {"field": {"kind": "voxels"}, "style": {"kind": "voxels"}}
    >>> spec["sampler"] = {"kind": "occupancy", "n_steps": 0}
    >>> bounds, cells = torch.tensor([[-1.0] * 3, [1.0] * 3]), torch.ones(4, 4, 4, dtype=torch.bool)
    >>> field = FieldRecord.of(Renderer.build(spec, bounds, torch.ones(3), cells))
    >>> scene = {"name": "toy", "near": 2.0, "far": 6.0, "space": {"kind": "world"}}
    >>> options = {"root_dir": "data/toy", "dataset_name": "blender", "scene_name": "toy"}
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "toy.ckpt"
    ...     Checkpoint("geometry", {"toy": field}, {"toy": scene}, options=options).write(path)
    ...     Checkpoint.read(path).chosen()
    ('toy', 'photo')
    """

    stage: str
    fields: dict[str, FieldRecord]
    scenes: dict[str, dict[str, Any]]
    styles: dict[str, StyleRecord] = field(default_factory=dict)
    decoders: dict[str, DecoderRecord] = field(default_factory=dict)
    networks: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    progress: Progress | None = None
    versions: dict[str, str] = field(default_factory=versions)

    # -- contents -------------------------------------------------------------------------------

    def chosen(self, field: str | None = None, style: str | None = None) -> tuple[str, str]:
        """Resolves defaults to the names of a field and a style.

        Args:
            field: name of a field; None: the style's field, or the first one.
            style: name of a style, or `PHOTO` for the photographic colours; None: the style that
                was trained last, or the photographic colours if there is no style.  Of fields that
                were trained jointly: name of a decoder; None: the first that the field was trained
                with.

        Returns:
            Name of the field, name of the style or `PHOTO`.

        Raises:
            UserError: there is no such field or style.
        """
        if field is not None and field not in self.fields:
            raise UserError(f"no field '{field}' in the checkpoint; it has {_listed(self.fields)}")
        if self.decoders:
            field = field or next(iter(self.fields))
            own = [name for name, d in self.decoders.items() if field in d.encoders]
            style = own[0] if style in (None, PHOTO) else style
            if style not in self.decoders:
                words = f"has {_listed(self.decoders)}"
                raise UserError(f"no decoder '{style}' in the checkpoint; it {words}")
            return field, style
        styles = [n for n, s in self.styles.items() if field is None or s.field == field]
        style = style or (styles[-1] if styles else PHOTO)
        if style in styles:
            return self.styles[style].field, style
        name = field or next(iter(self.fields))
        has_photo = self.fields[name].has_photo_colours
        if style == PHOTO and has_photo:
            return name, PHOTO
        names = [PHOTO, *styles] if has_photo else styles
        raise UserError(f"--style {style}: not in the checkpoint, which has {_listed(names)}")

    def renderer(self, field: str | None = None, style: str | None = None) -> Renderer:
        """Builds the renderer of a field in the colours of a style, on the CPU; for the arguments
        see `chosen`."""
        field, style = self.chosen(field, style)
        renderer = Renderer.from_state(self._spec(field, style), self._state(field, style))
        if style in self.decoders:
            wear(renderer, self.decoders[style].build())
        elif style != PHOTO:
            _set_style(renderer, self.styles[style].spec, self.styles[style].state)
        return renderer

    def style(self, field: str, name: str, geometry: nn.Module) -> Style:
        """Builds a style, or the photographic colours, for the ``geometry`` of its field."""
        if name == PHOTO:
            record = self.fields[field]
            spec, state = record.spec["style"], without_prefix(record.state, STYLE_PREFIX)
        else:
            spec, state = self.styles[name].spec, self.styles[name].state
        style = build_style(spec, geometry)
        style.load_state_dict(state)
        return style.requires_grad_(False)

    def with_style(
        self,
        name: str,
        renderer: Renderer,
        options: dict[str, Any],
        field: str | None = None,
        scene: dict[str, Any] | None = None,
    ) -> Checkpoint:
        """A copy of this checkpoint with one more style, the current one of ``renderer``.

        Args:
            name: name of the style; a style of the same name is replaced.
            renderer: the field, on which the style was trained.
            options: options of the run that trained it.
            field: name of the field; None: as in `chosen`.
            scene: `datasets.portable.scene_state` that replaces the field's; None: keep it.

        Raises:
            RuntimeError: training has changed the geometry.
        """
        field, state = field or self.chosen()[0], renderer.state_dict()
        if geometry_digest(state) != self.fields[field].digest:
            raise RuntimeError(f"the geometry of '{field}' changed while '{name}' was trained")
        style = StyleRecord(
            field,
            renderer.field.style.spec(),
            _on_cpu(without_prefix(state, STYLE_PREFIX)),
            options,
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

    def with_styles(
        self,
        styles: Mapping[str, tuple[Style, dict[str, Any]]],
        renderer: Renderer,
        options: dict[str, Any],
        scene: dict[str, Any],
        field: str | None = None,
    ) -> Checkpoint:
        """A copy of this checkpoint with further styles; what they share is stored once.

        Args:
            styles: by name, each with its options; styles of the same names are replaced.
            renderer: the field, on which they were trained.
            options: of the run that trained them.
            scene, field: as in `with_style`.

        Raises:
            RuntimeError: training has changed the geometry.
        """
        field = field or self.chosen()[0]
        if geometry_digest(renderer.state_dict()) != self.fields[field].digest:
            raise RuntimeError(f"the geometry of '{field}' changed while styles were trained")
        copies: dict[int, Tensor] = {}  # of each tensor one, by the place of the original
        records = {}
        for name, (style, own) in styles.items():
            state = style.state_dict()
            for x in state.values():
                if x.data_ptr() not in copies:
                    copies[x.data_ptr()] = x.detach().to("cpu", copy=True)
            state = {key: copies[x.data_ptr()] for key, x in state.items()}
            records[name] = StyleRecord(field, style.spec(), state, own)
        others = {n: s for n, s in self.styles.items() if n not in records}
        return replace(
            self,
            stage=options["stage"],
            scenes={**self.scenes, field: scene},
            styles={**others, **records},
            options=options,
            progress=None,
            versions=versions(),
        )

    def _spec(self, field: str, style: str) -> dict[str, Any]:
        """Specification of the modules whose tensors `_state` returns."""
        spec = self.fields[field].spec
        if self.fields[field].has_photo_colours:
            return spec
        return spec | {"style": self.styles[style].spec}

    def _state(self, field: str, style: str) -> dict[str, Tensor]:
        """All tensors of the field; its colours are those of ``style`` if the photographic ones are
        missing."""
        state = self.fields[field].state
        if self.fields[field].has_photo_colours:
            return state
        return {**state, **{STYLE_PREFIX + k: x for k, x in self.styles[style].state.items()}}

    # -- files ----------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Reads a file that `write` wrote.

        Raises:
            UserError: the file is missing or damaged, or holds anything that `write` does not
            write.
        """
        return cls.checked(_read(path, "whole"), path)

    @classmethod
    def read_networks(cls, coarse_path: Path, fine_path: Path) -> Checkpoint:
        """Like `read`, from the two files that `write_networks` wrote.

        Raises:
            UserError: a file is missing or damaged, or the two belong to different fields.
        """
        coarse, fine = _read(coarse_path, "coarse"), _read(fine_path, "fine")

        def merged() -> dict[str, Any]:
            for name, record in _mapping(fine.get("fields"), "fields").items():
                other = _mapping(_mapping(coarse.get("fields"), "fields").get(name), "fields")
                _require(other.get("digest") == record["digest"], "different fields")
                record["state"] = {**other["state"], **record["state"]}
            return fine

        words = (
            f"--coarse_path {coarse_path}: does not belong to --fine_path {fine_path}; "
            "give the two files of one run"
        )
        return cls.checked(_guarded(merged, lambda _: words), fine_path)

    @classmethod
    def checked(cls, content: dict[str, Any], path: Path) -> Checkpoint:
        """The checkpoint with the plain ``content`` that was read from ``path``.

        Raises:
            UserError: a part is missing, not finite, or of a wrong type or shape, or the parts do
                not fit together.
        """
        return _guarded(
            lambda: _parsed(content),
            lambda words: f"{path}: damaged checkpoint: {words}; copy or train it again",
        )

    def write(self, path: Path) -> None:
        """Writes everything to one file, atomically.

        Raises:
            UserError: the file cannot be written.
            NumericalError: a number is not finite.
        """
        _write(path, self.content())

    def write_networks(self, coarse_path: Path, fine_path: Path) -> None:
        """Writes the coarse and the fine network of hierarchical NeRFs to a file each, as styleNeRF
        does; both files hold the rest."""
        for network, path in (("coarse", coarse_path), ("fine", fine_path)):
            other = NETWORKS["fine" if network == "coarse" else "coarse"]
            content = self.content() | {"part": network}
            for record in content["fields"].values():
                kept = {k: x for k, x in record["state"].items() if not k.startswith(other)}
                record["state"] = kept
            _write(path, content)

    @property
    def is_hierarchical(self) -> bool:
        """Whether a field has a coarse network, so that `write_networks` can write two files."""
        return any(name.startswith(COARSE_PREFIX) for f in self.fields.values() for name in f.state)

    def content(self) -> dict[str, Any]:
        """Everything in plain containers, the inverse of `checked`."""
        return {
            "version": VERSION,
            "part": "whole",
            "stage": self.stage,
            "fields": {name: dict(vars(record)) for name, record in self.fields.items()},
            "scenes": self.scenes,
            "styles": {name: dict(vars(record)) for name, record in self.styles.items()},
            "decoders": {name: dict(vars(record)) for name, record in self.decoders.items()},
            "networks": self.networks,
            "options": self.options,
            "inputs": self.inputs,
            "progress": None if self.progress is None else dict(vars(self.progress)),
            "versions": self.versions,
        }


def plain_state(value: object) -> Any:
    """Converts a state dict, for example an optimiser's, to plain containers and CPU tensors;
    tensors that are already on the CPU are shared, not copied."""
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
        UserError: the states belong to a different kind of optimiser, or to other parameters.
    """

    def restored() -> None:
        _require(len(optimizers) == len(saved), f"{len(saved)} optimisers, not {len(optimizers)}")
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
    """Loads an optimiser's state; ValueError: it does not fit the optimiser."""
    groups = [set(group) for group in optimizer.param_groups]
    found = [set(group) for group in saved["param_groups"]]
    _require(found == groups, "missing or unexpected settings")
    indices = [i for group in saved["param_groups"] for i in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    _require(indices == list(range(len(parameters))), "a different number of parameters")
    _require(set(saved["state"]) <= set(indices), "state of unknown parameters")
    for index, moments in saved["state"].items():
        _require(set(moments) == _moments_of(optimizer), "a different kind of optimiser")
        shape = parameters[index].shape
        for name, x in moments.items():
            scalar = name == "step"
            fits = isinstance(x, Tensor) and x.shape == (() if scalar else shape)
            _require(
                fits and x.is_floating_point(),
                f"'{name}' of parameter {index} has a wrong shape or type",
            )
    for ours, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for name, value in ours.items():
            _require(name == "params" or _alike(value, theirs[name]), f"'{name}' has a wrong type")
    optimizer.load_state_dict(saved)


def _moments_of(optimizer: torch.optim.Optimizer) -> set[str]:
    """Names of the values that the optimiser keeps for each parameter."""
    if isinstance(optimizer, torch.optim.SGD):
        return {"momentum_buffer"}
    return {"step", "exp_avg", "exp_avg_sq"}


def _alike(a: object, b: object) -> bool:
    """Whether two settings of an optimiser have the same type."""
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_alike, a, b))
    numbers = type(a) in (int, float) and type(b) in (int, float)
    return numbers or type(a) is type(b)


# -- modules ------------------------------------------------------------------------------------


def _set_style(renderer: Renderer, spec: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Replaces the style of a renderer's field by the one that was saved as (spec, state)."""
    style = build_style(spec, renderer.field.geometry)
    style.load_state_dict(state)
    renderer.field.style = style


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached CPU copies, unaffected by further training."""
    return {name: x.detach().to("cpu", copy=True) for name, x in state.items()}


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
    """The content of a file of any version, converted to the current one."""
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
            return convert(content, path)
        _string(content.get("part"), "part")
        claimed = content.pop("digest", None)
        content.pop("format")
        _require(claimed == content_digest(content), "checksum mismatch")
        return content

    content = _guarded(
        current, lambda words: f"{path}: damaged checkpoint: {words}; copy or train it again"
    )
    if content["part"] != part:
        found = PARTS.get(content["part"], "an unknown part of a field")
        raise UserError(f"{path}: holds {found}, not {PARTS[part]}")
    return content


# -- checks: each raises a ValueError that says in a few words what is wrong -------------------


def _guarded(make: Callable[[], Any], line: Callable[[str], str]) -> Any:
    """The result of ``make()``; if it fails, a `UserError` with the message ``line(reason)``."""
    try:
        return make()
    except (UserError, MemoryError):
        raise
    # an untrusted file can make the building of modules fail in any way
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        words = f"{error}" if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise UserError(line(" ".join(words.split())[:200])) from None


def _require(holds: bool, words: str) -> None:
    if not holds:
        raise ValueError(words)


def _mapping(value: object, where: str) -> dict[str, Any]:
    _require(type(value) in (dict, OrderedDict), f"{where}: missing, or not a mapping")
    fits = all(type(k) is str and 0 < len(k) <= 255 and min(k) >= " " for k in value)
    _require(fits, f"{where}: invalid name")
    return value


def _string(value: object, where: str) -> str:
    _require(type(value) is str, f"{where}: missing, or not a string")
    return value


def _integer(value: object, least: int, most: int, where: str) -> int:
    _require(type(value) is int and least <= value <= most, f"{where}: {value!r:.40}")
    return value


def _tensors(value: object, where: str) -> dict[str, Tensor]:
    state = _mapping(value, where)
    for name, x in state.items():
        _require(isinstance(x, Tensor), f"{where}: {name} is not a tensor")
    return state


def _array(value: object, shape: tuple[int, ...], dtype: torch.dtype, where: str) -> Tensor:
    fits = isinstance(value, Tensor) and value.shape == shape and value.dtype == dtype
    _require(fits, f"{where}: not a tensor of shape {shape} and type {dtype}")
    return value


def _require_finite(value: object, where: str) -> None:
    if isinstance(value, Tensor):
        finite = not value.is_floating_point() or bool(value.isfinite().all())
        _require(finite, f"{where}: a value is not finite")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _require_finite(item, f"{where}.{name}" if where else f"{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _require_finite(item, f"{where}[{index}]")


def _require_bounds(x: Tensor, where: str) -> None:
    _array(x, (2, 3), torch.float32, where)
    sides = x[1] - x[0]
    fits = bool((sides >= SHORTEST).all()) and bool((x.abs() <= FARTHEST).all())
    _require(fits, f"{where}: not a box (lower corner, upper corner)")


def _require_background(x: object, where: str) -> None:
    _array(x, (3,), torch.float32, where)
    _require(bool(((x >= 0) & (x <= 1)).all()), f"{where}: colour outside [0, 1]")


def _parsed(content: dict[str, Any]) -> Checkpoint:
    _require_finite(content, "")
    fields = {
        name: _parsed_field(record, f"field '{name}'")
        for name, record in _mapping(content.get("fields"), "fields").items()
    }
    _require(len(fields) > 0, "no fields")
    styles = {
        name: _parsed_style(record, f"style '{name}'", fields)
        for name, record in _mapping(content.get("styles"), "styles").items()
    }
    _require(PHOTO not in styles, f"styles: '{PHOTO}' is reserved for the photographic colours")
    decoders = {
        name: _parsed_decoder(record, f"decoder '{name}'", fields)
        for name, record in _mapping(content.get("decoders", {}), "decoders").items()
    }
    _check_worn(fields, decoders)
    scenes = _mapping(content.get("scenes"), "scenes")
    _require(scenes.keys() == fields.keys(), "scenes: there must be one for each field")
    for name, scene in scenes.items():
        _check_scene(scene, f"scene '{name}'")
    inputs = _mapping(content.get("inputs"), "inputs")
    known = _mapping(content.get("versions"), "versions")
    for name, value in {**inputs, **known}.items():
        _string(value, name)
    checkpoint = Checkpoint(
        _string(content.get("stage"), "stage"),
        fields,
        scenes,
        styles,
        decoders,
        {
            name: _tensors(state, f"network '{name}'")
            for name, state in _mapping(content.get("networks", {}), "networks").items()
        },
        _parsed_options(content.get("options"), "options"),
        inputs,
        _parsed_progress(content.get("progress")),
        known,
    )
    for name in fields:
        _check_modules(checkpoint, name)
    return checkpoint


def _parsed_field(record: object, where: str) -> FieldRecord:
    record = _mapping(record, where)
    spec, state = _mapping(record.get("spec"), where), _tensors(record.get("state"), where)
    _check_spec(spec, where)
    for name, x in state.items():
        if name.split(".")[-1] == "bounds":
            _require_bounds(x, f"{where}, {name}")
        if name.split(".")[-1] in ("occupied", "lit", "active"):
            grid = x.dtype == torch.bool and x.ndim == 3 and x.numel() > 0
            _require(grid, f"{where}, {name}: not a boolean grid of cells")
    _require_bounds(state.get("bounds"), f"{where}, bounds")
    _require_background(state.get("background"), f"{where}, background")
    claimed = _string(record.get("digest"), f"{where}, digest")
    _require(claimed == geometry_digest(state), f"{where}: its geometry does not match its digest")
    return FieldRecord(spec, state, claimed)


def _check_spec(spec: object, where: str) -> None:
    """Plain values; the integers that determine the size of modules are bounded, so that building
    them takes a bounded time."""
    for name, value in _mapping(spec, where).items():
        here = f"{where}, {name}"
        if name in SWITCHES:
            _require(type(value) is bool, f"{here}: {value!r:.40}, neither True nor False")
        elif type(value) is int or name.startswith("n_"):
            most = MOST_VERTICES if name == "n_seen" else LARGEST
            _integer(value, 1 if name == "n_coarse" else 0, most, here)
        elif isinstance(value, Mapping):
            _check_spec(value, here)
        else:
            _require(type(value) in (str, bool, float, type(None)), f"{here}: not a plain value")


def _parsed_style(record: object, where: str, fields: Mapping[str, FieldRecord]) -> StyleRecord:
    record = _mapping(record, where)
    field = _string(record.get("field"), where)
    _require(field in fields, f"{where}: unknown field")
    spec = _mapping(record.get("spec"), where)
    _check_spec(spec, where)
    state = _tensors(record.get("state"), where)
    return StyleRecord(field, spec, state, _parsed_options(record.get("options"), where))


def _parsed_decoder(record: object, where: str, fields: Mapping[str, FieldRecord]) -> DecoderRecord:
    record = _mapping(record, where)
    spec, state = _mapping(record.get("spec"), where), _tensors(record.get("state"), where)
    _check_spec(spec, where)
    encoders = record.get("encoders")
    known = type(encoders) is list and all(type(e) is str and e in fields for e in encoders)
    _require(known, f"{where}: unknown encoders")
    decoder = DecoderRecord(spec, state, encoders)
    built = _built(lambda: FeatureDecoder(**spec), where)
    _require_same(built.state_dict(), state, where)
    return decoder


def _check_worn(fields: Mapping[str, FieldRecord], decoders: Mapping[str, DecoderRecord]) -> None:
    """Where there are decoders, every field can wear each, and has one of its own."""
    for name, record in fields.items() if decoders else ():
        where, style = f"field '{name}'", _mapping(record.spec.get("style"), f"field '{name}'")
        trained = any(name in decoder.encoders for decoder in decoders.values())
        _require(record.has_photo_colours and trained, f"{where}: no decoder of its own")
        kind = style.get("kind")
        encoded = kind in STYLES and issubclass(STYLES[kind], EncodedStyle)
        _require(encoded, f"{where}: its style cannot wear a decoder")
        for decoder in decoders.values():
            fits = decoder.spec.get("n_features") == style.get("n_features")
            _require(fits, f"{where}: has other features than a decoder")


def _parsed_options(value: object, where: str) -> dict[str, Any]:
    """Options as plain values; those that identify the scene's files are required."""
    options = _mapping(value, where)
    for name, option in options.items():
        for single in option if type(option) is list else [option]:
            plain = type(single) in (str, int, float, bool, type(None))
            _require(plain, f"{where}: {name} has an invalid value")
    for name in ("root_dir", "dataset_name", "scene_name"):
        _string(options.get(name), f"{where}, {name}")
    return options


def _check_scene(value: object, where: str) -> None:
    """Checks the output of `datasets.portable.scene_state`; bounds and background may be missing if
    there are no views."""
    scene = _mapping(value, where)
    whole = "views" in scene
    _string(scene.get("name"), f"{where}, name")
    near, far = scene.get("near"), scene.get("far")
    for distance in (near, far):
        _require(type(distance) in (int, float) and math.isfinite(distance), f"{where}: near, far")
    _require(0 <= near < far <= FARTHEST, f"{where}: near {near:g}, far {far:g}")
    space_from(_mapping(scene.get("space"), f"{where}, space"))
    if whole or "bounds" in scene:
        _require_bounds(scene.get("bounds"), f"{where}, bounds")
    if whole or "background" in scene:
        _require_background(scene.get("background"), f"{where}, background")
    if whole:
        views = _mapping(scene["views"], f"{where}, views")
        for split in SPLITS:
            _check_views(views.get(split), f"{where}, views of {split}", split == "train")


def _check_views(value: object, where: str, needed: bool) -> None:
    views = _mapping(value, where)
    names = views.get("names")
    _require(type(names) is list, f"{where}: names are missing")
    for name in names:
        # exports call files so: it must not lead out of their folder
        plain = {"/", "\\", "\0"}.isdisjoint(_string(name, where)) and name not in ("", ".", "..")
        _require(plain, f"{where}: {name!r:.40} is no plain name")
    n = len(names)
    _require(n > 0 or not needed, f"{where}: no views")
    if n == 0:
        _require(len(views) == 1, f"{where}: cameras without names")
        return
    _array(views.get("c2w"), (n, 3, 4), torch.float32, f"{where}, c2w")
    lenses = _array(views.get("intrinsics"), (n, 4), torch.float32, f"{where}, intrinsics")
    _require(bool((lenses[:, :2] > 0).all()), f"{where}: focal length not positive")
    sizes = _array(views.get("sizes"), (n, 2), torch.int64, f"{where}, sizes")
    _require(bool(((sizes >= 1) & (sizes <= LARGEST)).all()), f"{where}: image size out of range")


def _parsed_progress(value: object) -> Progress | None:
    if value is None:
        return None
    progress = _mapping(value, "progress")
    n_steps = _integer(progress.get("n_steps"), 1, 1 << 62, "progress, n_steps")
    step = _integer(progress.get("step"), 1, n_steps - 1, "progress, step")
    optimizers = progress.get("optimizers")
    _require(type(optimizers) is list, "progress: optimisers are missing")
    for state in optimizers:
        _require(_mapping(state, "optimiser").keys() == {"state", "param_groups"}, "optimiser")
    return Progress(step, n_steps, optimizers, _mapping(progress.get("task"), "progress, task"))


def _check_modules(checkpoint: Checkpoint, name: str) -> None:
    """Builds a field's modules on the meta device, which takes no memory, and compares names,
    shapes and types of their tensors with the saved ones."""
    styles = [style for style, record in checkpoint.styles.items() if record.field == name]
    record = checkpoint.fields[name]
    where = f"field '{name}'"
    _require(record.has_photo_colours or bool(styles), f"{where}: no colours")
    first = styles[-1] if styles else PHOTO
    spec, state = checkpoint._spec(name, first), checkpoint._state(name, first)
    renderer = _built(lambda: Renderer.from_state(spec, state), where)
    _require_same(renderer.state_dict(), state, where)
    step = getattr(renderer.sampler, "step", 1.0)
    _require(step is not None, f"{where}, sampler: n_steps is 0, and the field has no step size")
    kind = spec["field"]["kind"]
    _require_kind(spec["style"], kind, where)
    _require_kind(spec["sampler"].get("style", spec["style"]), kind, f"{where}, sampler")
    for style in styles:
        where, style = f"style '{style}'", checkpoint.styles[style]
        _require_kind(style.spec, kind, where)
        built = _built(lambda spec=style.spec: build_style(spec, renderer.field.geometry), where)
        _require_same(built.state_dict(), style.state, where)
        seen, n_seen = style.state.get("head.seen"), style.spec.get("n_seen")
        if seen is not None:
            fits = 0 < n_seen == int(seen.sum())
            _require(fits, f"{where}: {int(seen.sum())} vertices are seen, it has {n_seen}")


def _built(make: Callable[[], Any], where: str) -> Any:
    """The module that ``make`` builds, on the meta device: it takes no memory, however large the
    integers in its spec are."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns that loading into it does nothing
            return make()
    except Exception as error:  # as in `_guarded`
        if ran_out_of_memory(error):
            raise
        raise ValueError(f"{where}: spec and tensors do not fit together ({error})") from None


def _require_kind(style: Mapping[str, Any], kind: str, where: str) -> None:
    """A style can only read the features of fields of its own kind."""
    known = style.get("kind") in STYLES
    fits = known and STYLES[style["kind"]].reads == kind
    _require(fits, f"{where}: its style is not for a field of kind '{kind}'")


def _require_same(built: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Checks that names, shapes and types of the tensors are equal."""
    _require(built.keys() == state.keys(), f"{where}: missing or unexpected tensors")
    for name, x in built.items():
        same = x.shape == state[name].shape and x.dtype == state[name].dtype
        _require(same, f"{where}: {name} has a wrong shape or type")
