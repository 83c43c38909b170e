"""One step of stage 2: what a training view costs, in each mode, for either field."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.inputs import RENDERERS, one_view, options_for, painting, vgg_file
from benchmarks.measure import MEGA, Contest, ratio
from benchmarks.plain import PATCH, PlainLoss, PlainScene, PlainStyle, gram
from benchmarks.settings import SIZES, Settings
from benchmarks.table import Row
from benchmarks.work import Pieces, Turns, Work, system_of, train
from datasets.cameras.rays import Cameras
from datasets.scene import Scene
from features.network import FeatureNetwork
from features.registry import load_features
from losses.gram import GramTerm
from losses.style_image import prepare_style
from systems.style import make_objective, network_of, term_weights
from systems.style_task import StyleTask

ENDLESS = "1000000"
QUICK_SIZE = 32
CACHE_GB = 0.03  # what one of twenty views has of the default
SHOWS = 0.01  # mean alpha from which a patch is worth a step
# what a laptop's CPU does in minutes; the rest with --full
USUAL = {
    ("voxels", "memory_saving"): (100, 200, 400, 800),
    ("nerf", "memory_saving"): (100, 200, 400),
    ("nerf_occupancy", "memory_saving"): (100, 200, 400),
}
ELSE = (100, 200)


def run_case(settings: Settings) -> list[Row]:
    """A row per field, mode and size."""
    rows = []
    for field in settings.fields:
        for mode in settings.modes:
            rows += [_row(settings, field, mode, size) for size in sizes_of(settings, field, mode)]
    return rows


def sizes_of(settings: Settings, field: str, mode: str) -> tuple[int, ...]:
    """Pixels along a side."""
    if settings.sizes:
        return settings.sizes
    if settings.quick:
        return (QUICK_SIZE,)
    return SIZES if settings.full else USUAL.get((field, mode), ELSE)


def _row(settings: Settings, field: str, mode: str, size: int) -> Row:
    scene = one_view(settings, size)
    task = style_task(settings, field, mode, size, scene)
    system = system_of(task.options, task)
    contest = Contest(settings.device, settings.turns, settings.budget)
    alpha = scene.train[0].alpha.float() / 255
    tiles = [tile for rows in alpha.split(PATCH) for tile in rows.split(PATCH, 1)]
    full = sum(float(tile.mean()) >= SHOWS for tile in tiles)
    facts = {"object": int((alpha > 0.5).sum()), "patches": full, "empty": len(tiles) - full}
    facts["patch_side"] = min(PATCH, size)

    def others() -> Pieces:
        frozen = task.frozen.view(0)
        facts["samples"] = len(frozen.t) / max(1, facts["object"])
        facts["cache"] = frozen.nbytes()
        loss = loss_alone(settings, mode, alpha > 0, facts)

        def floor() -> None:
            with system.engine.autocast():
                loss()

        plain = plain_pieces(settings, mode, scene, facts["patch_side"]) if settings.plain else {}
        return {"floor": floor, **plain}

    turns = Turns(contest, others)
    train(system, settings, turns)
    row = Row("style_step", f"{field}, {mode}, {size} x {size}", contest.median("ours"))
    row.floor, row.memory = contest.median("floor"), contest.bytes["ours"]
    row.note = (
        f"{facts['samples']:.1f} samples per object pixel, which {facts['object'] / size**2:.0%} "
        f"of them are; frozen geometry: {facts['cache'] / MEGA:.3g} MB, computed once in "
        f"{turns.preparation:.2g} s; floor: VGG-19 alone"
    )
    row.details = {"seconds": contest.seconds, "bytes": contest.bytes, **facts}
    row.details |= {"pixels": size * size, "preparation_s": turns.preparation}
    if settings.plain:
        _add_plain(row, contest, mode, size * size, settings, facts)
    return row


def style_task(settings: Settings, field: str, mode: str, size: int, scene: Scene) -> StyleTask:
    """Our stage 2 on the demo scene's geometry, with styleNeRF's objective, from random colours."""
    more = [
        *("--style_dir", "the-embedded-painting", "--ckpt_path", "written-by-the-benchmark"),
        *("--style_mode", mode, "--small_size", str(size), "--style_init", "random"),
        *("--objective", "gram", "--features", "vgg19", "--vgg_weights", str(vgg_file(settings))),
        *("--coarse_share", "0", "--max_steps", ENDLESS, "--cache_gb", str(CACHE_GB)),
    ]
    options = options_for(settings, "style", field, settings.data, *more)
    renderer = RENDERERS[field](settings)
    renderer.field.style.decoder.view_dependent = options.view_dependent
    image = painting()
    weights = term_weights(options)
    objective_of = partial(make_objective, options, weights, network_of(options), image)
    return StyleTask(options, scene, renderer, image, objective_of, weights)


def vgg(settings: Settings) -> FeatureNetwork:
    """VGG-19 up to conv3_1, frozen."""
    layers = GramTerm.default_layers
    return load_features("vgg19", vgg_file(settings), layers=layers).to(settings.device)


def loss_alone(settings: Settings, mode: str, shown: Tensor, facts: dict[str, float]) -> Work:
    """The least that a step needs: VGG-19 and Gram matrices of the part of the image that shows
    something, ``shown (H, W)``, forward, and backward to the pixels."""
    network = vgg(settings)
    rows, columns = (int(shown.any(dim).sum()) for dim in (1, 0))
    shape, times = (max(4, rows), max(4, columns)), 1
    if mode == "patch":
        shape, times = (facts["patch_side"],) * 2, facts["patches"]

    def loss() -> None:
        for _ in range(times):
            image = torch.full((1, 3, *shape), 0.5, device=settings.device, requires_grad=True)
            features = network(image, network.layers_of(GramTerm.default_layers))
            total = sum(gram(f).square().sum() for f in features.values())
            torch.autograd.grad(total, image)

    return loss


def plain_pieces(settings: Settings, mode: str, scene: Scene, side: int) -> Pieces:
    """The parts of the plain step: rendering a share of the view's rays without and with a graph,
    and the loss of a whole image (a whole patch in the mode of that name)."""
    device = settings.device
    view = scene.train[0]
    photo = view.image.to(device).float() / 255
    rays = Cameras.within(scene, [view]).to(device).view_rays(0)
    rays = rays[:: max(1, len(rays) // settings.share)][: settings.share]
    style = prepare_style(painting(), min(view.height, view.width)).to(device)
    convs = vgg(settings).convs.values()
    loss = PlainLoss(style, [(c.weight, c.bias) for c in convs]).to(device)
    plain = PlainStyle(PlainScene().to(device), loss)
    gradient = torch.ones(len(rays), 3, device=device)
    if mode == "patch":
        photo = photo[:side, :side]

    def compare() -> None:
        plain.pixel_gradient(photo, photo)
        plain.optimizer.step()

    return {
        "plain forward": lambda: plain.first_pass(rays),
        "plain backward": lambda: plain.second_pass(rays, gradient),
        "plain loss": compare,
    }


def plain_shares(mode: str, n_pixels: int, share: int, facts: dict[str, float]) -> dict[str, float]:
    """How often each part of `plain_pieces` is in the whole step of a view."""
    times = n_pixels / min(share, n_pixels)
    if mode == "memory_saving":
        return {"plain forward": times, "plain backward": times, "plain loss": 1}
    if mode == "small":
        return {"plain backward": times, "plain loss": 1}
    patch = facts["patch_side"] ** 2 / min(share, n_pixels)
    return {
        "plain forward": facts["empty"] * patch,
        "plain backward": facts["patches"] * patch,
        "plain loss": facts["patches"],
    }


def _add_plain(
    row: Row,
    contest: Contest,
    mode: str,
    n_pixels: int,
    settings: Settings,
    facts: dict[str, float],
) -> None:
    share = min(settings.share, n_pixels)
    whole = contest.sums(plain_shares(mode, n_pixels, share, facts))
    row.plain = sorted(whole)[len(whole) // 2]
    row.ratio = ratio(whole, contest.seconds["ours"])
    graph, loss = contest.bytes["plain backward"], contest.bytes["plain loss"]
    if graph is not None and loss is not None:
        at_once = n_pixels if mode == "small" else min(n_pixels, PATCH**2)
        graph = graph * at_once / min(share, at_once)
        row.plain_memory = max(graph, loss) if mode == "memory_saving" else graph + loss
    row.details["plain_seconds"] = whole
    if share < n_pixels:
        row.note += f"; plain: rendering scaled from 1/{n_pixels / share:.0f} of the rays"
