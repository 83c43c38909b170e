"""Stage 1: learns density (and photographic colour) from random rays of all training views."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets.cameras.rays import Cameras, Rays
from datasets.hull import seen_by_several, visual_hull
from datasets.pixels import TrainingPixels
from datasets.scene import Scene
from losses.photometric import photometric_loss, psnr_of, transparency_loss
from models.appearance import AffineAppearance
from models.occupancy import OccupancySampler, dilate
from models.renderer import Renderer
from models.samples import Rendering
from models.voxels import grid_shape
from opt import TrainOptions
from systems.base import TrainingSystem
from systems.rendering import render_view
from utils.chunks import Chunks
from utils.colormap import depth_to_colour
from utils.errors import UserError
from utils.metrics import psnr

NERF_GRID = 128  # cells along the longest side of the grid that keeps a NeRF out of empty space
# A cell that no ray of this many, or of as many as there are pixels, has reached counts as hidden.
# It also rids few-view scenes of fog that only rays past the object would meet.
ENOUGH_RAYS = 1 << 18
PRUNE_CHUNK = 1 << 18
SEEN_GRID = 64  # cells along the scene's box when it is asked which of them several views see
THIN = 0.01  # share of the light that a cell must stop in order not to count as empty
RATES = {"density": 0.3, "features": 0.05, "mlp": 2e-3}
NERF_RATE = 5e-4
APPEARANCE_RATE = 2e-3
STRONG_GAIN = 1.1  # brightness beyond which, either way, a photo's exposure is worth a word
N_NAMED = 3  # such photos that are named, at most
# measured: a sample's way through both modules and back
BYTES_PER_SAMPLE = {"nerf": 24000, "voxels": 1500}
# memory of the finest voxels over that of their parameters: with gradients, the optimiser's moments
# and the lattice 5, as much again while they are made of coarser ones; measured
GROWN = 10


@dataclass(frozen=True)
class Course:
    """How the voxel field grows, and what either field's grid gives up, by fractions of the run.

    Attributes:
        growth: from when on which fraction of the final resolution.
        pruning: when cells that turned out empty are given up; growth among them.
        fog: raw density to start from.
    """

    growth: tuple[tuple[float, float], ...]
    pruning: tuple[float, ...]
    fog: float


# In a visual hull there is little to lose; where nothing says what is empty the cameras stand in
# the fog, which is thin there, and coarse until most of space has been given up.
HULL = Course(((0.0, 0.4), (0.12, 0.7), (0.35, 1.0)), (0.06, 0.12, 0.22, 0.35, 0.5, 0.7), -2.0)
OPEN = Course(
    ((0.0, 0.25), (0.12, 0.5), (0.35, 1.0)), (0.03, 0.06, 0.12, 0.22, 0.35, 0.5, 0.7), -4.0
)


def course_of(scene: Scene) -> Course:
    """What suits a scene."""
    return HULL if scene.has_alpha else OPEN


def first_occupancy(scene: Scene, resolution: int) -> Tensor:
    """(R0, R1, R2) bool: the visual hull where there are alpha masks; what several photos show
    where they show all that is there; everything otherwise."""
    shape = grid_shape(scene.box, resolution)
    if scene.has_alpha:
        return visual_hull(scene.train, scene.bounds, shape)
    if scene.surrounds:
        coarse = grid_shape(scene.box, SEEN_GRID)
        return upsampled(seen_by_several(scene, coarse), shape)
    return torch.ones(shape, dtype=torch.bool)


def upsampled(grid: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The boolean grid at another resolution: a cell is what its middle lies in."""
    return functional.interpolate(grid[None, None].float(), shape, mode="nearest")[0, 0] > 0


