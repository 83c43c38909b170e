"""What `eval.py --measure` adds: quality of the rendered views and consistency along a path, and
the files with both, measures.json and measures.md (docs/measures.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.cameras.rays import Cameras
from datasets.scene import View
from features.network import FeatureNetwork
from features.registry import load_features
from models.checkpoint import PHOTO, Checkpoint
from models.renderer import Picture, Renderer, render_view
from opt import TrainOptions
from systems.consistency import (
    Distance,
    FeatureDistance,
    consistency_table,
    filled_lpips,
    measure_consistency,
)
from systems.quality import Quality, quality_report, quality_table
from systems.style import term_weights
from systems.warp import OPAQUE
from utils.errors import UserError
from utils.files import replacing
from utils.images import read_image
from utils.metrics import Lpips, MissingLpips


class ViewQuality:
    """The quality of rendered views against the painting and, in content, against their photos or,
    where there are none, against renders in the photographic colours.

    Args:
        checkpoint, field, style: what is rendered.
        photos: of the views, in their order; empty: there are none.
        cameras: of the views, on the network's device.
        network, layers: see `measuring_network`.

    Raises:
        UserError: the colours are photographic, the painting is gone, or there is nothing to
            compare the content with.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        field: str,
        style: str,
        photos: Sequence[View],
        cameras: Cameras,
        network: FeatureNetwork,
        layers: list[str],
    ) -> None:
        if style == PHOTO:
            raise UserError(
                "--measure quality: compares with a painting, and these colours are the "
                "photographic ones; give a checkpoint of --stage style, or leave it out"
            )
        self.photos, self.cameras = photos, cameras
        self.photographic: Renderer | None = None
        if not photos:
            if not checkpoint.fields[field].has_photo_colours:
                raise UserError(
                    "--measure quality: needs the photos or photographic colours to compare the "
                    "content with; give --root_dir, or the checkpoint with both colours"
                )
            self.photographic = checkpoint.renderer(field, PHOTO).to(cameras.c2w.device)
        self.run = TrainOptions.from_dict(checkpoint.styles[style].options)
        painting, _ = read_image(self.run.style_dir)
        self.network, self.layers = network.name, layers
        self.quality = Quality(torch.from_numpy(painting), network, layers, cameras.c2w.device)

    def __call__(self, index: int, picture: Picture) -> dict[str, dict[str, float]]:
        """The measures of one view, see `Quality`; ``picture`` in the host's memory."""
        mask = picture.opacity > OPAQUE
        if self.photographic is not None:
            return self.quality(picture.rgb, self._photographic(index), mask)
        photo = self.photos[index]
        if photo.valid is not None:
            mask = mask & photo.valid
        return self.quality(picture.rgb, photo.image.float() / 255, mask)

    def _photographic(self, index: int) -> Tensor:
        return render_view(self.photographic, self.cameras, index).rgb

    def report(self, views: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
        """All views together."""
        trained = {*term_weights(self.run), *(("colour_transfer",) * self.run.colour_transfer)}
        reference = "photographic renders" if self.photographic is not None else "photos"
        about = {"network": self.network, "layers": self.layers, "content_of": reference}
        return about | quality_report(views, trained)


def path_consistency(
    checkpoint: Checkpoint,
    field: str,
    style: str,
    renderer: Renderer,
    cameras: Cameras,
    network: FeatureNetwork,
    layers: list[str],
    rendering: AbstractContextManager[Any],
    chunk: int = 0,
) -> dict[str, Any]:
    """The consistency of a style, and of the photographic colours where it has them, along a path.

    Args:
        renderer: of the field in that style, on the device to compute on.
        cameras: of the path, on that device.
        network, layers: see `measuring_network`.
        rendering: context to render in, such as autocast.
        chunk: rays at once; 0: by field and device.

    Returns:
        As `measure_consistency`, and on what it was measured.
    """
    device = renderer.bounds.device
    styles = {style: renderer.field.style}
    if style != PHOTO and checkpoint.fields[field].has_photo_colours:
        styles["unstylised"] = checkpoint.renderer(field, PHOTO).to(device).field.style
    distances: dict[str, Distance] = {f"{network.name} features": FeatureDistance(network, layers)}
    left_out = {}
    try:
        distances["lpips"] = filled_lpips(Lpips(device, int(cameras.sizes.min())))
    except MissingLpips as missing:
        left_out["lpips"] = str(missing)
    found = measure_consistency(renderer, cameras, styles, distances, rendering, chunk)
    height, width = cameras.sizes[0].tolist()
    about = {"size": [width, height], "network": network.name, "layers": layers}
    return about | {"left_out": left_out} | found


def measuring_network(
    checkpoint: Checkpoint, style: str, device: torch.device
) -> tuple[FeatureNetwork, list[str]]:
    """The network that the style was trained through, if it is still there, else the best at hand;
    and its layers to measure in: those of the statistics, after their ReLU."""
    wanted = ["statistics"]
    name, weights = "auto", None
    if style != PHOTO:
        run = TrainOptions.from_dict(checkpoint.styles[style].options)
        name, weights = run.features, run.vgg_weights
    try:
        network = load_features(name, weights, layers=wanted)
    except UserError:
        network = load_features(layers=wanted)
    network = network.to(device)
    layers = [layer.replace("conv", "relu") for layer in network.layers_of(wanted)]
    return network, [layer for layer in layers if layer in network.layers]


def write_measures(directory: Path, report: Mapping[str, Any]) -> str:
    """Writes measures.json and measures.md.

    Args:
        directory: where to.
        report: "quality" and "consistency", as far as they were measured, and what else is to be in
            the JSON.

    Returns:
        The text of measures.md.

    Raises:
        UserError: a file cannot be written.
    """
    parts = []
    if found := report.get("consistency"):
        width, height = found["size"]
        parts += [
            "## Consistency",
            f"{found['frames']} frames of {width}x{height}, path {found['path']}",
            consistency_table(found),
            *(f"{name} is left out: {reason}" for name, reason in found["left_out"].items()),
        ]
    if found := report.get("quality"):
        parts += [
            "## Quality",
            f"{len(found['views'])} views, content of the {found['content_of']}, features of "
            f"{found['network']}",
            quality_table(found),
        ]
    text = "\n\n".join(parts)
    for name, content in (("json", json.dumps(report, indent=2)), ("md", text + "\n")):
        with replacing(directory / f"measures.{name}") as partial:
            partial.write_text(content)
    return text
