"""Stage mutual, end to end on a tiny scene and in its parts: each test stands for a way in which
public versions of mutual learning went wrong."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.cameras.rays import Cameras
from datasets.portable import scene_from
from eval import evaluate
from losses.adain import consistency_term, content_term, style_statistics, style_term
from models.checkpoint import ONLY_FIELD, PHOTO, Checkpoint, geometry_digest
from models.image_decoders import load_stylizer
from models.latent_voxels import LatentVoxelStyle
from models.latents import Latents
from models.mixing import Mixture
from models.style import logits_of
from models.stylizer import Moments, pooled
from models.voxels import VoxelStyle
from models.warp import Frame, Surface
from opt import parse_eval, parse_train
from pipeline import train
from systems.decoder_task import EVERY, DecoderTask, Lesson
from systems.growth import pixels_along
from systems.mimic_task import with_luminance
from systems.mutual import lesson_of
from systems.mutual_measures import cross_view_error, laplacian_energy
from systems.novel_codes import codes_of, neighbours
from systems.paintings import code_distributions, part_statistics, read_paintings
from systems.styled_features import StyledFeatures
from systems.system import System
from tests.conftest import write_sphere_scene
from tests.crashes import run_until
from utils.errors import UserError
from utils.images import LUMA, read_image

NAMES = ("wave.png", "Wave.png", "wave.jpg", "a b:1.png")


def paint(path, seed, size=(40, 28)):
    noise = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(path)


@pytest.fixture(autouse=True, scope="module")
def quick_autoencoder():
    """Few steps: what it learns is tested with the autoencoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("systems.paintings.VAE_STEPS", 15)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained field and four paintings on it: sphere_g.ckpt, sphere_mutual.ckpt."""
    folder = tmp_path_factory.mktemp("mutual")
    write_sphere_scene(folder / "sphere", 30, 26)
    (folder / "paintings").mkdir()
    for seed, name in enumerate(NAMES):
        paint(folder / "paintings" / name, seed, (40 + 9 * seed, 28))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        line = "--stage geometry --root_dir sphere --field voxels --voxel_resolution 24"
        train(parse_train(f"{line} --batch_size 256 --max_steps 60 --suffix g".split()))
        mutual()
    return folder


@pytest.fixture
def at(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def mutual(more="", steps=20):
    line = (
        "--stage mutual --root_dir sphere --style_dir paintings --features own "
        f"--ckpt_path ckpts/sphere_g.ckpt --consistency_steps 2 --max_steps {steps} {more}"
    )
    return train(parse_train(line.split()))


def styles_of(path):
    """All tensors of all styles."""
    styles = Checkpoint.read(Path(path)).styles
    return {f"{n} {k}": x for n, record in styles.items() for k, x in record.state.items()}


def test_one_checkpoint_has_every_painting_and_the_photographic_colours(at):
    """Names that differ in case or in the extension alone are different paintings."""
    before, after = (Checkpoint.read(at / f"ckpts/sphere_{n}.ckpt") for n in ("g", "mutual"))
    assert set(after.styles) == {"wave.png", "Wave", "wave.jpg", "a b:1"}
    state = before.fields[ONLY_FIELD].state
    assert after.fields[ONLY_FIELD].digest == geometry_digest(after.renderer().state_dict())
    photo = after.renderer(style=PHOTO).state_dict()
    assert all(torch.equal(photo[k], state[k]) for k in state)
    pictures = [evaluated(at, f"--style {style}") for style in ("Wave", "wave.jpg", "photo")]
    assert all((a - b).abs().max() > 2 for a, b in pairwise(pictures))
    assert torch.equal(evaluated(at, "--style Wave --strength 0"), pictures[2])
    # each style's options name its own painting, which the measures compare it with
    files = {name: Path(s.options["style_dir"]).name for name, s in after.styles.items()}
    assert files["Wave"] == "Wave.png"


def evaluated(at, more):
    found = evaluate(parse_eval(["--ckpt_path", "ckpts/sphere_mutual.ckpt", *more.split()]))
    assert ("psnr" in found) == (found["style"] == PHOTO)
    return torch.from_numpy(read_image(Path(found["directory"]) / "001.png")[0]).float()


def test_painting_begins_in_the_paintings_palette_or_in_the_scenes(at):
    """Before anything is learned, the object has the painting's colours, or keeps its own."""
    line = "--lr 1e-9 --consistency_steps 0 --style_dir paintings/wave.png"
    checkpoint = Checkpoint.read(at / "ckpts/sphere_g.ckpt")
    photo = checkpoint.renderer().field
    for more, suffix in (("", "p"), ("--preserve_colour", "k")):
        mutual(f"{line} {more} --suffix {suffix}", steps=1)
        path = next((at / "ckpts").glob(f"sphere_*{suffix}.ckpt"))
        style = Checkpoint.read(path).renderer(style="wave").field.style
        began = torch.sigmoid(style.head.table @ style.palette.T + style.centre)
        plain = LatentVoxelStyle.like(photo.style, photo.geometry, 1)
        apart = (began - torch.sigmoid(plain.head.table[style.head.seen])).abs().mean()
        if more:
            assert apart < 1e-3
            continue
        assert apart > 0.05
        wanted = torch.from_numpy(np.array(Image.open(at / "paintings/wave.png"))).double() / 255
        flat = logits_of(wanted.view(-1, 3))
        found = style.palette @ style.palette.T
        torch.testing.assert_close(found.double(), flat.T.cov(correction=0), atol=0.5, rtol=0.3)
        torch.testing.assert_close(style.centre.double(), flat.mean(0), atol=0.2, rtol=0.2)


