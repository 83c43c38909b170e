"""What `eval.py --measure` adds: quality of the rendered views, consistency along a path, and the
files with both, measures.json and measures.md (docs/measures.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.cameras.rays import Cameras
from datasets.scene import Scene, View
from features.network import FeatureNetwork
from features.registry import load_features
from measures.alone import FramePainter
from measures.consistency import (
    ALONE,
    CONSTANT,
    FLOW_EVERY,
    GEOMETRY,
    PHOTOGRAPHS,
    UNSTYLISED,
    Distance,
    FeatureDistance,
    Warp,
    consistency_table,
    filled_lpips,
    measure_consistency,
    measure_photographs,
    path_pairs,
)
from measures.flow import best_flow, flow_correspondence
from measures.legacy import GAPS as LEGACY_GAPS
from measures.legacy import legacy_score, legacy_table
from measures.quality import Quality, quality_report, quality_table
from measures.refit import measure_refit, refit_table
from measures.views import painting_of
from models.checkpoint import PHOTO, Checkpoint
from models.renderer import Picture, Renderer, render_view
from models.style import Style
from models.warp import OPAQUE, Frame, render_frame
from opt import TrainOptions
from systems.style import term_weights
from utils.errors import UserError
from utils.files import replacing
from utils.metrics import Lpips, MissingLpips


@dataclass
class Subject:
    """What is measured, and in what.

    Attributes:
        checkpoint: that holds it.
        field, style: names of its field and its colours.
        renderer: of the field in that style, on the device to compute on.
        rendering: context to render in, such as autocast.
        network: features to measure in, and its layers, see `measuring_network`.
        chunk: rays at once; 0: by field and device.
    """

    checkpoint: Checkpoint
    field: str
    style: str
    renderer: Renderer
    rendering: AbstractContextManager[Any]
    network: tuple[FeatureNetwork, list[str]]
    chunk: int = 0

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.renderer.bounds.device

    @cached_property
    def run(self) -> TrainOptions | None:
        """Options of the run that trained the style; None of the photographic colours."""
        if self.style == PHOTO:
            return None
        return TrainOptions.from_dict(self.checkpoint.styles[self.style].options)

    @cached_property
    def photographic(self) -> Style | None:
        """The photographic colours, where the checkpoint has them."""
        if not self.checkpoint.fields[self.field].has_photo_colours:
            return None
        return self.checkpoint.renderer(self.field, PHOTO).to(self.device).field.style

    @cached_property
    def styles(self) -> dict[str, Style]:
        """The style and, where it is another one, the photographic colours."""
        styles = {self.style: self.renderer.field.style}
        if self.run is not None and self.photographic is not None:
            styles[UNSTYLISED] = self.photographic
        return styles

    def painter(self, size: int) -> FramePainter:
        """Paints single frames in the style, of ``size`` pixels on their shorter side.

        Raises:
            UserError: why it cannot.
        """
        if self.run is None or self.photographic is None:
            raise UserError("needs a style, and the photographic colours beside it")
        return FramePainter(self.run, self.device, size)


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


class ViewQuality:
    """The quality of rendered views against the painting and, in content, against their photos or,
    where there are none, against renders in the photographic colours.

    Args:
        subject: what is rendered.
        photos: of the views, in their order; empty: there are none.
        cameras: of the views, on the subject's device.

    Raises:
        UserError: the colours are photographic, the painting is gone, or there is nothing to
            compare the content with.
    """

    def __init__(self, subject: Subject, photos: Sequence[View], cameras: Cameras) -> None:
        if subject.run is None:
            raise UserError(
                "--measure quality: compares with a painting, and these colours are the "
                "photographic ones; give a checkpoint of --stage style, or leave it out"
            )
        self.photos, self.cameras = photos, cameras
        self.photographic: Renderer | None = None
        if not photos:
            if subject.photographic is None:
                raise UserError(
                    "--measure quality: needs the photos or photographic colours to compare the "
                    "content with; give --root_dir, or the checkpoint with both colours"
                )
            own = subject.checkpoint.renderer(subject.field, PHOTO)
            self.photographic = own.to(subject.device)
        self.run = subject.run
        network, layers = subject.network
        self.network, self.layers = network.name, layers
        self.quality = Quality(painting_of(self.run), network, layers, subject.device)

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


def path_consistency(subject: Subject, cameras: Cameras, scene: Scene | None) -> dict[str, Any]:
    """The consistency of a style, and of the photographic colours where it has them, along a path.

    Args:
        subject: what is measured.
        cameras: of the path, on the subject's device.
        scene: whose photographs are at hand; None: they are not.

    Returns:
        As `measure_consistency`, with the photographs beside the gaps, and on what it was measured.
    """
    network, layers = subject.network
    distances: dict[str, Distance] = {f"{network.name} features": FeatureDistance(network, layers)}
    left_out, painter, warps = {}, None, dict(GEOMETRY)
    try:
        distances["lpips"] = filled_lpips(Lpips(subject.device, int(cameras.sizes.min())))
    except MissingLpips as missing:
        left_out["lpips"] = str(missing)
    try:
        painter = subject.painter(int(cameras.sizes.min()))
    except UserError as error:
        if subject.run is not None:
            left_out[ALONE] = str(error)
    shown = list(subject.styles)[-1]
    if shown in (UNSTYLISED, PHOTO):
        name, flow = best_flow(subject.device)
        warps[f"flow ({name})"] = Warp(flow_correspondence(flow, shown), FLOW_EVERY)
    else:
        left_out["flow"] = "it is taken from the photographic colours, and there are none"
    common = (subject.styles, distances, subject.rendering, subject.chunk)
    found = measure_consistency(subject.renderer, cameras, *common, warps, painter)
    if scene is not None:
        photographs = measure_photographs(subject.renderer, scene, *common)
        found["geometry"]["gaps"][PHOTOGRAPHS] = photographs
    else:
        left_out[PHOTOGRAPHS] = "not at hand; give --root_dir"
    height, width = cameras.sizes[0].tolist()
    about = {"size": [width, height], "network": network.name, "layers": layers}
    return about | {"warps": list(warps), "left_out": left_out} | found


@torch.no_grad()
def path_legacy(subject: Subject, cameras: Cameras) -> dict[str, Any]:
    """The `legacy` error along a path: of the style, the photographic colours, and a flat one."""
    name, flow = best_flow(subject.device)
    pairs = {gap: path_pairs(len(cameras))[gap] for gap in LEGACY_GAPS}

    def frames() -> Iterator[Frame]:
        views = sorted({view for found in pairs.values() for pair in found for view in pair})
        for view in tqdm(views, desc="legacy", unit="view"):
            with subject.rendering:
                frame = render_frame(subject.renderer, cameras, view, subject.styles, subject.chunk)
            frame.pictures[CONSTANT] = torch.full_like(frame.surface.points, 0.5)
            yield frame

    return {"flow": name, "gaps": legacy_score(frames(), pairs, flow)}


def require_refittable(subject: Subject) -> None:
    """Raises UserError where there is no style, or no photographic colours to start from."""
    if subject.run is None or subject.photographic is None:
        raise UserError(
            "--measure refit: needs a painted style with the photographic colours beside it; give "
            "a checkpoint of --stage style, or leave it out"
        )


def view_refit(subject: Subject, scene: Scene) -> dict[str, Any]:
    """See `measure_refit`, of what `require_refittable` lets through."""
    style, start = subject.renderer.field.style, subject.photographic
    try:
        alone = subject.painter(min(scene.train[0].height, scene.train[0].width))
    except UserError:
        alone = None
    return measure_refit(subject.renderer, scene, subject.style, style, start, alone, subject.chunk)


def write_measures(directory: Path, report: Mapping[str, Any]) -> str:
    """Writes measures.json and measures.md.

    Args:
        directory: where to.
        report: "consistency", "quality", "refit" and "legacy", as far as they were measured, and
            what else is to be in the JSON.

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
        ]
        for warp in found["warps"]:
            parts += [f"By {warp}:", consistency_table(found[warp]["gaps"])]
        parts += [f"{name}: left out: {reason}" for name, reason in found["left_out"].items()]
    if found := report.get("quality"):
        parts += [
            "## Quality",
            f"{len(found['views'])} views, content of the {found['content_of']}, features of "
            f"{found['network']}",
            quality_table(found),
        ]
    if found := report.get("refit"):
        parts += [
            "## Refit",
            f"colours fitted to {found['train']} views, compared in {found['held_out']} others",
            refit_table(found["pictures"]),
        ]
    if found := report.get("legacy"):
        parts += [
            "## Legacy",
            "after Stylos' script, faults and all: flow of the stylised frames themselves "
            f"({found['flow']}), holes count as no error; not to be compared with the above",
            legacy_table(found["gaps"]),
        ]
    text = "\n\n".join(parts)
    write_report(directory, "measures", report, text)
    return text


def write_report(directory: Path, name: str, report: Mapping[str, Any], text: str) -> None:
    """Writes NAME.json and NAME.md.

    Raises:
        UserError: a file cannot be written.
    """
    for suffix, content in (("json", json.dumps(report, indent=2)), ("md", text + "\n")):
        with replacing(directory / f"{name}.{suffix}") as partial:
            partial.write_text(content)
