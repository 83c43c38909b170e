"""Every option of pipeline.py and eval.py, declared once: a typed field with its default, help and
check is at the same time the flag ``--name``, the YAML key ``name`` and the attribute ``.name``."""

# ruff: noqa: RUF009 - `option` is `dataclasses.field` with more to say
from __future__ import annotations

import argparse
import difflib
import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeVar

import yaml

from utils.errors import UserError

# -- what an option is --------------------------------------------------------------------------


class Check(NamedTuple):
    """What every single value of an option must satisfy."""

    words: str
    holds: Callable[[Any], bool]


class Rule(NamedTuple):
    """A combination of options that is impossible, and the line that says so."""

    words: str
    broken: Callable[[Any], bool]


POSITIVE = Check("must be greater than 0", lambda value: value > 0)
NOT_NEGATIVE = Check("must be at least 0", lambda value: value >= 0)
EIGHT = Check("must be at least 8", lambda value: value >= 8)
FRACTION = Check("must be greater than 0 and at most 1", lambda value: 0 < value <= 1)
SEED = Check("must be from 0 to 4294967295", lambda value: 0 <= value < 2**32)
FILE_NAME = Check(
    "must be a plain name, not a path",
    lambda name: name.strip() not in ("", ".", "..") and not set(name) & set("/\\\0"),
)


class Spec(NamedTuple):
    """What `option` says about a field."""

    help: str
    choices: tuple[str, ...]
    check: Check | None
    derive: Callable[[Any], Any] | None


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    check: Check | None = None,
    derive: Callable[[Any], Any] | None = None,
) -> Any:
    """A dataclass field that is an option.

    Args:
        default: `MISSING` makes the option required.
        help: one line for ``--help``.
        choices, check: what each of its values must be.
        derive: computes the value from the other options where it is None.
    """
    return field(default=default, metadata={"option": Spec(help, choices, check, derive)})


@dataclass(frozen=True)
class Item:
    """One option as its class declares it: ``kind`` of each value, ``count`` of values (None: one
    value, "*": any number), ``optional`` where None is a value, ``group`` for the help."""

    name: str
    kind: type
    count: int | str | None
    optional: bool
    default: object
    group: str
    spec: Spec

    def checked(self, value: Any) -> Any:
        """``value`` itself, one of the option's; ValueError says what is wrong with it."""
        choices, check = self.spec.choices, self.spec.check
        if choices and value not in choices:
            hint = _nearest(str(value), choices)
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}{hint}")
        if check and not check.holds(value):
            raise ValueError(f"{check.words}, got {value!r}")
        return value

    def read(self, text: object) -> Any:
        """One value from its text; ValueError says what is wrong with it."""
        reader, noun = _READERS[self.kind]
        try:
            if not isinstance(text, str) or not text:
                raise ValueError
            value = reader(text)
        except (ValueError, KeyError, RuntimeError):
            raise ValueError(f"expected {noun}, got {text!r}") from None
        return self.checked(value)

    def read_node(self, node: object) -> Any:
        """The option's value from a text, or from a list of them."""
        if self.optional and node in ("", "~", "null"):
            return None
        if self.count is None:
            return self.read(node)
        nodes = node if isinstance(node, list) else [node]
        if isinstance(self.count, int) and len(nodes) != self.count:
            raise ValueError(f"expected {self.count} values, got {len(nodes)}")
        return tuple(self.read(n) for n in nodes)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_READERS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (lambda text: _SWITCH[text.lower()], "true or false"),
    int: (int, "a whole number"),
    float: (_finite, "a number"),
    str: (str, "a text"),
    Path: (lambda text: Path(text).expanduser(), "a path"),
}


@cache
def options_of(cls: type[Options]) -> dict[str, Item]:
    """The options of a class, in the order of their declaration."""
    hints = typing.get_type_hints(cls)
    home = {name: group for group in cls.__mro__ for name in vars(group).get("__annotations__", ())}
    items = {}
    for entry in fields(cls):
        if "option" not in entry.metadata:
            continue
        hint, optional = hints[entry.name], type(None) in typing.get_args(hints[entry.name])
        if optional:
            hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
        kind, count = hint, None
        if typing.get_origin(hint) is tuple:
            kind, *rest = typing.get_args(hint)
            count = "*" if rest == [...] else 1 + len(rest)
        group = (home[entry.name].__doc__ or "").strip()
        spec = entry.metadata["option"]
        items[entry.name] = Item(entry.name, kind, count, optional, entry.default, group, spec)
    return items


