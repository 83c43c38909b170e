"""The 2D stylisation network: a frozen encoder, a change of its features' means and deviations to
those of a painting (AdaIN, Huang & Belongie 2017), patches of the painting's in their place
(`models/patch_swap.py`), and a decoder back to an image."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.network import FeatureNetwork
from models.patch_swap import nearest_patches, swapped

LAYER = "relu3_1"
LEAST_VARIANCE = 1e-5  # added under the root, as in AdaIN


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel, (C,) both."""

    mean: Tensor
    std: Tensor

    def vector(self) -> Tensor:
        """(2 C,) both in one row."""
        return torch.cat([self.mean, self.std])


class Moments(NamedTuple):
    """Sums over positions, which add up over images: of the weights (), of the features (C,) and of
    their squares (C,), in double precision."""

    weight: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, features: Tensor, mask: Tensor | None = None) -> Moments:
        """Of features (1, C, h, w), weighted by a mask (1, 1, h, w) or not at all."""
        x = features.double().flatten(2)[0]
        weight = x.new_ones(x.shape[1]) if mask is None else mask.to(x).flatten()
        return cls(weight.sum(), x @ weight, x.square() @ weight)

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        return Moments(*(a + b for a, b in zip(self, other, strict=True)))

    def statistics(self) -> Statistics:
        """Mean and deviation, in single precision."""
        weight = self.weight.clamp(min=1e-12)
        mean = self.first / weight
        variance = (self.second / weight - mean.square()).clamp(min=0)
        return Statistics(mean.float(), (variance + LEAST_VARIANCE).sqrt().float())


def map_statistics(features: Tensor, content: Statistics, style: Statistics) -> Tensor:
    """Adaptive instance normalisation: ``std_s (F - mean_c) / std_c + mean_s`` of each channel.

    Args:
        features: (B, C, h, w) of a content image.
        content: the statistics to remove.
        style: those to take on.

    Returns:
        (B, C, h, w).

    >>> content = Statistics(torch.zeros(4), torch.ones(4))
    >>> style = Statistics(torch.ones(4), torch.ones(4))
    >>> map_statistics(torch.zeros(1, 4, 2, 2), content, style).unique()
    tensor([1.])
    """
    gain = style.std / content.std
    offset = style.mean - content.mean * gain
    return features * gain.to(features)[:, None, None] + offset.to(features)[:, None, None]


def normalised(features: Tensor, own: Statistics) -> Tensor:
    """Features (B, C, h, w) with their own means and deviations taken away."""
    return (features - own.mean.to(features)[:, None, None]) / own.std.to(features)[:, None, None]


class Manner(NamedTuple):
    """What the network takes from a painting: the statistics of its features, and its normalised
    features (1, C, H, W) in half precision, whose patches are strokes; None: statistics alone."""

    statistics: Statistics
    features: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor, patches: bool = True) -> Manner:
        """Of a painting's features (1, C, H, W)."""
        own = Moments.of(features).statistics()
        return cls(own, normalised(features, own).half() if patches else None)