def test_network_begins_in_each_paintings_palette(at, monkeypatch):
    """A NeRF's network learns the photographic colours in a painting's palette while the 2D network
    becomes consistent, not from a grey start afterwards."""
    monkeypatch.setattr("systems.mimic_task.START_RAYS", 256)
    (at / "two").mkdir()
    noise = np.random.default_rng(0).integers(0, 60, (20, 20, 3), dtype=np.uint8)
    for name, colour in (("red", (190, 20, 20)), ("blue", (20, 20, 190))):
        Image.fromarray(noise + np.uint8(colour)).save(at / f"two/{name}.png")
    nerf = "--field nerf --sampling occupancy --N_samples 16 --N_importance 8 --lr 2e-3"
    line = f"--stage geometry --root_dir sphere {nerf} --batch_size 128 --max_steps 80 --suffix n"
    train(parse_train(line.split()))
    line = "--ckpt_path ckpts/sphere_n.ckpt --style_dir two --suffix two"
    mutual(f"{line} --consistency_steps 20", steps=1)
    checkpoint = Checkpoint.read(at / "ckpts/sphere_two.ckpt")
    red, blue = (colours_at_centre(checkpoint.renderer(style=name)) for name in ("red", "blue"))
    assert red[0] > red[2] + 0.2
    assert blue[2] > blue[0] + 0.2
    # the shortest wave is as long as two to four pixels, or grain would be learned
    shortest = pixels_along(scene_from(checkpoint.scenes[ONLY_FIELD])) / 2 ** (
        checkpoint.styles["red"].spec["n_frequencies"] - 1
    )
    assert 2 <= shortest < 4


def colours_at_centre(renderer):
    """(3,) mean colour of points in the middle of the box, from one side."""
    centre, side = renderer.bounds.mean(0), renderer.bounds[1] - renderer.bounds[0]
    x = centre + 0.2 * side * (torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 0.5)
    with torch.no_grad():
        return renderer.field.colours(x, torch.tensor([0.0, 0.0, 1.0]).expand(500, 3), None).mean(0)


