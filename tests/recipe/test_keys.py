"""`tinymem recipe keys` and `schema`: what they say is what the models do."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, tinymem
from schema_checker import by_rules, problems

from tinymem.errors import UserError
from tinymem.recipe.classification import ClassificationRecipe
from tinymem.recipe.keys import Key, recipe_keys
from tinymem.recipe.kinds import ARTIFACTS, REGULARIZERS
from tinymem.recipe.layers import LayersRecipe
from tinymem.recipe.localization import LocalizationRecipe
from tinymem.recipe.recipe import load_recipe, parse_recipe
from tinymem.recipe.schema import recipe_schema
from tinymem.recipe.source import parse_override, read_values, set_value
from tinymem.recipe.sweep import SweepRecipe, parse_sweep

RUN = [key for key in recipe_keys() if not key.group.startswith(("sweep", "localize"))]
SWEEP = [key for key in recipe_keys() if key.group.startswith("sweep")]
SHIPPED = sorted([*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "tinymem" / "cli" / "templates" / "recipes").glob("*.yaml")])
EXCLUSIVE = {"example-tied-dropout", "mem-sinks"}


def leaves(value: Any, place: str = "") -> Iterator[str]:
    """Dotted names of what a recipe writes out; entries of a list of kinds by their kind."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves(part, f"{place}.{key}".strip("."))
    elif isinstance(value, list) and value and all(isinstance(part, dict) and "kind" in part for part in value):
        for part in value:
            yield from leaves({k: v for k, v in part.items() if k != "kind"}, f"{place}.{part['kind']}")
    else:
        yield place


def whole_recipes() -> Iterator[Any]:
    """Recipes that between them have every key that a recipe of a run can have."""
    for regularizer in EXCLUSIVE:
        kinds = [name for name in REGULARIZERS.names() if name == regularizer or name not in EXCLUSIVE]
        made = {"artifacts": ARTIFACTS.names(), "training": {"regularizers": kinds}, "mitigation": {"robustness": True}}
        yield {**made, "localization": {"benchmark": "inj"}}
    yield {"data": {"kind": "wiki", "source": "x.txt"}}


def test_every_key_is_listed_once() -> None:
    written = {leaf for values in whole_recipes() for leaf in leaves(parse_recipe(values).model_dump(mode="json"))}
    listed = [key.key for key in RUN if key.type != "section" and key.key != "matrix"]
    twice = {key for key in listed if listed.count(key) > 1}
    assert twice == {"data.kind", "data.row_tokens", "data.test_rows"}, "of math and of text"
    assert set(listed) == written | {"artifacts", "training.regularizers"}
    names = {key.key.partition(".")[0] for key in SWEEP}
    assert names == set(SweepRecipe.model_fields)
    roots = {
        "localize": LocalizationRecipe, "localize by layer": LayersRecipe, "localize in classifiers": ClassificationRecipe,
    }  # fmt: skip
    names_of: dict[str, set[str]] = {name: set() for name in roots}
    for key in recipe_keys():
        if (group := key.group.partition(".")[0]) in roots:
            names_of[group].add(key.key.partition(".")[0])
    assert names_of == {name: set(root.model_fields) for name, root in roots.items()}


@pytest.mark.parametrize("key", recipe_keys(), ids=lambda key: f"{key.group} {key.key}")
def test_every_key_says_what_it_means(key: Key) -> None:
    assert key.about.endswith(".") and len(key.about) > 6, "give its field a description"
    assert key.type and key.type in ("section", key.type.strip())


def test_defaults_are_the_models() -> None:
    for values in whole_recipes():
        dumped = parse_recipe(values).model_dump(mode="json")
        for key in RUN:
            node: Any = dumped
            for part in key.key.split("."):
                node = (
                    node.get(part) if isinstance(node, dict) else next((x for x in node if x.get("kind") == part), None) if node else None
                )
            single = key.group.partition(",")[0] not in ("data",) or key.group.endswith(dumped["data"]["kind"])
            plain = key.type != "section" and not key.key.endswith(
                (".methods", ".robustness", "regularizers", "artifacts", "matrix", "localization")
            )
            if plain and single and node is not None and not key.required and key.key != "data.source":
                assert node == key.default, key.key


