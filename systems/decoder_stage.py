"""Stage decoder: photos and paintings -> the decoder of a 2D stylisation network, for an encoder of
which nobody has one (AdaIN, Huang & Belongie 2017, section 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from assets.weights import read_trained
from datasets.load import load_scene
from datasets.portable import place_as
from features.registry import load_features
from losses.adain import content_term, style_statistics, style_term
from losses.style_image import painting_size
from models.checkpoint import ONLY_FIELD, Checkpoint
from models.image_decoders import decoder_state
from models.style import ParameterGroups
from models.stylizer import ImageDecoder, Moments, Stylizer, map_statistics
from opt import TrainOptions
from systems.decoder_task import load_module
from systems.paintings import read_paintings
from systems.run import Run
from systems.style import options_of_field, options_of_paintings
from systems.styled_features import STYLE_LAYERS
from systems.system import Plan, System, Task, Terms
from utils.checkpoint import digest
from utils.errors import UserError

STEPS = 500  # 200 are enough for strokes; a step through relu4_1 takes a core 2 s
CROP, BATCH = 128, 4  # pixels of a side; crops in a step
RATE = 1e-3
PIXELS, FEATURES, CONTENT, STYLE = 20.0, 1.0, 1.0, 1.0  # weights of the terms
BYTES_PER_PIXEL = 9000  # measured: two decoded pictures through the network and back


def decoder_stage(options: TrainOptions) -> Iterator[tuple[System, Run]]:
    """The one system of the stage, new or continued."""
    field = read_trained(options.ckpt_path, options.coarse_path, options.fine_path)
    options = options_of_field(options, field)
    paintings = read_paintings([own.style_dir for own in options_of_paintings(options)])
    layer = options.decoder_layer
    network = load_features(options.features, options.vgg_weights, layers=[layer])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        stylizer = Stylizer(network, ImageDecoder.of(network, layer), layer)
    inputs = {
        "geometry": field.fields[ONLY_FIELD].digest,
        "paintings": digest({painting.name: painting.rgb for painting in paintings}),
    }
    with Run(options, inputs) as run:
        found = run.to_resume()
        if found is None and run.finished():
            return
        scene = place_as(load_scene(options), field.scenes[ONLY_FIELD])
        size = painting_size(min(min(view.height, view.width) for view in scene.train))
        photos = [view.image.permute(2, 0, 1) for view in scene.train]
        images = [(255 * painting.image(size)[0]).to(torch.uint8) for painting in paintings]
        task = RebuildTask(options, stylizer, photos, images)

        def checkpoint() -> Checkpoint:
            networks = {"decoder": decoder_state(stylizer.decoder)}
            saved = options.to_dict()
            return replace(field, stage=options.stage, networks=networks, options=saved)

        system = System(options, [task], options.max_steps or STEPS, checkpoint)
        if found:
            system.resume(*found)
        yield system, run


class RebuildTask(Task):
    """Trains a decoder: it rebuilds images, and pictures of changed statistics have those.

    Half of the contents are paintings: their strokes are what it has to draw.

    Args:
        options: of the run.
        stylizer: whose decoder is trained.
        photos, paintings: (3, H, W) uint8 each.
    """

    name = "decoder"

    def __init__(
        self,
        options: TrainOptions,
        stylizer: Stylizer,
        photos: Sequence[Tensor],
        paintings: Sequence[Tensor],
    ) -> None:
        super().__init__(options)
        self.stylizer, self.photos, self.paintings = stylizer, list(photos), list(paintings)
        known = stylizer.network.layers
        self.layers = [layer for layer in STYLE_LAYERS if layer in known]
        smallest = min(min(image.shape[1:]) for image in [*self.photos, *self.paintings])
        self.side = min(CROP, smallest) // stylizer.stride * stylizer.stride
        if self.side == 0:
            raise UserError(
                f"--img_wh: images of {smallest} pixels are too small for --decoder_layer "
                f"{stylizer.layer}; take larger ones, or a lower layer"
            )

    def parameter_groups(self) -> ParameterGroups:
        return [{"params": list(self.stylizer.decoder.parameters()), "lr": self.options.lr or RATE}]

    def start(self) -> Plan:
        return Plan(
            f"decoder of {self.stylizer.network.name} {self.stylizer.layer}: {BATCH} crops of "
            f"{self.side} pixels a step, of {len(self.photos)} photos and {len(self.paintings)} "
            "paintings",
            BYTES_PER_PIXEL * BATCH * self.side**2,
        )

    def prepare(self) -> None:
        device, stylizer = self.engine.device, self.stylizer
        wanted = list(dict.fromkeys([*self.layers, stylizer.layer]))
        self.styles = []
        with torch.no_grad(), self.engine.autocast():
            for image in self.paintings:
                found = stylizer.network(image.to(device)[None].float() / 255, wanted)
                own = Moments.of(found[stylizer.layer]).statistics()
                self.styles.append((own, style_statistics(found, self.layers)))

    def gradients(self, step: int) -> Iterator[Terms]:
        generator = self.generator(step)
        own, style = self.styles[_draw(len(self.styles), generator)]
        contents = torch.stack([self._crop(i, generator) for i in range(BATCH)])
        contents = contents.to(self.engine.device).float() / 255
        stylizer, size = self.stylizer, tuple(contents.shape[2:])
        with torch.no_grad():
            features = stylizer.features(contents)
            changed = torch.cat([
                map_statistics(one[None], Moments.of(one[None]).statistics(), own)
                for one in features
            ])  # fmt: skip
        rebuilt, painted = stylizer.decode(torch.cat([features, changed]), size).chunk(2)
        found = stylizer.network(painted, list(dict.fromkeys([*self.layers, stylizer.layer])))
        terms = {
            "pixels": PIXELS * functional.l1_loss(rebuilt, contents),
            "features": FEATURES * content_term(stylizer.features(rebuilt), features),
            "content": CONTENT * content_term(found[stylizer.layer], changed),
            "style": STYLE * style_term({n: found[n] for n in self.layers}, style),
        }
        shares = {name: value / self.engine.team.size for name, value in terms.items()}
        self.descend(shares, step)
        terms = {name: value.detach() for name, value in terms.items()}
        self.engine.show("loss", sum(terms.values()))
        yield terms

    def _crop(self, number: int, generator: torch.Generator) -> Tensor:
        """(3, s, s) uint8 at a random place of a photo or, every other one, of a painting."""
        images = self.paintings if number % 2 else self.photos
        image = images[_draw(len(images), generator)]
        at = [_draw(n - self.side + 1, generator) for n in image.shape[1:]]
        return image[:, at[0] : at[0] + self.side, at[1] : at[1] + self.side]

    def state(self) -> dict[str, Any]:
        return {"decoder": self.stylizer.decoder.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        load_module(self.stylizer.decoder, state.get("decoder"))


def _draw(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
