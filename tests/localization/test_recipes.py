"""Localization recipes: the paper's, short forms, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinymem.errors import UserError
from tinymem.localization.calls import calls_at, parsed_calls
from tinymem.mitigation.method import parse_call
from tinymem.recipe.localization import load_localization, parse_localization

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
FILES = sorted([*PAPER.glob("inj-*.yaml"), *PAPER.glob("del-*.yaml")])


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_papers_recipes_name_each_scorer_once_at_each_ratio(path):
    recipe = load_localization(path)
    assert recipe.name == path.stem and recipe.benchmark == path.stem[:3]
    calls = parsed_calls(recipe)
    for ratio in recipe.wanted_ratios:
        names = [call.name for call in calls_at(calls, ratio)]
        assert sorted(names) == ["act", "hard-concrete", "ig", "random-neurons", "slim", "zero"]


def test_options_may_differ_between_ratios():
    recipe = load_localization(PAPER / "inj-gpt2.yaml")
    penalties = [next(c.config.penalty for c in calls_at(parsed_calls(recipe), r) if c.name == "hard-concrete") for r in (0.01, 0.001)]
    assert penalties == [100, 1000]


def test_defaults_are_the_papers_and_mistakes_are_named():
    inj, dele = parse_localization({"benchmark": "inj"}), parse_localization({"benchmark": "del"})
    assert inj.wanted_ratios == (0.01, 0.001) and dele.wanted_ratios == (0.001, 0.005) and inj.tops == (1, 2, 5)
    for values, words in [
        ({"benchmark": "inj", "ratio": 1}, "ratio"),
        ({"benchmark": "other"}, "inj"),
        ({"benchmark": "inj", "ratios": [2]}, "above 0 and at most 1"),
        ({"benchmark": "inj", "tops": []}, "tops above 0"),
    ]:
        with pytest.raises(UserError, match=words):
            parse_localization(values)
    with pytest.raises(UserError, match=r"score neurons .*got subnet"):
        parsed_calls(parse_localization({"benchmark": "inj", "methods": ["subnet"]}))


def test_a_scorer_that_runs_at_no_ratio_is_refused():
    mixed = {"benchmark": "inj", "methods": ["act", {"slim": {"ratio": 0.02}}, {"zero": {"ratio": [0.05, 0.01]}}]}
    with pytest.raises(UserError, match=r"slim at one of the ratios 0\.01, 0\.001, got ratio 0\.02; leave its ratio out, or name it among"):
        parsed_calls(parse_localization(mixed))
    with pytest.raises(UserError, match=r"zero at one of the ratios 0\.01, 0\.001, got ratio 0\.05"):
        parsed_calls(parse_localization({"benchmark": "inj", "methods": [{"zero": {"ratio": [0.05, 0.01]}}]}))
    for benchmark, options, words in [
        ("del", {"scope": "model"}, "expected act without scope, got scope=model; the benchmark chooses in each layer"),
        ("inj", {"of": "model", "scope": "tensor"}, "expected act without of and scope, got of=model"),
        ("inj", {"skip_bottom": True}, "expected act without skip_bottom in INJ, which injects into every layer"),
    ]:
        with pytest.raises(UserError, match=words):
            parsed_calls(parse_localization({"benchmark": benchmark, "methods": [{"act": options}]}))
    with pytest.raises(UserError, match="expected rows above development, got 5 and 5"):
        parse_localization({"benchmark": "del", "rows": 5, "development": 5})
    skipping = {"benchmark": "del", "methods": [{"slim": {"skip_bottom": True}}]}
    assert parsed_calls(parse_localization(skipping))[0][0].config.skip_bottom
    with pytest.raises(UserError, match="without skip_bottom in DEL with skip_bottom: false"):
        parsed_calls(parse_localization({**skipping, "skip_bottom": False}))
    calls = parsed_calls(parse_localization({**mixed, "ratios": [0.01, 0.02]}))
    assert [[call.name for call in calls_at(calls, ratio)] for ratio in (0.01, 0.02)] == [["act", "zero"], ["act", "slim"]]


@pytest.mark.parametrize("option", ["steps", "ratio"])
@pytest.mark.parametrize("benchmark", ["inj", "del"])
def test_an_option_without_values_is_refused(benchmark, option):
    """Nothing would run; DEL does not ask for development rows first."""
    with pytest.raises(UserError, match=rf"at least one value for option '{option}' of ig, got \[\]; leave it out"):
        parse_localization({"benchmark": benchmark, "methods": ["act", {"ig": {option: [], "rule": ["left", "right"]}}]})


@pytest.mark.parametrize("ratios", [[0.01, 0.02], []])
def test_a_scorer_of_whom_other_options_are_named_for_each_ratio_is_refused(ratios):
    """Nothing would be said of it; with a ratio of its own left it is what runs there."""
    recipe = parse_localization({"benchmark": "inj", "ratios": ratios})
    at = list(recipe.wanted_ratios)
    named = parse_localization({"benchmark": "inj", "ratios": ratios, "methods": ["ig", {"slim": {"epochs": 5}}, {"slim": {"ratio": at}}]})
    runs = ", ".join(f"{ratio:g}" for ratio in at)
    with pytest.raises(UserError, match=f"slim without a ratio to have one of the ratios {runs} left to run at, got slim with each"):
        parsed_calls(named)
    part = {"benchmark": "inj", "ratios": ratios, "methods": [{"slim": {"epochs": 5}}, {"slim": {"ratio": at[0]}}]}
    calls = parsed_calls(parse_localization(part))
    default = parse_call("slim", {}).config.epochs
    assert [[call.config.epochs for call in calls_at(calls, ratio)] for ratio in at] == [[default], [5]]
