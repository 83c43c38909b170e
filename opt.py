"""Every option of pipeline.py and eval.py, declared once: a typed field with its default, help and
check is at the same time the flag ``--name``, the YAML key ``name`` and the attribute ``.name``."""

# ruff: noqa: RUF009 - `option` is `dataclasses.field` with more to say
from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import MISSING, dataclass, make_dataclass
from pathlib import Path
from typing import ClassVar

from datasets.formats.names import AUTO, FORMATS, PATHS, SIDES, format_of, is_path
from datasets.pairs import OWN, checked_pairs, folders, is_pair, is_scene
from features.registry import AUTO as AUTO_FEATURES
from features.registry import ENCODERS, NETWORKS
from losses.registry import OBJECTIVES, OVERLAPS, TERMS
from models import FIELDS, SAMPLERS
from systems import PARTS, STAGES
from utils.errors import UserError
from utils.options import (
    CELLS,
    EIGHT,
    FARTHEST,
    FILE_NAME,
    FRACTION,
    FRAMES,
    NEAREST,
    NOT_NEGATIVE,
    PIXELS,
    POSITIVE,
    PROCESSES,
    RATE,
    SCHEDULE_NOT_NEGATIVE,
    SEED,
    SHARE,
    UNIT,
    Check,
    Options,
    Rule,
    option,
    options_of,
    parse_options,
)
from utils.results import file_safe, joined, name_of, results_name
from utils.schedule import Schedule

STROKES = Check("must be from 0.25 to 4", lambda x: 0.25 <= x <= 4)
# parts of the work that an option may belong to; `systems.STAGES` says what each stage is made of
FIELD, PHOTOS, TRAINED, PAINTING, PAIRS = "field", "photos", "trained", "painting", "pairs"
# what all stages with paintings read; what mutual learning does, and what training a 2D decoder
STYLISING, TEACHING, DECODING = "stylising", "teaching", "decoding"
PAINTED = [stage for stage, parts in PARTS.items() if STYLISING in parts]
NERF, VOXELS = ("field", "nerf"), ("field", "voxels")  # what one field alone reads


def _name_of(path: Path | None) -> str | None:
    return None if path is None else name_of(path)


def _suffix_of(o: TrainOptions) -> str:
    if o.stage == "style" and o.style_dir is None and o.prompt:
        return (
            "_".join("".join(c if c.isalnum() else " " for c in o.prompt).split())[:40] or o.stage
        )
    return o.style_dir.stem if o.stage == "style" and o.style_dir else o.stage


NO_WEIGHTS = "--ckpt_path: missing; give --ckpt_path, or --coarse_path and --fine_path"


def _first_folder(o: TrainOptions) -> Path | None:
    """--root_dir where there are several: checkpoints name one scene at least."""
    if o.stage != "joint" or not o.scenes or not all(map(is_scene, o.scenes)):
        return None
    return Path(next(iter(folders(o.scenes).values()))["root_dir"])


def _scene_name_of(o: TrainOptions) -> str | None:
    if o.stage == "joint" and all(map(is_scene, o.scenes)):
        return "_".join(folders(o.scenes)) or None
    return _name_of(o.root_dir)


def _without_weights(o: Weights) -> bool:
    return o.ckpt_path is None and o.coarse_path is None


@dataclass(frozen=True, kw_only=True)
class Data(Options):
    """data"""

    rules = (
        Rule(
            "--near: must be smaller than --far",
            lambda o: None not in (o.near, o.far) and o.near >= o.far,
        ),
    )
    root_dir: Path = option(MISSING, "directory of the scene")
    dataset_name: str = option(
        AUTO, "format of the scene; auto: by its files", choices=(AUTO, *FORMATS)
    )
    scene_name: str | None = option(
        None,
        "name of the scene (default: that of --root_dir)",
        check=FILE_NAME,
        derive=lambda o: _name_of(o.root_dir),
    )
    img_wh: tuple[int, int] | None = option(
        None, "width and height to resize the images to (default: their own)", check=PIXELS
    )
    near: float | None = option(
        None, "nearest distance on a ray (default: the scene's)", check=NEAREST
    )
    far: float | None = option(
        None, "farthest distance on a ray (default: the scene's)", check=FARTHEST
    )
    hold_out: float = option(
        8.0,
        "captures without a split: keep every n-th view for test, or a fraction below 1, "
        "or 0: the most central one",
        check=NOT_NEGATIVE,
    )
    spheric_poses: bool | None = option(
        None, "llff: an inward-facing capture, not a forward-facing one (default: by the cameras)"
    )

    few_shot: int | None = option(
        None, "learn from so few of the training photos, drawn by --shuffle_seed", check=POSITIVE
    )
    shuffle_seed: int = option(0, "few_shot: seed of the draw", check=SEED)
    views: tuple[str, ...] = option(
        (), "learn from these training photos alone, by name or number from 0"
    )
    occluded: str = option(
        "none",
        "learn only from the training photos taken from that side, as the first of them sees it",
        choices=SIDES,
    )
    hull: bool = option(
        True, "use the photos' alpha as masks, which carve away what is outside of the object"
    )
    matte: bool = option(
        False, "make masks of photos without alpha from their plain white background"
    )

    def __post_init__(self) -> None:
        if self.dataset_name == AUTO and self.root_dir is not None:
            # what it was goes into checkpoints
            object.__setattr__(self, "dataset_name", format_of(self.root_dir) or AUTO)
        super().__post_init__()