OptionsT = TypeVar("OptionsT", bound="Options")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `TrainOptions` and `EvalOptions` share.  Checked whenever one is made.

    Attributes:
        given: names that the user set, on the command line or in YAML.
    """

    rules: ClassVar[tuple[Rule, ...]] = ()
    given: frozenset[str] = field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        for name, item in options_of(type(self)).items():
            if item.spec.derive and getattr(self, name) is None:
                object.__setattr__(self, name, item.spec.derive(self))
            value = getattr(self, name)
            for single in value if isinstance(value, tuple) else (value,):
                if single is not None:
                    _located(f"--{name}", item.checked, single)
        for group in type(self).__mro__:
            for rule in vars(group).get("rules", ()):
                if rule.broken(self):
                    raise UserError(rule.words)

    def to_dict(self) -> dict[str, Any]:
        """The options as plain JSON types: for checkpoints, and as YAML to run the same again."""
        return {name: _plain(getattr(self, name)) for name in options_of(type(self))}

    @classmethod
    def from_dict(cls: type[OptionsT], saved: Mapping[str, Any]) -> OptionsT:
        """The inverse of `to_dict`; nothing counts as given.

        Raises:
            UserError: an unknown name or an impossible value.
        """
        return cls(**_read_mapping(cls, saved, "saved options"))

    def filled_from(
        self: OptionsT, saved: Mapping[str, Any], names: Iterable[str] | None = None
    ) -> OptionsT:
        """The same options, where what the user did not give comes from ``saved``.

        Args:
            saved: a `to_dict` of this or of the other kind of options.
            names: the options to take; None takes all that both have.
        """
        open_items = {n: i for n, i in options_of(type(self)).items() if n not in self.given}
        # what was derived follows the options that it is derived from
        derived = {
            name: None
            for name, item in open_items.items()
            if item.spec.derive and item.spec.derive(self) == getattr(self, name)
        }
        wanted = open_items if names is None else open_items.keys() & set(names)
        taken = {name: saved[name] for name in wanted if name in saved}
        return replace(self, **derived | _read_mapping(type(self), taken, "saved options"))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(single) for single in value]
    return str(value) if isinstance(value, Path) else value


# -- from text to options -----------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are `UserError`s."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def _parser(cls: type[Options], usage: str, about: str) -> _Parser:
    parser = _Parser(
        usage=usage,
        description=about,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100),
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE.yaml", help="options from a file; flags override it"
    )
    groups: dict[str, Any] = {}
    for item in options_of(cls).values():
        if item.group not in groups:
            groups[item.group] = parser.add_argument_group(item.group)
        groups[item.group].add_argument(f"--{item.name}", **_argument(item))
    return parser


def _argument(item: Item) -> dict[str, Any]:
    """Keyword arguments of ``add_argument``."""
    default = _shown(item)
    help = (f"{item.spec.help} ({default})" if default else item.spec.help).replace("%", "%%")
    if item.kind is bool:
        return {"action": argparse.BooleanOptionalAction, "help": help}

    def read(text: str) -> Any:
        try:
            return item.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    metavar = {int: "N", float: "X", Path: "PATH", str: "NAME"}[item.kind]
    if item.spec.choices:
        metavar = "{" + ",".join(item.spec.choices) + "}"
    return {"type": read, "nargs": item.count, "metavar": metavar, "help": help}


def _shown(item: Item) -> str:
    if item.default is MISSING:
        return "required"
    if item.default is None or item.default == ():
        return ""
    if item.kind is bool:
        return "default: on" if item.default else "default: off"
    return f"default: {item.default}"


def parse_options(
    cls: type[OptionsT], usage: str, about: str, argv: Sequence[str] | None
) -> OptionsT:
    known = options_of(cls)
    flags, strangers = _parser(cls, usage, about).parse_known_args(argv)
    for stranger in strangers:
        if not stranger.startswith("-"):
            raise UserError(f"{stranger}: belongs to no option; see --help")
        flag = stranger.split("=")[0]
        switches = [f"no-{name}" for name, item in known.items() if item.kind is bool]
        hint = _nearest(flag.lstrip("-"), [*known, "config", *switches], "--") or "; see --help"
        raise UserError(f"{flag}: unknown option{hint}")
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in vars(flags).items()}
    config = given.pop("config", None)
    values = {**(_read_yaml(cls, config) if config else {}), **given}
    for item in known.values():
        if item.default is MISSING and item.name not in values:
            choices = f" {'|'.join(item.spec.choices)}" if item.spec.choices else ""
            raise UserError(f"--{item.name}: missing; give --{item.name}{choices}")
    return cls(**values, given=frozenset(values))


def _read_yaml(cls: type[Options], path: Path) -> dict[str, Any]:
    try:
        # BaseLoader leaves every scalar a text, so that a value means what it means as a flag:
        # `lr: 1e-3` is a number and `suffix: 007` keeps its zeros.  It constructs no objects.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be lines of the form `option: value`")
    return _read_mapping(cls, content, str(path))


def _read_mapping(cls: type[Options], content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Typed and checked values from texts or plain JSON types."""
    known = options_of(cls)
    values = {}
    for name, node in content.items():
        if name not in known:
            hint = _nearest(str(name), known)
            raise UserError(f"{source}: {name}: unknown option{hint}")
        values[name] = _located(f"{source}: {name}", known[name].read_node, _node(node))
    return values


