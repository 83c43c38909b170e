"""Tables of what there is of a kind: name -> where the class or function that builds it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any


class Registry(Mapping[str, Any]):
    """name -> object, imported when it is first asked for: listing the names imports nothing.

    Args:
        noun: what the entries are, for messages.
        places: name -> ``"module:attribute"``.

    >>> Registry("root", {"square": "math:sqrt"})["square"](9.0)
    3.0
    """

    def __init__(self, noun: str, places: Mapping[str, str]) -> None:
        self.noun = noun
        self.places = dict(places)

    def __getitem__(self, name: str) -> Any:
        """The object ``name``; KeyError names those that there are."""
        if name not in self.places:
            raise KeyError(f"no {self.noun} {name!r}; there are {', '.join(self.places)}")
        module, attribute = self.places[name].split(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)
