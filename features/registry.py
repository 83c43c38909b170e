"""The table of feature networks: what ``--features NAME`` builds.

To add one, a semantic encoder for instance: write ``features/NAME.py`` with a subclass of
`features.network.FeatureNetwork` and a function ``load(weights, layers)`` that returns it, and add
a line to `NETWORKS`.  Importing this module does not import PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.registry import Registry

if TYPE_CHECKING:
    from features.network import FeatureNetwork

# name -> "module:function"; function(weights: Path | None, layers: Sequence[str]) -> FeatureNetwork
NETWORKS = Registry(
    "feature network",
    {
        "vgg19": "features.vgg:load_vgg19",
        "vgg16": "features.vgg:load_vgg16",
        "own": "features.texture_encoder:load",
    },
)
AUTO = "auto"
# name -> "module:function"; function(weights: Path | None) -> features.semantic.SemanticEncoder
ENCODERS = Registry(
    "semantic encoder",
    {
        "clip": "features.clip:load",
        "dino": "features.dino:load",
        "efficientnet": "features.efficientnet:load",
        "own": "features.own_semantic:load",
    },
)


def load_features(
    name: str = AUTO, weights: Path | str | None = None, *, layers: Sequence[str]
) -> FeatureNetwork:
    """A feature network, no deeper than it needs to be.

    Args:
        name: one of `NETWORKS`, or "auto": where a file is given, VGG-16 or VGG-19, whichever it
            holds; without a file, the one that torchvision has in its cache, VGG-16 if both, else
            our own.
        weights: a file of VGG weights, or None.
        layers: the layers that are needed, by name or by role, see `FeatureNetwork.roles`.

    Returns:
        The network, in evaluation mode, without gradients for its parameters.

    Raises:
        UserError: for an unknown name, or weights that are missing, damaged, or not deep enough.

    >>> import torch
    >>> network = load_features("own", layers=["conv2_1"])
    >>> network(torch.rand(1, 3, 32, 48), ["conv2_1"])["conv2_1"].shape
    torch.Size([1, 64, 16, 24])
    """
    weights = None if weights is None else Path(weights)
    if name == AUTO:
        from features.vgg import load_vgg, vgg_in_cache

        if weights is not None:
            return load_vgg(weights, layers)
        name = vgg_in_cache() or "own"
    if name not in NETWORKS:
        raise UserError(f"--features {name}: unknown; take one of {', '.join((AUTO, *NETWORKS))}")
    return NETWORKS[name](weights, layers)