def _located(place: str, read: Callable[[Any], Any], value: object) -> Any:
    """``read(value)``, whose ValueError becomes a `UserError` that says where."""
    try:
        return read(value)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None


def _nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _node(value: Any) -> Any:
    """Plain JSON types in the form in which YAML's BaseLoader yields them."""
    if isinstance(value, list | tuple):
        return [_node(single) for single in value]
    return "null" if value is None else value if isinstance(value, dict) else str(value)


# -- the declarations, by group -----------------------------------------------------------------


def _name_of(path: Path | None) -> str | None:
    if path is None:
        return None
    return path.name if path.name not in ("", "..") else path.resolve().name


def _suffix_of(o: TrainOptions) -> str:
    return o.style_dir.stem if o.stage == "style" and o.style_dir else o.stage


def _without_weights(o: Weights) -> bool:
    return o.ckpt_path is None and o.coarse_path is None


@dataclass(frozen=True, kw_only=True)
class Data(Options):
    """data"""

    rules = (
        Rule(
            "--near: must be smaller than --far",
            lambda o: None not in (o.near, o.far) and o.near >= o.far,
        ),
    )
    root_dir: Path = option(MISSING, "directory of the scene")
    dataset_name: str = option("blender", "format of the scene", choices=("blender",))
    scene_name: str | None = option(
        None,
        "name for outputs (default: that of --root_dir)",
        check=FILE_NAME,
        derive=lambda o: _name_of(o.root_dir),
    )
    img_wh: tuple[int, int] | None = option(
        None, "width and height to resize the images to (default: their own)", check=POSITIVE
    )
    near: float | None = option(
        None, "nearest distance on a ray (default: the scene's)", check=NOT_NEGATIVE
    )
    far: float | None = option(
        None, "farthest distance on a ray (default: the scene's)", check=POSITIVE
    )


@dataclass(frozen=True, kw_only=True)
class Machine(Options):
    """machine"""

    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda"))
    precision: str = option(
        "auto", "arithmetic of the networks", choices=("auto", "32", "bf16", "16")
    )
    chunk: int = option(0, "rays rendered at once; 0: by the memory", check=NOT_NEGATIVE)
    seed: int = option(0, "seed of all randomness", check=SEED)


