"""The comparisons of results: what they choose and how they are written."""

from importlib import import_module

import pytest

from benchmarks import __main__ as command
from benchmarks.experiments import mutual, style_lab
from utils.errors import UserError


@pytest.mark.parametrize("name", command.EXPERIMENTS)
def test_each_has_options_of_its_own(name, capsys):
    with pytest.raises(SystemExit) as ended:
        import_module(f"benchmarks.experiments.{name}").main(["--help"])
    assert ended.value.code == 0
    assert f"python -m benchmarks {name}" in capsys.readouterr().out


def test_variants_without_weights_are_left_out_and_named(capsys):
    options = style_lab.parser().parse_args([])
    found = dict(style_lab.variants_of(options))
    assert "nnfm-own" in found and not any("vgg" in name for name in found)
    assert "gram-vgg19: left out; give --vgg19 FILE" in capsys.readouterr().out
    given = style_lab.parser().parse_args(["--vgg16", "weights.pth", "--only", "nnfm-vgg16"])
    ((name, words),) = style_lab.variants_of(given)
    assert name == "nnfm-vgg16" and words[-1].endswith("weights.pth")
    with pytest.raises(UserError, match="none of these variants"):
        list(style_lab.variants_of(style_lab.parser().parse_args(["--only", "gram-vgg19"])))


def test_arms_are_compared_with_the_first_of_their_scene():
    found = [("a", "one", {"error": 2.0}), ("a", "both", {"error": 1.0})]
    text = mutual.table([*found, ("b", "one", {"error": 5.0})])
    assert "2 (+0 %)" in text and "1 (-50 %)" in text and "5 (+0 %)" in text