def test_regions_are_in_their_own_paintings_colours(at):
    """Everything, nothing, and a half of space; the same half as masks of some training views."""
    wave, other = (evaluated(at, f"--style {name}") for name in ("Wave", "wave.jpg"))
    everywhere, nowhere = "-9,-9,-9,9,9,9", "7,7,7,9,9,9"
    found = evaluated(at, f"--style Wave --regions wave.jpg={everywhere}")
    assert (found - other).abs().max() <= 1
    found = evaluated(at, f"--style Wave --regions wave.jpg={nowhere}")
    assert (found - wave).abs().max() <= 1
    half = evaluated(at, "--style Wave --regions wave.jpg=-9,-9,0,9,9,9")
    assert (half - wave).abs().amax(-1).gt(2).any()
    assert (half - other).abs().amax(-1).gt(2).any()

    folder = at / "masks"
    folder.mkdir()
    checkpoint = Checkpoint.read(at / "ckpts/sphere_mutual.ckpt")
    scene = scene_from(checkpoint.scenes[ONLY_FIELD])
    views = scene.train[::2]
    for view in views:
        rays = Cameras.within(scene, [view]).view_rays(0, 0, view.height * view.width)
        # where a ray is nearest to the middle of the sphere that it looks at
        t = -(rays.origins * rays.directions).sum(1) / rays.directions.square().sum(1) - 0.6
        up = (rays.origins + t[:, None] * rays.directions)[:, 2].view(view.height, view.width) > 0
        Image.fromarray((up * 255).to(torch.uint8).numpy()).save(folder / f"{view.name}.png")
    masked = evaluated(at, "--style Wave --regions wave.jpg=masks")
    apart = (wave - other).abs().mean()
    assert (masked - half).abs().mean() < 0.35 * apart


def test_regions_name_what_is_wrong(at):
    for words, message in (
        ("Wave", "give NAME=FOLDER"),
        ("nobody=0,0,0,1,1,1", "--regions nobody=0,0,0,1,1,1: the style nobody is not in"),
        ("Wave=1,1,1,0,0,0", "larger each"),
        ("Wave=nowhere", "no folder nowhere"),
        ("Wave=paintings", "no mask of a training view"),
    ):
        with pytest.raises(UserError, match=message):
            evaluated(at, f"--regions {words}")


def test_a_resumed_run_ends_with_the_same_bits(at):
    """Stopped among the consistency steps, before and after the field has begun to teach."""
    whole = styles_of("ckpts/sphere_mutual.ckpt")
    for stop, every in ((2, 1), (15, 7)):
        run_until(stop, lambda e=every: mutual(f"--suffix r --checkpoint_every {e}"))
        found = styles_of(mutual(f"--suffix r --checkpoint_every {every} --resume")[0])
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[k], whole[k]) for k in whole)
        Path("ckpts/sphere_r.ckpt").unlink()


def test_what_coarse_steps_leave_is_smoothed_once(at, monkeypatch):
    """Between a step on every second pixel and one on all, of each painting, resumed or not."""
    monkeypatch.setattr("systems.style_task.COARSEST", 13)
    smoothed = []
    for kind in (LatentVoxelStyle, VoxelStyle):
        monkeypatch.setattr(kind, "smooth", lambda own: smoothed.append(own))
    run_until(8, lambda: mutual("--suffix s --checkpoint_every 3"))
    assert not smoothed
    mutual("--suffix s --checkpoint_every 3 --resume")
    assert len(set(smoothed)) == len(smoothed) == len(NAMES)
    line = "--stage style --root_dir sphere --ckpt_path ckpts/sphere_g.ckpt --features own"
    line += " --style_dir paintings/wave.png --max_steps 5"
    train(parse_train(f"{line} --coarse_share 0 --suffix fine".split()))
    assert len(smoothed) == len(NAMES)
    train(parse_train(f"{line} --coarse_share 0.5 --suffix coarse".split()))
    assert len(smoothed) == len(NAMES) + 1