# what says which scene it is: a later stage takes it over from the checkpoint
SCENE = tuple(options_of(Data))


@dataclass(frozen=True, kw_only=True)
class Device(Options):
    """machine"""

    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Device):
    """machine"""

    precision: str = option(
        "auto", "numerical precision of the networks", choices=("auto", "32", "bf16", "16")
    )
    chunk: int = option(
        0, "rays a chunk, rendered or learned from; 0: by field and device", check=NOT_NEGATIVE
    )


@dataclass(frozen=True, kw_only=True)
class Machine(Arithmetic):
    """machine"""

    num_gpus: int = option(1, "GPUs to use; without a GPU, processes", check=PROCESSES)
    num_nodes: int = option(1, "machines to use, with --num_gpus each", check=PROCESSES)


@dataclass(frozen=True, kw_only=True)
class Page(Options):
    """page"""

    host: str = option(
        "127.0.0.1",
        "address to serve the page on: with another than this machine's own anybody who reaches "
        "it may look, and render",
    )
    port: int = option(
        8080,
        "its port; where it is taken, the next free one",
        check=Check("must be from 1 to 65535", lambda port: 1 <= port <= 65535),
    )


@dataclass(frozen=True, kw_only=True)
class Weights(Options):
    """trained weights"""

    rules = (
        Rule(
            "--coarse_path, --fine_path: one without the other; give both",
            lambda o: (o.coarse_path is None) != (o.fine_path is None),
        ),
        Rule(
            "--ckpt_path: excludes --coarse_path and --fine_path; give one or the others",
            lambda o: o.ckpt_path is not None and o.coarse_path is not None,
        ),
    )
    ckpt_path: Path | None = option(
        None, "checkpoint of a trained field, or its .safetensors", part=TRAINED
    )
    coarse_path: Path | None = option(
        None, "weights of the coarse network, with --fine_path", part=TRAINED
    )
    fine_path: Path | None = option(
        None, "weights of the fine network, with --coarse_path", part=TRAINED
    )


@dataclass(frozen=True, kw_only=True)
class Colours(Options):
    """trained weights"""

    style: tuple[str, ...] = option(
        (),
        "colours: a painting's, by the name of its file, or photo; several are mixed, "
        "NAME:WEIGHT each (default: the last painted)",
    )
    strength: float = option(
        1.0, "of the painting: 0 is the photographic colours, 1 the painting's", check=UNIT
    )
    encoder: str | None = option(None, "of a joint training: the scene (default: the first)")
    decoder: str | None = option(
        None, "of a joint training: its colours (default: those that the scene was seen in)"
    )

    @property
    def requests(self) -> list[str]:
        """What is asked for of a checkpoint, each in words that a file's name may have."""
        parts = ["+".join(map(file_safe, self.style))] if self.style else []
        if self.strength < 1:
            parts.append(f"strength={self.strength}")
        for kind, name in (("encoder", self.encoder), ("decoder", self.decoder)):
            if name is not None:
                parts.append(f"{kind}={file_safe(name)}")
        return parts

    @property
    def asked(self) -> str:
        """What is asked for of a checkpoint, as a folder's name; empty where nothing is.

        Such as ``starry_night``, ``starry_night@0.3+great_wave@0.7,strength=0.5`` or
        ``encoder=lego,decoder=relit``: other requests have other names, whatever styles are called.
        """
        return joined(self.requests)


