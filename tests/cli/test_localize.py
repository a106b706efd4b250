"""`tinymem localize` on a shipped checkpoint and on a folder of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tinymem.cli.localize import _recipe
from tinymem.cli.main import app
from tinymem.errors import UserError
from tinymem.mitigation.method import UNLEARNERS
from tinymem.results.localization import read_localization
from tinymem.testing import LENGTH, tiny_model

PLUGIN = """
import torch
from tinymem.mitigation.ablation import AblationConfig, Scores
from tinymem.mitigation.method import Properties, scorer
from tinymem.models.adapters import neuron_layers

@scorer("mine", config=AblationConfig, properties=Properties(unit="neuron", order="zeroth"))
def mine(model, data, config):
    return Scores("neuron", {layer.weight_name: torch.arange(layer.neurons).float() for layer in neuron_layers(model)})
"""
ZOO = Path(__file__).parents[2] / "zoo" / "math-add-noise-2l-s0"


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.mark.slow
def test_inj_finds_more_than_chance_goes_on_and_is_reported(tmp_path):
    out = tmp_path / "inj"
    command = ["localize", "inj", ZOO, "--out", out, "--methods", "act,random-neurons", "--set", "sequences={count: 4, tokens: 16}"]
    printed = call(*command, "--set", "ratios=[0.02]", "--set", "steps=40")
    rows = read_localization(out)
    assert len(rows) == 12 and {row.method for row in rows} == {"act", "random-neurons"}
    by = {(row.method, row.scope, row.top): row for row in rows}
    act, chance = by["act", "layer", 0.02], by["random-neurons", "layer", 0.02]
    assert act.score > 0.2 > chance.score and act.sequences == 4 and act.low <= act.score <= act.high
    assert act.chance == pytest.approx(0.02, abs=0.002) and act.model_name == "additive-3000-noise-2L"
    assert f"{100 * act.score:.1f}" in printed and "INJ: 2 % injected" in printed
    stamps = {path: path.stat().st_mtime_ns for path in (out / "localization").iterdir()}
    assert call(*command, "--set", "ratios=[0.02]", "--set", "steps=40") == printed
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / "localization").iterdir()}, "nothing is made again"
    table = json.loads(call("report", out, "--tables", "inj", "--format", "json"))
    assert "act" in json.dumps(table)


@pytest.mark.slow
def test_inj_runs_every_combination_of_options(tmp_path):
    methods = "methods=[random-neurons, {slim: {penalty: [1, 100], epochs: [1, 2]}}]"
    sizes = ("--set", "sequences={count: 2, tokens: 8}", "--set", "ratios=[0.02]", "--set", "steps=2", "--set", methods)
    call("localize", "inj", ZOO, "--out", tmp_path, *sizes)
    rows = [row for row in read_localization(tmp_path) if row.method == "slim"]
    assert {(row.config["penalty"], row.config["epochs"], row.sequences) for row in rows} == {(p, e, 2) for p in (1, 100) for e in (1, 2)}
    assert {row.artifact for row in rows} == {"sequences"}


@pytest.mark.slow
def test_a_scorer_that_fails_is_named_after_the_others_have_run(tmp_path):
    model = tiny_model("gpt2")
    model.save_pretrained(tmp_path / "model")
    plugin = PLUGIN.replace('"mine"', '"luckless"').replace("    return", "    raise ValueError('no luck')\n    return")
    (tmp_path / "mine.py").write_text(plugin)
    (tmp_path / "rows.jsonl").write_text("[2, 3, 4, 5]\n[5, 6, 7]")
    quick = ("--sequences", tmp_path / "rows.jsonl", "--set", "ratios=[0.1, 0.2]", "--set", "steps=1", "--plugin", tmp_path / "mine.py")
    words = r"^luckless failed: ValueError: no luck \(mine.py, line 9\); what others found is kept: tinymem report"
    with UNLEARNERS.temporary(), pytest.raises(UserError, match=words):
        call("localize", "inj", tmp_path / "model", "--out", tmp_path / "out", "--methods", "luckless,act", *quick)
    assert {(row.method, row.ratio) for row in read_localization(tmp_path / "out")} == {("act", 0.1), ("act", 0.2)}


@pytest.mark.thorough
def test_del_erases_more_of_the_row_than_of_others(tmp_path):
    printed = call(
        "localize", "del", ZOO, "--out", tmp_path / "del", "--methods", "ig,random-neurons",
        "--set", "ratios=[0.05]", "--set", "rows=6", "--set", "text=8", "--set", "skip_bottom=false",
    )  # fmt: skip
    by = {(row.method, row.score_name): row for row in read_localization(tmp_path / "del")}
    own, other = by["ig", "self_accuracy"], by["ig", "other_accuracy"]
    assert own.score < other.score < 0 and own.before > 0.9 and own.sequences == 6
    assert by["random-neurons", "self_accuracy"].score > own.score and "DEL: 5 % dropped" in printed


@pytest.mark.slow
def test_rows_and_sequences_from_files_on_a_model_of_another_family(tmp_path):
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "model")
    rows = "\n".join(json.dumps([2 + (3 * i + j) % 14 for j in range(12)]) for i in range(5))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "text.jsonl").write_text(json.dumps([5, 2, 9, 3, 12, 7, 7, 4]))
    files = ["--forget", tmp_path / "rows.jsonl", "--retain", tmp_path / "text.jsonl", "--prompt", "4", "--match", "8"]
    quick = ["--set", "ratios=[0.1]", "--methods", "act"]
    call("localize", "inj", tmp_path / "model", "--out", tmp_path / "a", "--sequences", tmp_path / "rows.jsonl", *quick, "--set", "steps=3")
    row = read_localization(tmp_path / "a")[0]
    assert row.sequences == 5 and row.reached == 0 and row.steps == 3
    printed = call(
        "localize", "inj", tmp_path / "model", "--out", tmp_path / "w", "--unit", "weight", "--set", "ratios=[0.1]", "--set", "steps=3",
        "--sequences", tmp_path / "rows.jsonl", "--methods", "durable,random-weights", "--json",
    )  # fmt: skip
    weights = [row for row in json.loads(printed) if row["method"] == "random-weights"]
    assert [(row["scope"], row["top"]) for row in weights] == [(s, t) for s in ("tensor", "model") for t in (0.1, 0.2, 0.5)]
    assert all(row["unit"] == "weight" and len(row["values"]) == 5 and row["chance"] == pytest.approx(row["top"], 0.01) for row in weights)
    assert "INJ of weights: 10 % injected" in call("report", tmp_path / "w", "--tables", "inj")
    (tmp_path / "far.jsonl").write_text("[2, 3, 4]\n[2, 300, 4]")
    with pytest.raises(UserError, match=r"expected token ids from 0 to \d+ in line 2 of .*far.jsonl, got 300"):
        call("localize", "inj", tmp_path / "model", "--out", tmp_path / "f", "--sequences", tmp_path / "far.jsonl", *quick)
    with pytest.raises(UserError, match=r"at least 2 memorized rows \(suffix accuracy above 0.9\), got 0 of 5"):
        call("localize", "del", tmp_path / "model", "--out", tmp_path / "b", *files, *quick)
    assert not (tmp_path / "b").exists() or not any((tmp_path / "b").iterdir())
    call("localize", "del", tmp_path / "model", "--out", tmp_path / "b", *files, *quick, "--set", "accuracy=0")
    more = "\n".join(json.dumps([2 + (3 * i + j * j) % 14 for j in range(12)]) for i in range(14))
    (tmp_path / "more.jsonl").write_text(more)
    tune = "methods=[{slim: {penalty: [0.1, 100], epochs: 3}}]"
    call(
        "localize", "del", tmp_path / "model", "--out", tmp_path / "c", "--forget", tmp_path / "more.jsonl", *files[2:],
        "--set", "ratios=[0.1]", "--set", "accuracy=0", "--set", "development=2", "--set", tune,
    )  # fmt: skip
    found = [row for row in read_localization(tmp_path / "c") if row.score_name == "self_accuracy"]
    tried = {row.config["penalty"]: row for row in found if row.artifact == "development"}
    (chosen,) = [row for row in found if row.artifact == "sequences"]
    assert set(tried) == {0.1, 100} and all(row.sequences == 2 for row in tried.values())
    assert tried[chosen.config["penalty"]].score == min(row.score for row in tried.values())
    rows = chosen.confusion["rows"]
    assert set(rows) == {"row"} and chosen.sequences == len(rows) - 2 == len(chosen.confusion["changes"]) == len(chosen.values) >= 2
    assert "Options tried on development rows" in call("report", tmp_path / "c", "--tables", "tuning")
    assert "development" not in call("report", tmp_path / "c", "--tables", "del")


@pytest.mark.slow
def test_rows_of_other_categories_are_asked_again_and_no_others(tmp_path):
    model = tiny_model("gpt2").eval()
    model.save_pretrained(tmp_path / "model")
    ids = torch.tensor([[2, 3, 4, 5], [5, 7, 9, 11], [3, 8, 4, 6]])
    for _ in range(8):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)

    def done(*categories):
        lines = [{"ids": row, "category": name} for row, name in zip(ids.tolist(), categories, strict=True)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
        files = ["--forget", tmp_path / "rows.jsonl", "--prompt", "4", "--match", "8"]
        quick = ["--set", "ratios=[0.1]", "--set", "text=0", "--methods", "act,random-neurons"]
        call("localize", "del", tmp_path / "model", "--out", tmp_path / "out", *files, *quick)
        rows = read_localization(tmp_path / "out")
        matrices = {row.method: row.confusion for row in rows if row.confusion}
        assert set(matrices) == {"act", "random-neurons"}
        stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "localization").iterdir()}
        return matrices["act"], [(row.id, row.score_name, row.score) for row in rows], stamps

    first, numbers, stamps = done("a", "b", "a")
    assert done("a", "b", "a") == (first, numbers, stamps) and first["rows"] == ["a", "a", "b"]
    second, again, newer = done("b", "a", "a")
    assert again == numbers and newer.keys() == stamps.keys() and all(newer[name] > stamps[name] for name in stamps)
    place, now = [0, 2, 1], [1, 2, 0]
    for i in range(3):
        for j in range(3):
            assert second["changes"][now.index(i)][now.index(j)] == first["changes"][place.index(i)][place.index(j)]


@pytest.mark.thorough
def test_mistakes_are_named_before_anything_is_loaded(tmp_path):
    for arguments, words in [
        (["inj", ZOO, "--methods", "durable"], "score neurons"),
        (["inj", ZOO, "--set", "ratios=[0.0001]"], "at least one neuron a layer"),
        (["inj", ZOO, "--unit", "weight", "--set", "ratios=[0.00001]"], "at least one weight a matrix"),
        (["inj", ZOO, "--unit", "weight", "--methods", "act"], "rank weights"),
        (["inj", ZOO, "--set", "scopes=[tensor]"], "expected scopes of layer or model"),
        (["del", ZOO, "--set", "unit=weight"], "expected unit: neuron of DEL"),
        (["inj", ZOO, "--recipe", ZOO.parents[1] / "recipes" / "paper" / "del-gpt2-xl.yaml"], "expected a recipe of inj, got del"),
        (["inj", tmp_path / "none"], "expected a checkpoint folder"),
    ]:
        with pytest.raises(UserError, match=words):
            call("localize", *arguments, "--out", tmp_path / "out")
        assert not list(tmp_path.glob("out/localization/*"))


@pytest.mark.slow
def test_sequences_that_the_model_has_no_positions_for(tmp_path):
    """The default length is cut to the positions, which is said; a chosen one is refused, and of a rotary model warned about."""
    for family in ("opt", "llama"):
        tiny_model(family).save_pretrained(tmp_path / family)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps([2 + (3 * i + j) % 14 for j in range(40)]) for i in range(2)))
    quick = ["--set", "ratios=[0.1]", "--set", "steps=1", "--methods", "random-neurons", "--set", "sequences.count=2"]
    for number, file in enumerate(([], ["--sequences", tmp_path / "rows.jsonl"])):
        command = ["localize", "inj", tmp_path / "opt", *quick, *file]
        longest = 40 if file else 32
        said = f"at most {LENGTH} tokens, which are all of the model's positions, and not of {longest}"
        assert said in call(*command, "--out", tmp_path / f"a{number}")
        assert read_localization(tmp_path / f"a{number}")[0].sequences == 2
        with pytest.raises(UserError, match=f"rows of at most {LENGTH} tokens .*, got {longest}; lower sequences.tokens"):
            call(*command, "--out", tmp_path / "b", "--set", "sequences.tokens=32")
        assert not (tmp_path / "b" / "localization").exists()
        fits = call(*command, "--out", tmp_path / f"c{number}", "--set", f"sequences.tokens={LENGTH // 4}")
        assert "positions" not in fits and len(read_localization(tmp_path / f"c{number}"))
    with pytest.warns(UserWarning, match="got 32: .*; lower sequences.tokens"):
        call("localize", "inj", tmp_path / "llama", *quick, "--out", tmp_path / "d", "--set", "sequences.tokens=32")


def test_a_scorer_that_is_named_keeps_the_recipes_options():
    """At each of its ratios; one that the recipe has not runs at its defaults."""
    made = _recipe("inj", ZOO.parents[1] / "recipes" / "paper" / "inj-gpt2.yaml", None, "act,hard-concrete,nemo", None, {})
    options = {(method.name, method.options.get("ratio")): method.options for method in made.methods}
    assert list(options) == [("act", None), ("hard-concrete", 0.01), ("hard-concrete", 0.001), ("nemo", None)]
    assert options["act", None] == {"mode": "abs_mean"} and options["hard-concrete", 0.01]["penalty"] == 100 and not options["nemo", None]


@pytest.mark.slow
def test_what_decides_a_result_decides_its_id(tmp_path):
    """Other drawn neurons, another type of the weights, a scorer's file that was changed: nothing stored is taken for them."""
    tiny_model("llama").save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps([2 + (3 * i + j) % 14 for j in range(12)]) for i in range(5)))
    out = tmp_path / "out"
    command = ["localize", "inj", tmp_path / "model", "--out", out, "--sequences", tmp_path / "rows.jsonl"]
    quick = ["--set", "ratios=[0.1]", "--set", "steps=3"]

    def ids():
        return {row.id for row in read_localization(out)}

    call(*command, *quick, "--methods", "act")
    call(*command, *quick, "--methods", "act")
    assert len(ids()) == 1
    call(*command, *quick, "--methods", "act", "--set", "sequences.seed=1")
    assert len(ids()) == 2
    call(*command, *quick, "--methods", "act", "--dtype", "bf16")
    assert len(ids()) == 3
    for last in ("", "\n# changed\n"):
        (tmp_path / "mine.py").write_text(PLUGIN + last)
        seen = len(ids())
        with UNLEARNERS.temporary():
            call(*command, *quick, "--methods", "mine", "--plugin", tmp_path / "mine.py")
        assert len(ids()) == seen + 1
