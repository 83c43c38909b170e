"""The feature network that every style loss looks through: VGG-19 up to conv3_1, or our own of the
same shape and half the width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# convolution -> its place in torchvision's `vgg19().features`; conv2_1, conv3_1 follow a max-pool
TORCHVISION_INDEX = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10}
LAYERS = tuple(TORCHVISION_INDEX)
VGG19_WIDTHS = (64, 64, 128, 128, 256)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FeatureNetwork(nn.Module):
    """Frozen convolutions in the shape of VGG-19 (Simonyan & Zisserman 2015), conv1_1 .. conv3_1.

    Features are taken at the convolutions' outputs, before the ReLU, as styleNeRF does.
    Parameters never require gradients, so a backward pass costs only the gradient of the image.

    Args:
        widths: output channels of the convolutions, in the order of `LAYERS`; fewer than five make
            a network that ends earlier.
        name: what it is called in messages.
    """

    def __init__(self, widths: Sequence[int] = VGG19_WIDTHS, name: str = "vgg19") -> None:
        super().__init__()
        self.name = name
        channels = (3, *widths)
        self.convs = nn.ModuleDict(
            {
                layer: nn.Conv2d(channels[i], channels[i + 1], 3, padding=1)
                for i, layer in enumerate(LAYERS[: len(widths)])
            }
        )
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor, layers: Sequence[str] = LAYERS) -> dict[str, Tensor]:
        """Features of the asked layers.

        Args:
            image: (B, 3, H, W) sRGB in [0, 1].
            layers: names out of `LAYERS`.

        Returns:
            layer -> (B, C, h, w), h = H, H // 2, H // 4 for conv1_*, conv2_*, conv3_*.

        Raises:
            ValueError: for a layer that this network does not have.
        """
        if unknown := [layer for layer in layers if layer not in self.convs]:
            raise ValueError(f"{self.name} has no layers {unknown}; it has {list(self.convs)}")
        # channels last: convolutions and their gradients take a third less time
        x = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features: dict[str, Tensor] = {}
        for layer, conv in self.convs.items():
            if layer in ("conv2_1", "conv3_1"):
                x = functional.max_pool2d(x, 2)
            x = conv(x)
            if layer in layers:
                features[layer] = x
            if len(features) == len(layers):
                break
            x = functional.relu(x)
        return features