@dataclass(frozen=True, kw_only=True)
class Results(Options):
    """output"""

    asked: ClassVar[str] = ""  # of the checkpoint; see `Colours`
    output_dir: Path = option(
        Path("results"), "all that is written goes into a folder in it, called like the checkpoint"
    )

    def __post_init__(self) -> None:
        if self.ckpt_path:
            results_name(self.ckpt_path)  # before anything is computed
        super().__post_init__()

    @property
    def directory(self) -> Path:
        """Where all goes that is written about a checkpoint: ``OUTPUT_DIR/CHECKPOINT``, see
        `results_name`, and in it a folder for what is ``asked`` for, if anything is.  A coarse and
        a fine network have no name in common but their scene's, once it is known."""
        name = results_name(self.ckpt_path) if self.ckpt_path else self.scene_name
        return self.output_dir / name / self.asked


@dataclass(frozen=True, kw_only=True)
class FieldShape(Options):
    """field"""

    field: str = option("nerf", "the paper's networks, or sparse voxels", choices=tuple(FIELDS))
    N_samples: int = option(64, "coarse samples per ray", check=POSITIVE, part=FIELD, only=NERF)
    N_importance: int = option(
        64, "additional fine samples per ray", check=NOT_NEGATIVE, part=FIELD, only=NERF
    )
    sampling: str = option(
        "hierarchical",
        "samples that a coarse network proposes, or even steps through occupied cells",
        choices=tuple(SAMPLERS),
        part=FIELD,
        only=NERF,
    )
    N_emb_xyz: int = option(
        10, "frequencies of the position", check=NOT_NEGATIVE, part=FIELD, only=NERF
    )
    N_emb_dir: int = option(
        4, "frequencies of the direction", check=NOT_NEGATIVE, part=FIELD, only=NERF
    )
    voxel_resolution: int = option(
        256,
        "final number along the longest side; of an object fewer where they would be finer "
        "than the photos' pixels",
        check=CELLS,
        part=FIELD,
        only=VOXELS,
    )


@dataclass(frozen=True, kw_only=True)
class Run(Options):
    """run"""

    rules = (
        Rule(
            "--num_epochs_density, --num_steps_density: each gives the length; give one (where the "
            "YAML file has steps: --num_steps_density or --max_steps)",
            lambda o: None not in (o.num_epochs_density, o.num_steps_density),
        ),
    )

    stage: str = option(MISSING, "learn the scene, or a style on it", choices=tuple(STAGES))
    prefix: str | None = option(
        None,
        "first part of file names (default: the scene's name)",
        check=FILE_NAME,
        derive=lambda o: o.scene_name,
    )
    suffix: str | None = option(
        None,
        "last part of file names (default: geometry, or the painting's name)",
        check=FILE_NAME,
        derive=_suffix_of,
    )
    resume: bool = option(False, "continue from the run's newest checkpoint")
    ckpt_dir: Path = option(Path("ckpts"), "directory of the checkpoints")
    log_dir: Path = option(Path("runs"), "directory of the TensorBoard logs")
    num_epochs_density: int | None = option(
        None, "geometry: passes over all pixels (default: 1)", check=POSITIVE, part=PHOTOS
    )
    num_steps_density: int | None = option(
        None, "geometry: steps, in place of passes", check=POSITIVE, part=PHOTOS
    )
    num_epochs_style: int = option(
        1, "style: passes over the training views", check=POSITIVE, part=PAINTING
    )
    max_steps: int | None = option(
        None,
        "steps of any stage (default: by the options above; mutual: by paintings); a photographic "
        "start and --consistency_steps come on top",
        check=POSITIVE,
    )
    checkpoint_every: int = option(
        500,
        "steps between checkpoints; one process alone saves every two minutes too",
        check=POSITIVE,
    )
    val_every: int = option(
        0, "steps between validations; 0: by the run's length", check=NOT_NEGATIVE
    )
    seed: int = option(0, "seed of all randomness", check=SEED)


