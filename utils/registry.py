"""Registries: name -> import path of the class or function that builds the named thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any


class Registry(Mapping[str, Any]):
    """name -> object, imported on first use: listing the names imports nothing.

    Args:
        noun: what an entry is, for error messages.
        places: name -> ``"module:attribute"``.

    >>> Registry("root", {"square": "math:sqrt"})["square"](9.0)
    3.0
    """

    def __init__(self, noun: str, places: Mapping[str, str]) -> None:
        self.noun = noun
        self.places = dict(places)

    def __getitem__(self, name: str) -> Any:
        """The object called ``name``; KeyError: unknown, with the list of known names."""
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
