"""What can be looked at: the fields of a checkpoint, or those of a training that is under way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import RLock
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from datasets.load import load_scene
from datasets.pairs import source_of
from datasets.portable import place_as, scene_from
from datasets.scene import Scene
from models.checkpoint import PHOTO, Checkpoint
from models.encoded import FeatureDecoder, worn
from models.mixing import Mixture
from models.render import ColourFunction
from models.renderer import Renderer
from opt import SCENE, ViewOptions
from systems.system import System
from utils.errors import UserError
from viewer.look import Colours

KEPT = 3  # mixtures, beside the styles that they are made of

T = TypeVar("T")


class Subject(NamedTuple):
    """A field in some colours: its renderer, in whatever colours, and the colours."""

    renderer: Renderer
    style: ColourFunction


class Choices(NamedTuple):
    """What there is to choose from.

    Attributes:
        styles: names of styles; empty in a joint training.
        mixes: whether there are two paintings to mix.
        fades: whether there are photographic colours beside a painting's: to compare with, and for
            its strength.
        encoders, decoders: of a joint training, else empty.
    """

    styles: Sequence[str]
    mixes: bool = False
    fades: bool = False
    encoders: Sequence[str] = ()
    decoders: Sequence[str] = ()


class Exhibit(Protocol):
    """What the viewer knows of what it shows.

    Attributes:
        choices: what there is to choose from.
        first: what is shown first.
    """

    choices: Choices
    first: Colours

    def subject(self, colours: Colours) -> Subject:
        """The field in these colours.

        Raises:
            UserError: there are none such.
        """

    def photographic(self, colours: Colours) -> Subject:
        """The same field in its photographic colours."""

    def scene(self, colours: Colours) -> Scene:
        """The scene of the field; its photos may be blank."""

    def photo(self, colours: Colours, number: int) -> Tensor | None:
        """The photo (H, W, 3) uint8 of a training view; None where it is not at hand."""


class Trained:
    """The fields of a checkpoint.

    Args:
        checkpoint: read.
        options: of view.py.
        device: to render on.

    Raises:
        UserError: there are no such colours as the options ask for, or nothing says where the
            cameras are.
    """

    def __init__(self, checkpoint: Checkpoint, options: ViewOptions, device: torch.device) -> None:
        self.checkpoint, self.options, self.device = checkpoint, options, device
        self.joint = bool(checkpoint.decoders)
        first = Mixture.asked(
            checkpoint, options.style, options.strength, options.encoder, options.decoder
        )
        # each is built once, and shared by all colours that it is part of
        self._renderers = Kept(len(checkpoint.fields))
        self._styles = Kept(len(checkpoint.styles))
        self._decoders = Kept(len(checkpoint.decoders))
        self._mixed = Kept(KEPT)
        self._scenes = Kept(len(checkpoint.fields))
        self._photos = Kept(1)
        if self.joint:
            self.choices = Choices((), False, False, [*checkpoint.fields], [*checkpoint.decoders])
            self.first = Colours(encoder=first.field, decoder=first.style)
        else:
            own = [n for n, s in checkpoint.styles.items() if s.field == first.field]
            photo = checkpoint.fields[first.field].has_photo_colours
            styles = [*own, PHOTO] if photo else own
            self.choices = Choices(styles, len(own) > 1, photo and bool(own))
            self.first = first_colours(first, options.strength)
        self.scene(self.first)
        self.subject(self.first)  # seconds, which the first browser need not wait for

    def subject(self, colours: Colours) -> Subject:
        mixture = self._mixture(colours)
        renderer = self._renderer(mixture.field)
        if self.joint:
            decoder = self._decoders.get(mixture.style, lambda: self._decoder(mixture.style))
            return Subject(renderer, worn(renderer.field.style, decoder))
        styles = {name: self._style(mixture.field, name) for name in mixture.shares}
        if mixture.single:
            return Subject(renderer, styles[mixture.style])
        return Subject(renderer, self._mixed.get(str(mixture), lambda: mixture.mixed(styles)))

    def photographic(self, colours: Colours) -> Subject:
        field = self._mixture(colours).field
        return Subject(self._renderer(field), self._style(field, PHOTO))

    def scene(self, colours: Colours) -> Scene:
        field = self._mixture(colours).field
        return self._scenes.get(field, lambda: self._scene(colours, field))

    def photo(self, colours: Colours, number: int) -> Tensor | None:
        mixture = self._mixture(colours)
        field, shown = mixture.field, mixture.style if self.joint else ""
        loaded = self._photos.get(f"{field} {shown}", lambda: self._with_photos(colours, field))
        return None if loaded is None else loaded.train[number].image

    def _mixture(self, colours: Colours) -> Mixture:
        return Mixture.asked(
            self.checkpoint, colours.words, colours.strength, colours.encoder, colours.decoder
        )

    def _decoder(self, name: str) -> FeatureDecoder:
        return self.checkpoint.decoders[name].build().requires_grad_(False).to(self.device)

    def _renderer(self, field: str) -> Renderer:
        own = PHOTO if self.checkpoint.fields[field].has_photo_colours else None
        return self._renderers.get(
            field,
            lambda: self.checkpoint.renderer(field, own).requires_grad_(False).to(self.device),
        )

    def _style(self, field: str, name: str) -> nn.Module:
        own = self._renderer(field).field
        if name == PHOTO and self.checkpoint.fields[field].has_photo_colours:
            return own.style
        return self._styles.get(
            name, lambda: self.checkpoint.style(field, name, own.geometry).to(self.device)
        )

    def _options(self, colours: Colours, field: str) -> ViewOptions:
        """The options that say where the field's photos are."""
        saved = self.checkpoint.options
        if self.joint:
            saved, _ = source_of(saved, field, self._mixture(colours).style)
        return self.options.filled_from(saved, SCENE)

    def _scene(self, colours: Colours, field: str) -> Scene:
        saved = self.checkpoint.scenes[field]
        found = scene_from(saved) or load_scene(self._options(colours, field))
        return place_as(found, saved)

    def _with_photos(self, colours: Colours, field: str) -> Scene | None:
        options = self._options(colours, field)
        if options.root_dir is None or not options.root_dir.is_dir():
            return None
        loaded, known = load_scene(options), self.scene(colours)
        same = [view.name for view in loaded.train] == [view.name for view in known.train]
        return loaded if same else None