@dataclass(frozen=True, kw_only=True)
class Optimisation(Options):
    """optimisation"""

    rules = (
        Rule(
            "--batch_size: smaller than the number of processes; give at least one ray to each",
            lambda o: o.batch_size < getattr(o, "num_gpus", 1) * getattr(o, "num_nodes", 1),
        ),
        Rule(
            "--decay_step: missing; --lr_scheduler steplr needs the steps at which to decay",
            lambda o: o.lr_scheduler == "steplr" and not o.decay_step,
        ),
    )
    batch_size: int = option(1024, "geometry: rays per step", check=POSITIVE, part=PHOTOS)
    lr: float | None = option(None, "learning rate (default: by field and stage)", check=RATE)
    optimizer: str = option("adam", "optimiser", choices=("adam", "radam", "sgd"))
    lr_scheduler: str = option(
        "constant",
        "learning-rate schedule",
        choices=("constant", "steplr", "cosine", "poly", "exponential"),
    )
    decay_step: tuple[int, ...] = option((), "steplr: the steps at which it decays", check=POSITIVE)
    decay_gamma: float = option(
        0.1, "steplr: factor per decay; exponential: per run", check=FRACTION
    )
    poly_exp: float = option(0.9, "poly: exponent", check=POSITIVE)
    warmup_steps: int = option(0, "steps in which the rate rises from 0", check=NOT_NEGATIVE)
    crop_steps: int = option(
        0,
        "geometry: so many first steps on the centre of the images only",
        check=NOT_NEGATIVE,
        part=PHOTOS,
    )
    crop_fraction: float = option(
        0.5, "geometry: width and height of that centre", check=FRACTION, part=PHOTOS
    )
    data_perturb: tuple[str, ...] = option(
        (),
        "perturb the training images, in colour or by occluders",
        choices=("color", "occ"),
    )
    appearance: str = option(
        "none",
        "geometry: nothing, or an affine colour map learned for each photo (exposures that differ)",
        choices=("none", "affine"),
        part=PHOTOS,
    )
    robust: float = option(
        0.0,
        "geometry: colour error at which a pixel counts a quarter in the end, for photos with "
        "people walking through: 0.1, of full brightness; 0: all count alike",
        check=NOT_NEGATIVE,
        part=PHOTOS,
    )


@dataclass(frozen=True, kw_only=True)
class FewViews(Options):
    """few views"""

    semantic: str | None = option(
        None,
        "encoder by which views from everywhere are to resemble the photos (DietNeRF): "
        f"{', '.join(ENCODERS)}, or a file of weights",
        part=PHOTOS,
    )
    semantic_weight: float = option(1e-3, "of the semantic term", check=NOT_NEGATIVE, part=PHOTOS)
    semantic_every: int = option(
        10, "steps from one semantic term to the next", check=POSITIVE, part=PHOTOS
    )
    semantic_until: int | None = option(
        None, "step at which the semantic terms end (default: never)", check=POSITIVE, part=PHOTOS
    )
    coarse_to_fine: float | None = option(
        None,
        "share of the run in which its frequencies are revealed, low ones first (default: "
        "all from the start; voxels are refined by the scene)",
        check=FRACTION,
        part=PHOTOS,
        only=NERF,
    )
    distortion: float = option(
        0.0,
        "weight of mip-NeRF 360's distortion loss, which gathers what a ray meets in one place; "
        "grows from 0 over the first half of the run",
        check=NOT_NEGATIVE,
        part=PHOTOS,
    )
    silhouette_weight: float = option(
        0.0, "weight of opacity: 1 within the masks and 0 outside", check=NOT_NEGATIVE, part=PHOTOS
    )
    density_smoothness: float = option(
        0.0, "weight of the smoothness of density", check=NOT_NEGATIVE, part=PHOTOS, only=VOXELS
    )
    colour_smoothness: float = option(
        0.0,
        "weight of the smoothness of the features that colours are made of",
        check=NOT_NEGATIVE,
        part=PHOTOS,
        only=VOXELS,
    )
    visible_weight: float = option(
        0.0,
        "once there are surfaces, cells of which no ray of a photo gets more than this share of "
        "its colour are given up, as fog (default 0: those that no ray reaches)",
        check=SHARE,
        part=PHOTOS,
    )
    stereo: bool = option(
        False,
        "start from the surfaces on which neighbouring photos of a place agree",
        part=PHOTOS,
        only=VOXELS,
    )
    depth_smoothness: float = option(
        0.0, "weight of the smoothness of depth where no photo is", check=NOT_NEGATIVE, part=PHOTOS
    )


