"""The tables of style terms and of the objectives made of them.

To add a term: write ``losses/NAME.py`` with a subclass of `losses.terms.FeatureTerm` or of
`losses.terms.PixelTerm`, and add a line to `TERMS`.  The option ``--NAME_weight`` and the term's
place in `StyleObjective` follow.  Importing this module does not import PyTorch.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.registry import Registry

if TYPE_CHECKING:
    from losses.terms import FeatureTerm, PixelTerm


@dataclass(frozen=True)
class Term:
    """A line of the table of terms.

    Attributes:
        path: "module:class".
        help: what it measures, for the help of ``--NAME_weight``.
        objectives: name of an objective -> its weights by term, for those of which this is the main
            term.
    """

    path: str
    help: str
    objectives: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def load(self) -> type[FeatureTerm] | type[PixelTerm]:
        """The term's class."""
        return pkgutil.resolve_name(self.path)


TERMS: dict[str, Term] = {
    # styleNeRF's objective
    "gram": Term("losses.gram:GramTerm", "Gram matrices", {"gram": {"gram": 1e6, "content": 1.0}}),
    # cosine distance alone leaves contrast open, and its colours go astray: a little of the
    # statistics holds them.  Content and smoothness would cost strokes
    "nnfm": Term(
        "losses.nnfm:NnfmTerm",
        "nearest-neighbour feature matching",
        {"nnfm": {"nnfm": 1.0, "statistics": 4.0}},
    ),
    "statistics": Term(
        "losses.statistics:StatisticsTerm",
        "means and standard deviations of features",
        {"adain": {"statistics": 1.0, "content": 0.03, "tv": 10.0}},
    ),
    "content": Term("losses.content:ContentTerm", "distance to the photo's features"),
    "tv": Term("losses.total_variation:TotalVariation", "total variation"),
    "swd": Term(
        "losses.sliced_wasserstein:SlicedWasserstein",
        "sliced Wasserstein distance of patches",
        {"swd": {"swd": 1.0, "content": 2e-5}},
    ),
    "directional": Term(
        "losses.directional:Directional",
        "difference from the photo, to an encoder, that a --prompt or painting asks for",
        {"directional": {"directional": 1.0, "content": 1e-3}},
    ),
}
# name -> weights by term: what ``--objective NAME`` minimises
OBJECTIVES = {
    name: dict(weights) for term in TERMS.values() for name, weights in term.objectives.items()
}


def checked_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights that are not 0, in the order of `TERMS`.

    Raises:
        UserError: for an unknown term, a weight that is negative or not finite, or no weight.
    """
    if unknown := [name for name in weights if name not in TERMS]:
        raise UserError(f"style terms {unknown}: unknown; take some of {', '.join(TERMS)}")
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise UserError(f"weight of the style term {name}: {weight}; give a number >= 0")
    weights = {name: weights[name] for name in TERMS if weights.get(name, 0) > 0}
    if not weights:
        raise UserError(f"style weights: all are zero; give at least one of {', '.join(TERMS)}")
    return weights


def layers_needed(weights: Mapping[str, float]) -> list[str]:
    """The layers, or roles of layers, that a `StyleObjective` of these weights looks at; none where
    it needs no network.

    Raises:
        UserError: as `checked_weights`.
    """
    classes = [TERMS[name].load() for name in checked_weights(weights)]
    return list(dict.fromkeys(layer for cls in classes for layer in cls.default_layers))


# how the features of two encoders are made to overlap (`--overlap`)
OVERLAPS = Registry(
    "overlap loss",
    {
        "kl": "losses.overlap:gaussian_kl",
        "coral": "losses.overlap:coral",
        "mmd": "losses.overlap:mmd",
        "sliced": "losses.overlap:sliced_wasserstein",
        "adversarial": "losses.overlap:Adversary",
        "support": "losses.overlap:support",
    },
)
