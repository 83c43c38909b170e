"""Typed options: a dataclass field with default, help and check becomes a flag and a YAML key."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeVar

import yaml

from utils.errors import UserError
from utils.files import read_text
from utils.schedule import Schedule

# -- what an option is --------------------------------------------------------------------------


class Check(NamedTuple):
    """What every single value of an option must satisfy."""

    words: str
    holds: Callable[[Any], bool]


class Rule(NamedTuple):
    """A combination of options that is impossible, and the line that says so."""

    words: str
    broken: Callable[[Any], bool]


MOST = 1_000_000_000  # of whole numbers: all that is computed of them stays within 64 bits
LARGEST = 1e30  # of other numbers: single precision holds them
LONGEST_NAME = 200  # bytes: file systems allow 255, and names get extensions and numbers
LARGEST_CONFIG = 1 << 20  # bytes

POSITIVE = Check("must be greater than 0", lambda value: value > 0)
NOT_NEGATIVE = Check("must be at least 0", lambda value: value >= 0)
EIGHT = Check("must be at least 8", lambda value: value >= 8)
CELLS = Check("must be from 8 to 2048", lambda value: 8 <= value <= 2048)
PIXELS = Check("must be from 1 to 16384", lambda value: 1 <= value <= 16384)
FRAMES = Check("must be from 1 to 100000", lambda value: 1 <= value <= 100_000)
PROCESSES = Check("must be from 1 to 1024", lambda value: 1 <= value <= 1024)
RATE = Check("must be greater than 0 and at most 10", lambda value: 0 < value <= 10)
NEAREST = Check("must be from 0 to 1e9", lambda value: 0 <= value <= 1e9)
FARTHEST = Check("must be from 1e-6 to 1e9", lambda value: 1e-6 <= value <= 1e9)
SCHEDULE_NOT_NEGATIVE = Check("must be at least 0", lambda schedule: schedule.least >= 0)
UNIT = Check("must be from 0 to 1", lambda value: 0 <= value <= 1)
SHARE = Check("must be at least 0 and less than 1", lambda value: 0 <= value < 1)
FRACTION = Check("must be greater than 0 and at most 1", lambda value: 0 < value <= 1)
SEED = Check("must be from 0 to 4294967295", lambda value: 0 <= value < 2**32)
FILE_NAME = Check(
    f"must be a plain name, not a path, of at most {LONGEST_NAME} bytes",
    lambda name: (
        name.strip() not in ("", ".", "..")
        and not set(name) & set("/\\")
        and min(name) >= " "
        and len(os.fsencode(name)) <= LONGEST_NAME
    ),
)


class Spec(NamedTuple):
    """What `option` says about a field."""

    help: str
    choices: tuple[str, ...]
    check: Check | None
    derive: Callable[[Any], Any] | None
    part: str
    only: tuple[str, str] | None


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    check: Check | None = None,
    derive: Callable[[Any], Any] | None = None,
    part: str = "",
    only: tuple[str, str] | None = None,
) -> Any:
    """A dataclass field that is an option.

    Args:
        default: `MISSING` makes the option required.
        help: one line for ``--help``.
        choices, check: what each of its values must be.
        derive: computes the value from the other options where it is None.
        part: of the work that it belongs to, where not every stage of pipeline.py reads it.
        only: (option, value) without which it is not read; the value begins its help.
    """
    spec = Spec(f"{only[1]}: {help}" if only else help, choices, check, derive, part, only)
    return field(default=default, metadata={"option": spec})


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

    def read_by(self, parts: Collection[str] | None) -> bool:
        """Whether what is made of these parts of the work reads the option; None: of all parts."""
        return parts is None or not self.spec.part or self.spec.part in parts

    def checked(self, value: Any) -> Any:
        """``value`` itself, one of the option's; ValueError says what is wrong with it."""
        choices, check = self.spec.choices, self.spec.check
        if self.kind is int and check is not SEED and abs(value) > MOST:
            raise ValueError(f"must be at most {MOST}, got {value!r:.40}")
        if self.kind is float and abs(value) > LARGEST:
            raise ValueError(f"must be at most {LARGEST:g}, got {value!r}")
        if self.kind in (str, Path) and not _is_text(str(value)):
            raise ValueError(f"must be UTF-8 without control characters, got {str(value)!r:.80}")
        if choices and value not in choices:
            hint = _nearest(str(value), choices)
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}{hint}")
        if check and not check.holds(value):
            raise ValueError(f"{check.words}, got {_plain(value)!r}")
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
        if isinstance(node, dict) and self.count == "*":
            node = [f"{key}={_joined(value)}" for key, value in node.items()]
        nodes = node if isinstance(node, list) else [node]
        if isinstance(self.count, int) and len(nodes) != self.count:
            raise ValueError(f"expected {self.count} values, got {len(nodes)}")
        return tuple(self.read(n) for n in nodes)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _is_text(text: str) -> bool:
    """Whether a checkpoint can hold the text, and a message show it in one line."""
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name of other bytes
        return False
    return min(text, default=" ") >= " "


_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_READERS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (lambda text: _SWITCH[text.lower()], "true or false"),
    int: (int, "a whole number"),
    float: (_finite, "a number"),
    str: (str, "a text"),
    Path: (lambda text: Path(text).expanduser(), "a path"),
    Schedule: (Schedule.parse, "a number, or STEP:VALUE,STEP:VALUE,..."),
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
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        kind, count = hint, None
        if typing.get_origin(hint) is tuple:
            kind, *rest = typing.get_args(hint)
            count = "*" if rest == [...] else 1 + len(rest)
        group = (home[entry.name].__doc__ or "").strip().rstrip(".")
        spec = entry.metadata["option"]
        items[entry.name] = Item(entry.name, kind, count, optional, entry.default, group, spec)
    return items


