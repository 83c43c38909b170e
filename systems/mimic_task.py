"""The 3D half of mutual learning: a field with frozen geometry learns the 2D network's pictures of
all its views, in all paintings at once (StylizedNeRF, Huang et al. 2022, section 3.4).

The 2D network does not paint a surface alike in all views.  The mean of its pictures, to which
pixels alone would lead, has no strokes; so the encoder also compares features of the field's whole
picture with those that the network decoded, and their statistics with the painting's.  Large
strokes come first, as in stage `style`: most steps see every second (fourth, ...) pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from datasets.scene import Scene
from losses.photometric import photometric_loss
from losses.style_image import painting_size
from models.field import Field
from models.latent_voxels import LatentVoxelStyle, rows_of
from models.renderer import Renderer
from models.style import ParameterGroups, Style
from opt import TrainOptions
from systems.decoder_task import DecoderTask, Lesson, load_module
from systems.deferred import deferred_backward
from systems.frozen import FrozenGeometry, FrozenView
from systems.mutual_measures import cross_view_error, painter
from systems.optimisation import each_once
from systems.paintings import Painting, code_distributions, part_statistics
from systems.palettes import Palettes
from systems.photo_views import PhotoViews
from systems.style_task import coarse_ends, stages_of
from systems.styled_features import StyledFeatures
from systems.system import Plan, Subjects, Task, Terms, bytes_of, require_finite
from systems.views import in_words
from utils.images import LUMA, resize, to_uint8

SIDE = 512  # pixels of a view, or of every so manyth pixel of it, that a step sees at most
STAY = 2  # steps on a picture of the 2D network, until it makes one of another view or painting
COARSE = 0.7  # of the steps, that do not see all pixels
FEATURES, STYLE, PICTURE = 0.1, 0.1, 3.0  # weights
LAST_RATE = 0.1  # of the learning rate, at the end
PRIOR = 0.1  # weight of the codes' negative log-likelihood, as in the paper
CODE_RATE = 1e-3
SHOWN_PAIRS = 1  # of views, whose difference is recorded
FAINT = 0.1  # of a ray's weight, what is dropped: the picture is within 40 dB of the exact one
BYTES_PER_LOSS_PIXEL = 3000  # measured: VGG-19 up to relu3_1 and back, single precision
SEEN = 0.7  # of the vertices, by training views: measured on lego
START_RAYS = 4096


class Answer(NamedTuple):
    """What the field is to show in one visit of a view: features (1, C, h, w) that the 2D network
    decoded, and its picture (1, 3, H, W) uint8."""

    visit: int
    features: Tensor
    picture: Tensor


def with_luminance(image: Tensor, of: Tensor) -> Tensor:
    """An image (B, 3, H, W) in [0, 1] with the luminance of another one, its own chroma kept."""
    luma = image.new_tensor(LUMA)[:, None, None]
    change = ((of - image) * luma).sum(1, keepdim=True)
    return (image + change).clamp(0, 1)


class MimicTask(Task):
    """Trains the styles of several paintings on one field.

    Args:
        options: of the run.
        scene: whose training views are painted.
        renderer: with trained geometry, in its photographic colours; it is not changed.
        paintings: in the order of the styles.
        styles: one for each painting, with ``latents``.
        decoder: the other half.
        lesson: when.
    """

    name = "field"

    def __init__(
        self,
        options: TrainOptions,
        scene: Scene,
        renderer: Renderer,
        paintings: Sequence[Painting],
        styles: Sequence[Style],
        decoder: DecoderTask,
        lesson: Lesson,
    ) -> None:
        super().__init__(options)
        self.scene, self.renderer, self.paintings = scene, renderer, list(paintings)
        self.styles = nn.ModuleList(styles)
        self.fields = decoder.fields
        self.lesson = lesson
        self.decoder = (decoder,)  # the other task's parameters are not this one's
        self.stylizer = decoder.stylizer
        self.answer: Answer | None = None
        self.resumed = False
        n_steps = lesson.n_steps - lesson.n_consistency
        self.show_every = options.val_every or max(1, n_steps // 6)
        shorter = min(min(view.height, view.width) for view in scene.train)
        self.stages = stages_of(n_steps, shorter, COARSE)
        self.painting_sizes = {
            stride: painting_size(shorter // stride, options.stroke_scale)
            for _, stride in self.stages
        }

    def subjects(self) -> Subjects:
        pairs = zip(self.paintings, self.styles, strict=True)
        return {painting.name: (self.scene, self.renderer, style) for painting, style in pairs}

    def parameter_groups(self) -> ParameterGroups:
        groups = each_once(
            group for style in self.styles for group in style.parameter_groups(self.options.lr)
        )
        codes = [style.latents.codes for style in self.styles]
        return [*groups, {"params": codes, "lr": CODE_RATE}]

    def start(self) -> Plan:
        own = self.renderer, self.scene, self.scene.train, self.options
        self.frozen = FrozenGeometry.of_views(*own, FAINT)
        budget = self.frozen.budget
        with self.engine.autocast():
            first = self.frozen.view(0)
        samples = max(1.0, len(first.t) / max(1, len(first)))
        cost = self.styles[0].cost or self.renderer.field.cost
        self.chunks = self.frozen.painting_chunks(first, self.options.chunk, cost)
        n_views, n_paintings = len(self.frozen), len(self.paintings)
        height, width = first.size
        side = min(height, SIDE), min(width, SIDE)
        loss = BYTES_PER_LOSS_PIXEL * side[0] * side[1]
        geometry = min(budget, first.nbytes() * n_views)
        at_once = len(first) if self.chunks.fit(len(first)) else self.chunks.size
        graph = cost.painting_bytes * samples * at_once
        n_steps = self.lesson.n_steps - self.lesson.n_consistency
        return Plan(
            f"{n_paintings} painting{'s' if n_paintings > 1 else ''} on "
            f"{in_words(self.scene.train)}; {n_steps} steps, one pixel in "
            f"{', '.join(str(stride) for _, stride in self.stages)} a side; frozen views "
            f"{geometry / 1e6:.0f} MB; each further painting about "
            f"{self.bytes_per_painting() / 1e6:.1f} MB in the checkpoint, three times as much in "
            "training",
            loss
            + graph
            + geometry
            + 8 * height * width * n_views
            + self._manner_bytes()
            - 3 * sum(self._unseen_bytes(style) for style in self.styles),  # and its moments
        )

    @staticmethod
    def _unseen_bytes(style: Style) -> float:
        """Of a style's numbers, what `prepare` is likely to drop."""
        whole = isinstance(style, LatentVoxelStyle) and len(style.head.table) == len(
            style.head.seen
        )
        return (1 - SEEN) * style.head.table.nbytes if whole else 0.0

    def _manner_bytes(self) -> float:
        """Of the paintings' features at all sizes."""
        layer = self.stylizer.network.layers[self.stylizer.layer]
        shapes = [painting.rgb.shape for painting in self.paintings]
        longer = sum(max(h, w) / min(h, w) for h, w, _ in shapes)
        cells = sum(size**2 for size in self.painting_sizes.values()) / layer.stride**2
        return 2 * layer.channels * cells * longer  # half precision

    def gradient_bytes(self) -> int:
        """Of one painting, whose turn it is."""
        return bytes_of(self.styles[0].parameter_groups(None)) + self.styles[0].latents.codes.nbytes

    def bytes_per_painting(self) -> float:
        """What one painting has for itself."""
        shared = {id(p) for p in self.styles[0].parameters()}
        if len(self.styles) > 1:
            shared &= {id(p) for p in self.styles[1].parameters()}
        own = (
            p for p in self.styles[0].parameters() if len(self.styles) == 1 or id(p) not in shared
        )
        return sum(p.nbytes for p in own) - self._unseen_bytes(self.styles[0])

    def prepare(self) -> None:
        views = PhotoViews(self.frozen, self.renderer.field, self.renderer.background, self.chunks)
        quiet = self.engine.team.rank > 0
        with self.engine.autocast(), torch.no_grad():
            field = self.renderer.field
            seen = torch.zeros(0, dtype=torch.bool)  # vertices, if the styles have any
            if isinstance(self.styles[0], LatentVoxelStyle):
                seen = torch.zeros_like(self.styles[0].head.seen)
            for index in tqdm(
                range(len(self.frozen)), desc="photographic views", unit="view", disable=quiet
            ):
                views.add(index)
                if len(seen):
                    cells = self.frozen.view(index).feature.clamp(min=0).unique()
                    seen[field.geometry.lattice.corners[cells.long()].long().flatten()] = True
            every = range(len(views))
            steps = tqdm(every, desc="statistics", unit="view", disable=quiet)
            content = views.statistics(self.stylizer, steps)
            self.styled = {
                stride: StyledFeatures.of_paintings(
                    self.stylizer,
                    views,
                    content if stride == 1 else views.statistics(self.stylizer, every, stride),
                    [painting.image(size) for painting in self.paintings],
                    self.options.stylisation == "patches",
                )
                for stride, size in self.painting_sizes.items()
            }
            rows = []
            for number, painting in enumerate(self.paintings):
                image = painting.image(self.painting_sizes[1]).to(self.engine.device)
                features = self.stylizer.features(image).float()
                rows.append(part_statistics(features, self.generator(number, 4)))
        self.views = views
        self.palettes = Palettes(views, self.paintings, self.options.preserve_colour)
        self.backdrops = [painting.image(64).mean((2, 3))[0] for painting in self.paintings]
        if not self.resumed:
            self._begin(rows, seen)
        self.decoder[0].provide(self.styled[1])

    def _begin(self, rows: list[Tensor], seen: Tensor) -> None:
        """Draws the codes of each painting, from the statistics ``rows`` of it and its parts; drops
        all vertices but those ``seen (V,)``, and brings the scene's colours on them into each
        painting's palette."""
        codes = code_distributions(rows, self.options.seed)
        for number, (own, (mean, log_variance)) in enumerate(zip(self.styles, codes, strict=True)):
            own.latents.draw(mean, log_variance, self.generator(number, 5))
        if len(seen):
            seen[0] = True  # at least one
            self._keep(seen)
            for own, palette in zip(self.styles, self.palettes.of, strict=True):
                own.recolour(self.palettes.unit.apply, palette.matrix, palette.offset)

    def _keep(self, seen: Tensor) -> None:
        """Drops what no training view sees, see `SeenVertices`."""
        row = rows_of(seen)
        for own in self.styles:
            own.head.keep(seen, row)

    def rate(self, step: int, n_steps: int) -> float:
        """The steps that see all pixels, and clean up after the coarse ones, slow down."""
        ends = [0, *(end for end, _ in self.stages)]
        begin, end = ends[-2:]
        done = (step - self.lesson.n_consistency - begin) / max(1, end - begin)
        return super().rate(step, n_steps) * (1 - (1 - LAST_RATE) * min(1.0, max(0.0, done)))

    def before_step(self, step: int) -> bool:
        if step - self.lesson.n_consistency in coarse_ends(self.stages):
            for style in self.styles:
                style.smooth()
        return False

    def gradients(self, step: int) -> Iterator[Terms]:
        if not self.lesson.field_learns(step):
            if not isinstance(self.styles[0], LatentVoxelStyle):
                yield self._start(step)
            return
        visit, number, index = self._visit(step)
        view = self._seen(step, index)
        if len(view) == 0:
            return
        if self.answer is None or self.answer.visit != visit:
            guided = self.lesson.field_guides(step)
            self.answer = Answer(visit, *self._painted(number, index, view, guided))
        field, background = self.fields[number], self.renderer.background
        latents = field.style.latents
        terms = deferred_backward(
            lambda part: view.render(field, background, part, latents.codes[index]),
            len(view),
            self.chunks,
            lambda colours: self._image_gradient(colours, number, view),
            [p for p in field.style.parameters() if p.requires_grad],
            self.engine.team,
        )
        require_finite(self, terms, step)
        prior = PRIOR * latents.negative_log_likelihood(index) / self.engine.team.size
        self.descend({"prior": prior}, step)
        terms |= self.totals({"prior": prior})
        self.engine.show("loss", sum(terms.values()))
        yield terms

    def _start(self, step: int) -> Terms:
        """A step of a network's start, while the 2D network becomes consistent: random pixels of a
        photographic view in a painting's palette."""
        draw, number = self.generator(step, 1), step % len(self.paintings)
        index = int(torch.randint(len(self.frozen), (), generator=draw))
        view = self.frozen.view(index)
        if len(view) == 0:
            return {}
        team, background = self.engine.team, self.renderer.background
        part = team.part(START_RAYS)
        chosen = torch.randint(len(view), (START_RAYS,), generator=draw)[part]
        pixels = view.take(chosen.sort().values.to(background.device))
        field, opacity = self.fields[number], pixels.opacity[:, None]
        photo = pixels.render(self.renderer.field, background) - (1 - opacity) * background
        photo = photo / opacity.clamp(min=1e-6)
        wanted = opacity * self.palettes.recoloured(photo, number)
        found = pixels.render(field, background, code=field.style.latents.codes[index])
        error = photometric_loss(found, wanted + (1 - opacity) * background)
        self.descend(terms := {"start": error * len(chosen) / START_RAYS}, step)
        return self.totals(terms)

    def _image_gradient(
        self, colours: Tensor, number: int, view: FrozenView
    ) -> tuple[Terms, Tensor]:
        """The terms of the picture in these colours (P, 3), and their gradient (P, 3)."""
        leaf, background = colours.detach().float().requires_grad_(), self.renderer.background
        device = background.device
        # the network sees an object over the painting's mean colour, not over a white that is not
        # the painting's
        backdrop = self.backdrops[number].to(device)
        missing = (1 - view.opacity)[:, None]
        image = view.image(leaf + missing * (backdrop - background), backdrop)
        picture = self.answer.picture.to(device).float() / 255
        mask = view.mask()
        judged, wanted = image, picture
        if self.options.preserve_colour:
            judged = with_luminance(picture, image)
            wanted = with_luminance(view.crop(self.views.content(view.index)), picture)
        styled = self.styled[view.stride]
        found = styled.terms(judged, self.answer.features.to(device), number, mask)
        error = ((image - wanted) * mask).square().mean() / mask.mean().clamp(min=1e-6)
        terms = {
            "features": FEATURES * found["content"],
            "style": STYLE * found["style"],
            "picture": PICTURE * error,
        }
        (gradient,) = torch.autograd.grad(sum(terms.values()), leaf)
        return {name: x.detach() for name, x in terms.items()}, self.engine.scaled(gradient)

    @torch.no_grad()
    def _painted(
        self, number: int, index: int, view: FrozenView, guided: bool
    ) -> tuple[Tensor, Tensor]:
        """The features (1, C, h, w) that the 2D network decodes, and the picture (1, 3, H, W) uint8
        that it makes of them, as it is now."""
        guide = self.fields[number] if guided else None
        features = self.styled[view.stride].of(index, number, guide, view)
        picture = self.stylizer.decode(features, view.size).float().clamp(0, 1)
        return features, to_uint8(picture)

    def _stride(self, step: int) -> int:
        """Which every pixel of a view is seen in a step; the same during a visit."""
        at = (step - self.lesson.n_consistency) // STAY * STAY
        return next(stride for end, stride in self.stages if at < end)

    def _seen(self, step: int, index: int) -> FrozenView:
        """The pixels of a view that a step sees: the same ones for all paintings."""
        visit, *_ = self._visit(step)
        draw = self.generator(visit // len(self.paintings), 6)
        stride = self._stride(step)
        first = torch.randint(stride, (2,), generator=draw).tolist()
        view = self.frozen.view(index, stride, tuple(first))
        if max(view.size) <= SIDE:
            return view
        corner = [int(torch.randint(max(1, n - SIDE + 1), (), generator=draw)) for n in view.size]
        return view.window(tuple(corner), tuple(min(n, SIDE) for n in view.size))

    def _visit(self, step: int) -> tuple[int, int, int]:
        """Number of the visit that a step is part of, its painting and its view: all pairs in a
        random order, again and again; the paintings of a view one after the other, which share
        what has to be computed of it."""
        visit = (step - self.lesson.n_consistency) // STAY
        n, views = len(self.paintings), len(self.frozen)
        turn, place = divmod(visit // n, views)
        order = torch.randperm(views, generator=self.generator(turn, 2))
        return visit, visit % n, int(order[place])

    def after_step(self, step: int) -> None:
        done = step - self.lesson.n_consistency
        if done >= 0 and done % self.show_every == 0:
            guided = self.lesson.field_guides(step)
            self._record_pictures(step, guided)
            self._record_error(step, guided)

    def _record_error(self, step: int, guided: bool) -> None:
        """How differently the 2D network paints what two views show, of some pairs of views."""
        apart = max(1, len(self.views) // SHOWN_PAIRS)
        chosen = range(0, len(self.views), apart)[:SHOWN_PAIRS]
        pairs = [(view, near[0]) for view in chosen if (near := self.views.neighbours(view))]
        for number, painting in enumerate(self.paintings):
            guide = self.fields[number] if guided else None
            paint = painter(self.stylizer.decode, self.styled[1], number, guide)
            error = cross_view_error(paint, self.views, pairs)
            if error is not None:
                name = f"2d_cross_view_error/{painting.name}"
                self.engine.record_value(step, name, error.rmse)
                self.engine.record_value(step, f"{name}/normalised", error.normalised)

    @torch.no_grad()
    def _record_pictures(self, step: int, guided: bool) -> None:
        """What the 2D network makes of a view | the field in that style | the photographic view."""
        _, _, index = self._visit(step)
        view, background = self.frozen.view(index), self.renderer.background
        for number, painting in enumerate(self.paintings):
            parts = self.chunks.over(
                len(view),
                lambda part, field=self.fields[number]: view.render(field, background, part),
            )
            if not parts:
                return
            _, picture = self._painted(number, index, view, guided)
            picture = picture.to(background).div(255)
            if self.options.preserve_colour:
                picture = with_luminance(self.views.content(index), picture)
            over = background[:, None, None].expand_as(picture)
            picture = torch.lerp(over, picture, view.mask())
            shown = picture, view.image(torch.cat(parts).float(), background)
            photo = self.views.rgb[index].to(background.device).float() / 255
            panel = torch.cat([*(x[0].permute(1, 2, 0) for x in shown), photo], 1)
            height = photo.shape[0]
            own = self.paintings[number].rgb.float() / 255
            own = resize(own, max(1, round(height * own.shape[1] / own.shape[0])), height)
            panel = torch.cat([panel, own.to(panel)], 1)
            self.engine.record_image(step, f"2d_field_photo_painting/{painting.name}", panel)

    def state(self) -> dict[str, Any]:
        answer = {} if self.answer is None else self.answer._asdict()
        return {"styles": self.styles.state_dict(), "answer": answer}

    def load_state(self, state: Mapping[str, Any]) -> None:
        styles = state.get("styles")
        if isinstance(self.styles[0], LatentVoxelStyle) and isinstance(styles, Mapping):
            seen, every = styles.get("0.head.seen"), self.styles[0].head.seen
            if torch.is_tensor(seen) and (seen.shape, seen.dtype) == (every.shape, every.dtype):
                self._keep(seen)
        load_module(self.styles, styles)
        answer = state.get("answer")
        self.answer = Answer(**answer) if answer else None
        self.resumed = True


def fields_of(field: Field, styles: Sequence[Style]) -> list[Field]:
    """Fields with the same geometry, each in one of the styles."""
    return [type(field)(field.geometry, style) for style in styles]