def resampled(grid: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The boolean grid at another resolution: a cell is True where any of it was."""
    return functional.adaptive_max_pool3d(grid[None].float(), shape)[0] > 0


def new_renderer(options: TrainOptions, scene: Scene) -> Renderer:
    """An untrained renderer for ``scene``, initialised from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if options.field == "voxels":
            course = course_of(scene)
            occupied = first_occupancy(scene, options.voxel_resolution)
            shape = grid_shape(scene.box, round(options.voxel_resolution * course.growth[0][1]))
            active = resampled(occupied, shape)
            renderer = Renderer.voxels(scene.box, scene.background, occupied, active)
            nn.init.constant_(renderer.field.geometry.raw, course.fog)
            return renderer
        return Renderer.nerf(
            scene.box,
            scene.background,
            first_occupancy(scene, NERF_GRID),
            options.N_samples,
            options.N_importance,
            options.N_emb_xyz,
            options.N_emb_dir,
            options.sampling,
        )


def training_pixels(scene: Scene) -> TrainingPixels:
    """The pixels to learn from: all, or with alpha masks those that the hull may reach."""
    pixels, scene.train = TrainingPixels.of(scene.train)  # one copy of each photo in memory
    if scene.has_alpha:
        masks = []
        for view in scene.train:
            # the hull's voxels reach a little over the silhouettes
            reach = math.ceil(max(view.height, view.width) / 128)
            alpha = view.alpha[None, None].float()
            grown = functional.max_pool2d(alpha, 2 * reach + 1, stride=1, padding=reach)
            masks.append(grown.flatten() > 0)
        pixels.candidates = torch.cat(masks).nonzero()[:, 0].to(torch.int32)
    return pixels


def only(rays: Rays, part: slice) -> Rays:
    """The rays, all but ``part`` of them empty: whoever draws random numbers for each of them draws
    the same ones, whichever part is his."""
    far = rays.near.clone()
    far[part] = rays.far[part]
    return replace(rays, far=far)


def n_steps(options: TrainOptions, pixels: TrainingPixels) -> int:
    """Steps of the run: an epoch sees as many rays as there are pixels to learn from."""
    if options.max_steps:
        return options.max_steps
    return max(1, options.num_epochs_density * pixels.n_candidates // options.batch_size)


def network_parameters(style: nn.Module) -> list[nn.Parameter]:
    """All parameters of a voxel style but its features."""
    return [p for name, p in style.named_parameters() if name != "features"]


class GeometrySystem(TrainingSystem):
    """Photometric training of either field.

    Args:
        options: of the run.
        scene: with at least one training view.
        renderer: to be trained.
    """

    def __init__(self, options: TrainOptions, scene: Scene, renderer: Renderer) -> None:
        self.pixels = training_pixels(scene)
        super().__init__(options, renderer, n_steps(options, self.pixels))
        self.scene = scene
        self.course = course_of(scene)
        self.arm = scene.space.gradient_radius
        self.cameras = Cameras.within(scene, scene.train)
        self.val_cameras = Cameras.within(scene, scene.val)
        self.chunks = Chunks(options.chunk or options.batch_size)
        self.val_every = options.val_every or max(200, self.n_steps // 8)
        self.appearance: AffineAppearance | None = None
        if options.appearance == "affine":
            behind = scene.background if scene.has_alpha else None
            self.appearance = AffineAppearance(len(scene.train), behind)

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = self._field_groups()
        if self.appearance is not None:
            groups.append({"params": [self.appearance.raw], "lr": APPEARANCE_RATE})
        return groups

    def _field_groups(self) -> list[dict[str, Any]]:
        if self.renderer.spec["field"] == "nerf":
            return [
                {"params": list(self.renderer.parameters()), "lr": self.options.lr or NERF_RATE}
            ]
        scale = (self.options.lr or RATES["features"]) / RATES["features"]
        field = self.renderer.field
        return [
            {"params": [field.geometry.raw], "lr": RATES["density"] * scale, "sparse": True},
            {"params": [field.style.features], "lr": RATES["features"] * scale, "sparse": True},
            {"params": network_parameters(field.style), "lr": RATES["mlp"] * scale},
        ]

    def on_fit_start(self) -> None:
        self.pixels = self.pixels.to(self.device)
        self.cameras = self.cameras.to(self.device)
        self.val_cameras = self.val_cameras.to(self.device)
        self._announce()

    def _announce(self) -> None:
        """Prints the plan, from the samples of one batch."""
        flat = self.pixels.draw(self.options.batch_size, self.generator(0))
        rays = self.renderer.clip(self.cameras.rays(*self.pixels.locate(flat)))
        # in training it would leave its marks in the grid
        self.renderer.eval()
        samples = len(self.renderer.samples(rays))
        self.renderer.train()
        kind = self.renderer.spec["field"]
        sizes = {(v.width, v.height) for v in self.scene.train}
        size = "x".join(map(str, sizes.pop())) if len(sizes) == 1 else "several sizes"
        growth = 0.0
        if kind == "voxels":  # they multiply when the field is refined
            parameters = self.state_bytes() / 3
            growth = parameters * (GROWN * self.course.growth[0][1] ** -2 - 5)
        self.announce(
            f"{len(self.scene.train)} views of {size}, {self.pixels.n_candidates} of "
            f"{len(self.pixels)} pixels to learn from; {self.n_steps} steps of "
            f"{self.options.batch_size} rays with {samples} samples at first",
            BYTES_PER_SAMPLE[kind] * samples + growth,
        )

    def training_step(self, step: int, _: int) -> None:
        self._grow(step)
        crop = self.options.crop_fraction if step < self.options.crop_steps else 1.0
        flat = self.pixels.draw(self.options.batch_size, self.generator(step), crop)
        view, row, column = self.pixels.locate(flat)
        rays = self.renderer.clip(self.cameras.rays(view, row, column))
        self.optimizers().zero_grad()
        shares = self.chunks.over(
            self.team.part(len(rays)), lambda own: self._learn(step, rays, flat, view, own)
        )
        self.apply_gradients(step)
        self.done = step + 1
        terms = {name: sum(share[name] for share in shares) for name in shares[0]}
        self._report(step, self.totals(terms))

    def _learn(
        self, step: int, rays: Rays, flat: Tensor, view: Tensor, own: slice
    ) -> dict[str, Tensor]:
        """Adds the gradient of the loss that some of a step's rays contribute.

        Args:
            rays: N rays, of the pixels ``flat (N,)`` of the views ``view (N,)``.
            own: those that are looked at.

        Returns:
            The terms, as shares of the whole step's.
        """
        rays = only(rays, own)
        target = self.pixels.colours(flat[own])
        samples = self.renderer.samples(rays, self.generator(step, 1, self.device.type))
        share = len(target) / len(rays)
        renderings = {"fine": self.renderer.shade(rays, samples, self.arm)}
        if samples.proposal is not None:
            renderings["coarse"] = self.renderer.finish(samples.proposal)
        terms = {}
        for name, rendering in renderings.items():
            terms[name] = photometric_loss(self._exposed(rendering, view, own), target) * share
            if self.scene.surrounds:
                terms[f"{name}_transparency"] = transparency_loss(rendering.opacity[own]) * share
        self.add_gradients(terms, step)
        return {name: value.detach() for name, value in terms.items()}

    def _exposed(self, rendering: Rendering, view: Tensor, part: slice) -> Tensor:
        """Colours of ``part`` of the rays, as the photos of their ``view (N,)`` would show them."""
        rgb = rendering.rgb[part]
        if self.appearance is None:
            return rgb
        return self.appearance(rgb, rendering.opacity[part], view[part])

    def _report(self, step: int, terms: dict[str, Tensor]) -> None:
        quality = psnr_of(terms["fine"])
        self.log("psnr", quality, prog_bar=True, logger=False)
        rate = self.optimizers().param_groups[0]["lr"]
        self.record(step, {"loss": sum(terms.values()), "psnr": quality, "learning_rate": rate})
        if self.appearance is not None:
            self.record(step, {"appearance": self.appearance.departures().abs().mean()})
        if self.done % self.val_every == 0 or self.done == self.n_steps:
            self.validate(step)

    def unfinished_state(self) -> dict[str, Any]:
        return {} if self.appearance is None else {"appearance": self.appearance.raw.detach().cpu()}

    def restore(self, payload: Mapping[str, Any]) -> None:
        super().restore(payload)
        maps = payload.get("appearance")
        if (maps is None) != (self.appearance is None):
            raise UserError(
                f"--appearance {self.options.appearance}: the unfinished run has another; give "
                "the same options, or start again without --resume"
            )
        if maps is not None:
            self.appearance.load_state_dict({"raw": maps})

    def on_train_end(self) -> None:
        """Names the photos whose exposure differs most."""
        if self.appearance is None or self.done < self.n_steps or not self.trainer.is_global_zero:
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

    def gather_state(self) -> None:
        if isinstance(self.renderer.sampler, OccupancySampler):
            self.team.unite(self.renderer.sampler.grid.lit)

    def _grow(self, step: int) -> None:
        """Empties what has turned out empty; voxels go to the next finer grid in time."""
        if not isinstance(self.renderer.sampler, OccupancySampler) or step == 0:
            return
        pruning = [round(at * self.n_steps) for at in self.course.pruning]
        if step not in pruning:
            return
        grid, field = self.renderer.sampler.grid, self.renderer.field
        rays = (step - max([0, *(at for at in pruning if at < step)])) * self.options.batch_size
        self.gather_state()
        thin = THIN / float(grid.cell.min())
        enough = min(ENOUGH_RAYS, self.pixels.n_candidates)
        grid.prune(lambda x: field.geometry(x)[0], thin, PRUNE_CHUNK, rays >= enough)
        if self.renderer.spec["field"] != "voxels":
            return
        due = [size for at, size in self.course.growth[1:] if step == round(at * self.n_steps)]
        if due:
            shape = grid_shape(grid.bounds, round(self.options.voxel_resolution * due[-1]))
            self.renderer.refine(resampled(dilate(grid.occupied), shape))
            self.trainer.strategy.optimizers = [self.configure_optimizers()]

    @torch.no_grad()
    def validate(self, step: int) -> None:
        """Renders one validation view, each time the next, and logs it beside the truth."""
        self.renderer.eval()
        view = (self.done // self.val_every) % len(self.scene.val)
        picture = render_view(self.renderer, self.val_cameras, view, self.options.chunk)
        self.renderer.train()
        truth = self.scene.val[view].image.float() / 255
        rgb = picture.rgb.cpu()
        quality = psnr(rgb, truth, self.scene.val[view].valid)
        if self.logger is not None:
            self.logger.experiment.add_scalar("val/psnr", quality, step)
        depth = depth_to_colour(
            picture.depth.cpu(), picture.opacity.cpu(), self.scene.near, self.scene.far
        )
        depth = torch.from_numpy(depth).float() / 255
        self.record_image("val/truth_prediction_depth", torch.cat([truth, rgb, depth], 1), step)
        self.log("val_psnr", quality, prog_bar=True, logger=False)