def test_a_decoder_of_ones_own(at):
    """It learns to rebuild, a resumed run ends with the same bits, and stage mutual takes it."""
    words = "--stage decoder --root_dir sphere --style_dir paintings --features own"
    words += " --decoder_layer relu2_1 --ckpt_path ckpts/sphere_g.ckpt --checkpoint_every 3"

    def decoder(more):
        (path,) = train(parse_train(f"{words} {more}".split()))
        return path, Checkpoint.read(path).networks["decoder"]

    _, barely = decoder("--max_steps 1 --suffix barely")
    path, whole = decoder("--max_steps 8 --suffix whole")
    assert rebuilding_error(at, whole) < 0.9 * rebuilding_error(at, barely)
    run_until(5, lambda: decoder("--max_steps 8 --suffix stopped"))
    _, resumed = decoder("--max_steps 8 --suffix stopped --resume")
    assert all(torch.equal(resumed[k], whole[k]) for k in whole)
    mutual(f"--ckpt_path {path} --suffix own_decoder --decoder_step 99", steps=1)


def rebuilding_error(at, state):
    """Mean absolute difference of a photo and what a decoder makes of its features."""
    stylizer = load_stylizer("own", None, None, state)
    assert stylizer.layer == "relu2_1"
    image = torch.from_numpy(read_image(at / "sphere/train/r_0.png")[0]).float() / 255
    image = image.permute(2, 0, 1)[None, :, :24, :24]
    with torch.no_grad():
        return (stylizer.decode(stylizer.features(image), (24, 24)) - image).abs().mean()


def test_other_paintings_are_another_run(at):
    run_until(15, lambda: mutual("--suffix p --checkpoint_every 7"))
    paint(at / "paintings" / NAMES[1], 99)
    try:
        with pytest.raises(UserError, match="--style_dir: other paintings"):
            mutual("--suffix p --checkpoint_every 7 --resume")
    finally:
        paint(at / "paintings" / NAMES[1], 1, (49, 28))


def test_a_broken_painting_is_named_before_anything_is_trained(at):
    broken = at / "paintings" / "zz.png"
    broken.write_bytes((at / "paintings" / "wave.png").read_bytes()[:60])
    try:
        with pytest.raises(UserError, match=r"zz\.png"):
            mutual("--suffix broken")
    finally:
        broken.unlink()
    assert not list(at.glob("runs/*broken*"))


def test_photographic_colours_are_needed(at):
    checkpoint = Checkpoint.read(at / "ckpts/sphere_mutual.ckpt")
    record = checkpoint.fields[ONLY_FIELD]
    for name in [n for n in record.state if n.startswith("field.style.")]:
        del record.state[name]
    checkpoint.write(at / "ckpts/bare.ckpt")
    line = "--stage mutual --root_dir sphere --style_dir paintings --features own"
    with pytest.raises(UserError, match="has no photographic colours"):
        train(parse_train([*line.split(), "--ckpt_path", "ckpts/bare.ckpt", "--suffix", "x"]))


def test_a_novel_view_never_takes_another_paintings_code(at):
    """Its own painting's mean, or the codes of its own training views around it."""
    checkpoint = Checkpoint.read(at / "ckpts/sphere_mutual.ckpt")
    scene = scene_from(checkpoint.scenes[ONLY_FIELD])
    style = checkpoint.renderer(style="Wave").field.style
    trained, novel = (Cameras.within(scene, views) for views in (scene.train, scene.test))
    assert codes_of(style, novel, scene, 0.0) == [None, None]
    for index, code in enumerate(codes_of(style, trained, scene, 1.0)):
        torch.testing.assert_close(code, style.latents.codes[index])
    low, high = style.latents.codes.aminmax(dim=0)
    for code in codes_of(style, novel, scene, 1.0):
        assert bool(((code >= low - 1e-5) & (code <= high + 1e-5)).all())


