"""Options: one declaration is flag, YAML key and attribute, and every mistake has its line."""

import json
import re
from pathlib import Path

import pytest
import yaml

from opt import EvalOptions, TrainOptions, parse_eval, parse_export, parse_train
from utils.errors import UserError
from utils.options import options_of
from utils.results import results_name

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
GEOMETRY = ["--stage", "geometry", "--root_dir", "data/lego"]
STYLE = ["--stage", "style", "--root_dir", "data/lego", "--style_dir", "art/starry.jpg"]
WEIGHTS = ["--coarse_path", "a.pt", "--fine_path", "b.pt"]


def train(arguments: str, base: list[str] = GEOMETRY) -> TrainOptions:
    return parse_train([*base, *arguments.split()])


def config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def message(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


# -- what is parsed -----------------------------------------------------------------------------


def test_defaults():
    options = train("")
    assert options.root_dir == Path("data/lego")
    assert (options.scene_name, options.prefix, options.suffix) == ("lego", "lego", "geometry")
    assert (options.batch_size, options.lr, options.img_wh) == (1024, None, None)
    assert (options.N_samples, options.N_importance, options.colour_transfer) == (64, 64, True)
    assert options.given == {"stage", "root_dir"}


def test_every_kind_of_value():
    options = train(
        "--img_wh 400 300 --lr 1e-3 --decay_step 10 20 --data_perturb color occ --resume "
        "--no-colour_transfer --max_steps 7 --ckpt_dir out --prefix 007"
    )
    assert options.img_wh == (400, 300)
    assert options.lr == 1e-3
    assert options.decay_step == (10, 20)
    assert options.data_perturb == ("color", "occ")
    assert options.colour_transfer is False
    assert options.resume is True
    assert options.max_steps == 7
    assert options.ckpt_dir == Path("out")
    assert options.prefix == "007"


def test_the_seed_systems_commands():
    command = (
        "--stage style --prefix P --suffix S2 --style_dir a.jpg --style_mode small --coarse_path "
        "ckpts/P_nerf_coarse_S.pt --fine_path ckpts/P_nerf_fine_S.pt --dataset_name blender "
        "--root_dir DIR --img_wh 400 400 --num_epochs_style 1 --lr 1e-3"
    )
    style = parse_train(command.split())
    assert (style.prefix, style.suffix, style.style_mode) == ("P", "S2", "small")
    command = (
        "--dataset_name blender --root_dir DIR --scene_name lego --img_wh 400 400 "
        "--coarse_path A --fine_path B --gif_name G"
    )
    evaluation = parse_eval(command.split())
    assert (evaluation.scene_name, evaluation.gif_name) == ("lego", "G")


def test_names_derived_from_other_options():
    assert parse_train([*STYLE, *WEIGHTS]).suffix == "starry"
    assert parse_eval(["--ckpt_path", "x", "--root_dir", "data/lego/"]).scene_name == "lego"
    assert parse_eval(["--ckpt_path", "x"]).scene_name is None
    assert train("--scene_name tractor").prefix == "tractor"


def test_the_name_of_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "fern").mkdir()
    monkeypatch.chdir(tmp_path / "fern")
    assert parse_train(["--stage", "geometry", "--root_dir", "."]).scene_name == "fern"


def test_yaml_means_what_flags_mean(tmp_path):
    text = """
        stage: geometry
        root_dir: data/lego
        img_wh: [400, 300]
        lr: 1e-3
        decay_step: [10, 20]
        data_perturb: color
        colour_transfer: false
        resume: yes
        suffix: 007
        max_steps: null
    """
    from_yaml = parse_train(["--config", config(tmp_path, text)])
    from_flags = train(
        "--img_wh 400 300 --lr 1e-3 --decay_step 10 20 --data_perturb color --no-colour_transfer "
        "--resume --suffix 007"
    )
    assert from_yaml == from_flags
    assert from_yaml.given == from_flags.given | {"max_steps"}