def base_of(key: Key) -> Any:
    """A recipe in which the key can be set."""
    kind = key.group.partition(": ")[2]
    values: Any = {"data": {"kind": kind}} if key.group.startswith("data") else {}
    values |= {"artifacts": [kind]} if key.group.startswith("artifacts") else {}
    values |= {"localization": {"benchmark": "inj"}} if key.group.startswith("localization") else {}
    values |= {"training": {"regularizers": [kind]}} if key.group.startswith("training.reg") else {}
    return values | ({"data": {"kind": "wiki", "source": "x.txt"}} if kind == "wiki" else {})


BOUNDED = [key for key in RUN if re.search(r"\d", key.range) and "like" not in key.range and "characters" not in key.range]


@pytest.mark.parametrize("key", BOUNDED, ids=lambda key: f"{key.group} {key.name}")
def test_ranges_are_kept(key: Key) -> None:
    """The first number of a range is its lower end."""
    assert len(BOUNDED) > 50
    low, above = float(re.search(r"[0-9]+", key.range)[0]), "above" in key.range  # type: ignore[index]
    wrong: Any = low if above else low - 1
    wrong = int(wrong) if "whole" in key.type else wrong
    values = base_of(key)
    set_value(
        values,
        key.key,
        [wrong] * (2 if " 2 " in key.type else 1) if key.range.startswith("each") and "number or" not in key.type else wrong,
    )
    with pytest.raises(UserError, match=f"{key.name}|2\\^63"):
        parse_recipe(values)


def test_a_part_by_its_name() -> None:
    assert {key.key for key in recipe_keys("goldfish")} == {"training.regularizers.goldfish"} | {
        f"training.regularizers.goldfish.{name}" for name in ("k", "width", "window", "seed")
    }
    assert [key.key for key in recipe_keys("training.epochs")] == ["training.epochs"]
    assert {key.group for key in recipe_keys("sweep")} == {key.group for key in SWEEP}
    assert {key.key for key in recipe_keys("wiki")} > {"data.source", "data.tokenizer"}
    assert "did you mean 'noise'" in tinymem("recipe", "keys", "nosie").one_line_error()
    assert "lists all" in tinymem("recipe", "keys", "xqzw").one_line_error()


def test_a_plugins_kind_is_listed(tmp_path: Path) -> None:
    plugin = tmp_path / "weight_norm.py"
    text = (ROOT / "docs" / "extending.md").read_text()
    plugin.write_text(next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "weight-norm" in block))
    with REGULARIZERS.temporary():
        found = json.loads(tinymem("recipe", "keys", "weight-norm", "--plugin", plugin, "--format", "json").out)
        assert "weight-norm" in tinymem("recipe", "schema", "--plugin", plugin).out
    assert found[1] == {
        "group": "training.regularizers: weight-norm", "key": "training.regularizers.weight-norm.strength", "type": "number",
        "default": 0.001, "required": False, "range": "at least 0", "about": "Factor of half the squared norm.",
    }  # fmt: skip


def test_the_formats() -> None:
    assert len(json.loads(tinymem("recipe", "keys", "--format", "json").out)) == len(recipe_keys())
    rows = list(csv.DictReader(io.StringIO(tinymem("recipe", "keys", "energy", "--format", "csv").out)))
    assert [row["key"] for row in rows] == [key.key for key in recipe_keys("energy")]
    table = tinymem("recipe", "keys", "model").out
    assert re.search(r"n_layer +whole number +4 +at least 1 +Blocks\.", table), table


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert page == tinymem("recipe", "keys", "--format", "markdown").out, "tinymem recipe keys --format markdown > docs/recipes.md"


def test_examples_of_the_page_are_recipes() -> None:
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"), re.DOTALL):
        values = yaml.safe_load(block) or {}
        assert problems(recipe_schema(), values) == []
        parse_recipe({key: value for key, value in values.items() if key != "matrix"})


def as_json(path: Path) -> Any:
    return json.loads(json.dumps(read_values(path)))


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_suit_the_schema(path: Path) -> None:
    values = as_json(path)
    assert problems(recipe_schema("localization" if "benchmark" in values else "sweep" if "methods" in values else "run"), values) == []


