"""The decoder of the built-in feature network, trained on procedural textures by ``python -m
models.texture_decoder``, without a download, in minutes on two cores.  This wrote the committed
`texture_decoder.pth`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from features.procedural_textures import TextureBank, filtered_noise, make_bank
from features.texture_encoder import CROP, draw_batch, load
from models.image_decoders import OWN_DECODER, write_decoder
from models.stylizer import LAYER, ImageDecoder, Stylizer
from utils.errors import UserError, exits_cleanly

RATE = 2e-3
BATCH = 12  # images in a step
FEATURE_WEIGHT = 0.05


def compose(images: Tensor, generator: torch.Generator) -> Tensor:
    """Contents (B, 3, s, s) of 2 B textures: two with a winding border, in changing light; every
    other one's second texture is a flat colour, of which photos are full and textures are not."""
    first, second = images.chunk(2)
    count, _, size, _ = first.shape
    flat = torch.rand((count, 3, 1, 1), generator=generator).expand_as(second)
    grey = torch.rand((count, 1, 1, 1), generator=generator).expand_as(second)
    flat = torch.where((torch.arange(count) % 4 == 0)[:, None, None, None], grey, flat)
    second = torch.where((torch.arange(count) % 2 == 0)[:, None, None, None], flat, second)
    border = filtered_noise(count, size, 0.9 * size, 0.5, 0.0, 1.0, generator)
    light = filtered_noise(count, size, 1.5 * size, 0.5, 0.0, 1.0, generator)
    mixed = torch.lerp(first, second, torch.sigmoid(12 * border)[:, None])
    return (mixed * (1 + 0.25 * light)[:, None]).clamp(0, 1)


def train(bank: TextureBank, steps: int, seed: int = 0, report_every: int = 100) -> ImageDecoder:
    """Trains a decoder to rebuild images from their features; what paintings ask of it beyond that
    it learns with them (`systems.decoder_task`).

    Args:
        bank: the textures.
        steps: optimiser steps.
        seed: determines initial weights and batches.
        report_every: steps between two lines on the terminal; 0: none.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = load(layers=[LAYER])
    stylizer = Stylizer(network, ImageDecoder.of(network))
    optimiser = torch.optim.Adam(stylizer.decoder.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, max(steps, 20), pct_start=0.1)
    for step in range(steps):
        images = compose(draw_batch(bank, BATCH, generator)[0], generator)
        with torch.no_grad():
            features = stylizer.features(images)
        rebuilt = stylizer.decode(features, (CROP, CROP))
        again = stylizer.features(rebuilt)
        terms = {
            "pixels": functional.l1_loss(rebuilt, images),
            "features": FEATURE_WEIGHT * functional.mse_loss(again, features) / features.var(),
        }
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
        schedule.step()
        if report_every and (step % report_every == 0 or step == steps - 1):
            parts = (f"{name} {float(term.detach()):.3f}" for name, term in terms.items())
            print(step, *parts, flush=True)
    return stylizer.decoder


@exits_cleanly
def main() -> None:
    """Generates the textures, trains the decoder and writes its weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps")
    parser.add_argument("--out", type=Path, default=OWN_DECODER, help="file to write")
    options = parser.parse_args()
    if options.steps < 1:
        raise UserError(f"--steps: {options.steps} is not positive; give 1 or more")
    start = time.perf_counter()
    bank = make_bank(kinds=96, per_kind=6, seed=1)
    print(f"{len(bank.kind)} textures in {time.perf_counter() - start:.0f} s", flush=True)
    write_decoder(train(bank, options.steps), options.out, half=True)
    print(f"{options.out} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
