"""Stage 2: geometry stays, the style module learns to paint.

Every step takes one training view, in one of three modes: `memory_saving` compares the whole view
with the painting and back-propagates in chunks; `patch` steps once for each patch of it; `small`
renders a small version with the whole graph.  Before the first of them a photographic start
teaches the style module the photos in the painting's colours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from datasets.cameras import Cameras
from datasets.scene import Scene, View
from losses.colour_transfer import ColourTransfer, fit_colour_transfer
from losses.objective import OBJECTIVES, StyleObjective, prepare_style
from losses.photometric import photometric_loss
from losses.weights import load_features
from models.renderer import Renderer
from opt import TrainOptions
from systems.base import TrainingSystem
from systems.deferred import chunks_of, deferred_backward
from systems.frozen import FrozenGeometry, FrozenView
from systems.geometry import network_parameters
from utils.images import resize, to_uint8

RATES = {"features": 0.1, "mlp": 2e-3}
NERF_RATE = 1e-3
NERF_PATCH_RATE = 1e-4  # as styleNeRF: `patch` takes many steps a view, and all move the network
RECOLOUR_RAYS = 4096
RECOLOUR_PASSES = 4  # steps per view of the photographic start
COLOUR_SAMPLES = 200_000
SEEN = 0.5  # opacity from which a pixel's colour counts as the object's
PIXELS_PER_CHUNK = 1 << 14


def shrunk(view: View, shorter: int) -> View:
    """The view with its shorter side ``shorter`` pixels long; never enlarged."""
    scale = shorter / min(view.height, view.width)
    if scale >= 1:
        return view
    height, width = round(view.height * scale), round(view.width * scale)
    image = resize(view.image.float() / 255, width, height)
    sx, sy = width / view.width, height / view.height
    return View(
        to_uint8(image),
        None,
        view.c2w,
        view.fx * sx,
        view.fy * sy,
        view.cx * sx,
        view.cy * sy,
        view.name,
    )


def term_weights(options: TrainOptions) -> dict[str, float]:
    """The objective's weights, with those that the user gave in their place."""
    weights = dict(OBJECTIVES[options.objective])
    for term in ("gram", "nnfm", "statistics", "swd", "content", "tv"):
        given = getattr(options, f"{term}_weight")
        if given is not None:
            weights[term] = given
    return {term: weight for term, weight in weights.items() if weight > 0}


def make_objective(options: TrainOptions, painting: Tensor, size: int) -> StyleObjective:
    """The objective of the options for renders with a shorter side of ``size`` pixels.

    Args:
        painting: (H, W, 3) uint8.
    """
    weights = term_weights(options)
    needs_network = set(weights) & {"gram", "nnfm", "statistics", "content"}
    network = load_features(options.features, options.vgg_weights) if needs_network else None
    return StyleObjective(prepare_style(painting, size), network, weights, seed=options.seed)