def test_in_a_mixture_each_painting_keeps_its_own_codes(at):
    checkpoint = Checkpoint.read(at / "ckpts/sphere_mutual.ckpt")
    scene = scene_from(checkpoint.scenes[ONLY_FIELD])
    names = [name for name in checkpoint.styles if name != PHOTO][:2]
    mixed = Mixture.asked(checkpoint, names, 0.5).renderer(checkpoint).field.style
    trained = Cameras.within(scene, scene.train)
    code = codes_of(mixed, trained, scene, 1.0)[2]
    cell, x, d = torch.zeros(4, dtype=torch.int64), torch.zeros(4, 3), torch.zeros(4, 3)
    logits = 0.0
    for name, share in Mixture.asked(checkpoint, names, 0.5).shares.items():
        style = checkpoint.renderer(style=name).field.style
        own = style.latents.codes[2] if name != PHOTO else None
        logits = logits + share * torch.logit(style(cell, x, d, own).clamp(1e-4, 1 - 1e-4))
    torch.testing.assert_close(mixed(cell, x, d, code), torch.sigmoid(logits), atol=1e-4, rtol=0)


def test_codes_do_not_jump_along_a_path():
    eyes = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0], [5, 0, 0]])
    latents = Latents(len(eyes), 2)
    torch.nn.init.normal_(latents.codes)
    codes = []
    for x in torch.linspace(0.2, 4.8, 461):
        views, weights = neighbours(eyes, torch.tensor([float(x), 0.3, 0]))
        assert float(weights.sum()) == pytest.approx(1)
        codes.append(latents.between(views, weights, 1.0).detach())
    steps = torch.stack(codes).diff(dim=0).norm(dim=1)
    assert steps.max() < 0.1


def test_lesson():
    lesson = Lesson(n_consistency=5, mutual_from=9, n_steps=40)
    assert [s for s in range(40) if lesson.field_learns(s)] == list(range(5, 40))
    teaching = [s for s in range(40) if lesson.decoder_learns_from_field(s)]
    assert teaching == list(range(9, 40, EVERY))


def test_the_2d_decoder_learns_in_both_directions(at, monkeypatch):
    """From neighbouring views first, then from the field; and it stands still in between."""
    seen = {}
    step_of = System.step

    def step(self, number, *more):
        step_of(self, number, *more)
        decoder = self.tasks[0].stylizer.decoder
        seen[number] = torch.cat([p.detach().flatten() for p in decoder.parameters()])

    monkeypatch.setattr(System, "step", step)
    mutual("--suffix d --decoder_step 5", steps=16)
    moved = [n for n in range(1, 18) if not torch.equal(seen[n], seen[n - 1])]
    assert moved == [1, *range(2 + 5, 18, EVERY)]


@pytest.mark.parametrize(
    ("n_views", "words", "lengths"),
    [
        (8, "", (60, 60 + 600, 60 + 1200)),
        (300, "", (60, 60 + 900, 60 + 1800)),  # each view once at least
        (8, "--max_steps 50 --consistency_steps 0 --decoder_step 99", (0, 50, 50)),
    ],
)
def test_the_length_is_by_paintings(n_views, words, lengths):
    given = "--stage mutual --root_dir D --ckpt_path C --style_dir P " + words
    lesson = lesson_of(parse_train(given.split()), 3, n_views)
    assert (lesson.n_consistency, lesson.mutual_from, lesson.n_steps) == lengths