def test_flags_override_yaml(tmp_path):
    path = config(tmp_path, "batch_size: 8\nlr: 1e-2\nresume: true\ndecay_step: [1, 2]")
    options = train(f"--config {path} --batch_size 9 --no-resume --decay_step 3")
    assert (options.batch_size, options.lr) == (9, 1e-2)
    assert options.resume is False
    assert options.decay_step == (3,)
    assert {"batch_size", "lr", "resume"} <= options.given


def test_an_empty_config_changes_nothing(tmp_path):
    assert train(f"--config {config(tmp_path, '# nothing')}") == train("")


@pytest.mark.parametrize("parse, cls", [(parse_train, TrainOptions), (parse_eval, EvalOptions)])
def test_help_shows_every_option(parse, cls, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, item in options_of(cls).items():
        assert len(re.findall(rf"^  --{name}(, --no-{name})?\s", text, re.MULTILINE)) == 1
        assert " ".join(item.spec.help.split()) in " ".join(text.split())
        for choice in item.spec.choices:
            assert choice in text
    assert "(default: test)" in text or "(default: 1024)" in text


@pytest.mark.parametrize("name, field", [("lego", "nerf"), ("lego_fast", "voxels")])
def test_recipes_need_only_stage_and_directory(name, field):
    options = train(f"--config {CONFIGS / name}.yaml")
    assert (options.field, options.scene_name, options.img_wh) == (field, "lego", (400, 400))
    assert options.batch_size == {"nerf": 1024, "voxels": 4096}[field]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_one(path):
    for stage in ("geometry", "style --style_dir x.png --ckpt_path x.ckpt"):
        words = f"--config {path} --root_dir scene --stage {stage}".split()
        assert parse_train(words).given > {"stage", "field"}


# -- dictionaries -------------------------------------------------------------------------------


def test_dict_round_trip_through_json():
    options = train("--img_wh 4 3 --lr 3e-4 --decay_step 5 --resume --near 0.1 --suffix 007")
    saved = json.loads(json.dumps(options.to_dict()))
    again = TrainOptions.from_dict(saved)
    assert again == options
    assert type(again.img_wh) is tuple
    assert again.given == frozenset()


def test_the_snapshot_of_a_run_is_a_config(tmp_path):
    options = train("--img_wh 4 3 --lr 3e-4 --decay_step 5 --resume --precision 16 --suffix 007")
    path = config(tmp_path, yaml.safe_dump(options.to_dict()))
    assert parse_train(["--config", path]) == options


@pytest.mark.parametrize(
    "saved, words",
    [
        ({"batch_sise": 1}, "saved options: batch_sise: unknown option; did you mean batch_size?"),
        ({"batch_size": "many"}, "batch_size: expected a whole number, got 'many'"),
        ({"batch_size": 1.5}, "batch_size: expected a whole number, got '1.5'"),
        ({"batch_size": True}, "batch_size: expected a whole number, got 'True'"),
        ({"scene_name": "../../etc"}, "scene_name: must be a plain name"),
        ({"img_wh": [1, 2, 3]}, "img_wh: expected 2 values, got 3"),
    ],
)
def test_saved_options_are_not_trusted(saved, words):
    assert words in message(TrainOptions.from_dict, train("").to_dict() | saved)


def test_filled_from_takes_what_the_user_left_open():
    saved = train("--N_samples 8 --img_wh 40 30 --near 1.5 --scene_name tractor").to_dict()
    options = parse_eval(["--ckpt_path", "x", "--img_wh", "80", "60"])
    filled = options.filled_from(saved)
    assert filled.img_wh == (80, 60)
    assert filled.near == 1.5
    assert filled.root_dir == Path("data/lego")
    assert filled.scene_name == "tractor"
    assert filled.given == options.given
    assert options.near is None


def test_filled_from_takes_only_the_named():
    saved = train("--near 1.5 --far 3 --scene_name tractor").to_dict()
    options = parse_eval(["--ckpt_path", "x", "--root_dir", "elsewhere"])
    filled = options.filled_from(saved, ["scene_name"]).filled_from(saved, ["near", "no_such"])
    assert (filled.near, filled.far) == (1.5, None)
    assert filled.root_dir == Path("elsewhere")
    assert filled.scene_name == "tractor"
    assert train("").filled_from(saved, ["scene_name"]).prefix == "tractor"  # derived from it


def test_a_given_name_outlives_filling():
    saved = train("--scene_name tractor").to_dict()
    filled = train("--scene_name digger").filled_from(saved, ["scene_name"])
    assert (filled.scene_name, filled.prefix) == ("digger", "digger")


# -- where results go ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, folder",
    [
        ("--ckpt_path ckpts/lego_wave.ckpt", "lego_wave"),
        ("--ckpt_path ckpts/lego_wave.ckpt --scene_name lego --strength 1", "lego_wave"),
        ("--ckpt_path l.ckpt --style wave", "l/wave"),
        ("--ckpt_path l.ckpt --style wave:0.3 scream:0.7", "l/wave@0.3+scream@0.7"),
        ("--ckpt_path l.ckpt --style wave --strength 0.5", "l/wave,strength=0.5"),
        ("--ckpt_path l.ckpt --strength 0", "l/strength=0.0"),
        ("--ckpt_path l.ckpt --encoder toys --decoder blue", "l/encoder=toys,decoder=blue"),
        ("--ckpt_path l.ckpt --style große_Welle", "l/große_Welle"),
        ("--ckpt_path l.ckpt --style ../..", "l/%2E.%2F.%2E"),
        ("--ckpt_path l.ckpt --style St.Ives. a.:0.5", "l/St.Ives%2E+a.@0.5"),
        ("--ckpt_path ckpts/lego_style_wave/step_300.ckpt", "lego_style_wave_step_300"),
        ("--ckpt_path ckpts/lego_step_300.ckpt", "lego_step_300"),
        ("--coarse_path a.pt --fine_path b.pt --scene_name lego --style wave", "lego/wave"),
    ],
)
def test_the_folder_of_a_checkpoints_results(words, folder):
    for parse, first in ((parse_eval, []), (parse_export, ["mesh"])):
        assert parse([*first, *words.split()]).directory == Path("results") / folder
    line = [*words.split(), "--output_dir", "elsewhere"]
    assert parse_eval(line).directory == Path("elsewhere") / folder


