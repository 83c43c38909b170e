"""Which data set trains which encoder and which decoder, read from the options --scenes and
--pairs; without PyTorch, as the options are checked before it is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.formats.names import AUTO
from utils.errors import UserError

# what a data set may have of its own, beside its folder
OWN = ("dataset_name", "img_wh", "near", "far", "hold_out", "spheric_poses")
_OWN = tuple(f"{option}=" for option in OWN)
_NEXT = re.compile(rf",(?=(?:{'|'.join(('root_dir', *OWN))})=)")


@dataclass(frozen=True)
class Pair:
    """A data set shows what its encoder knows in the colours of its decoder."""

    data: str
    encoder: str
    decoder: str


def scene_parts(text: str) -> tuple[str, dict[str, str]]:
    """Name and options of ``NAME=FOLDER``, ``NAME=FOLDER,near=2,img_wh=200x200``.

    Raises:
        ValueError: it is something else.
    """
    name, _, rest = text.partition("=")
    first, *others = _NEXT.split(rest)
    if not first.startswith("root_dir="):
        first = f"root_dir={first}"
    options = dict(part.split("=", 1) for part in (first, *others))
    folder = options["root_dir"]
    # an option that is misspelt, or without a folder, is not the name of one
    if not _plain(name) or not folder or re.search(r",\w+=", folder) or folder.startswith(_OWN):
        raise ValueError
    return name, options


def pair_of(text: str) -> Pair:
    """The pair ``DATA_SET=ENCODER,DECODER``.

    Raises:
        ValueError: it is something else.
    """
    data, _, rest = text.partition("=")
    encoder, _, decoder = rest.partition(",")
    if not all(map(_plain, (data, encoder, decoder))):
        raise ValueError
    return Pair(data, encoder, decoder)


def is_scene(text: str) -> bool:
    return _reads(scene_parts, text)


def is_pair(text: str) -> bool:
    return _reads(pair_of, text)


def _reads(read: Any, text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def _plain(name: str) -> bool:
    return bool(name.strip()) and not set(name) & set("/\\=,\0") and name not in (".", "..")


def folders(scenes: Sequence[str]) -> dict[str, dict[str, str]]:
    """Options of each data set, by its name.

    Raises:
        UserError: two data sets have one name.
    """
    found: dict[str, dict[str, str]] = {}
    for name, options in map(scene_parts, scenes):
        if name in found:
            raise UserError(f"--scenes: '{name}' is given twice; leave one out")
        found[name] = options
    return found


def checked_pairs(scenes: Sequence[str], pairs: Sequence[str]) -> list[Pair]:
    """The pairs, in their order.

    Raises:
        UserError: one line on what is missing, given twice, or trained by nothing.
    """
    data, found = folders(scenes), [pair_of(text) for text in pairs]
    names = ", ".join(f"'{name}'" for name in data)
    by_data: dict[str, Pair] = {}
    by_modules: dict[tuple[str, str], Pair] = {}
    for pair in found:
        if pair.data not in data:
            raise UserError(
                f"--pairs: there is no data set '{pair.data}' in --scenes, only {names}"
            )
        if pair.data in by_data:
            raise UserError(f"--pairs: the data set '{pair.data}' is given twice; leave one out")
        other = by_modules.get((pair.encoder, pair.decoder))
        if other is not None:
            raise UserError(
                f"--pairs: encoder '{pair.encoder}' with decoder '{pair.decoder}' is given twice, "
                f"by the data sets '{other.data}' and '{pair.data}'; leave one out"
            )
        by_data[pair.data] = by_modules[pair.encoder, pair.decoder] = pair
    for name in data:
        if name not in by_data:
            raise UserError(
                f"--pairs: nothing is trained by the data set '{name}'; name its encoder and "
                "decoder, or leave it out of --scenes"
            )
    return found


def listed_once(names: Sequence[str]) -> list[str]:
    """The names in the order of their first appearance."""
    return list(dict.fromkeys(names))


def source_of(saved: Mapping[str, Any], encoder: str, decoder: str) -> tuple[dict[str, Any], bool]:
    """Where the photos of a pair are.

    Args:
        saved: options of the run that wrote a checkpoint.
        encoder, decoder: names.

    Returns:
        Options of its data set, or for a pair that was not trained of the first one that shows what
        the encoder knows; and whether they show it in the decoder's colours.
    """
    try:
        data = folders(saved["scenes"])
        pairs = [pair for pair in map(pair_of, saved["pairs"]) if pair.encoder == encoder]
        trained = [pair for pair in pairs if pair.decoder == decoder]
        own = data[(trained or pairs)[0].data]
    except (KeyError, IndexError, TypeError, ValueError):
        raise UserError("damaged checkpoint: its options name no data sets") from None
    plain = {name: plain_value(name, text) for name, text in own.items()}
    place = {"dataset_name": AUTO, **plain, "scene_name": f"{encoder}_{decoder}"}
    return {**saved, **place}, bool(trained)


def plain_value(name: str, text: str) -> Any:
    """An option of a data set as YAML would have it."""
    return text.split("x") if name == "img_wh" else text