def test_photos_of_differing_sizes_are_decoded_at_once():
    """Crops of two views have one size, within both."""
    task = DecoderTask(None, SimpleNamespace(stride=4), Lesson(1, 1, 1), [])
    sizes = (96, 72), (64, 300), (400, 250)
    views = SimpleNamespace(rgb=[torch.zeros(*size, 3) for size in sizes])
    task.provide(SimpleNamespace(views=views))
    for view, (height, width) in enumerate(sizes):
        for row, column in ((0, 0), (height, width), (height / 2, width / 3)):
            crop = task._around(view, row, column)
            assert (crop.rows.stop - crop.rows.start, crop.columns.stop - crop.columns.start) == (
                64,
                72,
            )
            assert 0 <= crop.rows.start <= crop.rows.stop <= height
            assert 0 <= crop.columns.start <= crop.columns.stop <= width


def test_consistency_counts_what_both_views_show_and_nothing_else():
    picture, warped = torch.rand(2, 6, 7, 3).unbind(0)
    valid = torch.zeros(6, 7, dtype=torch.bool)
    valid[2:4, 1:3] = True
    found = consistency_term(picture, warped, valid)
    wanted = (picture - warped)[2:4, 1:3].square().mean()
    torch.testing.assert_close(found, wanted)
    warped[~valid] = 100.0
    torch.testing.assert_close(consistency_term(picture, warped, valid), wanted)
    assert consistency_term(picture, warped, torch.zeros_like(valid)) == 0


def test_losses_do_not_depend_on_the_networks_scale():
    features, wanted = torch.randn(2, 1, 4, 8, 8).unbind(0)
    style = style_statistics({"a": wanted}, ["a"])
    scaled = style_statistics({"a": 50 * wanted}, ["a"])
    torch.testing.assert_close(
        content_term(features, wanted), content_term(50 * features, 50 * wanted)
    )
    torch.testing.assert_close(
        style_term({"a": features}, style), style_term({"a": 50 * features}, scaled)
    )
    std = wanted.std((0, 2, 3))
    torch.testing.assert_close(
        content_term(features, wanted, std=std),
        content_term(50 * features, 50 * wanted, std=50 * std),
    )
    assert content_term(wanted, wanted) == 0
    assert style_term({"a": wanted}, style) < 1e-6


class _Views:
    """One photographic view."""

    def __init__(self, image, painted=None):
        self.image, self.there, self.frozen = image, painted, self
        self.background = torch.zeros(3)

    def content(self, _):
        return self.image

    def mask(self, _):
        return torch.ones_like(self.image[:, :1])

    def view(self, _):
        return self

    def crop(self, image):
        return image

    def painted(self, *_):
        return self.there