@pytest.mark.parametrize(
    "words, folder",
    [
        ("--regions wave=0,0,0,1,1,1", "l/regions=wave%3D0%2C0%2C0%2C1%2C1%2C1"),
        ("--style a --regions b=masks c=more", "l/a,regions=b%3Dmasks+c%3Dmore"),
        ("--sigma_scale 0", "l"),
        ("--style a --sigma_scale 1", "l/a,sigma_scale=1.0"),
        ("--path spiral --split val --img_wh 8 8", "l"),
    ],
)
def test_the_folder_of_what_eval_alone_can_ask_for(words, folder):
    options = parse_eval(["--ckpt_path", "l.ckpt", *words.split()])
    assert options.directory == Path("results") / folder


def test_an_unfinished_runs_checkpoint_beside_which_one_works(tmp_path, monkeypatch):
    (tmp_path / "lego_style_wave").mkdir()
    monkeypatch.chdir(tmp_path / "lego_style_wave")
    assert results_name(Path("step_300.ckpt")) == "lego_style_wave_step_300"


@pytest.mark.parametrize("name", ["comparison.ckpt", "...ckpt", "..ckpt", "..", "ckpts/...ckpt"])
def test_a_checkpoint_whose_results_would_have_no_folder_of_their_own(name):
    folder = Path(name).stem
    wanted = f"{name}: results would go to a folder '{folder}', which is not its own; rename the "
    for parse, first in ((parse_eval, []), (parse_export, ["mesh"])):
        with pytest.raises(UserError) as error:
            parse([*first, "--ckpt_path", name])
        assert str(error.value) == f"{wanted}checkpoint"


