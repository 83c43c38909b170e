"""The textbook twin: what the published systems do, in a few readable lines and float32.

Both networks on all samples, unpacked (N rays x S samples); nothing is skipped, kept or fused.
Nothing of `models/`, `losses/` or `systems/` is used.  Sources: NeRF (Mildenhall et al. 2020) and
styleNeRF's networks, losses and modes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.cameras.rays import Rays

LAST = 1e2  # length of a ray's last interval, as styleNeRF has it
PATCH = 50  # pixels along a patch, and a chunk of `memory_saving`, in styleNeRF
GRAM_WEIGHT = 1e6
VGG_WIDTHS = (64, 64, 128, 128, 256)


def encode(x: Tensor, n_frequencies: int) -> Tensor:
    """[x, sin(2^0 x), cos(2^0 x), ...]: (..., D) -> (..., D * (1 + 2 L))."""
    waves = [f(2.0**k * x) for k in range(n_frequencies) for f in (torch.sin, torch.cos)]
    return torch.cat([x, *waves], -1)


class PlainNerf(nn.Module):
    """One network: trunk 8 x 256 with a skip, softplus density, styleNeRF's colour head.

    Args:
        scale: positions are multiplied by it before they are encoded.
        fog: density is multiplied by it.
    """

    def __init__(self, scale: float = 1.0, fog: float = 1.0) -> None:
        super().__init__()
        self.scale, self.fog = scale, fog
        widths = [63, 256, 256, 256, 63 + 256, 256, 256, 256]
        self.trunk = nn.ModuleList(nn.Linear(width, 256) for width in widths)
        self.density = nn.Linear(256, 1)
        self.bottleneck = nn.Linear(256, 256)
        self.hidden = nn.ModuleList(nn.Linear(w, 128) for w in [256 + 27] + [128] * 5)
        self.rgb = nn.Linear(128, 3)

    def style_parameters(self) -> list[nn.Parameter]:
        """What stage 2 trains."""
        return [p for m in (self.bottleneck, self.hidden, self.rgb) for p in m.parameters()]

    def forward(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """``x (N, S, 3)``, unit ``d (N, 3)`` -> rgb (N, S, 3), density (N, S)."""
        encoded = encode(x * self.scale, 10)
        h = encoded
        for i, layer in enumerate(self.trunk):
            h = functional.relu(layer(torch.cat([encoded, h], -1) if i == 4 else h))
        density = functional.softplus(self.density(h))[..., 0] * self.fog
        direction = encode(d, 4)[:, None].expand(*x.shape[:2], 27)
        h = torch.cat([self.bottleneck(h), direction], -1)
        for layer in self.hidden:
            h = functional.relu(layer(h))
        return torch.sigmoid(self.rgb(h)), density


def shade(
    network: PlainNerf, rays: Rays, t: Tensor, last: float = LAST
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Volume rendering over white (NeRF, eq. 3).

    Args:
        t: (N, S) ascending distances, scene units.
        last: length of the last interval, scene units.

    Returns:
        rgb (N, 3), depth (N,), opacity (N,), weights (N, S).
    """
    x = rays.origins[:, None] + rays.directions[:, None] * t[..., None]
    rgb, density = network(x, rays.directions)
    delta = torch.cat([t[:, 1:] - t[:, :-1], torch.full_like(t[:, :1], last)], -1)
    alpha = 1 - torch.exp(-density * delta)
    through = torch.cumprod(torch.cat([torch.ones_like(t[:, :1]), 1 - alpha + 1e-10], -1), -1)
    weights = alpha * through[:, :-1]
    opacity = weights.sum(-1)
    colour = (weights[..., None] * rgb).sum(1) + (1 - opacity)[:, None]
    return colour, (weights * t).sum(-1), opacity, weights


def stratified(near: Tensor, far: Tensor, u: Tensor) -> Tensor:
    """Distances (N, S), one in each of S equal bins of [near, far] (N,), at ``u (N, S)`` of it."""
    n = u.shape[1]
    places = (torch.arange(n, device=u.device) + u) / n
    return near[:, None] + (far - near)[:, None] * places


