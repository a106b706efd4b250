"""Recipes: overrides, suggestions, and which changes give another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import QUICKSTART, ROOT, TINY

from tinymem.errors import UserError
from tinymem.recipe.recipe import Recipe, dump_recipe, load_recipe, parse_recipe

# Those of sweeps are of another kind; test_sweep_plan.py loads them.
OTHERS = ("sweep-", "unlearning-", "slices", "table", "pythia-", "neox-", "inj-", "del-")
RECIPES = [path for path in sorted((ROOT / "recipes").rglob("*.yaml")) if not path.stem.startswith(OTHERS)]


def tiny(*overrides: str) -> Recipe:
    return load_recipe(QUICKSTART, [*TINY, *overrides])


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        tiny(*overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_our_recipes_load_and_go_round(path: Path) -> None:
    recipe = load_recipe(path)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    assert parse_recipe(recipe.model_dump(mode="json")).run_id() == recipe.run_id()
    assert path.read_text().startswith("#"), "say what the recipe is for"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("artifacts.noise.rows=5", lambda r: r.artifacts[0].rows == 5),
        ("artifacts.0.rows=5", lambda r: r.artifacts[0].rows == 5),
        ("artifacts.backdoor.payload='3'", lambda r: r.artifacts[1].payload == "3"),
        ("artifacts=[{kind: noise}]", lambda r: [a.kind for a in r.artifacts] == ["noise"]),
        ("artifacts.1={kind: backdoor, within: 9}", lambda r: r.artifacts[1].within == 9),
        ("data.auxiliary=[9, 11]", lambda r: r.data.tasks == (7, 9, 11)),
        ("data.auxiliary.0=9", lambda r: r.data.auxiliary[0] == 9),
        ("training.learning_rate=1e-3", lambda r: r.training.learning_rate == 0.001),
        ("model.n_inner=40", lambda r: r.model.n_inner == 40),
        ("training.compile=off", lambda r: r.training.compile is False),
        ("mitigation.robustness=true", lambda r: r.mitigation.robustness is not None),
        ("mitigation.methods=act", lambda r: [m.name for m in r.mitigation.methods] == ["act"]),
        ("mitigation.methods=[]", lambda r: r.mitigation.methods == ()),
        ("mitigation.methods=[act, {durable: {ratio: 0.1}}]", lambda r: r.mitigation.methods[1].options == {"ratio": 0.1}),
        ("mitigation.methods=[{name: act, options: {ratio: 0.2}}]", lambda r: r.mitigation.methods[0].options == {"ratio": 0.2}),
        ("mitigation.forget_fraction=1", lambda r: r.mitigation.forget_fraction == 1.0),
        ("name=other", lambda r: r.name == "other"),
    ],
)
def test_overrides(override: str, value: Any) -> None:
    assert value(tiny(override))
    assert not value(tiny())


def test_later_overrides_win() -> None:
    assert tiny("seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sede=1", "unknown key 'sede'; did you mean 'seed'?"),
        ("data.row_tokns=30", "unknown key 'data.row_tokns'; did you mean 'row_tokens'?"),
        ("model.n_layers=3", "unknown key 'model.n_layers'; did you mean 'n_layer'?"),
        ("training.epoch=3", "unknown key 'training.epoch'; did you mean 'epochs'?"),
        ("evaluation.promt=3", "did you mean 'prompt'?"),
        ("mitigation.forgets=all", "did you mean 'forget'?"),
        ("mitigation.methods=[{name: act, optoins: {}}]", "did you mean 'options'?"),
        ("artifacts.noise.row=3", "did you mean 'rows'?"),
        ("artifacts.backdoor.triger=a", "did you mean 'trigger'?"),
        ("zzz=1", "known: artifacts, counterfactual, data,"),
    ],
)
def test_unknown_keys(override: str, message: str) -> None:
    assert message in refusal(override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.n_layer=two", ("model.n_layer", "integer", "'two'")),
        ("model.n_layer=0", ("model.n_layer", "greater than or equal to 1", "got 0")),
        ("training.learning_rate=-1", ("training.learning_rate", "got -1")),
        ("training.epochs=yes", ("a number for 'epochs'", "got True", "yes, no")),
        ("training.learning_rate=off", ("a number for 'learning_rate'", "got False")),
        ("data.auxiliary=[true, 3]", ("a number for 'auxiliary'", "got True")),
        ("artifacts.noise.rows=true", ("a number for 'rows'", "got True")),
        ("protocol=papr", ("protocol", "'paper' or 'reference'", "'papr'")),
        ("data.kind=mth", ("data.kind", "'math'", "'mth'")),
        ("artifacts.noise.kind=noize", ("'noise'", "'noize'")),
        ("artifacts=[{rows: 3}]", ("kind",)),
        ("artifacts=[{kind: noise}, {kind: noise}]", ("each kind of artifact at most once",)),
        ("artifacts=3", ("artifacts", "got 3")),
        ("data.auxiliary=[2, 7]", ("different tasks", "data.auxiliary")),
        ("data.auxiliary=[2, -3]", ("data.auxiliary.1", "greater than or equal to 1")),
        ("data.size=20", ("data.size above data.test_rows = 20", "lower test_rows")),
        ("evaluation.prompt=20", ("evaluation.prompt + evaluation.match <= data.row_tokens = 30", "got 20 + 12")),
        ("name=a/b", ("name", "'a/b'")),
        ("model=null", ("model", "None")),
        ("artifacts.canary.rows=1", ("no entry 'canary'",)),
        ("artifacts.9.rows=1", ("no entry '9'",)),
        ("seed.x=1", ("'seed' holds a value",)),
        ("seed", ("expected --set key.sub=value, got 'seed'",)),
        ("=1", ("expected --set key.sub=value",)),
        ("model.n_layer=[", ("expected a YAML value",)),
    ],
)
def test_wrong_values(override: str, words: tuple[str, ...]) -> None:
    message = refusal(override)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "overrides", [["mitigation.methods=5"], ["mitigation.methods=null"], ["mitigation.methods=[act]", "mitigation.methods.0.ratio=1"]]
)
def test_wrong_methods(overrides: list[str]) -> None:
    refusal(*overrides)


def test_methods_as_a_mapping() -> None:
    method = tiny("mitigation.methods={act: {ratio: 0.3}, durable: {ratio: 0.2}}").mitigation.methods[0]
    assert method.options == {"ratio": 0.3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "`key: value` lines"),
        ("a: [1\n", r"bad\.yaml: while parsing a flow sequence in line 1, column 4: a: \[1 expected"),
        ("\x00", "expected YAML"),
        ("text", "`key: value` lines"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_recipe(tmp_path / "bad.yaml")
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found none; try one of"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="got the folder"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_does_not_train_the_defaults(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.yaml").write_text(text)
    with pytest.raises(UserError, match="got an empty file"):
        load_recipe(tmp_path / "empty.yaml")
    assert Recipe().data.row_tokens == 150 and Recipe().model.n_layer == 4


def test_a_key_stands_once_in_a_section(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("training:\n  epochs: 3\nmodel: {n_layer: 1}\ntraining:\n  batch_size: 4\n")
    with pytest.raises(UserError, match=r"key 'training' stands twice in one section.*line 4"):
        load_recipe(path)
    path.write_text("training: &base {epochs: 3}\nmodel: {n_layer: 1, n_embd: 8}\n")
    assert load_recipe(path).training.epochs == 3


def test_a_merged_key_may_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "merge.yaml").write_text("artifacts:\n- &noise {kind: noise, rows: 3, copies: 2}\n- {<<: *noise, kind: duplication}\n")
    assert [(a.kind, a.rows) for a in load_recipe(tmp_path / "merge.yaml").artifacts] == [("noise", 3), ("duplication", 3)]


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("key", ["training.learning_rate", "training.weight_decay", "training.energy.cpu_watts"])
def test_numbers_are_finite(key: str, value: str) -> None:
    assert f"recipe key '{key}'" in refusal(f"{key}={value}")


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_seeds_that_generators_do_not_take(seed: str) -> None:
    assert "recipe key 'seed'" in refusal(f"seed={seed}")


def test_heads_must_divide_the_embedding() -> None:
    assert refusal("model.n_embd=63", "model.n_head=2").endswith("got 63 and 2; try n_embd=64")


CHANGES = [
    "seed=1", "protocol=reference", "data.size=121", "data.family=multiplicative", "data.numbers=5", "artifacts.noise.copies=2",
    "artifacts.noise.probability=0.1", "artifacts.backdoor.trigger='99'", "model.n_layer=1", "model.activation_function=gelu",
    "training.epochs=7", "training.learning_rate=1e-3", "training.schedule=constant", "evaluation.prompt=11",
]  # fmt: skip


def test_what_shapes_the_model_changes_the_run() -> None:
    ids = [tiny(change).run_id() for change in CHANGES]
    assert len({tiny().run_id(), *ids}) == 1 + len(ids)


@pytest.mark.parametrize(
    "change", ["mitigation.methods=act", "mitigation.methods=all", "mitigation.forget=noise", "mitigation.forget_fraction=1"]
)
def test_methods_join_the_same_run(change: str) -> None:
    assert tiny(change).run_id() == tiny().run_id()


def test_an_id_depends_on_values_not_on_how_they_are_written(tmp_path: Path) -> None:
    values = yaml.safe_load(dump_recipe(tiny()))
    (tmp_path / "resolved.yaml").write_text(yaml.safe_dump(values, sort_keys=True))
    assert load_recipe(tmp_path / "resolved.yaml").run_id() == tiny().run_id()
    assert tiny("training.learning_rate=0.004").run_id() == tiny("training.learning_rate=4.0e-3").run_id()
    assert tiny("name=other").run_id() == tiny().run_id().replace("quickstart", "other")


def test_measurements_and_resume_points_follow_the_number_of_epochs() -> None:
    """A tenth of it, at most 50 as it was for every run; and the runs of before keep their ids."""
    found = {epochs: parse_recipe({"training": {"epochs": epochs}}).training for epochs in (0, 1, 8, 40, 500, 5000)}
    assert {epochs: training.measured_every for epochs, training in found.items()} == {0: 1, 1: 1, 8: 1, 40: 4, 500: 50, 5000: 50}
    assert all(training.saved_every == training.measured_every for training in found.values())
    assert [epochs for epochs, training in found.items() if training.measured_midway] == [1]
    given = parse_recipe({"training": {"epochs": 8, "evaluate_every": 3, "checkpoint_every": 5}}).training
    assert (given.measured_every, given.saved_every) == (3, 5)
    before = {"epochs": 8, "evaluate_every": 50, "checkpoint_every": 50}
    assert parse_recipe({"training": {"epochs": 8}}).run_id() == parse_recipe({"training": before}).run_id()


def test_a_corpus_is_shared_by_models() -> None:
    assert tiny("model.n_layer=1").corpus_key() == tiny("training.epochs=1").corpus_key() == tiny().corpus_key()
    assert tiny("seed=1").corpus_key() != tiny().corpus_key()