def test_other_requests_have_other_folders():
    """Whatever styles are called: each of these has one name alone, and a plain one."""
    names = ["a", "a:0.5", "a 0.5", "a@0.5", "a+b", "a,b", "a%b", "a%25b", "a=b", "strength=0.5"]
    names += [
        "strength:0.5",
        ".a",
        "%2Ea",
        "a.",
        "a%2E",
        ".",
        "..",
        "a/b",
        "ä",
        "a\u0308",
        "encoder=a",
    ]
    names += ["n" * 300, "n" * 301]
    asked = [["--style", name] for name in names] + [["--encoder", name] for name in names]
    asked += [["--style", "a", "b"], ["--style", "a", "--strength", "0.5"], ["--strength", "0.5"]]
    asked += [["--regions", "a=b"], ["--regions", "a", "b"], ["--style", "regions=a=b"]]
    asked += [["--sigma_scale", "1"], ["--sigma_scale", "0.5"], ["--style", "sigma_scale=1.0"]]
    asked += [["--encoder", "a", "--decoder", "b"], ["--decoder", "a"], ["--style", "b", "a"]]
    found = [parse_eval(["--ckpt_path", "x.ckpt", *words]).asked for words in asked]
    assert len({*found}) == len(found)
    for name in found:
        assert Path(name).name == name and name.strip(".") == name
        assert not set(name) & set('<>:"/\\|?* ')  # which a file system may not take
        assert len(name.encode()) <= 200


# -- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--batch_sise 64", "--batch_sise: unknown option; did you mean --batch_size?"),
        ("--batch-size=64", "--batch-size: unknown option; did you mean --batch_size?"),
        ("-lr 1", "-lr: unknown option; did you mean --lr?"),
        ("--no-resum", "--no-resum: unknown option; did you mean --no-resume?"),
        ("--batch 64", "--batch: unknown option"),
        ("--qqqqqq", "--qqqqqq: unknown option; see --help"),
        ("--resume true", "true: belongs to no option"),
        ("--lr", "--lr: expected one argument"),
        ("--img_wh 400", "--img_wh: expected 2 arguments"),
        ("--batch_size many", "--batch_size: expected a whole number, got 'many'"),
        ("--batch_size 1.5", "--batch_size: expected a whole number, got '1.5'"),
        ("--lr fast", "--lr: expected a number, got 'fast'"),
        ("--lr nan", "--lr: expected a number, got 'nan'"),
        ("--lr inf", "--lr: expected a number, got 'inf'"),
        ("--field voxel", "--field: 'voxel' is not one of nerf, voxels; did you mean voxels?"),
        ("--data_perturb colour", "'colour' is not one of color, occ; did you mean color?"),
        ("--img_wh 0 0", "--img_wh: must be from 1 to 16384, got 0"),
        ("--img_wh 400 -1", "--img_wh: must be from 1 to 16384, got -1"),
        ("--batch_size 0", "--batch_size: must be greater than 0, got 0"),
        ("--lr 0", "--lr: must be greater than 0 and at most 10, got 0.0"),
        ("--N_importance -1", "--N_importance: must be at least 0, got -1"),
        ("--patch_size 7", "--patch_size: must be at least 8, got 7"),
        ("--num_epochs_density 0", "--num_epochs_density: must be greater than 0"),
        (
            "--num_epochs_density 2 --num_steps_density 9",
            "--num_epochs_density, --num_steps_density: each gives the length; give one",
        ),
        ("--num_epochs_style -2", "--num_epochs_style: must be greater than 0"),
        ("--crop_fraction 1.5", "--crop_fraction: must be greater than 0 and at most 1"),
        ("--seed -1", "--seed: must be from 0"),
        ("--decay_step 10 0", "--decay_step: must be greater than 0, got 0"),
        (
            "--prefix a/b",
            "--prefix: must be a plain name, not a path, of at most 200 bytes, got 'a/b'",
        ),
        ("--near 4 --far 2", "--near: must be smaller than --far"),
        ("--near 2 --far 2", "--near: must be smaller than --far"),
        ("--lr_scheduler steplr", "--decay_step: missing"),
        ("--coarse_path a.pt", "--coarse_path, --fine_path: one without the other"),
        ("--fine_path a.pt", "--coarse_path, --fine_path: one without the other"),
        ("--ckpt_path c --coarse_path a --fine_path b", "--ckpt_path: excludes --coarse_path"),
        ("--features own --vgg_weights v.pth", "--vgg_weights: not used with --features own"),
    ],
)
def test_mistakes_on_the_command_line(flags, words):
    assert words in message(train, flags)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--root_dir", "x"], "--stage: missing; give --stage geometry|style"),
        (["--stage", "geometry"], "--root_dir: missing"),
        (["--stage", "style", "--root_dir", "x", *WEIGHTS], "--style_dir: missing"),
        (STYLE, "needs a trained field: give --ckpt_path, or --coarse_path and --fine_path"),
    ],
)
def test_what_a_stage_cannot_do_without(arguments, words):
    assert words in message(parse_train, arguments)