@dataclass(frozen=True, kw_only=True)
class Style(Options):
    """style"""

    rules = (
        Rule(
            "--vgg_weights: not used with --features own; leave one out",
            lambda o: o.vgg_weights is not None and o.features == "own",
        ),
    )
    style_dir: Path | None = option(
        None, "file of the painting, or a folder of paintings", part=STYLISING
    )
    style_mode: str = option(
        "memory_saving",
        "loss on the whole view, on patches of it, or on a small rendering",
        choices=("memory_saving", "patch", "small"),
        part=PAINTING,
    )
    patch_size: int = option(50, "patch: side in pixels", check=EIGHT, part=PAINTING)
    small_size: int = option(100, "small: shorter side in pixels", check=EIGHT, part=PAINTING)
    objective: str | None = option(
        None,
        "preset of the style's terms (default: gram; directional without a painting)",
        choices=tuple(OBJECTIVES),
        derive=lambda o: "directional" if o.prompt and o.style_dir is None else "gram",
        part=PAINTING,
    )
    prompt: str | None = option(
        None,
        "words that say how it is to look, with or in place of a painting (clip alone knows words)",
        check=Check("must be words", lambda text: bool(text.strip())),
        part=PAINTING,
    )
    directional_encoder: str | None = option(
        None,
        "encoder of the directional term, as --semantic's (default: clip with --prompt, else "
        "efficientnet)",
        derive=lambda o: "efficientnet" if o.prompt is None else "clip",
        part=PAINTING,
    )
    features: str = option(
        AUTO_FEATURES,
        "network of the loss; auto: the one in --vgg_weights, else a downloaded VGG, else own",
        choices=(AUTO_FEATURES, *NETWORKS),
        part=STYLISING,
    )
    vgg_weights: Path | None = option(
        None,
        "file of VGG-16 or VGG-19, .pth or .safetensors (default: torchvision's)",
        part=STYLISING,
    )
    stroke_scale: float = option(
        1.0,
        "size of the strokes, relative to that in a painting as large as the views",
        check=STROKES,
        part=STYLISING,
    )
    coarse_share: float = option(
        0.6,
        "share of the steps that see fewer pixels, for large strokes first; 0: none",
        check=SHARE,
        part=PAINTING,
    )
    style_init: str = option(
        "photo",
        "style to start from: the photographic one, or random",
        choices=("photo", "random"),
        part=PAINTING,
    )
    colour_transfer: bool = option(
        True, "first match the scene's colours to the painting's", part=PAINTING
    )
    view_dependent: bool = option(
        False, "styled colours may depend on the viewing direction", part=PAINTING
    )
    cache_gb: float | None = option(
        None,
        "GB of CPU memory for frozen geometry (default: a sixth of the machine's)",
        check=NOT_NEGATIVE,
        part=STYLISING,
    )
    sample_threshold: float | None = option(
        None,
        "drop each ray's faintest samples, up to this share of its weight; 0: keep all (default: "
        "0.01, of stage mutual 0.1)",
        check=SHARE,
        part=STYLISING,
    )


@dataclass(frozen=True, kw_only=True)
class Mutual(Options):
    """mutual learning of a field and a 2D stylisation network"""

    decoder_weights: Path | None = option(
        None,
        "file of the 2D network's decoder (default: the built-in one of --features own)",
        part=TEACHING,
    )
    stylisation: str = option(
        "patches",
        "what the 2D network takes from a painting: patches of its features, or their statistics "
        "alone (AdaIN)",
        choices=("patches", "adain"),
        part=TEACHING,
    )
    consistency_steps: int = option(
        60,
        "first steps, in which the 2D network learns to paint a surface alike in all views",
        check=NOT_NEGATIVE,
        part=TEACHING,
    )
    decoder_step: int | None = option(
        None,
        "the field's step from which it also teaches the 2D network (default: after half)",
        check=NOT_NEGATIVE,
        part=TEACHING,
    )
    decoder_layer: str = option(
        "relu4_1",
        "decoder: layer of the features that it learns to turn back into an image",
        choices=("relu2_1", "relu3_1", "relu4_1"),
        part=DECODING,
    )
    preserve_colour: bool = option(
        False,
        "take the luminance from the painting, and leave the scene its colours",
        part=TEACHING,
    )