OptionsT = TypeVar("OptionsT", bound="Options")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `TrainOptions` and `EvalOptions` share.  Checked whenever one is made.

    Attributes:
        given: names that the user set, on the command line or in YAML.
        unread: a line on each choice that does not read some of the flags; YAML serves several
            choices.
    """

    rules: ClassVar[tuple[Rule, ...]] = ()
    given: frozenset[str] = field(default=frozenset(), compare=False)
    unread: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def parts_of(cls, stage: str | None) -> Collection[str] | None:
        """The parts of the work that a stage is made of; None: all."""
        return None

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
    return str(value) if isinstance(value, Path | Schedule) else value


# -- from text to options -----------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are `UserError`s."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def _parser(cls: type[Options], usage: str, about: str, parts: Collection[str] | None) -> _Parser:
    """Options that do not belong to ``parts`` are known, and not in the help."""
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
        if not item.read_by(parts):
            parser.add_argument(f"--{item.name}", **_argument(item) | {"help": argparse.SUPPRESS})
            continue
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

    metavar = {int: "N", float: "X", Path: "PATH", str: "NAME", Schedule: "X"}[item.kind]
    if item.spec.choices:
        metavar = "{" + ",".join(item.spec.choices) + "}"
    nargs = "+" if item.count == "*" else item.count  # an option without a value is a mistake
    return {"type": read, "nargs": nargs, "metavar": metavar, "help": help}


def _shown(item: Item) -> str:
    if item.default is MISSING:
        return "required"
    if item.default is None or item.default == ():
        return ""
    if item.kind is bool:
        return "default: on" if item.default else "default: off"
    return f"default: {item.default}"


def _visible(word: str) -> str:
    """A word of the command line as a message shows it: quoted where it would break the line or not
    be seen."""
    return word if word.isprintable() and word.strip() else repr(word)


def parse_options(
    cls: type[OptionsT], usage: str, about: str, argv: Sequence[str] | None
) -> OptionsT:
    known = options_of(cls)
    argv = sys.argv[1:] if argv is None else list(argv)
    parts = cls.parts_of(_stage_in(argv))
    flags, strangers = _parser(cls, usage, about, parts).parse_known_args(argv)
    for stranger in strangers:
        if not stranger.startswith("-"):
            raise UserError(f"{_visible(stranger)}: belongs to no option; see --help")
        flag = stranger.split("=")[0]
        switches = [f"no-{name}" for name, item in known.items() if item.kind is bool]
        hint = _nearest(flag.lstrip("-"), [*known, "config", *switches], "--") or "; see --help"
        raise UserError(f"{_visible(flag)}: unknown option{hint}")
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in vars(flags).items()}
    config = given.pop("config", None)
    values = {**(_read_yaml(cls, config) if config else {}), **given}
    for item in known.values():
        if item.default is MISSING and item.name not in values:
            choices = f" {'|'.join(item.spec.choices)}" if item.spec.choices else ""
            raise UserError(f"--{item.name}: missing; give --{item.name}{choices}")
    unread: dict[str, list[str]] = {}
    for name in given:
        only = known[name].spec.only
        if not known[name].read_by(parts):
            unread.setdefault(f"--stage {values['stage']}", []).append(f"--{name}")
        elif only and (chosen := values.get(only[0], known[only[0]].default)) != only[1]:
            unread.setdefault(f"--{only[0]} {chosen}", []).append(f"--{name}")
    lines = tuple(f"{', '.join(flags)}: not used by {by}" for by, flags in unread.items())
    return cls(**values, given=frozenset(values), unread=lines)


def _stage_in(argv: Sequence[str]) -> str | None:
    """The stage that the arguments name, before they are parsed: the help depends on it."""
    for flag, value in pairwise([*argv, ""]):
        if flag == "--stage":
            return value
        if flag.startswith("--stage="):
            return flag.removeprefix("--stage=")
    return None


class _PlainLoader(yaml.BaseLoader):
    """YAML without aliases, as a few bytes of them can stand for values without end, and in which
    nothing is said twice."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read; write the value again")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"'{key.value}' is given twice; leave one out")
                seen.add(key.value)
        return node


def _read_yaml(cls: type[Options], path: Path) -> dict[str, Any]:
    try:
        # BaseLoader leaves every scalar a text, so that a value means what it means as a flag:
        # `lr: 1e-3` is a number and `suffix: 007` keeps its zeros.  It constructs no objects.
        content = yaml.load(read_text(path, LARGEST_CONFIG), Loader=_PlainLoader)
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror or error})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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


def _joined(value: object) -> object:
    """A value of a YAML mapping, as one text: ``a,b`` of a list, ``key=value,...`` of a mapping,
    lists in it as ``200x200``."""
    if isinstance(value, dict):
        parts = ((k, "x".join(v) if isinstance(v, list) else v) for k, v in value.items())
        return ",".join(f"{key}={part}" for key, part in parts)
    return ",".join(value) if isinstance(value, list) else value


def _node(value: Any) -> Any:
    """Plain JSON types in the form in which YAML's BaseLoader yields them."""
    if isinstance(value, list | tuple):
        return [_node(single) for single in value]
    return "null" if value is None else value if isinstance(value, dict) else str(value)