def test_eval_needs_weights():
    assert message(parse_eval, []).startswith("--ckpt_path: missing")
    assert "--batch_size: unknown option" in message(
        parse_eval, ["--ckpt_path", "x", "--batch_size", "3"]
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("batch_sise: 3", "recipe.yaml: batch_sise: unknown option; did you mean batch_size?"),
        ("config: other.yaml", "recipe.yaml: config: unknown option"),
        ("batch_size: many", "recipe.yaml: batch_size: expected a whole number, got 'many'"),
        ("batch_size: [1, 2]", "recipe.yaml: batch_size: expected a whole number"),
        ("batch_size: null", "recipe.yaml: batch_size: expected a whole number"),
        ("resume: maybe", "recipe.yaml: resume: expected true or false, got 'maybe'"),
        ("img_wh: 400", "recipe.yaml: img_wh: expected 2 values, got 1"),
        ("img_wh: [400, 0]", "recipe.yaml: img_wh: must be from 1 to 16384, got 0"),
        ("img_wh: {w: 4, h: 3}", "recipe.yaml: img_wh: expected 2 values"),
        ("prefix: {a: b}", "recipe.yaml: prefix: expected a text"),
        ("field: voxel", "recipe.yaml: field: 'voxel' is not one of nerf, voxels"),
        ("- lr", "recipe.yaml: must be lines of the form"),
        ("just words", "recipe.yaml: must be lines of the form"),
        ("lr: [1", "recipe.yaml: is not YAML"),
        ("lr: 1\nseed: 2\nlr: 2", "recipe.yaml: is not YAML ('lr' is given twice"),
        ("scenes: {a: x, a: y}", "'a' is given twice"),
        ("lr: !!python/object/apply:os.getcwd []", "recipe.yaml: lr: expected a number"),
    ],
)
def test_mistakes_in_yaml_name_file_and_key(text, words, tmp_path):
    assert words in message(train, f"--config {config(tmp_path, text)}")


def test_configs_that_cannot_be_read(tmp_path):
    assert "none.yaml: cannot be read" in message(train, f"--config {tmp_path / 'none.yaml'}")
    assert "cannot be read" in message(train, f"--config {tmp_path}")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00lr")
    assert "is not YAML" in message(train, f"--config {tmp_path / 'binary.yaml'}")


def test_options_made_in_code_are_checked_too():
    with pytest.raises(UserError, match="--batch_size: must be greater than 0"):
        TrainOptions(stage="geometry", root_dir=Path("x"), batch_size=0)
