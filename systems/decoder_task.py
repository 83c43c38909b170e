"""The 2D half of mutual learning: the stylisation network's decoder, made consistent from view to
view (StylizedNeRF, Huang et al. 2022, section 3.1), then taught by the field (section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from losses.adain import consistency_term
from models.field import Field
from models.style import ParameterGroups
from models.stylizer import Stylizer
from opt import TrainOptions
from systems.styled_features import StyledFeatures
from systems.system import Plan, Task, Terms
from utils.errors import UserError
from utils.images import sample_bilinear

CROP = 192  # pixels, at most
RATE = 1e-4
CONTENT, STYLE, CONSISTENCY, FIELD = 1.0, 1.0, 50.0, 10.0  # weights, as in the paper
EVERY = 4  # steps of the field per step in which the decoder learns from it
BYTES_PER_CROP_PIXEL = 6000  # measured: two crops through network, decoder and back


@dataclass(frozen=True)
class Lesson:
    """What the 2D network and the field learn in which steps.

    Attributes:
        n_consistency: first steps, in which the decoder becomes consistent.
        mutual_from: step from which the field also teaches the decoder.
        n_steps: all steps.
    """

    n_consistency: int
    mutual_from: int
    n_steps: int

    def field_learns(self, step: int) -> bool:
        """Whether the field learns from the 2D network in a step."""
        return step >= self.n_consistency

    def field_guides(self, step: int) -> bool:
        """Whether the 2D network chooses patches by the field, too."""
        return step >= self.mutual_from

    def decoder_learns_from_field(self, step: int) -> bool:
        """Whether the 2D network's decoder learns from the field in a step."""
        return self.field_guides(step) and (step - self.mutual_from) % EVERY == 0


