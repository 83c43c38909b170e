"""Damage done to files and to what is in them, as hypothesis strategies."""

import copy
import json
import struct
import time
from contextlib import contextmanager

from hypothesis import strategies as st

from utils.errors import UserError

SLOWEST = 20.0  # seconds that an input may cost
ODD = [
    *(None, True, False, -1, 0, 1, 2, 7, 10**12, 2**63, 10**400, -0.5, 1.5, 1e-320, 1e30, 1e308),
    *(float("nan"), float("inf"), "", "x", " ", ".", "..", "/", "../x", "x\ny", "a\0b", "x" * 5000),
    *("\ud800", "nan", "1e999", "ä", [], [1], [[]], [None], {}, {"a": 1}, [[1, 2], [3]], [{}]),
    *([[0.0] * 4] * 4, [[1e200] * 4] * 3, [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]),
]
NUMBERS = [0, 1, 255, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1]
FLOATS = [float("nan"), float("inf"), -float("inf"), 0.0, 1e-300, 1e300, -1.0]
WORDS = [
    *("", "nan", "inf", "-1", "0", "1e400", "9" * 400, "x", "..", "../../x", "#", "\0", "\x80"),
    *("1 2", "1\n2", "EQUIRECTANGULAR", "OPENCV", "None", "\ud800"),
]


@contextmanager
def one_line_or_fine():
    """What is done within it works, or ends in one line; in a reasonable time."""
    start = time.perf_counter()
    try:
        yield
    except UserError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 10_000
    assert time.perf_counter() - start < SLOWEST


def places(tree, way=()):
    """Every place in nested lists and dicts."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    if isinstance(tree, dict | list):
        for key, value in items:
            yield (*way, key)
            if isinstance(value, dict | list):
                yield from places(value, (*way, key))


@st.composite
def damaged_tree(draw, tree):
    """Plain JSON types with some of them replaced, left out, doubled or moved."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        all_places = list(places(tree))
        if not all_places:
            return draw(st.sampled_from(ODD))
        depth = draw(st.integers(1, max(map(len, all_places))))
        *way, key = draw(st.sampled_from([p for p in all_places if len(p) <= depth]))
        at = tree
        for step in way:
            at = at[step]
        match draw(st.integers(0, 4)):
            case 0:
                del at[key]
            case 1 if isinstance(at, list):
                at.insert(key, copy.deepcopy(at[key]))
            case 2 if isinstance(at[key], int | float):
                factor = draw(st.sampled_from([-1, 0.5, 1e-9, 1e9, 1.001, 1e200]))
                at[key] = at[key] * factor
            case _:
                at[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return tree


@st.composite
def damaged_bytes(draw, data):
    """A file with some of its bytes changed, missing, or too many."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 5)):
            case 0:
                data = data[:at]
            case 1:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 2:
                data[at:at] = draw(st.binary(max_size=9))
            case 3:
                form, values = draw(st.sampled_from([("<Q", NUMBERS), ("<d", FLOATS)]))
                data[at : at + 8] = struct.pack(form, draw(st.sampled_from(values)))
            case 4:
                del data[at : at + draw(st.integers(1, 64))]
            case 5:
                data[at : at + 1] = (
                    bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) if (at < len(data)) else b""
                )
    return bytes(data)


@st.composite
def damaged_words(draw, text):
    """A text with some of its words changed, missing, or too many."""
    lines = [line.split(" ") for line in text.split("\n")]
    for _ in range(draw(st.integers(1, 3))):
        line = draw(st.sampled_from(lines))
        at = draw(st.integers(0, len(line)))
        match draw(st.integers(0, 3)):
            case 0:
                line[at : at + 1] = []
            case 1:
                line[at:] = []
            case 2:
                line.insert(at, draw(st.sampled_from(WORDS)))
            case 3:
                line[at : at + 1] = [draw(st.sampled_from(WORDS))]
    return "\n".join(map(" ".join, lines)).encode(errors="surrogatepass")


def damaged_json(tree):
    """The text of a damaged tree, or damaged text."""
    good = json.dumps(tree)
    trees = damaged_tree(tree).map(lambda t: json.dumps(t).encode())
    nested = st.sampled_from([b"[" * 5000, b'{"a":' * 5000, b'"' + b"\\ud800" * 9 + b'"'])
    return trees | damaged_bytes(good.encode()) | nested
