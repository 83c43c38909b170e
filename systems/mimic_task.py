"""The 3D half of mutual learning: a field with frozen geometry learns the 2D network's pictures of
all its views, in all paintings at once (StylizedNeRF, Huang et al. 2022, section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from datasets.scene import Scene
from losses.photometric import photometric_loss
from models.field import Field
from models.renderer import Renderer
from models.style import ParameterGroups, Style
from models.stylizer import Manner
from opt import TrainOptions
from systems.decoder_task import DecoderTask, Lesson, load_module
from systems.frozen import FrozenGeometry, FrozenView
from systems.mutual_measures import cross_view_error, painter
from systems.optimisation import each_once
from systems.paintings import Painting, code_distributions, part_statistics
from systems.photo_views import PhotoViews
from systems.styled_features import StyledFeatures
from systems.system import Plan, Subjects, Task, Terms
from utils.images import LUMA, resize, to_uint8

PIXELS = 4096  # of a view, per step
STAY = 4  # steps on a picture of the 2D network, until it makes one of another view or painting
TURNS = 4  # pictures of each painting and view, per epoch
LAST_RATE = 0.1  # of the learning rate, at the end
PRIOR = 0.1  # weight of the codes' negative log-likelihood, as in the paper
CODE_RATE = 1e-3
SHOWN_PAIRS = 4  # of views, whose difference is recorded


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
        size: pixels of the paintings' shorter side.
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
        self.answer: tuple[int, Tensor | None] = (-1, None)  # visit, colours (P, 3) uint8 to learn
        self.resumed = False
        every = lesson.n_steps - lesson.n_consistency
        self.show_every = options.val_every or max(1, every // 10)

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
        self.frozen = FrozenGeometry.of_views(*own)
        budget = self.frozen.budget
        with self.engine.autocast():
            first = self.frozen.view(0)
        samples = max(1.0, len(first.t) / max(1, len(first)))
        cost = self.renderer.field.cost
        self.chunks = self.frozen.painting_chunks(first, self.options.chunk)
        n_views, n_paintings = len(self.frozen), len(self.paintings)
        # of the 2D network's deepest picture of a whole view, its widest layer twice
        height, width = first.size
        whole = 2 * 4 * max(g.channels / g.stride**2 for g in self.stylizer.network.layers.values())
        geometry = min(budget, first.nbytes() * n_views)
        working = cost.painting_bytes * samples * min(PIXELS, len(first))
        return Plan(
            f"{n_paintings} paintings on {n_views} views of {width}x{height}; "
            f"{self.lesson.n_steps - self.lesson.n_consistency} steps of {PIXELS} pixels; frozen "
            f"views {geometry / 1e6:.0f} MB; each further painting "
            f"{self.bytes_per_painting() / 1e6:.1f} MB in the checkpoint",
            max(working, whole * height * width) + geometry + 8 * height * width * n_views,
        )

    def bytes_per_painting(self) -> int:
        """What one painting has for itself."""
        shared = {id(p) for p in self.styles[0].parameters()}
        if len(self.styles) > 1:
            shared &= {id(p) for p in self.styles[1].parameters()}
        own = (
            p for p in self.styles[0].parameters() if len(self.styles) == 1 or id(p) not in shared
        )
        return sum(p.numel() * p.element_size() for p in own)

    def prepare(self) -> None:
        views = PhotoViews(self.frozen, self.renderer.field, self.renderer.background, self.chunks)
        quiet = self.engine.team.rank > 0
        with self.engine.autocast(), torch.no_grad():
            for index in tqdm(
                range(len(self.frozen)), desc="photographic views", unit="view", disable=quiet
            ):
                views.add(index)
            steps = tqdm(range(len(views)), desc="statistics", unit="view", disable=quiet)
            content = views.statistics(self.stylizer, steps)
            manners, rows = [], []
            for number, image in enumerate(self.decoder[0].images):
                features = self.stylizer.features(image.to(self.engine.device)).float()
                manners.append(Manner.of(features, self.options.stylisation == "patches"))
                rows.append(part_statistics(features, self.generator(number, 4)))
        self.views = views
        self.styled = StyledFeatures(self.stylizer, views, content, manners)
        if not self.resumed:
            for number, (own, (mean, log_variance)) in enumerate(
                zip(self.styles, code_distributions(rows, self.options.seed), strict=True)
            ):
                own.latents.draw(mean, log_variance, self.generator(number, 5))
        self.decoder[0].provide(self.styled)

    def rate(self, step: int, n_steps: int) -> float:
        lesson = self.lesson
        done = (step - lesson.n_consistency) / max(1, lesson.n_steps - lesson.n_consistency)
        return super().rate(step, n_steps) * (1 - (1 - LAST_RATE) * min(1.0, max(0.0, done)))

    def gradients(self, step: int) -> Iterator[Terms]:
        if not self.lesson.field_learns(step):
            return
        visit, number, index = self._visit(step)
        view = self.frozen.view(index)
        if len(view) == 0:
            return
        if self.answer[0] != visit:
            self.answer = visit, self._picture(number, view, self.lesson.field_guides(step))
        wanted = self.answer[1]
        draw = torch.randint(len(view), (PIXELS,), generator=self.generator(step)).sort().values
        part = self.engine.team.part(PIXELS)
        chosen = draw[part].to(self.engine.device)
        pixels = view.take(chosen)
        wanted = wanted[chosen.cpu()].to(self.engine.device).float() / 255
        background = self.renderer.background
        wanted = torch.lerp(background.expand_as(wanted), wanted, pixels.opacity[:, None])
        latents = self.styles[number].latents
        colours = pixels.render(self.fields[number], background, code=latents.codes[index])
        share = (part.stop - part.start) / PIXELS
        terms = {
            "mimic": photometric_loss(colours, wanted) * share,
            "prior": PRIOR * latents.negative_log_likelihood(index) / self.engine.team.size,
        }
        self.descend(terms, step)
        totals = self.totals(terms)
        self.engine.show("loss", sum(totals.values()))
        yield totals

    @torch.no_grad()
    def _picture(self, number: int, view: FrozenView, guided: bool) -> Tensor:
        """Colours (P, 3) uint8 that the 2D network, as it is now, paints a view in."""
        guide = self.fields[number] if guided else None
        size, stylizer = self.views.rgb[view.index].shape[:2], self.stylizer
        picture = stylizer.decode(self.styled.of(view.index, number, guide), tuple(size))
        picture = picture.float().clamp(0, 1)
        if self.options.preserve_colour:
            picture = with_luminance(self.views.content(view.index), picture)
        return to_uint8(picture[0].flatten(1).T.index_select(0, view.places())).cpu()

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
            paint = painter(self.stylizer.decode, self.styled, number, guide)
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
            answer = self._picture(number, view, guided).to(background.device).float() / 255
            answer = torch.lerp(background.expand_as(answer), answer, view.opacity[:, None])
            shown = [view.image(x.float(), background) for x in (answer, torch.cat(parts))]
            photo = self.views.rgb[index].to(background.device).float() / 255
            panel = torch.cat([*(x[0].permute(1, 2, 0) for x in shown), photo], 1)
            height = photo.shape[0]
            own = self.paintings[number].rgb.float() / 255
            own = resize(own, max(1, round(height * own.shape[1] / own.shape[0])), height)
            panel = torch.cat([panel, own.to(panel)], 1)
            self.engine.record_image(step, f"2d_field_photo_painting/{painting.name}", panel)

    def state(self) -> dict[str, Any]:
        visit, answer = self.answer
        answer = torch.empty(0, 3, dtype=torch.uint8) if answer is None else answer
        return {"styles": self.styles.state_dict(), "visit": visit, "answer": answer}

    def load_state(self, state: Mapping[str, Any]) -> None:
        load_module(self.styles, state.get("styles"))
        self.answer = state.get("visit", -1), state.get("answer")
        self.resumed = True


def fields_of(field: Field, styles: Sequence[Style]) -> list[Field]:
    """Fields with the same geometry, each in one of the styles."""
    return [type(field)(field.geometry, style) for style in styles]
