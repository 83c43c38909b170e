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
from models.stylizer import LAYER, ImageDecoder, Moments, Stylizer, map_statistics
from utils.errors import UserError, exits_cleanly

LAYERS = ("relu1_1", "relu2_1", LAYER)
RATE = 2e-3
BATCH = 16  # pairs of content and style in a step
PIXEL_WEIGHT, STYLE_WEIGHT = 20.0, 1.0


def compose(images: Tensor, generator: torch.Generator) -> Tensor:
    """Contents (B, 3, s, s) of 2 B textures: two with a winding border, in changing light."""
    first, second = images.chunk(2)
    count, _, size, _ = first.shape
    border = filtered_noise(count, size, 0.9 * size, 0.5, 0.0, 1.0, generator)
    light = filtered_noise(count, size, 1.5 * size, 0.5, 0.0, 1.0, generator)
    mixed = torch.lerp(first, second, torch.sigmoid(12 * border)[:, None])
    return (mixed * (1 + 0.25 * light)[:, None]).clamp(0, 1)


def train(bank: TextureBank, steps: int, seed: int = 0, report_every: int = 100) -> ImageDecoder:
    """Trains a decoder: it rebuilds images, and what it makes of changed statistics has those.

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
        images, _ = draw_batch(bank, 3 * BATCH, generator)
        textures, styles = images[: 2 * BATCH], images[2 * BATCH : 3 * BATCH]
        terms = _terms(stylizer, compose(textures, generator), styles)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(stylizer.decoder.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if report_every and (step % report_every == 0 or step == steps - 1):
            parts = (f"{name} {float(term.detach()):.3f}" for name, term in terms.items())
            print(step, *parts, flush=True)
    return stylizer.decoder


def _terms(stylizer: Stylizer, contents: Tensor, styles: Tensor) -> dict[str, Tensor]:
    """The losses of contents and styles (B, 3, s, s)."""
    network, size = stylizer.network, (CROP, CROP)
    with torch.no_grad():
        features = stylizer.features(contents)
        style = network(styles, LAYERS)
        changed = torch.cat([
            map_statistics(
                features[i : i + 1],
                Moments.of(features[i : i + 1]).statistics(),
                Moments.of(style[LAYER][i : i + 1]).statistics(),
            )
            for i in range(len(features))
        ])  # fmt: skip
    rebuilt = stylizer.decode(features, size)
    painted = stylizer.decode(changed, size)
    found = network(painted, LAYERS)
    spread = changed.var((2, 3)).mean()
    again = stylizer.features(rebuilt)
    off_style = torch.zeros(())
    for layer in LAYERS:
        own, wanted = found[layer].flatten(2), style[layer].flatten(2)
        scale = wanted.var(2).mean()
        error = (own.mean(2) - wanted.mean(2)).square() + (own.std(2) - wanted.std(2)).square()
        off_style = off_style + error.mean() / scale
    return {
        "pixels": PIXEL_WEIGHT * functional.l1_loss(rebuilt, contents),
        "features": (again - features).square().mean() / features.var((2, 3)).mean(),
        "content": (found[LAYER] - changed).square().mean() / spread,
        "style": STYLE_WEIGHT * off_style,
    }


@exits_cleanly
def main() -> None:
    """Generates the textures, trains the decoder and writes its weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps")
    parser.add_argument("--out", type=Path, default=OWN_DECODER, help="file to write")
    options = parser.parse_args()
    if options.steps < 1:
        raise UserError(f"--steps: {options.steps} is not positive; give 1 or more")
    start = time.perf_counter()
    bank = make_bank(kinds=192, per_kind=8, seed=1)
    print(f"{len(bank.kind)} textures in {time.perf_counter() - start:.0f} s", flush=True)
    write_decoder(train(bank, options.steps), options.out, half=True)
    print(f"{options.out} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