SCHEMAS = {"run": recipe_schema(), "sweep": recipe_schema("sweep")}


@pytest.mark.parametrize(("kind", "text", "right"), [
    ("run", "training: {regularizers: [goldfish, {loss-truncation: {drop: 0.1}}, {kind: spectral-norm, strength: 0.1}]}", True),
    ("run", "training: {regularizers: {goldfish: {k: 3}}}", True), ("run", "training: {regularizers: goldfish}", True),
    ("run", "artifacts: [{backdoor: {trigger: 100}}, noise]", True), ("run", "artifacts: {canary: null}", True),
    ("run", "mitigation: {methods: all, robustness: true}", True), ("run", "mitigation: {methods: {act: {ratio: 0.1}}}", True),
    ("run", "evaluation: {metrics: all}", True), ("run", "plugins: mine.py", True), ("run", "data: {row_tokens: 120}", True),
    ("run", "data: {kind: wiki, source: x.txt}", True), ("sweep", "{checkpoints: runs/*, methods: all, search: halving}", True),
    ("sweep", "{models: [a.yaml], methods: [act, {durable: {ratio: [0.1, 0.2]}}]}", True),
    ("run", "training: {epoch: 3}", False), ("run", "training: {epochs: -1}", False), ("run", "training: {regularizers: [gold]}", False),
    ("run", "training: {regularizers: [{goldfish: {kk: 3}}]}", False), ("run", "artifacts: [{kind: noise, rows: 0}]", False),
    ("run", "artifacts: [{kind: noise, copies: [1, 0]}]", False), ("run", "data: {source: x.txt}", False),
    ("run", "data: {kind: wiki, family: additive}", False), ("run", "model: {activation_function: tanh}", False),
    ("sweep", "{checkpoints: runs/*, methods: all, limits: {second: 3}}", False), ("sweep", "{grid: mine, methods: all}", False),
])  # fmt: skip
def test_the_schema_takes_what_recipes_take(kind: str, text: str, right: bool) -> None:
    """And refuses what they refuse, in their own check and in the small checker."""
    values = yaml.safe_load(text)
    assert (problems(SCHEMAS[kind], values) == []) is right, problems(SCHEMAS[kind], values)
    assert (list(by_rules(SCHEMAS[kind], values, SCHEMAS[kind]["$defs"])) == []) is right
    if right and "plugins" not in values:
        (parse_recipe if kind == "run" else parse_sweep)(values)
    elif not right:
        with pytest.raises(UserError):
            (parse_recipe if kind == "run" else parse_sweep)(values)


FORMS = ["[goldfish]", "goldfish", "[{goldfish: {}}]", "[{goldfish: null}]", "{goldfish: {}}", "[{kind: goldfish}]"]


@pytest.mark.parametrize("form", FORMS)
def test_short_forms_are_the_same_recipe(form: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / "quickstart.yaml", [f"training.regularizers={form}"])
    whole = load_recipe(ROOT / "recipes" / "quickstart.yaml", ["training.regularizers=[{kind: goldfish, k: 4}]"])
    assert recipe == whole and recipe.run_id() == whole.run_id()


@pytest.mark.parametrize(("form", "message"), [
    ("[{goldfish: 3}]", "as in `kind: goldfish`"), ("[goldfsh]", "did you mean 'goldfish'"), ("[{goldfish: {kk: 1}}]", "unknown key"),
    ("[goldfish, {goldfish: {}}]", "at most once"), ("3", "training.regularizers"),
])  # fmt: skip
def test_wrong_short_forms(form: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_recipe(ROOT / "recipes" / "quickstart.yaml", [f"training.regularizers={form}"])


def test_options_of_a_bare_name_can_be_set() -> None:
    values: Any = {"training": {"regularizers": ["goldfish"]}, "mitigation": {"methods": ["act", {"durable": None}]}}
    for override in ("training.regularizers.goldfish.k=3", "mitigation.methods.act.ratio=0.2", "mitigation.methods.durable={ratio: 0.3}"):
        set_value(values, *parse_override(override))
    assert values["training"] == {"regularizers": [{"goldfish": {"k": 3}}]}
    assert values["mitigation"]["methods"] == [{"act": {"ratio": 0.2}}, {"durable": {"ratio": 0.3}}]
