"""Decoders of 2D stylisation networks: which one belongs to an encoder, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from features.registry import load_features
from features.weights import copy_weights, read_weights
from models.stylizer import LAYER, ImageDecoder, Stylizer
from utils.errors import UserError
from utils.files import replacing

OWN_DECODER = Path(__file__).with_name("texture_decoder.pth")


def load_stylizer(
    features: str,
    vgg_weights: Path | None,
    decoder_weights: Path | None,
    trained: Mapping[str, Tensor] | None = None,
) -> Stylizer:
    """The 2D stylisation network of the options of the same names.

    The decoder's weights say how deep the encoder has to be.  Without a file those that were
    ``trained`` are taken, and without them the built-in decoder of the built-in encoder.

    Raises:
        UserError: a file is missing or damaged, or the two do not fit together.
    """
    network = load_features(features, vgg_weights, layers=[LAYER])
    if decoder_weights is None and trained is not None:
        source, state = Path("the checkpoint's decoder"), trained
    elif decoder_weights is None and network.name != "own":
        raise UserError(
            f"--decoder_weights: missing; a 2D decoder for {network.name} is needed: give its "
            "file, train one with --stage decoder, or take --features own, which has one"
        )
    else:
        source = decoder_weights or OWN_DECODER
        state = read_weights(source)
    layer = layer_of(state, network.name, source)
    if layer not in network.layers:
        network = load_features(features, vgg_weights, layers=[layer])
    decoder = ImageDecoder.of(network, layer)
    fill(decoder, state, source)
    return Stylizer(network, decoder, layer)


def layer_of(state: Mapping[str, object], network: str, source: Path) -> str:
    """The encoder's layer that a decoder with these weights decodes: it has a convolution for each
    of the encoder's up to there."""
    from features.texture_encoder import CHANNELS
    from features.vgg import CONVOLUTIONS

    known = list(CONVOLUTIONS.get(network, CHANNELS))
    count = 0
    while isinstance(state.get(f"conv{count + 1}.weight"), Tensor):
        count += 1
    if not 0 < count <= len(known):
        raise UserError(
            f"{source}: not a 2D decoder, it has {count} layers conv1, conv2, ...; "
            "give one that --stage decoder wrote"
        )
    return known[count - 1].replace("conv", "relu")


def fill(decoder: ImageDecoder, state: Mapping[str, object], source: Path) -> None:
    """Copies weights into a decoder; for errors see `copy_weights`."""
    names = {str(i): f"conv{i + 1}" for i in range(len(decoder.convs))}
    copy_weights({str(i): conv for i, conv in enumerate(decoder.convs)}, state, names, source)


def decoder_state(decoder: ImageDecoder) -> dict[str, Tensor]:
    """What `fill` reads: conv1.weight, conv1.bias, conv2.weight, ..."""
    return {
        f"conv{i + 1}.{name}": value.detach().cpu()
        for i, conv in enumerate(decoder.convs)
        for name, value in conv.state_dict().items()
    }


def write_decoder(decoder: ImageDecoder, path: Path, half: bool = False) -> None:
    """Writes a decoder's weights, atomically."""
    state = decoder_state(decoder)
    with replacing(path) as partial:
        torch.save({name: x.half() if half else x for name, x in state.items()}, partial)