class ImageDecoder(nn.Module):
    """A VGG-shaped encoder run backwards: reflection-padded 3x3 convolutions, nearest-neighbour
    enlargement where the encoder pools, ReLUs between, none at the end.

    Args:
        channels: of the encoder's convolutions, by name in its order, up to the layer that is
            decoded; the first of each block follows a pooling.

    >>> ImageDecoder({"conv1_1": 8, "conv2_1": 16})(torch.zeros(1, 16, 5, 7)).shape
    torch.Size([1, 3, 10, 14])
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        widths = [3, *channels.values()]
        self.convs = nn.ModuleList()
        self.enlarge: list[bool] = []
        for name, (inputs, outputs) in reversed(list(zip(channels, pairwise(widths), strict=True))):
            self.convs.append(nn.Conv2d(outputs, inputs, 3))
            self.enlarge.append(name.endswith("_1") and name != "conv1_1")

    @classmethod
    def of(cls, network: FeatureNetwork, layer: str = LAYER) -> ImageDecoder:
        """The decoder, with random weights, of a layer of a VGG-shaped network."""
        names = [name for name in network.layers if name.startswith("conv")]
        names = names[: names.index(layer.replace("relu", "conv")) + 1]
        return cls({name: network.layers[name].channels for name in names})

    def forward(self, features: Tensor) -> Tensor:
        """``features (B, C, h, w)`` -> (B, 3, h stride, w stride), about [0, 1], not clamped."""
        x, last = features, len(self.convs) - 1
        for i, (conv, enlarge) in enumerate(zip(self.convs, self.enlarge, strict=True)):
            # reflection needs a second pixel
            mode = "reflect" if min(x.shape[2:]) > 1 else "replicate"
            x = conv(functional.pad(x, (1, 1, 1, 1), mode=mode))
            if i < last:
                x = functional.relu(x)
            if enlarge:
                x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return x


class Stylizer(nn.Module):
    """Paints an image in the manner of another one.

    Args:
        network: the frozen encoder.
        decoder: of its layer ``layer``.
        layer: whose statistics are changed.
    """

    def __init__(self, network: FeatureNetwork, decoder: ImageDecoder, layer: str = LAYER) -> None:
        super().__init__()
        self.network, self.decoder, self.layer = network, decoder, layer

    @property
    def stride(self) -> int:
        """Pixels along the side of a feature's cell."""
        return self.network.layers[self.layer].stride

    def features(self, image: Tensor) -> Tensor:
        """Features (B, C, h, w) of an image (B, 3, H, W) in [0, 1], see `whole_cells`."""
        return self.network(self.whole_cells(image), [self.layer])[self.layer]

    def whole_cells(self, image: Tensor) -> Tensor:
        """An image (B, C, H, W), repeated at its lower and right borders to whole cells of the
        features."""
        padding = [(-n) % self.stride for n in image.shape[2:]]
        if any(padding):
            image = functional.pad(image, (0, padding[1], 0, padding[0]), mode="replicate")
        return image

    def decode(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """The image (B, 3, *size) of features."""
        return self.decoder(features)[..., : size[0], : size[1]]

    def matched(self, query: Tensor, manner: Manner, mask: Tensor | None = None) -> Tensor | None:
        """Which patches of the painting take the place of the content's, (h, w) int32, see
        `nearest_patches`; None of a manner without patches.

        Args:
            query: (1, C, h, w) normalised features that they are to resemble.
            manner: of the painting.
            mask: (1, 1, H, W), where there is something to paint; None: everywhere.
        """
        if manner.features is None:
            return None
        where = torch.ones(query.shape[2:], dtype=torch.bool, device=query.device)
        if mask is not None:
            where = pooled(mask, query)[0, 0] > 0
        return nearest_patches(query, manner.features.to(query), where)

    def changed(
        self,
        features: Tensor,
        content: Statistics,
        manner: Manner,
        nearest: Tensor | None,
    ) -> Tensor:
        """A content's features in a painting's manner.

        Args:
            features: (1, C, h, w).
            content: statistics of the content.
            manner: of the painting.
            nearest: see `matched`.
        """
        if nearest is not None:
            own = normalised(features, content)
            features = swapped(own, manner.features.to(features), nearest)
            zero = torch.zeros_like(content.mean)
            content = Statistics(zero, torch.ones_like(content.std))
        return map_statistics(features, content, manner.statistics)

    def forward(
        self, image: Tensor, content: Statistics, manner: Manner, mask: Tensor | None = None
    ) -> Tensor:
        """The image (B, 3, H, W) in another style; about [0, 1], not clamped.

        Args:
            image: (1, 3, H, W) in [0, 1].
            content: statistics of the content; taken over all views of a scene, not of each image,
                they keep its views consistent.
            manner: of the painting.
            mask: (1, 1, H, W), where there is something to paint; None: everywhere.
        """
        features = self.features(image)
        nearest = self.matched(normalised(features, content), manner, mask)
        changed = self.changed(features, content, manner, nearest)
        return self.decode(changed, tuple(image.shape[2:]))


def pooled(mask: Tensor, features: Tensor) -> Tensor:
    """A mask (B, 1, H, W) as one of features (B, C, h, w), which may reach over its borders."""
    height, width = features.shape[2:]
    scale = -(-mask.shape[2] // height)
    pad = (0, width * scale - mask.shape[3], 0, height * scale - mask.shape[2])
    padded = functional.pad(mask, pad, mode="replicate")
    return functional.avg_pool2d(padded, scale)
