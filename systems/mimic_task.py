"""The 3D half of mutual learning: a field with frozen geometry learns the 2D network's pictures of
all its views, in all paintings at once (StylizedNeRF, Huang et al. 2022, section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from datasets.scene import Scene
from losses.photometric import photometric_loss
from models.field import Field
from models.renderer import Renderer
from models.style import ParameterGroups, Style
from models.stylizer import Statistics, Stylizer, map_statistics
from opt import TrainOptions
from systems.decoder_task import DecoderTask, Lesson, load_module
from systems.frozen import FrozenGeometry, FrozenView
from systems.mutual_measures import cross_view_error, painter
from systems.optimisation import each_once
from systems.paintings import Painting, code_distributions, painting_statistics
from systems.photo_views import PhotoViews
from systems.system import Plan, Subjects, Task, Terms
from utils.checkpoint import digest
from utils.images import LUMA, resize, to_uint8

PIXELS = 4096  # of a view, per step
VISITS = 8  # steps for each painting and view, per epoch
PRIOR = 0.1  # weight of the codes' negative log-likelihood, as in the paper
CODE_RATE = 1e-3
REFRESHES = 3  # how often, once the 2D network learns from the field, its pictures are made anew
SHOWN_PAIRS = 4  # of views, whose difference is recorded


class Teacher(nn.Module):
    """The 2D network as it was at some step, and the pictures it made, as far as they are kept.

    Pictures are kept under the content of what they were made of: painting, decoder, size and
    photographic view.

    Args:
        stylizer: whose decoder goes on learning.
        paintings: digests, in their order.
        budget: bytes of pictures to keep.
        preserve_colour: whether only the luminance is the painting's, the chroma the photo's.
    """

    def __init__(
        self, stylizer: Stylizer, paintings: Sequence[str], budget: float, preserve_colour: bool
    ) -> None:
        super().__init__()
        self.stylizer = (stylizer,)  # in a tuple, or its parameters would be the teacher's as well
        self.decoder = deepcopy(stylizer.decoder).requires_grad_(False)
        self.digests, self.budget = list(paintings), budget
        self.preserve_colour = preserve_colour
        self.kept: dict[tuple[str, ...], Tensor] = {}
        self.used = 0
        self.version = ""

    def refresh(self) -> None:
        """Takes over the decoder as it is now; pictures of another one are forgotten."""
        self.decoder.load_state_dict(self.stylizer[0].decoder.state_dict())
        self.see()

    def see(self) -> None:
        """Tells its own decoder from others."""
        self.version = digest(self.decoder.state_dict())
        self.kept = {key: picture for key, picture in self.kept.items() if key[1] == self.version}
        self.used = sum(picture.nbytes for picture in self.kept.values())

    @torch.no_grad()
    def pixels(
        self,
        painting: int,
        view: FrozenView,
        views: PhotoViews,
        content: Statistics,
        styles: Sequence[Statistics],
    ) -> Tensor:
        """Colours (P, 3) uint8 of the painted picture at the pixels of a frozen view.

        All paintings of a view are made when the first is asked for, as far as they can be kept:
        they share its features.
        """
        key = self._key(painting, views, view.index)
        if key in self.kept:
            return self.kept[key]
        image, stylizer = views.content(view.index), self.stylizer[0]
        features = stylizer.features(image)
        size = tuple(image.shape[2:])
        asked = None
        for other in [painting, *(n for n in range(len(styles)) if n != painting)]:
            key = self._key(other, views, view.index)
            if key in self.kept:
                continue
            changed = map_statistics(features, content, styles[other])
            picture = self.decoder(changed)[..., : size[0], : size[1]].float().clamp(0, 1)
            if self.preserve_colour:
                picture = with_luminance(image, picture)
            rows = picture[0].flatten(1).T.index_select(0, view.places())
            rows = to_uint8(rows).cpu()
            asked = rows if asked is None else asked
            if self.used + rows.nbytes > self.budget:
                break
            self.kept[key] = rows
            self.used += rows.nbytes
        return asked

    def _key(self, painting: int, views: PhotoViews, index: int) -> tuple[str, ...]:
        size = "x".join(map(str, views.rgb[index].shape[:2]))
        return self.digests[painting], self.version, views.digests[index], size


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
        self.teacher = Teacher(
            self.stylizer,
            [painting.digest for painting in paintings],
            0.0,
            options.preserve_colour,
        )
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
        each = 3 * len(first)
        self.teacher.budget = budget
        kept = min(self.teacher.budget, each * n_views * n_paintings)
        # of the 2D network's deepest picture of a whole view, its widest layer twice
        height, width = first.size
        whole = 2 * 4 * max(g.channels / g.stride**2 for g in self.stylizer.network.layers.values())
        geometry = min(budget, first.nbytes() * n_views)
        working = cost.painting_bytes * samples * min(PIXELS, len(first))
        return Plan(
            f"{n_paintings} paintings on {n_views} views of {width}x{height}; "
            f"{self.lesson.n_steps - self.lesson.n_consistency} steps of {PIXELS} pixels; frozen "
            f"views {geometry / 1e6:.0f} MB, pictures of the 2D network {kept / 1e6:.0f} MB; each "
            f"further painting {self.bytes_per_painting() / 1e6:.1f} MB in the checkpoint",
            max(working, whole * height * width) + kept + geometry + 8 * height * width * n_views,
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
            self.content = views.statistics(self.stylizer, steps)
            found, rows = [], []
            for number, image in enumerate(self.decoder[0].images):
                of_whole, of_parts = painting_statistics(
                    self.stylizer, image.to(self.engine.device), self.generator(number, 4)
                )
                found.append(of_whole)
                rows.append(of_parts)
        self.views, self.statistics = views, found
        if not self.resumed:
            for number, (own, (mean, log_variance)) in enumerate(
                zip(self.styles, code_distributions(rows, self.options.seed), strict=True)
            ):
                own.latents.draw(mean, log_variance, self.generator(number, 5))
        self.decoder[0].provide(views, self.content, found)
        self.teacher.see()

    def before_step(self, step: int) -> bool:
        lesson = self.lesson
        after = step - lesson.mutual_from
        every = max(1, -(-(lesson.n_steps - lesson.mutual_from) // (REFRESHES + 1)))
        if step == lesson.n_consistency or (after > 0 and after % every == 0):
            self.teacher.refresh()
        return False

    def gradients(self, step: int) -> Iterator[Terms]:
        if not self.lesson.field_learns(step):
            return
        number, index = self._pair(step)
        view = self.frozen.view(index)
        if len(view) == 0:
            return
        wanted = self._answer(number, view)
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

    def _answer(self, number: int, view: FrozenView) -> Tensor:
        return self.teacher.pixels(number, view, self.views, self.content, self.statistics)

    def _pair(self, step: int) -> tuple[int, int]:
        """Painting and view of a step: all pairs in a random order, again and again; the paintings
        of a view one after the other, which share what has to be computed of it."""
        visit = step - self.lesson.n_consistency
        n, views = len(self.paintings), len(self.frozen)
        turn, place = divmod(visit // n, views)
        order = torch.randperm(views, generator=self.generator(turn, 2))
        return visit % n, int(order[place])

    def after_step(self, step: int) -> None:
        done = step - self.lesson.n_consistency
        if done >= 0 and done % self.show_every == 0:
            self._record_pictures(step)
            self._record_error(step)

    def _record_error(self, step: int) -> None:
        """How differently the 2D network paints what two views show, of some pairs of views."""
        apart = max(1, len(self.views) // SHOWN_PAIRS)
        chosen = range(0, len(self.views), apart)[:SHOWN_PAIRS]
        pairs = [(view, near[0]) for view in chosen if (near := self.views.neighbours(view))]
        for painting, own in zip(self.paintings, self.statistics, strict=True):
            paint = painter(self.stylizer, self.views, self.content, own)
            error = cross_view_error(paint, self.views, pairs)
            if error is not None:
                name = f"2d_cross_view_error/{painting.name}"
                self.engine.record_value(step, name, error.rmse)
                self.engine.record_value(step, f"{name}/normalised", error.normalised)

    @torch.no_grad()
    def _record_pictures(self, step: int) -> None:
        """What the 2D network makes of a view | the field in that style | the photographic view."""
        _, index = self._pair(step)
        view, background = self.frozen.view(index), self.renderer.background
        for number, painting in enumerate(self.paintings):
            parts = self.chunks.over(
                len(view),
                lambda part, field=self.fields[number]: view.render(field, background, part),
            )
            if not parts:
                return
            answer = self._answer(number, view).to(background.device).float() / 255
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
        return {
            "styles": self.styles.state_dict(),
            "teacher": self.teacher.decoder.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        load_module(self.styles, state.get("styles"))
        load_module(self.teacher.decoder, state.get("teacher"))
        self.resumed = True


def fields_of(field: Field, styles: Sequence[Style]) -> list[Field]:
    """Fields with the same geometry, each in one of the styles."""
    return [type(field)(field.geometry, style) for style in styles]
