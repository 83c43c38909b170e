"""VGG-16 and VGG-19 (Simonyan & Zisserman 2015), and smaller networks of their shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.network import FeatureNetwork, Layer, expanded
from features.weights import copy_weights, read_weights
from utils.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def convolutions(per_block: Sequence[int], widths: Sequence[int]) -> dict[str, int]:
    """Names of the convolutions, conv1_1 and so on, with their output channels.

    Args:
        per_block: number of convolutions in each block; a max-pooling precedes each block but the
            first.
        widths: output channels of each block.
    """
    return {
        f"conv{block}_{i}": width
        for block, (count, width) in enumerate(zip(per_block, widths, strict=True), 1)
        for i in range(1, count + 1)
    }


_WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {
    "vgg19": convolutions((2, 2, 4, 4, 4), _WIDTHS),
    "vgg16": convolutions((2, 2, 3, 3, 3), _WIDTHS),
}
# styleNeRF's layers for statistics and content, ARF's for matching: of VGG-16 block 3
FIRST_FIVE = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
ROLES = {
    "vgg19": {"statistics": FIRST_FIVE, "matching": ("conv3_1",), "content": ("conv2_2",)},
    "vgg16": {
        "statistics": FIRST_FIVE,
        "matching": ("conv3_1", "conv3_2", "conv3_3"),
        "content": ("conv2_2",),
    },
}
URLS = {
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
}


class Vgg(FeatureNetwork):
    """3x3 convolutions with ReLUs, in blocks with 2x2 max-pooling between them.

    The layer conv3_1 is the convolution's output before the ReLU, relu3_1 after it.  Parameters
    require no gradients, so that a backward pass computes the gradient of the image alone.

    Args:
        channels: convolution -> output channels, in the order of the network, see `convolutions`.
        name: what messages call it; a key of `ROLES`, or it has VGG-19's roles.
    """

    def __init__(self, channels: Mapping[str, int], name: str) -> None:
        super().__init__()
        self.name = name
        self.roles = ROLES.get(name, ROLES["vgg19"])
        self.layers = {}
        self.convs = nn.ModuleDict()
        inputs, stride, halo = 3, 1, 0
        for conv, outputs in channels.items():
            if _starts_block(conv):
                stride *= 2
            halo += stride
            self.convs[conv] = nn.Conv2d(inputs, outputs, 3, padding=1)
            self.layers[conv] = self.layers[_relu(conv)] = Layer(outputs, stride, halo)
            inputs = outputs
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("shift", -mean / std, persistent=False)
        self.register_buffer("scale", 1 / std, persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        self.require(layers)
        # channels last: convolutions and their gradients take a third less time
        x = torch.addcmul(self.shift, image, self.scale)
        x = x.contiguous(memory_format=torch.channels_last)
        wanted = set(layers)
        features: dict[str, Tensor] = {}
        for name, conv in self.convs.items():
            if len(features) == len(wanted):
                break
            if _starts_block(name):
                x = functional.max_pool2d(x, 2)
            x = conv(x)
            if name in wanted:
                features[name] = x
                if len(features) == len(wanted):
                    break
            x = functional.relu(x)
            if _relu(name) in wanted:
                features[_relu(name)] = x
        return features


def load_vgg19(weights: Path | None, layers: Sequence[str]) -> Vgg:
    """`load_vgg` for VGG-19."""
    return load_vgg(weights, layers, "vgg19")


def load_vgg16(weights: Path | None, layers: Sequence[str]) -> Vgg:
    """`load_vgg` for VGG-16."""
    return load_vgg(weights, layers, "vgg16")


def load_vgg(weights: Path | None, layers: Sequence[str], name: str | None = None) -> Vgg:
    """VGG-16 or VGG-19 up to the deepest of ``layers``.

    Args:
        weights: state dict with torchvision's names (``features.0.weight`` ...), whole or only its
            first layers, bare or under ``state_dict``; None for the file in torchvision's cache, to
            which it is downloaded if need be.
        layers: names out of `Vgg.layers` or `Vgg.roles`.
        name: "vgg16" or "vgg19"; None for the one that the file holds, which is taken for VGG-19
            where it ends before the two differ.

    Returns:
        The network, in evaluation mode, without gradients for its parameters.

    Raises:
        UserError: where the weights are missing, damaged, another network's, or not deep enough.
    """
    if weights is None:
        name = name or "vgg19"
        weights = cached_weights(name)
        if not weights.is_file():
            _download(name)
    state = read_weights(weights)
    name = _network_in(state, weights, name)
    channels = CONVOLUTIONS[name]
    network = Vgg(_up_to(channels, expanded(layers, ROLES[name]), name), name)
    indices = torchvision_indices(channels)
    names = {conv: f"features.{indices[conv]}" for conv in network.convs}
    _require_depth(state, names, weights)
    copy_weights(network.convs, state, names, weights)
    return network.eval()


def cached_weights(name: str) -> Path:
    """Where torchvision keeps the weights of "vgg16" or "vgg19"."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(URLS[name]).name


