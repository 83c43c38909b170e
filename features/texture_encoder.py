"""The built-in feature network: VGG's architecture, trained on procedural textures by
``python -m features.texture_encoder``, without a download, in minutes on two cores.  This wrote the
committed `texture_encoder.pth`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.procedural_textures import TextureBank, colourise, make_bank, random_palettes
from features.vgg import Vgg, convolutions
from features.weights import copy_weights, read_weights
from utils.errors import UserError, exits_cleanly

CHANNELS = convolutions((2, 2, 1), (32, 64, 128))  # VGG's first five layers at half their width
LAYERS = tuple(CHANNELS)
WEIGHTS = Path(__file__).with_name("texture_encoder.pth")
CROP = 48  # pixels; twice the receptive field of conv3_1
HEAD_LAYERS = ("conv1_2", "conv2_1", "conv2_2", "conv3_1")
GRAM_LAYERS = ("conv1_2", "conv2_2", "conv3_1")


def load(_weights: Path | None = None, layers: Sequence[str] = LAYERS) -> Vgg:
    """Loads the trained network.

    Args:
        _weights: unused; the file of VGG weights that other networks need.
        layers: layers that must be available.

    Returns:
        The network, in evaluation mode, without gradients for its parameters.

    Raises:
        UserError: the network is not deep enough, or its file is missing or damaged.
    """
    network = Vgg(CHANNELS, name="own")
    wanted = network.layers_of(layers)
    if unknown := [layer for layer in wanted if layer not in network.layers]:
        raise UserError(
            f"--features own: has convolutions up to {LAYERS[-1]}, and {', '.join(unknown)} is "
            "needed; take --features vgg16 or vgg19"
        )
    copy_weights(network.convs, read_weights(WEIGHTS), {name: name for name in LAYERS}, WEIGHTS)
    return network.eval()


class TrainingHeads(nn.Module):
    """Modules through which the features are trained, discarded afterwards: a classifier of each
    layer's statistics, a classifier of small neighbourhoods, and decoders back to the pixels.

    Args:
        kinds: number of texture classes K.
    """

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.statistics = nn.ModuleDict(
            {layer: nn.Linear(2 * CHANNELS[layer], kinds) for layer in HEAD_LAYERS}
        )
        self.normalise = nn.ModuleDict(
            {layer: nn.BatchNorm1d(2 * CHANNELS[layer]) for layer in HEAD_LAYERS}
        )
        self.local = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(4),
            nn.BatchNorm2d(CHANNELS["conv3_1"]),
            nn.Conv2d(CHANNELS["conv3_1"], kinds, 1),
        )
        self.decoders = nn.ModuleDict(
            {
                layer: nn.Sequential(
                    nn.ReLU(), nn.Conv2d(CHANNELS[layer], 3 * scale**2, 1), nn.PixelShuffle(scale)
                )
                for layer, scale in (("conv2_2", 2), ("conv3_1", 4))
            }
        )

    def classification(self, features: dict[str, Tensor], kind: Tensor) -> Tensor:
        """Cross entropy of the class, from two moments of every layer and from 16 x 16 pixels.

        Args:
            features: layer -> (B, C, h, w).
            kind: (B,) int64, the class of each image.

        Returns:
            Scalar.
        """
        loss = torch.zeros(())
        for layer, head in self.statistics.items():
            x = functional.relu(features[layer]).flatten(2)
            pooled = torch.cat([x.mean(2), x.square().mean(2)], 1)
            loss = loss + functional.cross_entropy(head(self.normalise[layer](pooled)), kind)
        logits = self.local(features["conv3_1"])
        return loss + functional.cross_entropy(
            logits, kind[:, None, None].expand(-1, *logits.shape[2:])
        )

    def reconstruction(self, features: dict[str, Tensor], image: Tensor) -> Tensor:
        """Mean absolute error of the image decoded from single feature positions.

        Args:
            features: layer -> (B, C, h, w).
            image: (B, 3, H, W) in [0, 1].

        Returns:
            Scalar.
        """
        return sum(
            (functional.l1_loss(decode(features[layer]), image)
             for layer, decode in self.decoders.items()),
            torch.zeros(()),
        )  # fmt: skip


def gram_matrices(features: Tensor) -> Tensor:
    """Flattened Gram matrices (B, C * C) of features (B, C, h, w), as a mean over positions.

    Unlike `losses.gram.gram_matrix` without a mask and without the factor 1 / C.
    """
    x = features.flatten(2)
    return (x @ x.transpose(1, 2) / x.shape[2]).flatten(1)


def contrast(features: dict[str, Tensor], temperature: float = 0.1) -> Tensor:
    """NT-Xent loss (Chen et al. 2020) on Gram matrices: two crops of the same texture, rows i and
    i + B / 2, should be more similar than crops of different textures.

    Args:
        features: layer -> (B, C, h, w), before the ReLU.
        temperature: of the softmax.

    Returns:
        Scalar, summed over `GRAM_LAYERS`.
    """
    loss = torch.zeros(())
    for layer in GRAM_LAYERS:
        gram = gram_matrices(features[layer])
        gram = functional.normalize(gram - gram.mean(0).detach(), dim=1)
        similarity = (gram @ gram.T / temperature).fill_diagonal_(-1e4)
        partner = torch.arange(len(gram)).roll(len(gram) // 2)
        loss = loss + functional.cross_entropy(similarity, partner)
    return loss


def random_crops(structure: Tensor, generator: torch.Generator) -> Tensor:
    """A crop of each structure at a random position, scaled by 0.85 to 1.2.

    Args:
        structure: (B, 2, S, S) uint8, see `TextureBank`.
        generator: source of the positions and scales.

    Returns:
        (B, 2, 48, 48) float.
    """
    count, _, size, _ = structure.shape
    scale = 0.85 + 0.35 * torch.rand((count, 1, 1), generator=generator)
    extent = CROP / size * scale
    centre = (2 * torch.rand((count, 1, 2), generator=generator) - 1) * (1 - extent)
    axis = torch.linspace(-1, 1, CROP)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, -1, 2)
    grid = (grid * extent + centre).view(count, CROP, CROP, 2)
    return functional.grid_sample(
        structure.float(), grid, align_corners=False, padding_mode="reflection"
    )


def draw_batch(
    bank: TextureBank, count: int, generator: torch.Generator, per_palette: int = 12
) -> tuple[Tensor, Tensor]:
    """Two crops each of ``count`` textures; several share a palette, so that colour alone does not
    identify them.

    Args:
        bank: the textures.
        count: number of textures.
        generator: source of all random numbers.
        per_palette: textures per palette.

    Returns:
        (2 * count, 3, 48, 48) images, the second crops after the first, and (2 * count,) classes.
    """
    chosen = torch.randint(len(bank.kind), (count,), generator=generator)
    palettes = random_palettes(-(-count // per_palette), generator)
    palettes = palettes.repeat_interleave(per_palette, 0)[:count]
    lit = (torch.rand(count, generator=generator) < 0.5).float()
    relief = lit * torch.rand(count, generator=generator)
    crops = [
        colourise(random_crops(bank.structure[chosen], generator), palettes, relief)
        for _ in range(2)
    ]
    return torch.cat(crops), bank.kind[chosen].repeat(2)


def attach_batch_norms(network: Vgg) -> list[Callable[[], None]]:
    """Initialises every convolution and adds batch normalisation after it, for the training.

    Returns:
        Functions, one per convolution, that remove the batch normalisation and fold its running
        statistics and gain into the convolution.
    """
    return [_attach_batch_norm(conv) for conv in network.convs.values()]


def _attach_batch_norm(conv: nn.Conv2d) -> Callable[[], None]:
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)
    norm = nn.BatchNorm2d(conv.out_channels, momentum=0.02)
    conv.register_module("norm", norm)
    hook = conv.register_forward_hook(lambda _conv, _inputs, output: norm(output))

    @torch.no_grad()
    def fold() -> None:
        hook.remove()
        del conv.norm
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        conv.weight *= gain[:, None, None, None]
        conv.bias.copy_((conv.bias - norm.running_mean) * gain + norm.bias)

    return fold


@torch.no_grad()
def normalise_activations(network: Vgg, images: Tensor) -> None:
    """Rescales each filter so that its mean activation after the ReLU over ``images`` is 1 (Gatys
    et al. 2016); the next layer's weights compensate for it.

    Args:
        network: changed in place.
        images: (B, 3, H, W) in [0, 1].
    """
    incoming = torch.ones(3)
    for layer, conv in network.convs.items():
        conv.weight *= incoming[None, :, None, None]
        mean = functional.relu(network(images, [layer])[layer]).mean((0, 2, 3))
        # a filter that is never active stays unchanged
        incoming = torch.where(mean > 1e-6, mean, torch.ones_like(mean))
        conv.weight /= incoming[:, None, None, None]
        conv.bias /= incoming


def _terms(
    features: dict[str, Tensor], heads: TrainingHeads, images: Tensor, kind: Tensor
) -> dict[str, Tensor]:
    return {
        "classes": heads.classification(features, kind) / len(HEAD_LAYERS),
        "contrast": contrast(features) / len(GRAM_LAYERS),
        "reconstruction": 2 * heads.reconstruction(features, images),
    }


def train(
    bank: TextureBank, steps: int, count: int = 48, seed: int = 0, report_every: int = 50
) -> Vgg:
    """Trains the network on classes, contrast of Gram matrices, and reconstruction.

    Args:
        bank: the textures.
        steps: optimiser steps.
        count: textures in a batch, two crops each.
        seed: determines initial weights, batches and noise.
        report_every: steps between two lines on the terminal; 0: none.

    Returns:
        The trained network, normalised to mean activation 1, frozen.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Vgg(CHANNELS, name="own")
    folds = attach_batch_norms(network)
    network.requires_grad_(True)
    heads = TrainingHeads(int(bank.kind.max()) + 1)
    # a class occurs only once in eight steps, so its row of a head needs a high learning rate
    groups = [{"params": list(module.parameters())} for module in (network, heads)]
    optimiser = torch.optim.AdamW(groups, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=[3e-3, 1e-2], total_steps=max(steps, 2), pct_start=0.1
    )
    for step in range(steps):
        images, kind = draw_batch(bank, count, generator)
        terms = _terms(network(images, LAYERS), heads, images, kind)
        optimiser.zero_grad(set_to_none=True)
        sum(terms.values(), torch.zeros(())).backward()
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 5.0)
        optimiser.step()
        schedule.step()
        if report_every and (step % report_every == 0 or step == steps - 1):
            parts = (f"{name} {float(term.detach()):.3f}" for name, term in terms.items())
            print(step, *parts, flush=True)
    for fold in folds:
        fold()
    network.requires_grad_(False)
    generator.manual_seed(seed + 1)
    normalise_activations(network, draw_batch(bank, 64, generator, per_palette=1)[0])
    return network


def save(network: Vgg, path: Path) -> None:
    """Writes the convolutions' weights in half precision, atomically."""
    state = {key: value.half() for key, value in network.convs.state_dict().items()}
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


@exits_cleanly
def main() -> None:
    """Generates the textures, trains the network and writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="optimiser steps")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="file to write")
    options = parser.parse_args()
    if options.steps < 1:
        raise UserError(f"--steps: {options.steps} is not positive; give 1 or more")
    if not options.out.parent.is_dir():
        raise UserError(f"--out: {options.out.parent} does not exist; make that directory first")
    start = time.perf_counter()
    bank = make_bank(kinds=384, per_kind=16)
    print(f"{len(bank.kind)} textures in {time.perf_counter() - start:.0f} s", flush=True)
    save(train(bank, options.steps), options.out)
    print(f"{options.out} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
