"""Learning from photos: random rays of all training views, against the colours of their pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from datasets.cameras.rays import Cameras, Rays
from datasets.pixels import TrainingPixels
from datasets.scene import Scene
from losses.distortion import distortion_loss
from losses.photometric import (
    photometric_loss,
    psnr_of,
    robust_loss,
    silhouette_loss,
    transparency_loss,
)
from models.appearance import AffineAppearance
from models.render import Rendering, Samples
from models.renderer import Renderer, render_view
from models.style import ParameterGroups
from opt import TrainOptions
from systems.growth import STEREO, GrowthSchedule, growth_of
from systems.system import Plan, Subjects, Task, Terms
from systems.views import in_words
from utils.chunks import Chunks
from utils.depth import depth_to_colour
from utils.errors import UserError
from utils.metrics import psnr
from utils.sums import total_of

# A cell that no ray of this many, or of as many as there are pixels, has reached counts as hidden.
# It also rids few-view scenes of fog that only rays past the object would meet.
ENOUGH_RAYS = 1 << 18
LATE_PRUNING = (0.85, 0.95)  # of the run: fog comes back
APPEARANCE_RATE = 2e-3
# Share of the run after which there are surfaces, without a start from stereo, which has them at
# once.  Before, while all is fog, no ray gets much of any cell, and the colours of infinity, which
# learn fastest, would take the place of surfaces, whose cells are given up for good.
FORMED = 0.35
# Share of the penalty of transparent rays, from then on, where infinity has colours: with all of it
# the sky becomes fog.
FAINT = 0.01
WIDE = 10.0  # times --robust, its scale at first, which falls evenly
NARROW_FROM = 0.75  # share of the run at which it would be 0
STRONG_GAIN = 1.1  # brightness beyond which, either way, a photo's exposure is worth a word
N_NAMED = 3  # such photos that are named, at most
# bytes for each byte of a refined field's parameters, measured: gradients, the optimiser's moments
# and the lattice, and as much again while it is made from the coarser field
HELD, PEAK = 5, 10


class PhotometricTask(Task):
    """Trains a renderer on the photos of a scene.

    Args:
        options: of the run.
        scene: with at least one training view.
        renderer: to be trained.
        pixels: of the training views.
        n_steps: length of the run, by which the field grows.
        resolution: cells along the field's longest side at the end.
    """

    name = "photos"
    label = ""  # before the names of what it records

    def __init__(
        self,
        options: TrainOptions,
        scene: Scene,
        renderer: Renderer,
        pixels: TrainingPixels,
        n_steps: int,
        resolution: int,
    ) -> None:
        super().__init__(options)
        self.scene = scene
        self.endless = scene.space.infinity is not None
        self.renderer = renderer
        self.pixels = pixels
        self.n_steps = n_steps
        stereo = options.stereo and renderer.field.step is not None
        self.growth: GrowthSchedule = growth_of(scene, stereo)
        self.formed = 0.0 if self.growth is STEREO else FORMED * n_steps  # the step
        if options.visible_weight:
            pruning = (*self.growth.pruning, *LATE_PRUNING)
            self.growth = replace(self.growth, pruning=pruning)
        self.resolution = resolution
        self.cameras = Cameras.within(scene, scene.train)
        self.val_cameras = Cameras.within(scene, scene.val)
        self.chunks = Chunks(options.chunk or options.batch_size)
        self.val_every = options.val_every or max(200, n_steps // 8)
        self.alpha: Tensor | None = None  # (P,) of the pixels
        if options.silhouette_weight and scene.has_alpha:
            self.alpha = torch.cat([view.alpha.flatten() for view in scene.train])
        self.appearance: AffineAppearance | None = None
        if options.appearance == "affine":
            behind = scene.background if scene.has_alpha else None
            self.appearance = AffineAppearance(len(scene.train), behind)

    def parameter_groups(self) -> ParameterGroups:
        groups = self.renderer.parameter_groups(self.options.lr)
        if self.appearance is not None:
            groups.append({"params": [self.appearance.raw], "lr": APPEARANCE_RATE})
        return groups

    def start(self) -> Plan:
        device = self.engine.device
        self.pixels = self.pixels.to(device)
        self.cameras = self.cameras.to(device)
        self.val_cameras = self.val_cameras.to(device)
        self.alpha = None if self.alpha is None else self.alpha.to(device)
        return self._plan()

    def _plan(self) -> Plan:
        """The plan, from the samples of one batch."""
        flat = self.pixels.draw(self.options.batch_size, self.generator(0))
        samples = len(self.renderer.sample(self._rays(flat)[0]))
        field = self.renderer.field
        growth, finer = 0.0, ""
        if field.step is not None:  # its cells multiply when the field is refined
            parameters = sum(p.numel() * p.element_size() for p in field.parameters())
            growth = parameters * (PEAK * self.growth.resolutions[0][1] ** -2 - HELD)
            if self.resolution < self.options.voxel_resolution:
                finer = f"; {self.resolution} voxels along the longest side, as fine as the pixels"
        return Plan(
            f"{in_words(self.scene.train)}, {self.pixels.n_candidates} of "
            f"{len(self.pixels)} pixels to learn from{self._extent()}; {self.n_steps} steps of "
            f"{self.options.batch_size} rays with {samples} samples at first{finer}",
            field.cost.learning_bytes * samples + growth,
        )

    def _extent(self) -> str:
        """The range of rays and the scene's box, in words; none in NDC, whose units are its own."""
        if self.scene.space.forward_facing:
            return ""
        corners = " ".join(f"{x:.3g}" for x in self.scene.bounds.flatten().tolist())
        return f"; distances {self.scene.near:.3g} to {self.scene.far:.3g}, box {corners}"

    def subjects(self) -> Subjects:
        return {self.name: (self.scene, self.renderer, self.renderer.field.style)}

    def before_step(self, step: int) -> bool:
        """Prunes and refines the field when it is time for it."""
        if self.options.coarse_to_fine is not None:
            share = min(1.0, (step + 1) / (self.options.coarse_to_fine * self.n_steps))
            self.renderer.field.reveal(share)
            self.renderer.sampler.reveal(share)
        rays = min(ENOUGH_RAYS, self.pixels.n_candidates)
        due = self.growth.due(step, self.n_steps, math.ceil(rays / self.options.batch_size))
        if due is None:
            return False
        self.gather()
        self.renderer.sampler.prune(self.renderer.field, due.lit_only)
        if due.resolution is None:
            return False
        resolution = round(self.resolution * due.resolution)
        return self.renderer.refine(resolution, sides=self.endless)

    def gradients(self, step: int) -> Iterator[Terms]:
        crop = self.options.crop_fraction if step < self.options.crop_steps else 1.0
        generator = self.generator(step, device=self.engine.device.type)
        flat = self.pixels.draw(self.options.batch_size, generator, crop)
        rays, view = self._rays(flat)
        part = self.engine.team.part(len(rays))
        shares = self.chunks.over(part, lambda own: self._learn(step, rays, flat, view, own))
        terms = self.totals({name: total_of(own[name] for own in shares) for name in shares[0]})
        self.quality = psnr_of(terms.pop("error", terms["fine"]))
        yield terms

    def _rays(self, flat: Tensor) -> tuple[Rays, Tensor]:
        """Rays and views (N,) of the pixels ``flat (N,)``."""
        view, row, column = self.pixels.locate(flat)
        return self.renderer.clip(self.cameras.rays(view, row, column)), view

    def _learn(self, step: int, rays: Rays, flat: Tensor, view: Tensor, own: slice) -> Terms:
        """Adds the gradient of the loss that some of a step's rays contribute.

        Args:
            rays: N rays, of the pixels ``flat (N,)`` of the views ``view (N,)``.
            own: which of them.

        Returns:
            The terms, as shares of the whole step's.
        """
        rays = only(rays, own)
        target = self.pixels.colours(flat[own])
        generator = self.generator(step, 1, self.engine.device.type)
        formed = step >= self.formed
        least = self.options.visible_weight if formed else 0.0
        samples = self.renderer.sample(rays, generator, mark=not least, propose=True)
        share = len(target) / len(rays)
        near = self.scene.space.gradient_radius
        code = self.code(step, len(rays))
        rendering = self.renderer.render(rays, samples, code, scale_gradients_within=near)
        if least:
            seen = samples.take((rendering.weights > least).nonzero()[:, 0])
            self.renderer.sampler.grid.mark(rays.points(seen.ray_index, seen.t))
        renderings = {"fine": rendering}
        if samples.proposal is not None:
            renderings["coarse"] = self.renderer.over_background(samples.proposal)
        terms = {}
        for name, rendering in renderings.items():
            rgb, opacity = (x if share == 1 else x[own] for x in (rendering.rgb, rendering.opacity))
            if self.appearance is not None:  # as the photos would show them
                rgb = self.appearance(rgb, opacity, view[own])
            if self.options.robust and name == "fine":  # a robust loss has no PSNR
                error = photometric_loss(rgb.detach(), target) * share
            terms[name] = self._compared(rgb, target, step)
            if self.scene.surrounds:
                weight = FAINT if self.endless and name == "fine" and formed else 1.0
                terms[f"{name}_transparency"] = weight * transparency_loss(opacity)
            if self.alpha is not None:
                apart = silhouette_loss(opacity, self.alpha[flat[own]])
                terms[f"{name}_silhouette"] = self.options.silhouette_weight * apart
        if share < 1:
            terms = {name: value * share for name, value in terms.items()}
        if self.options.distortion:
            terms["distortion"] = self._distortion(step, rays, samples, renderings["fine"])
        self.descend(terms, step)
        if self.options.robust:
            terms["error"] = error
        return {name: value.detach() for name, value in terms.items()}

    def _compared(self, colours: Tensor, target: Tensor, step: int) -> Tensor:
        """The loss of colours (N, 3) against the photos' ``target (N, 3)``.  A robust one begins
        wide: to a field that is still grey everything is a passer-by."""
        if not self.options.robust:
            return photometric_loss(colours, target)
        wide = max(1.0, WIDE * (1 - step / (NARROW_FROM * self.n_steps)))
        return robust_loss(colours, target, wide * self.options.robust)

    def _distortion(self, step: int, rays: Rays, samples: Samples, rendering: Rendering) -> Tensor:
        """The weighted distortion, in sides of the field's box, as these rays' share of the whole
        step's: the others are empty."""
        weight = self.options.distortion * min(1.0, 2 * step / self.n_steps)
        side = (self.renderer.bounds[1] - self.renderer.bounds[0]).max()
        x = rays.points(samples.ray_index, samples.t)
        end = None
        if rays.space.infinity is not None:
            distance = torch.full_like(rays.near, rays.space.infinity)
            end = rays.points(torch.arange(len(rays), device=x.device), distance)
        where = (x, samples.delta, samples.ray_index, len(rays), end)
        return weight * distortion_loss(rendering.weights, *where) / side

    def code(self, step: int, n_rays: int) -> Tensor | None:
        """The code (n_rays, C) that the colours of a step's rays are conditioned on; None: none."""
        return None

    def after_step(self, step: int) -> None:
        self.engine.show(f"{self.label}psnr", self.quality)
        self.engine.record(step, {f"{self.label}psnr": self.quality})
        if self.appearance is not None:
            maps = self.appearance.departures().abs().mean()
            self.engine.record(step, {f"{self.label}appearance": maps})
        if (step + 1) % self.val_every == 0 or step + 1 == self.n_steps:
            self.validate(step)

    @torch.no_grad()
    def validate(self, step: int) -> None:
        """Renders one validation view, each time the next, and records it beside the truth."""
        index = ((step + 1) // self.val_every) % len(self.scene.val)
        view = self.scene.val[index]
        picture = render_view(self.renderer, self.val_cameras, index, self.options.chunk).cpu()
        truth = view.image.float() / 255
        quality = psnr(picture.rgb, truth, view.valid)
        depth = depth_to_colour(picture.depth, picture.opacity, self.scene.near, self.scene.far)
        panel = torch.cat([truth, picture.rgb, torch.from_numpy(depth).float() / 255], 1)
        self.engine.record_image(step, f"{self.label}val/truth_prediction_depth", panel)
        self.engine.record_value(step, f"{self.label}val/psnr", quality)
        self.engine.show(f"{self.label}val_psnr", quality)

    def finish(self) -> None:
        """Names the photos whose exposure differs most."""
        if self.appearance is None or self.engine.team.rank > 0:
            return
        gains = self.appearance.gains().detach().cpu()
        departure = gains.clamp(min=1e-6).log().abs()
        strongest = departure.argsort(descending=True)[:N_NAMED].tolist()
        words = [
            f"photo {self.scene.train[i].name} gain {gains[i]:.2f}"
            for i in strongest
            if departure[i] > math.log(STRONG_GAIN)
        ]
        if words:
            print("appearance:", ", ".join(words))

    def gather(self) -> None:
        self.engine.team.logical_or(self.renderer.sampler.grid.lit)

    def state(self) -> dict[str, Any]:
        return {} if self.appearance is None else {"appearance": self.appearance.raw}

    def load_state(self, state: Mapping[str, Any]) -> None:
        maps = state.get("appearance")
        if (maps is None) != (self.appearance is None):
            raise UserError(
                f"--appearance {self.options.appearance}: the unfinished run has another; give "
                "the same options, or start again without --resume"
            )
        if maps is not None:
            self.appearance.load_state_dict({"raw": maps})


def only(rays: Rays, part: slice) -> Rays:
    """The rays with those outside ``part`` made empty: random numbers are drawn for every ray, so
    that each has the same ones in whichever part it is rendered."""
    if part == slice(0, len(rays)):
        return rays
    far = rays.near.clone()
    far[part] = rays.far[part]
    return replace(rays, far=far)