class DecoderTask(Task):
    """Trains the decoder of a 2D stylisation network.

    Args:
        options: of the run.
        stylizer: the network.
        lesson: when.
        fields: in each painting's style.
        styled: what is decoded.  Given before the first step.
    """

    name = "decoder"

    def __init__(
        self,
        options: TrainOptions,
        stylizer: Stylizer,
        lesson: Lesson,
        fields: Sequence[Field],
    ) -> None:
        super().__init__(options)
        self.stylizer, self.lesson, self.fields = stylizer, lesson, list(fields)
        self.styled: StyledFeatures
        self.crop_size: tuple[int, ...]

    def parameter_groups(self) -> ParameterGroups:
        return [{"params": list(self.stylizer.decoder.parameters()), "lr": RATE}]

    def start(self) -> Plan:
        n, last = self.lesson.n_consistency, self.lesson.n_steps
        taught = len(range(self.lesson.mutual_from, last, EVERY))
        return Plan(
            f"2D decoder: {n} steps of consistency, {taught} taught by the field, crops of "
            f"{CROP} pixels",
            BYTES_PER_CROP_PIXEL * 2 * CROP**2,
        )

    def provide(self, styled: StyledFeatures) -> None:
        """What is decoded, before the first step."""
        self.styled, self.views = styled, styled.views
        shapes = [rgb.shape[:2] for rgb in self.views.rgb]
        # the same for all views: two of them are decoded at once
        self.crop_size = tuple(min(CROP, *lengths) for lengths in zip(*shapes, strict=True))

    def gradients(self, step: int) -> Iterator[Terms]:
        if not self.lesson.field_learns(step):
            yield self._from_neighbour(step)
        elif self.lesson.decoder_learns_from_field(step):
            yield self._from_field(step)

    def _from_neighbour(self, step: int) -> Terms:
        """Two views of the same surface, and what each pixel is in the other."""
        generator = self.generator(step, 3)
        painting, view = (_draw(n, generator) for n in (len(self.fields), len(self.views)))
        near = self.views.neighbours(view)
        other = near[_draw(len(near), generator)] if near else view
        pixel, valid = self.views.same_surface(view, other)
        first = self._crop(
            view, valid if valid.any() else self.views.mask(view)[0, 0] > 0, generator
        )
        inside = valid[first.rows, first.columns]
        there = pixel[first.rows, first.columns]
        middle = there[inside].mean(0) if inside.any() else pixel.new_tensor([0.0, 0.0])
        second = self._around(other, float(middle[1]), float(middle[0]))
        pairs, stride = [(view, first), (other, second)], self.stylizer.stride
        wanted = torch.cat([crop.of(self.styled.of(i, painting), stride) for i, crop in pairs])
        mask = torch.cat([crop.of(self.views.mask(i)) for i, crop in pairs])
        out, terms = self._stylised(wanted, mask, painting)
        corner = there.new_tensor([second.columns.start, second.rows.start])
        place = there - corner
        limit = place.new_tensor([out.shape[3] - 0.5, out.shape[2] - 0.5])
        inside = inside & (place > 0.5).all(-1) & (place < limit).all(-1)
        pictures = out.float().permute(0, 2, 3, 1)
        warped = sample_bilinear(pictures[1], place)
        terms["consistency"] = CONSISTENCY * consistency_term(pictures[0], warped, inside)
        self.descend(self._shares(terms), step)
        return {name: value.detach() for name, value in terms.items()}

    def _from_field(self, step: int) -> Terms:
        """A crop of a view, in which the field's picture is the answer."""
        generator = self.generator(step, 3)
        painting, view = (_draw(n, generator) for n in (len(self.fields), len(self.views)))
        crop = self._crop(view, self.views.mask(view)[0, 0] > 0, generator)
        size = (crop.rows.stop - crop.rows.start, crop.columns.stop - crop.columns.start)
        seen = self.views.frozen.view(view).window((crop.rows.start, crop.columns.start), size)
        field, background = self.fields[painting], self.views.background
        with torch.no_grad():
            code = field.style.latents.codes[view]
            parts = self.views.chunks.over(
                len(seen), lambda part: seen.render(field, background, part, code)
            )
            answer = torch.cat([*parts, seen.opacity.new_zeros(0, 3)]).float()
        wanted = self.styled.of(view, painting, field, seen)
        out, terms = self._stylised(wanted, crop.of(self.views.mask(view)), painting)
        own = out[0].float().flatten(1).T[seen.places]
        own = torch.lerp(background.expand_as(own), own, seen.opacity[:, None])
        terms["field"] = FIELD * (own - answer).square().mean() if len(seen) else own.sum()
        self.descend(self._shares(terms), step)
        return {name: value.detach() for name, value in terms.items()}

    def _stylised(self, wanted: Tensor, mask: Tensor, painting: int) -> tuple[Tensor, Terms]:
        """The pictures (B, 3, H, W) of features (B, C, h, w), with a graph, and their content and
        style terms."""
        out = self.stylizer.decode(wanted, tuple(mask.shape[2:]))
        found = self.styled.terms(out, wanted, painting, mask)
        return out, {"content": CONTENT * found["content"], "style": STYLE * found["style"]}

    def _shares(self, terms: Terms) -> Terms:
        """Every process computes the same step: each one's share of the gradient."""
        return {name: value / self.engine.team.size for name, value in terms.items()}

    def _crop(self, view: int, wanted: Tensor, generator: torch.Generator) -> _Crop:
        """A crop around a random pixel of those ``wanted (H, W)``."""
        places = wanted.flatten().nonzero()[:, 0]
        if len(places) == 0:
            return self._around(view, 0.0, 0.0)
        place = int(places[_draw(len(places), generator)])
        return self._around(view, float(place // wanted.shape[1]), float(place % wanted.shape[1]))

    def _around(self, view: int, row: float, column: float) -> _Crop:
        """The crop whose middle is as near to a pixel as the image allows, in whole cells of the
        encoder, so that its features can be cut out of those of the whole image.  Encoded by
        itself, as for the field's step, it differs from them where the encoder looks over its
        border."""
        stride, size = self.stylizer.stride, self.views.rgb[view].shape[:2]
        parts = []
        for length, most, at in zip(size, self.crop_size, (row, column), strict=True):
            side = most // stride * stride
            start = min(max(0, round(at - side / 2)), length - side) // stride * stride
            parts.append(slice(start, start + side))
        return _Crop(*parts)

    def state(self) -> dict[str, Any]:
        return {"decoder": self.stylizer.decoder.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        load_module(self.stylizer.decoder, state.get("decoder"))


@dataclass(frozen=True)
class _Crop:
    rows: slice
    columns: slice

    def of(self, image: Tensor, stride: int = 1) -> Tensor:
        """The part of an image (..., H, W), or of features with a cell for ``stride`` pixels."""
        rows, columns = (
            slice(part.start // stride, part.stop // stride) for part in (self.rows, self.columns)
        )
        return image[..., rows, columns]


def load_module(module: nn.Module, state: object) -> None:
    """Loads a saved state.

    Raises:
        UserError: it is not one of such a module.
    """
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError):
        raise UserError(
            "the checkpoint's networks do not fit this run; give the same options, or start again "
            "without --resume"
        ) from None


def _draw(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
