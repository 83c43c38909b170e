"""Painting: the style of a field with frozen geometry, against a loss on whole pictures.

Every step takes one training view, in one of three modes: `memory_saving` compares the whole view
with the painting; `patch` steps once for each patch of it; `small` compares a small version of it.
All of them back-propagate in as many chunks as the memory asks for (`systems/deferred.py`).  Before
the first of them a warm-up fits the style to the photos in the painting's colours.

Large strokes come first: most steps see only every second (fourth, ...) pixel of a view, from
another one each time, so that a network's receptive field spans whole strokes; the last steps see
all pixels.  See `stages_of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from datasets.scene import Scene
from features.registry import AUTO
from losses.colour_transfer import ColourTransfer, fit_colour_transfer
from losses.objective import StyleObjective
from losses.photometric import photometric_loss
from models.renderer import Renderer
from models.style import ParameterGroups, Style
from opt import TrainOptions
from systems.deferred import deferred_backward
from systems.frozen import FrozenGeometry, FrozenView
from systems.system import Plan, Subjects, Task, Terms, require_finite
from systems.views import in_words, patches, shrunk
from utils.images import resize
from utils.machine import product_type
from utils.schedule import Schedule
from utils.sums import total_of

RECOLOUR_RAYS = 4096
RECOLOUR_PASSES = 4  # steps per view of the warm-up
MOST_COLOURS = 4_000_000  # of a painting, that colour transfer looks at
COLOUR_SAMPLES = 200_000
OPAQUE = 0.5  # opacity from which a pixel's colour counts as the object's
# measured: features of a pixel and their graph, in half and in single precision
BYTES_PER_TILE_PIXEL = {2: 2500, 4: 5500}
BYTES_PER_PIXEL = 250  # of the picture, its gradient, what is shown of it
COARSEST = 64  # pixels of the shorter side with which painting begins, at least


class StyleTask(Task):
    """Trains the style of a renderer's field; nothing else moves.

    Args:
        options: of the run.
        scene: views to paint.
        renderer: with trained geometry.
        painting: (H, W, 3) uint8.
        objective_of: pixels of the shorter side of the pictures -> the loss on them.
        weights: of its terms, by the steps after the warm-up.
        frozen: of an earlier task on the same views and geometry, whose memory goes on being used.
    """

    name = "style"

    def __init__(
        self,
        options: TrainOptions,
        scene: Scene,
        renderer: Renderer,
        painting: Tensor,
        objective_of: Callable[[int], StyleObjective],
        weights: Mapping[str, Schedule],
        frozen: FrozenGeometry | None = None,
    ) -> None:
        super().__init__(options)
        self.scene, self.renderer, self.painting = scene, renderer, painting
        self.views, self.pools = scene.train, [1] * len(scene.train)
        if options.style_mode == "small":
            small = [shrunk(view, options.small_size) for view in scene.train]
            self.views, self.pools = [view for view, _ in small], [pool for _, pool in small]
        n_views = len(self.views)
        self.n_recolour = RECOLOUR_PASSES * n_views if options.style_init == "photo" else 0
        n_style = options.max_steps or options.num_epochs_style * n_views
        self.n_steps = self.n_recolour + n_style
        self.beginning = "photographic start", self.n_recolour
        sides = [min(v.height, v.width) // k for v, k in zip(self.views, self.pools, strict=True)]
        self.shorter_side, self.objective_of = min(sides), objective_of
        coarse_share = 0.0 if options.style_mode == "small" else options.coarse_share
        self.stages = stages_of(n_style, self.shorter_side, coarse_share)
        self.stride = 0
        self.weights = weights
        self.frozen = frozen
        self.transfer: ColourTransfer | None = None
        self.show_every = options.val_every or max(1, n_style // 10)
        freeze_geometry(renderer)

    def _see_every(self, stride: int) -> None:
        """From now on compares every ``stride``-th pixel of the views with the painting."""
        if stride != self.stride:
            self.stride = stride
            self.objective = self.objective_of(self.shorter_side // stride).to(self.engine.device)

    @property
    def style(self) -> Style:
        """What is trained."""
        return self.renderer.field.style

    def subjects(self) -> Subjects:
        return {self.options.style_dir.stem: (self.scene, self.renderer, self.style)}

    def parameter_groups(self) -> ParameterGroups:
        every_patch = self.options.style_mode == "patch"
        return self.style.parameter_groups(self.options.lr, every_patch)

    def rate(self, step: int, n_steps: int) -> float:
        """The warm-up has the whole schedule, and so have the steps that see all pixels, which have
        to clean up after the coarse ones; these are taken at the full rate."""
        if step < self.n_recolour:
            return super().rate(step, self.n_recolour)
        *coarse, _ = self.stages
        begin = self.n_recolour + max((end for end, _ in coarse), default=0)
        return super().rate(max(0, step - begin), n_steps - begin)

    def start(self) -> Plan:
        if self.frozen is None:
            own = self.renderer, self.scene, self.views, self.options
            self.frozen = FrozenGeometry.of_views(*own)
        self._see_every(self.stages[0][1])
        with self.engine.autocast():
            first = self.frozen.view(0)
        self.chunks = self.frozen.painting_chunks(first, self.options.chunk)
        return self._plan(first)

    def prepare(self) -> None:
        if self.options.colour_transfer:
            self.transfer = fit_colour_transfer(self._colours(self._photo), self._palette())

    def _plan(self, first: FrozenView) -> Plan:
        """The plan, from what the ``first`` view takes."""
        n, each = len(self.views), first.nbytes()
        sizes = self._relative_sizes() * len(first)
        mean = each * float(sizes.mean()) / max(1, len(first))
        room = self.frozen.budget + self.frozen.device_budget - sum(self.frozen.used.values())
        kept = min(n - len(self.frozen.kept), int(room / max(1, mean)))
        height, width = first.size
        tile = min(self.objective.tile, max(first.size)) + 2 * self.objective.halo
        largest = int(sizes.max())
        cut = not self.chunks.fit(largest)
        at_once = self.chunks.size if cut else largest
        samples = round(at_once * len(first.t) / max(1, len(first)))
        precision = product_type(self.options.precision, self.engine.device.type)
        loss = BYTES_PER_TILE_PIXEL[precision.itemsize] * tile * tile
        graph = self.renderer.field.cost.painting_bytes * samples
        # what is rendered in one chunk keeps its graph while the loss is taken
        working = max(loss, graph) if cut else loss + graph
        on_host = kept * mean if self.engine.device.type == "cpu" else 0
        network = self.objective.network
        seen = "" if network is None else f"features of {network.name}; "
        if network is not None and network.name == "own" and self.options.features == AUTO:
            seen = "features of own (longer strokes: --features vgg16, a download of 0.5 GB); "
        start = f" after {self.n_recolour} of photographic start" if self.n_recolour else ""
        return Plan(
            f"{self.n_steps - self.n_recolour} steps{start}; {seen}{in_words(self.views)}; "
            f"the first has {len(first)} foreground pixels "
            f"with {len(first.t)} samples ({each / 1e6:.1f} MB); "
            f"{kept + len(self.frozen.kept)} views cached, {n - kept - len(self.frozen.kept)} "
            f"recomputed; {at_once} pixels per backward "
            f"chunk; feature tiles of {self.objective.tile} pixels",
            working + on_host + BYTES_PER_PIXEL * height * width,
        )

    def _relative_sizes(self) -> Tensor:
        """(V,) area of the object in each view, relative to the first."""
        if any(view.alpha is None for view in self.views):
            return torch.ones(len(self.views))
        shares = torch.tensor([float((view.alpha > 0).float().mean()) for view in self.views])
        return shares / shares[0].clamp(min=1e-3)

    def _palette(self) -> Tensor:
        """The painting's colours (K, 3), of a large one a sample."""
        colours = self.painting.reshape(-1, 3)
        return colours[:: math.ceil(len(colours) / MOST_COLOURS)].float() / 255

    def _colours(self, colours_of: Callable[[int, FrozenView], Tensor]) -> Tensor:
        """A sample of the object's colours (K, 3) over all views."""
        share = max(1, COLOUR_SAMPLES // len(self.frozen))
        colours = []
        # where frozen views have to be computed for it, this takes minutes
        quiet = self.engine.team.rank > 0
        for index in tqdm(range(len(self.frozen)), desc="colours", unit="view", disable=quiet):
            frozen = self.frozen.view(index)
            seen = ((frozen.opacity > OPAQUE) & self._valid(index, frozen)).nonzero()[:, 0]
            seen = seen[:: max(1, len(seen) // share)]
            colours.append(colours_of(index, frozen.take(seen)))
        return torch.cat(colours)

    def _photo(self, index: int, pixels: FrozenView) -> Tensor:
        """Colours (P, 3) in [0, 1] of a training photo at some pixels."""
        image = self.views[index].image.to(self.engine.device)
        return image[pixels.row.long(), pixels.column.long()].float() / 255

    def _valid(self, index: int, pixels: FrozenView) -> Tensor:
        """(P,) bool: pixels at which the photo is valid, see `View`."""
        valid = self.views[index].valid
        if valid is None:
            return torch.ones_like(pixels.opacity, dtype=torch.bool)
        return valid.to(self.engine.device)[pixels.row.long(), pixels.column.long()]

    def _target(self, index: int, pixels: FrozenView) -> Tensor:
        """As `_photo`, in the painting's colours where colour transfer is on."""
        photo = self._photo(index, pixels)
        if self.transfer is None:
            return photo
        recoloured = self.transfer.apply(photo).clamp(0, 1)
        return torch.lerp(photo, recoloured, pixels.opacity[:, None])

    def before_step(self, step: int) -> bool:
        if step - self.n_recolour in coarse_ends(self.stages):
            self.style.smooth()
        return False

    def gradients(self, step: int) -> Iterator[Terms]:
        index = self._index(step)
        if step < self.n_recolour:
            frozen = self.frozen.view(index)
            usable = self._valid(index, frozen).nonzero()[:, 0]
            if len(usable):
                yield self._recolour(step, index, frozen.take(usable))
            return
        at = step - self.n_recolour
        self._see_every(next(stride for end, stride in self.stages if at < end))
        first = torch.randint(self.stride, (2,), generator=self.generator(step, 3)).tolist()
        frozen = self.frozen.view(index, self.stride, tuple(first))
        self.objective.weights = {term: weight.at(at) for term, weight in self.weights.items()}
        match self.options.style_mode:
            case "memory_saving":
                yield self._paint(step, index, frozen)
            case "small":
                yield self._paint(step, index, frozen, self.pools[index])
            case "patch":
                for corner, size in patches(frozen.size, self.options.patch_size):
                    part = frozen.window(corner, size)
                    if part.opacity.sum() >= 0.01 * size[0] * size[1]:
                        yield self._paint(step, index, part)

    def _index(self, step: int) -> int:
        """The view of a step: all of them in a random order, again and again.  The warm-up makes
        all its steps on a view in a row, since its samples may have to be computed anew."""
        visit = step // RECOLOUR_PASSES if step < self.n_recolour else step
        shuffle = self.generator(visit // len(self.views), 2)
        return int(torch.randperm(len(self.views), generator=shuffle)[visit % len(self.views)])

    def _recolour(self, step: int, index: int, frozen: FrozenView) -> Terms:
        """The warm-up: random pixels of a view against the recoloured photo."""
        draw = torch.randint(len(frozen), (RECOLOUR_RAYS,), generator=self.generator(step))
        part = self.engine.team.part(RECOLOUR_RAYS)
        pixels = frozen.take(draw.sort().values[part].to(self.engine.device))
        share = (part.stop - part.start) / RECOLOUR_RAYS
        loss = photometric_loss(self._render(pixels), self._target(index, pixels))
        self.descend(terms := {"photo": loss * share}, step)
        return self.totals(terms)

    def _paint(self, step: int, index: int, frozen: FrozenView, pool: int = 1) -> Terms:
        """Adds the gradient of the objective of a view or a window of it."""
        mask = pooled(frozen.mask(), pool)
        target = valid = None
        if self.objective.needs_photo:
            target, valid = self._target(index, frozen), self._valid(index, frozen)[:, None]

        def image_gradient(colours: Tensor) -> tuple[Terms, Tensor]:
            """The terms of the picture in these colours (P, 3), and their gradient (P, 3)."""
            leaf = colours.detach().requires_grad_()
            image, photo = self._image(frozen, leaf, pool), None
            if target is not None:
                # invalid pixels of the photo are replaced by the render, and cost nothing
                photo = self._image(frozen, torch.where(valid, target, colours.detach()), pool)
            terms, gradient = self.objective.gradient(image, photo, mask, self.engine.team)
            return terms, self.engine.scaled(torch.autograd.grad(image, leaf, gradient)[0])

        terms = deferred_backward(
            lambda part: self._render(frozen, part),
            len(frozen),
            self.chunks,
            image_gradient,
            list(self.style.parameters()),
            self.engine.team,
        )
        require_finite(self, terms, step)
        self.engine.show("loss", total_of(terms.values()))
        return terms

    def _render(self, frozen: FrozenView, part: slice | None = None) -> Tensor:
        """Colours of a view's pixels, or of a stretch of them."""
        return frozen.render(self.renderer.field, self.renderer.background, part)

    def _image(self, frozen: FrozenView, colours: Tensor, pool: int = 1) -> Tensor:
        """(1, 3, H / pool, W / pool) of a view in the ``colours (P, 3)``."""
        return pooled(frozen.image(colours, self.renderer.background), pool)

    def after_step(self, step: int) -> None:
        n_painted = step - self.n_recolour
        if n_painted >= 0 and n_painted % self.show_every == 0:
            self._record_picture(step)

    @torch.no_grad()
    def _record_picture(self, step: int) -> None:
        """Photo | stylised | painting."""
        index = self._index(step)
        frozen = self.frozen.view(index)
        parts = self.chunks.over(len(frozen), lambda part: self._render(frozen, part))
        if not parts:
            return
        stylised = self._image(frozen, torch.cat(parts))[0].permute(1, 2, 0)
        photo = self.views[index].image.to(stylised) / 255
        height = frozen.size[0]
        width = round(height * self.painting.shape[1] / self.painting.shape[0])
        painting = resize(self.painting.float() / 255, width, height).to(photo)
        panel = torch.cat([photo, stylised, painting], 1)
        self.engine.record_image(step, "photo_stylised_painting", panel)

    @torch.no_grad()
    def finish(self) -> None:
        """Colour transfer once more, from what has been painted to the painting."""
        if self.transfer is None:
            return
        with self.engine.autocast():  # the precision that the features were computed in
            colours = self._colours(lambda _, pixels: self._render(pixels))
        last = fit_colour_transfer(colours, self._palette())
        self.style.decoder.set_colour_map(last.matrix, last.offset)


def pooled(image: Tensor, pool: int) -> Tensor:
    """(B, C, H / pool, W / pool): means of squares of ``pool`` pixels of ``image (B, C, H, W)``."""
    return image if pool == 1 else functional.avg_pool2d(image, pool)


def freeze_geometry(renderer: Renderer) -> None:
    """Only the style of the rendered field keeps its gradients."""
    renderer.requires_grad_(False)
    renderer.field.style.requires_grad_(True)


def stages_of(n_steps: int, shorter_side: int, coarse_share: float) -> list[tuple[int, int]]:
    """The sizes at which a style is painted, the coarsest first.

    Args:
        n_steps: of the painting.
        shorter_side: of the views, pixels.
        coarse_share: of the steps that do not see all pixels, shared evenly by the strides.

    Returns:
        (step, stride): until which step every which pixel is seen.

    >>> stages_of(100, 400, 0.8)
    [(40, 4), (80, 2), (100, 1)]
    """
    strides = [1]
    while shorter_side // (2 * strides[0]) >= COARSEST:
        strides.insert(0, 2 * strides[0])
    n_coarse = round(coarse_share * n_steps) if len(strides) > 1 else 0
    ends = [round(n_coarse * i / (len(strides) - 1)) for i in range(1, len(strides))]
    return [*zip(ends, strides, strict=False), (n_steps, 1)]


def coarse_ends(stages: Sequence[tuple[int, int]]) -> list[int]:
    """The steps, of `stages_of`, before which a style has to be smoothed: pixels that no step has
    seen together have learned pictures of their own, which later steps, whose loss looks for
    strokes, would leave as grain."""
    return [end for end, _ in stages[:-1] if end > 0]