@dataclass(frozen=True, kw_only=True)
class Weights(Options):
    """trained weights"""

    rules = (
        Rule(
            "--coarse_path, --fine_path: one without the other; give both",
            lambda o: (o.coarse_path is None) != (o.fine_path is None),
        ),
        Rule(
            "--ckpt_path: excludes --coarse_path and --fine_path; give one or the others",
            lambda o: o.ckpt_path is not None and o.coarse_path is not None,
        ),
    )
    ckpt_path: Path | None = option(None, "checkpoint of a trained field")
    coarse_path: Path | None = option(None, "weights of the coarse network, with --fine_path")
    fine_path: Path | None = option(None, "weights of the fine network, with --coarse_path")


@dataclass(frozen=True, kw_only=True)
class FieldShape(Options):
    """field"""

    field: str = option(
        "nerf", "the paper's networks, or sparse voxels", choices=("nerf", "voxels")
    )
    N_samples: int = option(64, "nerf: coarse samples per ray", check=POSITIVE)
    N_importance: int = option(64, "nerf: additional fine samples per ray", check=NOT_NEGATIVE)
    N_emb_xyz: int = option(10, "nerf: frequencies of the position", check=NOT_NEGATIVE)
    N_emb_dir: int = option(4, "nerf: frequencies of the direction", check=NOT_NEGATIVE)
    voxel_resolution: int = option(
        256, "voxels: their final number along the longest side", check=EIGHT
    )