def test_patches_are_chosen_by_the_view_and_by_the_field_that_guides():
    """A guide's choice is not kept, nor is another painting's or view's taken for one's own."""
    stylizer = load_stylizer("own", None, None)
    image, painted = torch.rand(2, 1, 3, 32, 32)
    content = Moments.of(stylizer.features(image)).statistics()
    paintings = [torch.rand(1, 3, 48, 40) for _ in range(2)]

    def styled_of(views, paintings=paintings):
        return StyledFeatures.of_paintings(stylizer, views, content, paintings, True)

    styled = styled_of(_Views(image, painted))
    first = styled.of(0, 0)
    guided = styled.of(0, 0, guide=object())
    assert not torch.equal(guided, first)
    assert torch.equal(styled.of(0, 0), first)
    assert not torch.equal(styled.of(0, 1), first)
    assert not torch.equal(styled_of(_Views(image.flip(3))).of(0, 0), first)
    # a guide that shows the painting's own patches gets just these
    strip = torch.rand(1, 3, 32, 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("systems.styled_features.GUIDANCE", 1e6)
        own = styled_of(_Views(image, strip), [strip]).of(0, 0, guide=object())
    # patches are kept in half precision
    torch.testing.assert_close(
        own, stylizer.features(strip), rtol=1e-3, atol=1e-3 * float(own.max())
    )
    # and a picture that shows them has nothing to learn
    found = styled_of(_Views(image), [strip]).terms(strip, own, 0, torch.ones(1, 1, 32, 32))
    assert max(found.values()) < 1e-4


def test_flat_areas_do_not_spread_over_a_field_that_guides():
    """A field that shows little but a painting's sky is not told to show nothing else: features of
    its picture are compared by their own statistics."""
    stylizer = load_stylizer("own", None, None)
    generator = torch.Generator().manual_seed(0)
    painting = torch.full((1, 3, 64, 64), 0.5)
    painting[..., 32:] = torch.rand(1, 3, 64, 32, generator=generator)
    image = torch.rand(1, 3, 64, 64, generator=generator)
    pale = 0.5 + 0.05 * (image - 0.5)
    content = Moments.of(stylizer.features(image)).statistics()
    views = _Views(image, pale)
    styled = StyledFeatures.of_paintings(stylizer, views, content, [painting], True)
    wanted = styled.of(0, 0, guide=object())
    own = styled.manners[0].statistics
    assert (wanted.std((0, 2, 3)) > 0.3 * own.std).float().mean() > 0.8


def test_preserved_colours_have_the_paintings_luminance():
    photo, painted = 0.3 + 0.4 * torch.rand(2, 1, 3, 5, 6)
    mixed = with_luminance(photo, 0.5 + 0.3 * (painted - 0.5))
    luma = torch.tensor(LUMA)[:, None, None]
    wanted = ((0.5 + 0.3 * (painted - 0.5)) * luma).sum(1)
    torch.testing.assert_close((mixed * luma).sum(1), wanted, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(
        mixed[:, 0] - mixed[:, 1], photo[:, 0] - photo[:, 1], atol=1e-5, rtol=0.0
    )


def test_a_paintings_codes_follow_its_own_statistics(tmp_path):
    """Those of the painting, as a mean and a deviation per channel; not of a stylised picture."""
    for seed, name in enumerate(("a.png", "b.png")):
        paint(tmp_path / name, seed, (64, 48))
    paintings = read_paintings(sorted(tmp_path.glob("*.png")))
    stylizer = load_stylizer("own", None, None)
    rows = []
    for painting in paintings:
        features = stylizer.features(painting.image(48))
        parts = part_statistics(features, torch.Generator().manual_seed(0))
        whole = parts[0][: features.shape[1]]
        torch.testing.assert_close(whole, features.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
        rows.append(parts[:9])
    (first, _), (second, _) = code_distributions(rows, 0)
    assert (first - second).norm() > 0.5


def test_masks_of_features_that_reach_over_the_border():
    mask = torch.rand(1, 1, 10, 13)
    found = pooled(mask, torch.zeros(1, 4, 3, 4))
    assert found.shape == (1, 1, 3, 4)
    torch.testing.assert_close(found[..., :2, :3], torch.nn.functional.avg_pool2d(mask, 4))


def test_blur_does_not_pass_for_consistency():
    """A blurred picture loses contrast as it loses error: only the normalised measure tells."""
    generator = torch.Generator().manual_seed(0)
    sharp = [torch.rand(40, 40, 3, generator=generator) for _ in range(2)]
    blurred = [0.5 + 0.1 * (picture - 0.5) for picture in sharp]
    rows, columns = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    same = torch.stack([columns, rows], -1), torch.ones(40, 40, dtype=torch.bool)

    class Views:
        @staticmethod
        def same_surface(target, source):
            return same

        @staticmethod
        def frame(index):
            return Frame(index, Surface(None, None, same[1]), {})

    found = [cross_view_error(lambda i, p=p: p[i], Views, [(0, 1)]) for p in (sharp, blurred)]
    assert found[1].rmse == pytest.approx(0.1 * found[0].rmse, rel=1e-4)
    assert found[1].normalised > 0.9 * found[0].normalised
    energies = [laplacian_energy(p[0], same[1]) for p in (sharp, blurred)]
    assert energies[1] == pytest.approx(0.01 * energies[0], rel=1e-4)
    assert cross_view_error(lambda i: sharp[i], Views, []) is None