class InTraining:
    """The fields of a system while it is trained.

    Args:
        system: whose tasks say what there is to see, see `Task.subjects`.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        names = list(system.subjects())
        self.choices = Choices(names)
        self.first = Colours(style=names[0])

    def subject(self, colours: Colours) -> Subject:
        return Subject(*self._chosen(colours)[1:])

    def photographic(self, colours: Colours) -> Subject:
        return self.subject(colours)

    def scene(self, colours: Colours) -> Scene:
        return self._chosen(colours)[0]

    def photo(self, colours: Colours, number: int) -> Tensor | None:
        return self.scene(colours).train[number].image.cpu()

    def _chosen(self, colours: Colours) -> tuple[Scene, Renderer, ColourFunction]:
        subjects = self.system.subjects()
        if colours.style not in subjects:
            raise UserError(f"{colours.style}: is not trained any more; choose another")
        return subjects[colours.style]


def first_colours(mixture: Mixture, strength: float) -> Colours:
    """What the page has to be set to in order to show a mixture of such a strength.

    Raises:
        UserError: it is of more than two styles.
    """
    names = mixture.paintings or [PHOTO]
    if len(names) > 2:
        raise UserError(f"--style {mixture}: the page mixes two styles; give two at most")
    if len(names) == 1:
        return Colours(names[0], strength=strength)
    of_both = sum(mixture.shares[name] for name in names)
    return Colours(names[0], names[1], mixture.shares[names[1]] / of_both, strength)


class Kept:
    """The values that were asked for last.

    Args:
        count: how many are kept.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._values: OrderedDict[str, object] = OrderedDict()
        self._lock = RLock()  # page and renderer ask from different threads

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The value of that name; ``make`` is called where there is none."""
        with self._lock:
            if name not in self._values:
                self._values[name] = make()
            self._values.move_to_end(name)
            while len(self._values) > self.count:
                self._values.popitem(last=False)
            return self._values[name]