@dataclass(frozen=True, kw_only=True)
class Run(Options):
    """run"""

    stage: str = option(MISSING, "learn the scene, or a style on it", choices=("geometry", "style"))
    prefix: str | None = option(
        None,
        "first part of file names (default: the scene's name)",
        check=FILE_NAME,
        derive=lambda o: o.scene_name,
    )
    suffix: str | None = option(
        None,
        "last part of file names (default: geometry, or the painting's name)",
        check=FILE_NAME,
        derive=_suffix_of,
    )
    resume: bool = option(False, "continue from the run's newest checkpoint")
    ckpt_dir: Path = option(Path("ckpts"), "directory of the checkpoints")
    log_dir: Path = option(Path("runs"), "directory of the TensorBoard logs")
    num_epochs_density: int = option(1, "geometry: passes over all pixels", check=POSITIVE)
    num_epochs_style: int = option(1, "style: passes over the training views", check=POSITIVE)
    max_steps: int | None = option(
        None, "end after so many steps (default: by epochs)", check=POSITIVE
    )
    checkpoint_every: int = option(500, "steps between checkpoints", check=POSITIVE)
    val_every: int = option(
        0, "steps between validations; 0: by the run's length", check=NOT_NEGATIVE
    )
    num_gpus: int = option(1, "GPUs to train on", check=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class Optimisation(Options):
    """optimisation"""

    rules = (
        Rule(
            "--decay_step: missing; --lr_scheduler steplr needs the steps at which to decay",
            lambda o: o.lr_scheduler == "steplr" and not o.decay_step,
        ),
    )
    batch_size: int = option(1024, "geometry: rays per step", check=POSITIVE)
    lr: float | None = option(None, "learning rate (default: by field and stage)", check=POSITIVE)
    optimizer: str = option("adam", "optimiser", choices=("adam", "radam", "sgd"))
    lr_scheduler: str = option(
        "constant",
        "course of the rate",
        choices=("constant", "steplr", "cosine", "poly", "exponential"),
    )
    decay_step: tuple[int, ...] = option((), "steplr: the steps at which it decays", check=POSITIVE)
    decay_gamma: float = option(
        0.1, "steplr: factor per decay; exponential: per run", check=FRACTION
    )
    poly_exp: float = option(0.9, "poly: exponent", check=POSITIVE)
    warmup_steps: int = option(0, "steps in which the rate rises from 0", check=NOT_NEGATIVE)
    crop_steps: int = option(
        0, "geometry: first steps, on the images' centre only", check=NOT_NEGATIVE
    )
    crop_fraction: float = option(0.5, "geometry: width and height of that centre", check=FRACTION)
    data_perturb: tuple[str, ...] = option(
        (), "geometry: spoil the images", choices=("color", "occ")
    )


@dataclass(frozen=True, kw_only=True)
class Style(Options):
    """style"""

    rules = (
        Rule(
            "--vgg_weights: not used with --features own; leave one out",
            lambda o: o.vgg_weights is not None and o.features == "own",
        ),
    )
    style_dir: Path | None = option(None, "file of the painting")
    style_mode: str = option(
        "memory_saving",
        "loss on the whole view, on patches of it, or on a small rendering",
        choices=("memory_saving", "patch", "small"),
    )
    patch_size: int = option(50, "patch: side in pixels", check=EIGHT)
    small_size: int = option(100, "small: shorter side in pixels", check=EIGHT)
    objective: str = option(
        "gram", "what makes the style", choices=("gram", "nnfm", "adain", "swd")
    )
    features: str = option(
        "auto",
        "network of the loss; auto: vgg where there is one, else own",
        choices=("auto", "vgg", "own"),
    )
    vgg_weights: Path | None = option(None, "file of VGG-19 (default: torchvision's)")
    style_init: str = option("photo", "colours to start from", choices=("photo", "random"))
    colour_transfer: bool = option(True, "first match the scene's colours to the painting's")
    view_dependent: bool = option(False, "styled colours may depend on the direction of view")
    gram_weight: float | None = option(
        None, "Gram matrices (default: the objective's)", check=NOT_NEGATIVE
    )
    nnfm_weight: float | None = option(
        None, "nearest features (default: the objective's)", check=NOT_NEGATIVE
    )
    statistics_weight: float | None = option(
        None, "means, deviations (default: the objective's)", check=NOT_NEGATIVE
    )
    swd_weight: float | None = option(
        None, "sliced Wasserstein (default: the objective's)", check=NOT_NEGATIVE
    )
    content_weight: float | None = option(
        None, "likeness to the photo (default: the objective's)", check=NOT_NEGATIVE
    )
    tv_weight: float | None = option(
        None, "total variation (default: the objective's)", check=NOT_NEGATIVE
    )
    cache_gb: float = option(4.0, "GB of frozen geometry to keep in memory", check=NOT_NEGATIVE)


@dataclass(frozen=True, kw_only=True)
class Output(Options):
    """output"""

    split: str = option(
        "test",
        "views to render; circle: a path around the scene",
        choices=("test", "val", "train", "circle"),
    )
    n_frames: int = option(60, "circle: number of frames", check=POSITIVE)
    fps: int = option(15, "frames per second of GIF and MP4", check=POSITIVE)
    gif_name: str | None = option(
        None,
        "name of GIF and MP4 (default: the scene's name)",
        check=FILE_NAME,
        derive=lambda o: o.scene_name,
    )
    output_dir: Path = option(Path("results"), "directory of everything that is written")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Style, Weights, Optimisation, FieldShape, Machine, Run, Data):
    """Options of pipeline.py."""

    rules = (
        Rule(
            "--style_dir: missing; --stage style needs a painting",
            lambda o: o.stage == "style" and o.style_dir is None,
        ),
        Rule(
            "--ckpt_path: missing; --stage style needs a trained field: "
            "give --ckpt_path, or --coarse_path and --fine_path",
            lambda o: o.stage == "style" and _without_weights(o),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(Output, Machine, Weights, Data):
    """Options of eval.py."""

    rules = (
        Rule(
            "--ckpt_path: missing; give --ckpt_path, or --coarse_path and --fine_path",
            _without_weights,
        ),
    )
    root_dir: Path | None = option(None, "directory of the scene (default: the checkpoint's)")


def parse_train(argv: Sequence[str] | None = None) -> TrainOptions:
    """Options of pipeline.py from its arguments (None: those of the process).

    Raises:
        UserError: the first thing that is wrong, in one line.
    """
    usage = "pipeline.py --stage geometry|style --root_dir PATH [options]"
    return parse_options(TrainOptions, usage, "Learn a scene, or a style on a learned scene.", argv)


def parse_eval(argv: Sequence[str] | None = None) -> EvalOptions:
    """Options of eval.py from its arguments (None: those of the process).

    Raises:
        UserError: the first thing that is wrong, in one line.
    """
    usage = "eval.py --ckpt_path PATH [options]"
    about = "Render and measure a trained field.  What is not given is taken from the checkpoint."
    return parse_options(EvalOptions, usage, about, argv)