class StyleSystem(TrainingSystem):
    """Trains `field.style` of a finished field; nothing else moves.

    Args:
        options: of the run.
        scene: views to paint.
        renderer: with trained geometry.
        painting: (H, W, 3) uint8.
    """

    def __init__(
        self, options: TrainOptions, scene: Scene, renderer: Renderer, painting: Tensor
    ) -> None:
        if options.style_mode == "small":
            self.views = [shrunk(view, options.small_size) for view in scene.train]
        else:
            self.views = scene.train
        n_views = len(self.views)
        self.n_recolour = RECOLOUR_PASSES * n_views if options.style_init == "photo" else 0
        n_style = options.max_steps or options.num_epochs_style * n_views
        super().__init__(options, renderer, self.n_recolour + n_style)
        self.scene = scene
        self.painting = painting
        side = min(min(view.height, view.width) for view in self.views)
        self.objective = make_objective(options, painting, side)
        self.transfer: ColourTransfer | None = None
        self.show_every = options.val_every or max(1, n_style // 10)
        freeze_geometry(renderer)

    def start_from_photo(self) -> None:
        """Prepares a field that comes from stage 1; a restored one is prepared already."""
        style = self.renderer.field.style
        style.view_dependent.fill_(float(self.options.view_dependent))
        if self.options.style_init == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.options.seed)
                style.reset()

    def parameter_groups(self) -> list[dict[str, Any]]:
        style, given = self.renderer.field.style, self.options.lr
        if self.renderer.spec["field"] == "nerf":
            usual = NERF_PATCH_RATE if self.options.style_mode == "patch" else NERF_RATE
            return [{"params": list(style.parameters()), "lr": given or usual}]
        scale = given / RATES["features"] if given else 1.0
        return [
            {"params": [style.features], "lr": RATES["features"] * scale},
            {"params": network_parameters(style), "lr": RATES["mlp"] * scale},
        ]

    def on_fit_start(self) -> None:
        cameras = Cameras.of(self.views, self.scene.near, self.scene.far).to(self.device)
        self.frozen = FrozenGeometry(
            self.renderer, cameras, self.options.cache_gb * 1e9, self.options.chunk
        )
        if self.options.colour_transfer:
            self.transfer = fit_colour_transfer(
                self._colours(self._photo), self.painting.reshape(-1, 3).float() / 255
            )

    def _colours(self, image_of: Any) -> Tensor:
        """A sample of the object's colours (K, 3) over all views."""
        share = max(1, COLOUR_SAMPLES // len(self.frozen))
        colours = []
        for index in range(len(self.frozen)):
            frozen = self.frozen.view(index)
            seen = (frozen.opacity > SEEN).nonzero()[:, 0]
            seen = seen[:: max(1, len(seen) // share)]
            colours.append(image_of(index, seen))
        return torch.cat(colours)

    def _photo(self, index: int, pixels: Tensor | None = None) -> Tensor:
        """Pixels (K, 3) in [0, 1] of a training photo; all of them by default."""
        rgb = self.views[index].image.reshape(-1, 3).to(self.device)
        return (rgb if pixels is None else rgb[pixels]).float() / 255

    def _target(self, index: int, pixels: Tensor | None = None) -> Tensor:
        """As `_photo`, in the painting's colours where colour transfer is on."""
        photo = self._photo(index, pixels)
        if self.transfer is None:
            return photo
        opacity = self.frozen.view(index).opacity
        opacity = (opacity if pixels is None else opacity[pixels])[:, None]
        return torch.lerp(photo, self.transfer.apply(photo).clamp(0, 1), opacity)

    def training_step(self, step: int, _: int) -> None:
        order = step // len(self.views)
        shuffled = torch.randperm(len(self.views), generator=self.generator(order, 2))
        index = int(shuffled[step % len(self.views)])
        frozen = self.frozen.view(index)
        if step < self.n_recolour:
            terms = self._recolour(step, index, frozen)
        else:
            terms = getattr(self, f"_{self.options.style_mode}")(step, index, frozen)
        self.done = step + 1
        self.log("loss", sum(terms.values()), prog_bar=True, logger=False)
        self.record(step, {"loss": sum(terms.values()), **terms})
        if step >= self.n_recolour and (step - self.n_recolour) % self.show_every == 0:
            self._show(step, index, frozen)

    def _recolour(self, step: int, index: int, frozen: FrozenView) -> dict[str, Tensor]:
        """The photographic start: random pixels of a view against the recoloured photo."""
        seen = (frozen.opacity > 0).nonzero()[:, 0]
        if len(seen) == 0:
            return {"photo": torch.zeros(())}
        draw = torch.randint(len(seen), (RECOLOUR_RAYS,), generator=self.generator(step))
        pixels = seen[draw.to(seen.device)].sort().values
        colours = self._shade(frozen.take(pixels), slice(0, len(pixels)))
        terms = {"photo": photometric_loss(colours, self._target(index, pixels))}
        self.descend(terms, step)
        return terms

    def _memory_saving(self, step: int, index: int, frozen: FrozenView) -> dict[str, Tensor]:
        loss = self._image_loss(index, frozen.opacity, frozen.size)
        chunks = chunks_of(len(frozen.opacity), self.options.chunk or PIXELS_PER_CHUNK)
        self.optimizers().zero_grad()
        terms, _ = deferred_backward(lambda part: self._shade(frozen, part), chunks, loss)
        self.require_finite(terms, step)
        self.apply_gradients(step)
        return terms

    def _small(self, step: int, index: int, frozen: FrozenView) -> dict[str, Tensor]:
        pixels = self._shade(frozen, slice(0, len(frozen.opacity)))
        terms = self._image_loss(index, frozen.opacity, frozen.size)(pixels)
        self.descend(terms, step)
        return terms

    def _patch(self, step: int, index: int, frozen: FrozenView) -> dict[str, Tensor]:
        """One step of the optimiser for each patch that shows something of the object."""
        terms: dict[str, Tensor] = {}
        for pixels, size in patches(frozen.size, self.options.patch_size, self.device):
            part = frozen.take(pixels)
            if part.opacity.mean() < 0.01:
                continue
            colours = self._shade(part, slice(0, len(pixels)))
            terms = self._image_loss(index, part.opacity, size, pixels)(colours)
            self.descend(terms, step)
        return {name: value.detach() for name, value in terms.items()}

    def _shade(self, frozen: FrozenView, part: slice) -> Tensor:
        return frozen.shade(self.renderer.field, self.renderer.background, part)

    def _image_loss(
        self, index: int, opacity: Tensor, size: tuple[int, int], pixels: Tensor | None = None
    ) -> Any:
        """The objective as a function of an image's pixels (N, 3)."""
        mask = opacity.view(1, 1, *size)
        content = None
        if self.objective.needs_content:
            photo = as_image(self._target(index, pixels), size)
            content = self.objective.content_features(photo, mask)
        return lambda colours: self.objective(as_image(colours, size), content, mask)

    @torch.no_grad()
    def _show(self, step: int, index: int, frozen: FrozenView) -> None:
        """TensorBoard: photo | stylised | painting."""
        height = frozen.size[0]
        parts = chunks_of(len(frozen.opacity), self.options.chunk or PIXELS_PER_CHUNK)
        stylised = torch.cat([self._shade(frozen, part) for part in parts]).view(*frozen.size, 3)
        photo = self._photo(index).view(*frozen.size, 3)
        width = round(height * self.painting.shape[1] / self.painting.shape[0])
        painting = resize(self.painting.float() / 255, width, height).to(photo)
        self.record_image(
            "photo_stylised_painting", torch.cat([photo, stylised, painting], 1), step
        )

    @torch.no_grad()
    def on_train_end(self) -> None:
        """Colour transfer once more, from what has been painted to the painting."""
        if self.transfer is None or self.done < self.n_steps:
            return

        def painted(index: int, pixels: Tensor) -> Tensor:
            return self._shade(self.frozen.view(index).take(pixels), slice(0, len(pixels)))

        colours = self._colours(painted)
        last = fit_colour_transfer(colours, self.painting.reshape(-1, 3).float() / 255)
        style = self.renderer.field.style
        style.colour_matrix.copy_(last.matrix)
        style.colour_offset.copy_(last.offset)


def freeze_geometry(renderer: Renderer) -> None:
    """Only the style module of the rendered field keeps its gradients."""
    renderer.requires_grad_(False)
    renderer.field.style.requires_grad_(True)


def as_image(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (H * W, 3) as an image (1, 3, H, W)."""
    return pixels.view(*size, 3).permute(2, 0, 1)[None]


def patches(
    size: tuple[int, int], side: int, device: torch.device | str
) -> list[tuple[Tensor, tuple[int, int]]]:
    """Flat pixel indices and shape of the patches that tile an image in raster order.

    The last row and column of patches are moved inwards where ``side`` does not divide the image,
    and a patch is no larger than the image.
    """
    height, width = size
    rows, columns = min(side, height), min(side, width)
    tiles = []
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            y = torch.arange(rows, device=device) + min(top, height - rows)
            x = torch.arange(columns, device=device) + min(left, width - columns)
            tiles.append(((y[:, None] * width + x).flatten(), (rows, columns)))
    return tiles