@dataclass(frozen=True, kw_only=True)
class Joint(Options):
    """joint training"""

    scenes: tuple[str, ...] = option(
        (),
        "data sets, NAME=FOLDER each; what one has of its own after commas: "
        "NAME=FOLDER,img_wh=200x200,near=2",
        check=Check(
            f"must be NAME=FOLDER, or NAME=FOLDER,OPTION=VALUE,... with {', '.join(OWN)}", is_scene
        ),
        part=PAIRS,
    )
    pairs: tuple[str, ...] = option(
        (),
        "what each data set trains: DATA_SET=ENCODER,DECODER",
        check=Check("must be DATA_SET=ENCODER,DECODER", is_pair),
        part=PAIRS,
    )
    n_features: int = option(
        2,
        "features between encoders and decoders: 2 are a map to look at, 8 give better pictures",
        check=POSITIVE,
        part=PAIRS,
    )
    overlap: str | None = option(
        None,
        "loss that makes the features of encoders overlap where they are to wear each other's "
        "decoders (default: none with 2 features, kl with more)",
        choices=("none", *OVERLAPS),
        derive=lambda o: "none" if o.n_features <= 2 else "kl",
        part=PAIRS,
    )
    overlap_weight: Schedule = option(
        Schedule.constant(1e-3), "its weight", check=SCHEDULE_NOT_NEGATIVE, part=PAIRS
    )
    feature_smoothness: Schedule = option(
        Schedule.constant(3e-3),
        "weight that keeps the features of such encoders alike nearby and from other directions",
        check=SCHEDULE_NOT_NEGATIVE,
        part=PAIRS,
    )
    pattern: tuple[str, ...] = option(
        (), "decoders that also see the place, so that they can make a pattern", part=PAIRS
    )
    place_frequencies: int = option(
        6, "pattern: frequencies of the place", check=POSITIVE, part=PAIRS
    )
    place_dropout: float = option(
        0.3, "pattern: share of the rays that the place is hidden from", check=UNIT, part=PAIRS
    )
    pattern_weight: Schedule = option(
        Schedule.constant(0.1),
        "pattern: weight of the patches of swapped renders against those of the photos",
        check=SCHEDULE_NOT_NEGATIVE,
        part=PAIRS,
    )


# one option for each style term of `losses/registry.py`
TermWeights = make_dataclass(
    "TermWeights",
    [
        (
            f"{name}_weight",
            Schedule | None,
            option(None, term.help, check=SCHEDULE_NOT_NEGATIVE, part=PAINTING),
        )
        for name, term in TERMS.items()
    ],
    bases=(Options,),
    namespace={
        "__doc__": "weights of the style's terms: a number, or STEP:VALUE,STEP:VALUE,... "
        "(default: the objective's)"
    },
    frozen=True,
    kw_only=True,
)


@dataclass(frozen=True, kw_only=True)
class Output(Options):
    """output"""

    rules = (
        Rule(
            "--path_views: names stops of --path interpolate; add that, or leave it out",
            lambda o: o.path_views and o.path != "interpolate",
        ),
    )
    split: str = option(
        "test",
        "photographs to render and to measure against; test_train: the same as train",
        choices=("test", "val", "train", "test_train"),
    )
    path: str = option(
        PATHS[0],
        "render along a camera path instead: circle, spiral, interpolate (through training "
        "views), or a file of nerfstudio's (JSON)",
        check=Check(f"must be one of {', '.join(PATHS)}, or a file that is there", is_path),
    )
    path_views: tuple[str, ...] = option(
        (), "interpolate: training views, by name or number from 0 (default: some all around)"
    )
    n_frames: int | None = option(
        None, "path: number of frames (default: 60, or the file's)", check=FRAMES
    )
    fps: int | None = option(
        None, "frames per second of GIF and MP4 (default: 15, or the file's)", check=POSITIVE
    )
    gif_name: str | None = option(
        None, "name of GIF and MP4 (default: that of their folder)", check=FILE_NAME
    )
    depth_format: tuple[str, ...] = option(
        ("png",), "depth of each frame: 16-bit PNG, PFM, raw", choices=("png", "pfm", "raw")
    )
    gif_only: bool = option(
        False,
        "write two GIFs, of colour and of depth, and nothing else (along a circle unless --path "
        "says otherwise)",
    )
    sigma_scale: float = option(
        0.0,
        "stage mutual: 0 renders a painting's mean, 1 as the nearest training views show it",
        check=NOT_NEGATIVE,
    )
    regions: tuple[str, ...] = option(
        (),
        "other styles in parts of space: NAME=X,Y,Z,X,Y,Z (corners of a box), or NAME=FOLDER with "
        "masks that are white there and named like training views",
    )
    measure: tuple[str, ...] = option(
        (),
        "also measure how consistent renders along a path are, how good painted ones; and, apart, "
        "consistency by refitting and after an older script (docs/measures.md)",
        choices=("consistency", "quality", "refit", "legacy"),
    )