def importance(edges: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Inverse-CDF samples (N, n) of the piecewise constant density ``weights (N, B)`` between
    ``edges (N, B + 1)``, at ``u (N, n)`` in [0, 1] (NeRF, section 5.2)."""
    pdf = (weights + 1e-5) / (weights + 1e-5).sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(pdf[:, :1]), pdf.cumsum(-1)], -1)
    index = torch.searchsorted(cdf, u, right=True)
    below, above = (index - 1).clamp(min=0), index.clamp(max=weights.shape[1])
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    share = (u - low) / torch.where(high - low < 1e-8, torch.ones_like(low), high - low)
    left, right = edges.gather(1, below), edges.gather(1, above)
    return left + share * (right - left)


class PlainScene(nn.Module):
    """Coarse and fine network, and the sampling between them.

    Args:
        n_coarse, n_fine: samples per ray; the fine network sees both.
    """

    def __init__(self, n_coarse: int = 64, n_fine: int = 64) -> None:
        super().__init__()
        self.coarse, self.fine = PlainNerf(), PlainNerf()
        self.n_coarse, self.n_fine = n_coarse, n_fine

    def forward(self, rays: Rays, random: bool = True) -> tuple[Tensor, Tensor]:
        """Colours (N, 3) of the coarse and of the fine network; places are drawn anew each time,
        or the bins' middles."""
        shape = (len(rays), self.n_coarse), (len(rays), self.n_fine)
        device = rays.near.device
        if random:
            u, v = (torch.rand(s, device=device) for s in shape)
        else:
            u, v = torch.full(shape[0], 0.5, device=device), torch.zeros(shape[1], device=device)
            v = v + torch.linspace(0, 1, self.n_fine, device=device)
        t = stratified(rays.near, rays.far, u)
        coarse, _, _, weights = shade(self.coarse, rays, t)
        middles = (t[:, 1:] + t[:, :-1]) / 2
        fine = importance(middles, weights[:, 1:-1].detach(), v)
        t = torch.cat([t, fine], -1).sort(-1).values
        return coarse, shade(self.fine, rays, t)[0]

    @torch.no_grad()
    def view(self, rays: Rays, chunk: int = PATCH**2) -> Tensor:
        """A whole view, (N, 3), both networks on all samples, chunk by chunk."""
        parts = [slice(i, i + chunk) for i in range(0, len(rays), chunk)]
        return torch.cat([self(rays[part], random=False)[1] for part in parts])


class PlainGeometry:
    """Stage 1: Adam on the squared errors of both networks.

    Args:
        scene: to be trained.
    """

    def __init__(self, scene: PlainScene) -> None:
        self.scene = scene
        self.optimizer = torch.optim.Adam(scene.parameters(), lr=5e-4)

    def step(self, rays: Rays, target: Tensor) -> Tensor:
        """One step on N rays and their colours ``target (N, 3)``; the loss."""
        coarse, fine = self.scene(rays)
        loss = (coarse - target).square().mean() + (fine - target).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class PlainLoss(nn.Module):
    """styleNeRF's loss: Gram matrices of five convolutions of VGG-19, content of the fourth.

    The network's parameters keep their gradients, and the photo's features their graph, as there.

    Args:
        painting: (1, 3, h, w) in [0, 1].
        convolutions: (weight, bias) of conv1_1 .. conv3_1; None for random ones.
    """

    def __init__(
        self, painting: Tensor, convolutions: Sequence[tuple[Tensor, Tensor]] | None = None
    ) -> None:
        super().__init__()
        channels = (3, *VGG_WIDTHS)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], 3, padding=1) for i in range(5)
        )
        for conv, given in zip(self.convs, convolutions or (), strict=False):
            conv.weight.data.copy_(given[0])
            conv.bias.data.copy_(given[1])
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        with torch.no_grad():
            self.style = [gram(f) for f in self.features(painting)]

    def features(self, image: Tensor) -> list[Tensor]:
        """Outputs of the convolutions, before the ReLU, of an image (1, 3, H, W)."""
        x, found = (image - self.mean) / self.std, []
        for i, conv in enumerate(self.convs):
            x = conv(functional.max_pool2d(x, 2) if i in (2, 4) else x)
            found.append(x)
            x = functional.relu(x)
        return found

    def forward(self, pixels: Tensor, photo: Tensor) -> Tensor:
        """The loss of ``pixels (H, W, 3)`` beside ``photo (H, W, 3)``."""
        seen, wanted = (self.features(i.permute(2, 0, 1)[None]) for i in (pixels, photo))
        pairs = zip(seen, self.style, strict=True)
        style = sum((gram(f) - g).square().mean() for f, g in pairs)
        return GRAM_WEIGHT * style + (seen[3] - wanted[3]).square().mean()


