"""Stage 2: geometry stays, the style module learns to paint.

Every step takes one training view, in one of three modes: `memory_saving` compares the whole view
with the painting; `patch` steps once for each patch of it; `small` compares a small version of it.
All of them back-propagate in as many chunks as the memory asks for (`systems/deferred.py`).  Before
the first of them a photographic start teaches the style module the photos in the painting's hues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from datasets.cameras.rays import Cameras
from datasets.scene import Scene
from features.registry import load_features
from losses.colour_transfer import ColourTransfer, fit_colour_transfer
from losses.objective import StyleObjective
from losses.photometric import photometric_loss
from losses.registry import OBJECTIVES, TERMS, layers_needed
from losses.style_image import prepare_style
from models.renderer import Renderer
from opt import TrainOptions
from systems.base import TrainingSystem
from systems.deferred import Terms, deferred_backward
from systems.frozen import FrozenGeometry, FrozenView
from systems.geometry import network_parameters
from systems.views import patches, shrunk
from utils.chunks import Chunks
from utils.images import resize

RATES = {"features": 0.1, "mlp": 2e-3}
NERF_RATE = 1e-3
NERF_PATCH_RATE = 1e-4  # as styleNeRF: `patch` takes many steps a view, and all move the network
RECOLOUR_RAYS = 4096
RECOLOUR_PASSES = 4  # steps per view of the photographic start
COLOUR_SAMPLES = 200_000
SEEN = 0.5  # opacity from which a pixel's colour counts as the object's
# samples whose graph through the style module is in memory at once: of a chunk, and of a view that
# is not cut, since its graph can be kept while the loss is taken
SAMPLES_AT_ONCE = {"nerf": (1 << 16, 3 << 18), "voxels": (1 << 18, 1 << 20)}
SAMPLES_AT_ONCE_CUDA = {"nerf": (1 << 20, 1 << 20), "voxels": (1 << 22, 1 << 22)}
# measured: features of a pixel and their graph; a sample's way through the style module and back
BYTES_PER_TILE_PIXEL = 2500
BYTES_PER_PIXEL = 250  # of the picture, its gradient, what is shown of it
BYTES_PER_SAMPLE = {"nerf": 2500, "voxels": 600}
CUDA_SHARE = 0.4  # of a GPU's free memory, to keep frozen views in


def term_weights(options: TrainOptions) -> dict[str, float]:
    """The objective's weights, with those that the user gave in their place."""
    weights = dict(OBJECTIVES[options.objective])
    for term in TERMS:
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
    layers = layers_needed(weights)
    network = (
        load_features(options.features, options.vgg_weights, layers=layers) if layers else None
    )
    return StyleObjective(prepare_style(painting, size), network, weights, seed=options.seed)