@dataclass(frozen=True, kw_only=True)
class Export(Options):
    """export"""

    rules = (
        Rule(
            "--bounds: each lower corner must be smaller than its upper; "
            "give the lower x y z, then the upper",
            lambda o: (
                o.bounds and any(a >= b for a, b in zip(o.bounds, o.bounds[3:], strict=False))
            ),
        ),
    )
    asset: str = option(MISSING, "what to write", choices=("mesh", "volume", "cameras", "weights"))
    name: str | None = option(
        None,
        "name of the files (default: the checkpoint's)",
        check=FILE_NAME,
        derive=lambda o: o.ckpt_path.stem if o.ckpt_path else o.fine_path and o.fine_path.stem,
    )
    resolution: int = option(256, "mesh, volume: cells along the longest side", check=CELLS)
    bounds: tuple[float, float, float, float, float, float] | None = option(
        None, "mesh, volume: lower x y z and upper x y z (default: around what is occupied)"
    )
    threshold: float | None = option(
        None,
        "mesh: density of the surface, per scene unit (default: from the transmittance)",
        check=POSITIVE,
    )
    fill_hidden: bool = option(True, "mesh: no surface that no camera can see")
    min_part: float = option(
        0.01, "mesh: smallest part, by area; 1: the largest part alone, 0: all", check=UNIT
    )
    colour: str = option(
        "field",
        "mesh: colours that the checkpoint renders, or those of the training photos",
        choices=("field", "photos"),
    )
    axes: str = option(
        "scene",
        "mesh, cameras: the scene's own axes, or turned for programs whose y is up",
        choices=("scene", "y_up"),
    )
    mesh_format: tuple[str, ...] = option(
        ("ply", "obj", "glb"), "mesh: files to write", choices=("ply", "obj", "glb")
    )
    unlit: bool = option(False, "mesh: a GLB material that viewers show without light")
    volume_format: tuple[str, ...] = option(
        ("vol", "npz"), "volume: files to write", choices=("vol", "npz")
    )
    images: bool = option(True, "cameras: with the images that they name")
    half: bool = option(False, "weights: in half precision")


@dataclass(frozen=True, kw_only=True)
class AnalyseOptions(Results, Device):
    """analysis"""

    analysis: str = option(
        MISSING, "what to look at", choices=("material_map", "feature_map", "overlap", "path")
    )
    ckpt_path: Path = option(MISSING, "checkpoint of --stage joint")
    encoders: tuple[str, ...] = option((), "which to look at (default: all)")
    decoders: tuple[str, ...] = option((), "which to look at (default: all)")
    n_points: int = option(16384, "features of each encoder", check=EIGHT)
    seed: int = option(0, "seed of all randomness", check=SEED)


