"""Where the feature networks come from: VGG-19's weights if they are to be had, else our own."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from features.network import LAYERS, TORCHVISION_INDEX, VGG19_WIDTHS, FeatureNetwork
from utils.errors import UserError

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
OWN_WIDTHS = (32, 32, 64, 64, 128)
OWN_WEIGHTS = Path(__file__).with_name("texture_encoder.pth")
KINDS = ("auto", "vgg", "own")


def vgg_cache() -> Path:
    """Where torchvision keeps its VGG-19."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG19_URL).name


def vgg_at_hand(path: Path | str | None = None) -> bool:
    """Whether VGG-19's weights can be had without a download."""
    return Path(path).is_file() if path is not None else vgg_cache().is_file()


def load_features(
    kind: str = "auto", vgg_weights: Path | str | None = None, layers: Sequence[str] = LAYERS
) -> FeatureNetwork:
    """The feature network that the options ask for.

    Args:
        kind: "vgg"; "own"; or "auto": VGG-19 where a file is given or torchvision has it in its
            cache, else our own.
        vgg_weights: a file of VGG-19's weights, or None.
        layers: what will be asked of it.

    Returns:
        The network, in evaluation mode, without gradients for its weights.

    Raises:
        UserError: for an unknown kind, or weights that are not to be had.
    """
    if kind not in KINDS:
        raise UserError(f"--features {kind}: unknown; take one of {', '.join(KINDS)}")
    if kind == "vgg" or (kind == "auto" and (vgg_weights is not None or vgg_at_hand())):
        return load_vgg(vgg_weights, layers)
    return load_own_encoder()


def load_vgg(path: Path | str | None = None, layers: Sequence[str] = LAYERS) -> FeatureNetwork:
    """VGG-19 up to the deepest of ``layers``: from the path given, else torchvision's cache, else
    a download into that cache.

    Args:
        path: a state dict in torchvision's naming (``features.0.weight`` ...), whole or only its
            first layers, bare or under ``state_dict``.
        layers: names out of `LAYERS`.

    Returns:
        The network, in evaluation mode, without gradients for its weights.

    Raises:
        UserError: where the weights are not to be had or not VGG-19's.
    """
    depth = 1 + max(LAYERS.index(layer) for layer in layers)
    network = FeatureNetwork(VGG19_WIDTHS[:depth], name="vgg19")
    if path is None and not vgg_at_hand():
        _fill(network, _download_vgg(), _torchvision_name, VGG19_URL)
    else:
        file = Path(path) if path is not None else vgg_cache()
        _fill(network, _read(file), _torchvision_name, str(file))
    return network


def load_own_encoder() -> FeatureNetwork:
    """The encoder that comes with the project: VGG-19's shape at half its width.

    Raises:
        UserError: where its file is missing or damaged.
    """
    network = FeatureNetwork(OWN_WIDTHS, name="own")
    _fill(network, _read(OWN_WEIGHTS), lambda layer: layer, str(OWN_WEIGHTS))
    return network


def _torchvision_name(layer: str) -> str:
    return f"features.{TORCHVISION_INDEX[layer]}"


def _download_vgg() -> Mapping[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(
            VGG19_URL, map_location="cpu", progress=True, check_hash=True, weights_only=True
        )
    # URLError, a broken connection and a full disk are OSErrors; a wrong hash is a RuntimeError
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"VGG-19: no weights given, none at {vgg_cache()}, and the download failed ({error}); "
            f"give a file with --vgg_weights FILE, or put {VGG19_URL} there, "
            "or take the objective without a download: --features own"
        ) from error


def _read(file: Path) -> Mapping[str, Tensor]:
    """A state dict from an untrusted file."""
    if not file.is_file():
        raise UserError(f"{file}: no such file of weights; check --vgg_weights")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file}: not a checkpoint of plain tensors, and code is not run; "
            "save the network's state_dict() instead"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{file}: cannot be read as a checkpoint ({error})") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise UserError(f"{file}: holds a {type(state).__name__}, not a state dict")
    return state


def _fill(
    network: FeatureNetwork,
    state: Mapping[str, Tensor],
    name_of: Callable[[str], str],
    source: str,
) -> None:
    """Copy the layers of the network from ``state``; name what is missing or does not fit."""
    tensors = {
        f"{name_of(layer)}.{part}": getattr(conv, part)
        for layer, conv in network.convs.items()
        for part in ("weight", "bias")
    }
    if missing := [key for key in tensors if not isinstance(state.get(key), Tensor)]:
        raise UserError(f"{source}: {network.name} needs {', '.join(missing)}, missing there")
    for key, parameter in tensors.items():
        value = state[key]
        if value.shape != parameter.shape or not value.is_floating_point():
            raise UserError(
                f"{source}: {key} is {tuple(value.shape)} {value.dtype}, {network.name} has "
                f"{tuple(parameter.shape)} floating point; is this another network?"
            )
        if not value.isfinite().all():
            raise UserError(f"{source}: {key} holds NaN or infinity; the file is damaged")
        parameter.data.copy_(value)
    network.eval()