class StyleSystem(TrainingSystem):
    """Trains `field.style` of a finished field; nothing else moves.

    Args:
        options: of the run.
        scene: views to paint.
        renderer: with trained geometry.
        painting: (H, W, 3) uint8.
        frozen: of an earlier run on the same views and geometry, whose memory goes on being used.
    """

    def __init__(
        self,
        options: TrainOptions,
        scene: Scene,
        renderer: Renderer,
        painting: Tensor,
        frozen: FrozenGeometry | None = None,
    ) -> None:
        self.views, self.pools = scene.train, [1] * len(scene.train)
        if options.style_mode == "small":
            small = [shrunk(view, options.small_size) for view in scene.train]
            self.views, self.pools = [view for view, _ in small], [pool for _, pool in small]
        n_views = len(self.views)
        self.n_recolour = RECOLOUR_PASSES * n_views if options.style_init == "photo" else 0
        n_style = options.max_steps or options.num_epochs_style * n_views
        super().__init__(options, renderer, self.n_recolour + n_style)
        self.scene = scene
        self.painting = painting
        sides = [min(v.height, v.width) // k for v, k in zip(self.views, self.pools, strict=True)]
        self.objective = make_objective(options, painting, min(sides))
        self.frozen = frozen
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
            {"params": [style.features], "lr": RATES["features"] * scale, "sparse": True},
            {"params": network_parameters(style), "lr": RATES["mlp"] * scale},
        ]

    def on_fit_start(self) -> None:
        options = self.options
        if self.frozen is None:
            scene = self.scene
            cameras = Cameras.within(scene, self.views).to(self.device)
            self.frozen = FrozenGeometry(
                self.renderer,
                cameras,
                options.cache_gb * 1e9,
                CUDA_SHARE * torch.cuda.mem_get_info()[0] if self.device.type == "cuda" else 0,
                options.chunk,
                options.sample_threshold,
            )
        with self.trainer.precision_plugin.forward_context():
            first = self.frozen.view(0)
        table = SAMPLES_AT_ONCE_CUDA if self.device.type == "cuda" else SAMPLES_AT_ONCE
        samples_per_pixel = max(1.0, len(first.t) / max(1, len(first)))
        sizes = (n / samples_per_pixel for n in table[self.renderer.spec["field"]])
        self.chunks = Chunks(options.chunk) if options.chunk else Chunks(*sizes)
        self._announce(first)
        if options.colour_transfer:
            self.transfer = fit_colour_transfer(self._colours(self._photo), self._palette())

    def _announce(self, view: FrozenView) -> None:
        """Prints the plan, from what one ``view`` takes."""
        n, each = len(self.views), view.nbytes()
        sizes = self._relative_sizes() * len(view)
        mean = each * float(sizes.mean()) / max(1, len(view))
        room = self.frozen.budget + self.frozen.device_budget - sum(self.frozen.used.values())
        kept = min(n - len(self.frozen.kept), int(room / max(1, mean)))
        height, width = view.size
        tile = min(self.objective.tile, max(view.size)) + 2 * self.objective.halo
        largest = int(sizes.max())
        cut = not self.chunks.fit(largest)
        at_once = self.chunks.size if cut else largest
        samples = round(at_once * len(view.t) / max(1, len(view)))
        kind = self.renderer.spec["field"]
        loss, graph = BYTES_PER_TILE_PIXEL * tile * tile, BYTES_PER_SAMPLE[kind] * samples
        # what is rendered in one chunk keeps its graph while the loss is taken
        working = max(loss, graph) if cut else loss + graph
        on_host = kept * mean if self.device.type == "cpu" else 0
        self.announce(
            f"{n} views of {width}x{height}, in one of them {len(view)} pixels that show "
            f"something with {len(view.t)} samples ({each / 1e6:.1f} MB); "
            f"{kept + len(self.frozen.kept)} views are kept, {n - kept - len(self.frozen.kept)} "
            f"computed again; {at_once} pixels' graphs at once; features in tiles of "
            f"{self.objective.tile}",
            working + on_host + BYTES_PER_PIXEL * height * width,
        )

    def _relative_sizes(self) -> Tensor:
        """(V,) how much of each view the object takes, over what it takes of the first one."""
        if any(view.alpha is None for view in self.views):
            return torch.ones(len(self.views))
        shares = torch.tensor([float((view.alpha > 0).float().mean()) for view in self.views])
        return shares / shares[0].clamp(min=1e-3)

    def _palette(self) -> Tensor:
        """The painting's colours (K, 3)."""
        return self.painting.reshape(-1, 3).float() / 255

    def _colours(self, colours_of: Callable[[int, FrozenView], Tensor]) -> Tensor:
        """A sample of the object's colours (K, 3) over all views."""
        share = max(1, COLOUR_SAMPLES // len(self.frozen))
        colours = []
        quiet = not self.trainer.is_global_zero
        # where frozen views have to be computed for it, this takes minutes
        for index in tqdm(range(len(self.frozen)), desc="colours", unit="view", disable=quiet):
            frozen = self.frozen.view(index)
            seen = ((frozen.opacity > SEEN) & self._valid(index, frozen)).nonzero()[:, 0]
            seen = seen[:: max(1, len(seen) // share)]
            colours.append(colours_of(index, frozen.take(seen)))
        return torch.cat(colours)

    def _photo(self, index: int, pixels: FrozenView) -> Tensor:
        """Colours (K, 3) in [0, 1] of a training photo at some pixels."""
        image = self.views[index].image.to(self.device)
        return image[pixels.row.long(), pixels.column.long()].float() / 255

    def _valid(self, index: int, pixels: FrozenView) -> Tensor:
        """(P,) bool: which pixels the photo says something of, see `View`."""
        valid = self.views[index].valid
        if valid is None:
            return torch.ones_like(pixels.opacity, dtype=torch.bool)
        return valid.to(self.device)[pixels.row.long(), pixels.column.long()]

    def _target(self, index: int, pixels: FrozenView) -> Tensor:
        """As `_photo`, in the painting's colours where colour transfer is on."""
        photo = self._photo(index, pixels)
        if self.transfer is None:
            return photo
        recoloured = self.transfer.apply(photo).clamp(0, 1)
        return torch.lerp(photo, recoloured, pixels.opacity[:, None])

    def training_step(self, step: int, _: int) -> None:
        frozen = self.frozen.view(index := self._index(step))
        if step < self.n_recolour:
            terms = self._recolour(step, index, frozen)
        else:
            terms = getattr(self, f"_{self.options.style_mode}")(step, index, frozen)
        self.done = step + 1
        self.log("loss", sum(terms.values()), prog_bar=True, logger=False)
        self.record(step, {"loss": sum(terms.values()), **terms})
        if step >= self.n_recolour and (step - self.n_recolour) % self.show_every == 0:
            self._show(step, index, frozen)

    def _index(self, step: int) -> int:
        """The view of a step: all of them in a random order, again and again.  The photographic
        start makes all its steps on a view in a row, whose samples may have to be computed anew."""
        visit = step // RECOLOUR_PASSES if step < self.n_recolour else step
        shuffle = self.generator(visit // len(self.views), 2)
        return int(torch.randperm(len(self.views), generator=shuffle)[visit % len(self.views)])

    def _recolour(self, step: int, index: int, frozen: FrozenView) -> Terms:
        """The photographic start: random pixels of a view against the recoloured photo."""
        usable = self._valid(index, frozen).nonzero()[:, 0]
        if len(usable) == 0:
            return {"photo": torch.zeros(())}
        draw = torch.randint(len(usable), (RECOLOUR_RAYS,), generator=self.generator(step))
        own = usable[draw.sort().values[self.team.part(RECOLOUR_RAYS)].to(self.device)]
        pixels = frozen.take(own)
        colours = self._shade(pixels)
        share = len(own) / RECOLOUR_RAYS
        terms = {"photo": photometric_loss(colours, self._target(index, pixels)) * share}
        self.descend(terms, step)
        return self.totals(terms)

    def _memory_saving(self, step: int, index: int, frozen: FrozenView) -> Terms:
        """One step of the optimiser for the whole view."""
        return self._paint(step, index, frozen)

    def _small(self, step: int, index: int, frozen: FrozenView) -> Terms:
        """One step of the optimiser for the whole view, averaged to a small one."""
        return self._paint(step, index, frozen, self.pools[index])

    def _patch(self, step: int, index: int, frozen: FrozenView) -> Terms:
        """One step of the optimiser for each patch that shows something of the object."""
        terms: Terms = {}
        for corner, size in patches(frozen.size, self.options.patch_size):
            part = frozen.window(corner, size)
            if part.opacity.sum() >= 0.01 * size[0] * size[1]:
                terms = self._paint(step, index, part)
        return terms

    def _paint(self, step: int, index: int, frozen: FrozenView, pool: int = 1) -> Terms:
        """One step of the optimiser on the objective of a view or a window of it."""
        mask = functional.avg_pool2d(frozen.mask(), pool)
        target = self._target(index, frozen) if self.objective.needs_photo else None
        valid = self._valid(index, frozen)[:, None]

        def image_gradient(colours: Tensor) -> tuple[Terms, Tensor]:
            leaf = colours.detach().requires_grad_()
            image, photo = self._image(frozen, leaf, pool), None
            if target is not None:
                # where the photo says nothing, the picture is like it whatever it shows
                photo = self._image(frozen, torch.where(valid, target, colours.detach()), pool)
            terms, gradient = self.objective.gradient(image, photo, mask, self.team)
            return terms, self.scaled(torch.autograd.grad(image, leaf, gradient)[0])

        self.optimizers().zero_grad()
        terms = deferred_backward(
            lambda part: self._shade(frozen, part),
            len(frozen),
            self.chunks,
            image_gradient,
            list(self.renderer.field.style.parameters()),
            self.team,
        )
        self.require_finite(terms, step)
        self.apply_gradients(step)
        return terms

    def _shade(self, frozen: FrozenView, part: slice | None = None) -> Tensor:
        """Colours of a view's pixels, or of a stretch of them."""
        return frozen.shade(self.renderer.field, self.renderer.background, part)

    def _image(self, frozen: FrozenView, colours: Tensor, pool: int = 1) -> Tensor:
        """(1, 3, H / pool, W / pool) of a view in the ``colours (P, 3)``."""
        return functional.avg_pool2d(frozen.image(colours, self.renderer.background), pool)

    @torch.no_grad()
    def _show(self, step: int, index: int, frozen: FrozenView) -> None:
        """TensorBoard: photo | stylised | painting."""
        parts = self.chunks.over(len(frozen), lambda part: self._shade(frozen, part))
        if not parts:
            return
        stylised = self._image(frozen, torch.cat(parts))[0].permute(1, 2, 0)
        photo = self.views[index].image.to(self.device).float() / 255
        height = frozen.size[0]
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
        with self.trainer.precision_plugin.forward_context():  # as the features were computed in
            colours = self._colours(lambda _, pixels: self._shade(pixels))
        last = fit_colour_transfer(colours, self._palette())
        style = self.renderer.field.style
        style.colour_matrix.copy_(last.matrix)
        style.colour_offset.copy_(last.offset)


def freeze_geometry(renderer: Renderer) -> None:
    """Only the style module of the rendered field keeps its gradients."""
    renderer.requires_grad_(False)
    renderer.field.style.requires_grad_(True)