def vgg_in_cache() -> str | None:
    """Which of the two torchvision has downloaded already; "vgg16", whose block 3 paints better,
    where it has both."""
    return next((name for name in ("vgg16", "vgg19") if cached_weights(name).is_file()), None)


def torchvision_indices(channels: Mapping[str, int]) -> dict[str, int]:
    """The index of each convolution in torchvision's ``vgg.features``, where ReLUs and
    max-poolings count too."""
    indices, index = {}, 0
    for conv in channels:
        index += _starts_block(conv)
        indices[conv] = index
        index += 2
    return indices


def _starts_block(conv: str) -> bool:
    """Whether a max-pooling precedes the convolution."""
    return conv.endswith("_1") and conv != "conv1_1"


def _relu(conv: str) -> str:
    return conv.replace("conv", "relu")


def _up_to(channels: Mapping[str, int], layers: Sequence[str], name: str) -> dict[str, int]:
    """The convolutions up to the deepest of ``layers``."""
    names = list(channels)
    wanted = [layer.replace("relu", "conv") for layer in layers]
    if unknown := [layer for layer, conv in zip(layers, wanted, strict=True) if conv not in names]:
        raise UserError(
            f"{', '.join(unknown)}: no layer of {name}; its convolutions are {', '.join(names)}"
        )
    depth = 1 + max(map(names.index, wanted))
    return {conv: channels[conv] for conv in names[:depth]}


def _network_in(state: Mapping[str, object], source: Path, name: str | None) -> str:
    """Which VGG a state dict belongs to, by the indices of its convolutions."""
    held = {i for i in range(64) if f"features.{i}.weight" in state}
    possible = [
        vgg
        for vgg, channels in CONVOLUTIONS.items()
        if held <= set(torchvision_indices(channels).values())
    ]
    if not held or not possible:
        raise UserError(
            f"{source}: not the weights of VGG-16 or VGG-19; they must have torchvision's names, "
            "features.0.weight and so on"
        )
    if name is not None and name not in possible:
        raise UserError(
            f"{source}: holds {possible[0]}, but {name} was asked for; give --features "
            f"{possible[0]} or another file"
        )
    return name or possible[0]


def _require_depth(state: Mapping[str, object], names: Mapping[str, str], source: Path) -> None:
    """Raise UserError where a file ends before the network does."""
    convs = list(names)
    missing = [i for i, conv in enumerate(convs) if f"{names[conv]}.weight" not in state]
    if missing and missing[0] > 0:
        raise UserError(
            f"{source}: has convolutions up to {convs[missing[0] - 1]}, and {convs[-1]} is needed; "
            f"give a deeper file ({names[convs[missing[0]]]}.weight is missing)"
        )


def _download(name: str) -> None:
    target, url = cached_weights(name), URLS[name]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hash_prefix = target.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(target), hash_prefix)
    # URLError, a broken connection and a full disk are OSErrors; a wrong hash is a RuntimeError
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{name}: no weights given, none at {target}, and the download failed ({error}); "
            f"give a file with --vgg_weights FILE, or put {url} there, "
            "or do without a download: --features own"
        ) from error
