"""Command lines and configuration files: options, or one line."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from opt import ExportOptions, TrainOptions, parse_eval, parse_export, parse_train
from tests.fuzz.damage import ODD, WORDS, one_line_or_fine
from utils.options import options_of

NAMES = sorted({*options_of(TrainOptions), *options_of(ExportOptions), "config", "no-resume", "x"})
VALUES = [
    *WORDS,
    *("1", "2", "0.5", "1e-3", "geometry", "style", "joint", "mutual", "voxels", "gram"),
    *("a=b", "a=b,near=2", "a=b,c", "0:1,5:2", "5:1,0:2", "1:", ":", "a:0.5", "=", ",", "--", "-"),
    *("sphere", "/dev/null", "~", "~x/y", "true", "9" * 5000, "\udcff", "é" * 200, "0x10", "1_000"),
]
START = {
    parse_train: ["--stage", "geometry", "--root_dir", "sphere"],
    parse_eval: ["--ckpt_path", "x.ckpt"],
    parse_export: ["mesh", "--ckpt_path", "x.ckpt"],
}
FLAG = st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from(VALUES), max_size=3))
# as a shell or a YAML file could give them
TEXT = st.text(st.characters(exclude_characters="\0"), max_size=20)


def read(parse, words):
    with one_line_or_fine():
        options = parse(words)
        assert type(options).from_dict(json.loads(json.dumps(options.to_dict()))) == options


@given(parse=st.sampled_from(list(START)), flags=st.lists(FLAG, min_size=1, max_size=3))
def test_command_lines(parse, flags):
    words = [word for name, values in flags for word in (f"--{name}", *values)]
    read(parse, [*START[parse], *words])


@given(parse=st.sampled_from(list(START)), words=st.lists(TEXT, max_size=4))
@example(parse=parse_train, words=["\n"])
@example(parse=parse_train, words=["-x\ny"])
def test_words(parse, words):
    if not {"-h", "--help"} & {*words}:
        read(parse, [*START[parse], *words])


def written(value):
    """YAML of a value: JSON is YAML."""
    return json.dumps(value)


SETTINGS = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from(ODD) | st.sampled_from(VALUES), min_size=1, max_size=4
).map(lambda content: written(content).encode())
LINES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)).map(": ".join),
    max_size=4,
).map(lambda lines: "\n".join(lines).encode(errors="surrogatepass"))


@given(content=SETTINGS | LINES | st.binary(max_size=40))
@example(content=b"? [a]\n: b")
@example(content=b"[" * 5000)
@example(content=b"a: &a [*a]")
@example(content=b"--- a\n--- b")
def test_configuration_files(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "recipe.yaml"
    path.write_bytes(content)
    read(parse_train, [*START[parse_train], "--config", str(path)])