def gram(features: Tensor) -> Tensor:
    """F F^T / (C H W) of features (1, C, H, W)."""
    flat = features.flatten(2)[0]
    return flat @ flat.T / flat.numel()


class PlainStyle:
    """Stage 2 in styleNeRF's three modes, whole and in the parts that they are made of.

    Args:
        scene: with trained geometry.
        loss: of images.
    """

    def __init__(self, scene: PlainScene, loss: PlainLoss) -> None:
        self.scene, self.loss, self.chunk = scene, loss, PATCH**2
        scene.requires_grad_(False)
        # the coarse colours get a graph, too, though nothing is learned from them
        for network in (scene.coarse, scene.fine):
            for parameter in network.style_parameters():
                parameter.requires_grad_(True)
        self.optimizer = torch.optim.Adam(scene.fine.style_parameters(), lr=1e-3)

    @torch.no_grad()
    def first_pass(self, rays: Rays, random: bool = True) -> Tensor:
        """Colours (N, 3) of pixels, without a graph, patch by patch."""
        return torch.cat([self.scene(part, random)[1] for part in self._chunks(rays)])

    def pixel_gradient(self, pixels: Tensor, photo: Tensor) -> Tensor:
        """Gradient (H, W, 3) of the loss of ``pixels (H, W, 3)``."""
        leaf = pixels.detach().requires_grad_()
        self.loss(leaf, photo).backward()
        return leaf.grad

    def second_pass(self, rays: Rays, gradient: Tensor, random: bool = True) -> None:
        """Sends ``gradient (N, 3)`` through pixels that are rendered again, from new samples."""
        parts = zip(self._chunks(rays), gradient.split(self.chunk), strict=True)
        for part, grad in parts:
            self.scene(part, random)[1].backward(grad)

    def memory_saving(self, rays: Rays, photo: Tensor, random: bool = True) -> None:
        """One step on a whole view."""
        self.optimizer.zero_grad()
        pixels = self.first_pass(rays, random).view(photo.shape)
        gradient = self.pixel_gradient(pixels, photo)
        self.second_pass(rays, gradient.view(-1, 3), random)
        self.optimizer.step()

    def small(self, rays: Rays, photo: Tensor, random: bool = True) -> None:
        """One step on a view, or a patch of it, with its whole graph."""
        self.optimizer.zero_grad()
        self.loss(self.scene(rays, random)[1].view(photo.shape), photo).backward()
        self.optimizer.step()

    def patch(self, rays: Rays, photo: Tensor, random: bool = True) -> None:
        """A step for each patch of a view that is not white."""
        height, width, _ = photo.shape
        index = torch.arange(height * width, device=photo.device).view(height, width)
        for rows in index.split(PATCH):
            for pixels in rows.split(PATCH, 1):
                part, beside = rays[pixels.flatten()], photo.view(-1, 3)[pixels]
                seen = self.scene(part, random)[1]
                if seen.mean() > 0.99:
                    continue
                self.optimizer.zero_grad()
                self.loss(seen.view(beside.shape), beside).backward()
                self.optimizer.step()

    def _chunks(self, rays: Rays) -> list[Rays]:
        """The rays in batches as large as a patch."""
        return [rays[i : i + self.chunk] for i in range(0, len(rays), self.chunk)]