@dataclass(frozen=True, kw_only=True)
class Watch(Page):
    """page"""

    view: bool = option(False, "show the training on a web page (requirements-viewer.txt)")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(
    Joint,
    TermWeights,
    Mutual,
    Style,
    Weights,
    FewViews,
    Optimisation,
    FieldShape,
    Watch,
    Machine,
    Run,
    Data,
):
    """Options of pipeline.py."""

    root_dir: Path | None = option(
        None, "directory of the scene (joint: see --scenes)", derive=_first_folder
    )
    scene_name: str | None = option(
        None,
        "name for outputs (default: that of --root_dir)",
        check=FILE_NAME,
        derive=_scene_name_of,
    )

    @classmethod
    def parts_of(cls, stage: str | None) -> Collection[str] | None:
        return PARTS.get(stage)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage == "joint":
            pairs = checked_pairs(self.scenes, self.pairs)
            known = dict.fromkeys(pair.decoder for pair in pairs)
            for name in self.pattern:
                if name not in known:
                    raise UserError(f"--pattern {name}: no decoder of --pairs: {', '.join(known)}")

    rules = (
        Rule(
            "--root_dir: missing; give --root_dir",
            lambda o: o.root_dir is None and o.stage != "joint",
        ),
        Rule(
            "--root_dir: not used by --stage joint, whose data sets are in --scenes; leave it out",
            lambda o: o.stage == "joint" and "root_dir" in o.given,
        ),
        Rule(
            "--scenes: missing; --stage joint needs data sets, and --pairs what each trains",
            lambda o: o.stage == "joint" and not o.scenes,
        ),
        Rule(
            "--style_dir: missing; this stage needs a painting, or a folder of them; --stage style "
            "may have a --prompt in its place",
            lambda o: (
                o.stage in PAINTED
                and o.style_dir is None
                and (o.prompt is None or o.stage != "style")
            ),
        ),
        Rule(
            "--ckpt_path: missing; this stage needs a trained field: "
            "give --ckpt_path, or --coarse_path and --fine_path",
            lambda o: o.stage in PAINTED and _without_weights(o),
        ),
        Rule(
            "--view: --stage decoder trains no field that could be seen; leave it out",
            lambda o: o.view and o.stage == "decoder",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(Output, Machine, Colours, Results, Weights, Data):
    """Options of eval.py."""

    rules = (
        Rule(NO_WEIGHTS, lambda o: _without_weights(o) and not o.compare),
        Rule(
            "--gif_only: writes no files that --measure or --compare could be about; leave one out",
            lambda o: o.gif_only and (o.measure or o.compare),
        ),
        Rule(
            "--compare: excludes --ckpt_path, --coarse_path and --fine_path; give all checkpoints "
            "to --compare",
            lambda o: o.compare and not _without_weights(o),
        ),
        Rule(
            "--regions: has no single painting that --measure or --compare could be about; leave "
            "one out",
            lambda o: o.regions and (o.measure or o.compare),
        ),
        Rule(
            "--compare: computes in one process; leave out --num_gpus and --num_nodes",
            lambda o: o.compare and o.num_gpus * o.num_nodes > 1,
        ),
    )
    root_dir: Path | None = option(None, "directory of the scene (default: the checkpoint's)")
    compare: tuple[Path, ...] = option(
        (),
        "checkpoints of one scene to measure side by side: one table, and a sheet of their views",
    )

    @property
    def requests(self) -> list[str]:
        parts = super().requests
        if self.regions:
            parts.append(f"regions={'+'.join(map(file_safe, self.regions))}")
        if self.sigma_scale:
            parts.append(f"sigma_scale={self.sigma_scale}")
        return parts


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Export, Device, Colours, Results, Weights, Data):
    """Options of export.py."""

    rules = (Rule(NO_WEIGHTS, _without_weights),)
    root_dir: Path | None = option(None, "directory of the scene (default: the checkpoint's)")


@dataclass(frozen=True, kw_only=True)
class ViewOptions(Page, Arithmetic, Colours, Weights, Data):
    """Options of view.py."""

    rules = (Rule(NO_WEIGHTS, _without_weights),)
    root_dir: Path | None = option(
        None, "directory of the scene, for its photos (default: the checkpoint's)"
    )
    output_dir: Path = option(
        Path("results"), "directory of camera paths, videos and screenshots that the page asks for"
    )


def parse_train(argv: Sequence[str] | None = None) -> TrainOptions:
    """Options of pipeline.py from its arguments (None: those of the process).

    Raises:
        UserError: the first thing that is wrong, in one line.
    """
    usage = f"pipeline.py --stage {'|'.join(STAGES)} --root_dir PATH [options]"
    return parse_options(
        TrainOptions,
        usage,
        "Learn a scene, or a style on it.  With --stage NAME the help shows what that stage reads.",
        argv,
    )


def parse_eval(argv: Sequence[str] | None = None) -> EvalOptions:
    """Options of eval.py from its arguments (None: those of the process).

    Raises:
        UserError: the first thing that is wrong, in one line.
    """
    usage = "eval.py --ckpt_path PATH | --compare PATH PATH ... [options]"
    about = "Render and measure a trained field.  What is not given is taken from the checkpoint."
    return parse_options(EvalOptions, usage, about, argv)


def parse_export(argv: Sequence[str] | None = None) -> ExportOptions:
    """Options of export.py from its arguments (None: those of the process).

    The first may be the asset without its flag: ``export.py mesh --ckpt_path X``.

    Raises:
        UserError: the first thing that is wrong, in one line.
    """
    usage = "export.py mesh|volume|cameras|weights --ckpt_path PATH [options]"
    about = "Write a trained field as files that other programs read."
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and not argv[0].startswith("-"):
        argv = ["--asset", *argv]
    return parse_options(ExportOptions, usage, about, argv)


def parse_view(argv: Sequence[str] | None = None) -> ViewOptions:
    """Options of view.py from its arguments (None: those of the process).

    Raises:
        UserError: the first thing that is wrong, in one line.
    """
    usage = "view.py --ckpt_path PATH [options]"
    about = "Look at a trained field in a browser.  What is not given is the checkpoint's."
    return parse_options(ViewOptions, usage, about, argv)


def parse_analyse(argv: Sequence[str] | None = None) -> AnalyseOptions:
    """Options of analyse.py from its arguments (None: those of the process).

    The first may be the analysis without its flag: ``analyse.py overlap --ckpt_path X``.

    Raises:
        UserError: the first thing that is wrong, in one line.
    """
    usage = "analyse.py material_map|feature_map|overlap|path --ckpt_path PATH [options]"
    about = "Look at the feature space of fields that were trained jointly."
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and not argv[0].startswith("-"):
        argv = ["--analysis", *argv]
    return parse_options(AnalyseOptions, usage, about, argv)
