"""Localization by layer with several choices of options: what is paired, what is apart, and what counts once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tinymem.recipe.layers import LayersRecipe
from tinymem.report.tables.layered import models_of
from tinymem.report.tables.layers import layers_tables
from tinymem.results.row import LocalizationRow

ROW = LocalizationRow(
    id="x", method="x", artifact="noise", status="ok", benchmark="layers", unit="layer", model_id="m", model_name="tiny", run="r",
    n_layer=2, sequences=9, device_type="cpu",
)  # fmt: skip


def result(method, one, *weights, model="m", **options):
    """A technique's weights and their center."""
    recipe = LayersRecipe.model_validate(options)
    row = replace(ROW, id=one, method=method, config=recipe.key(method), model_id=model, score_name="weight")
    center = sum((i + 1) * w for i, w in enumerate(weights)) / sum(weights)
    return [*(replace(row, layer=i, score=w) for i, w in enumerate(weights)), replace(row, score_name="center", score=center)]


def runs(epochs, one, *, model="m", **more):
    """Retraining and gradients of one run."""
    options = {"retraining": {"epochs": epochs}, **more}
    return [
        *result("layer-retraining", f"{one}1", 0.1 * epochs, 0.9, model=model, **options),
        *result("forgetting-gradients", f"{one}0", 0.2 * epochs, 0.8, model=model, **options),
    ]


def found(rows):
    return {(model.settings, tuple(sorted({(row.method, row.id) for row in model.rows}))) for model in models_of(rows)}


def pair(one):
    return ("forgetting-gradients", f"{one}0"), ("layer-retraining", f"{one}1")


@pytest.mark.parametrize("ids", [("a", "b"), ("b", "a")])
def test_techniques_are_paired_by_their_options_and_not_by_the_order_of_files(ids):
    first, second = ids
    rows = [*runs(1, first), *reversed(runs(2, second))]
    expected = {("retraining.epochs 1", pair(first)), ("retraining.epochs 2", pair(second))}
    assert found(sorted(rows, key=lambda row: row.id)) == found(rows) == expected
    assert found(runs(1, first)) == {("", pair(first))}


def test_techniques_of_unequal_options_are_not_paired():
    rows = [*runs(1, "a")[:3], *runs(2, "b")[3:]]
    assert found(rows) == {("retraining.epochs 1", (pair("a")[1],)), ("retraining.epochs 2", (pair("b")[0],))}


def test_what_the_options_do_not_concern_is_with_each():
    swapping = result("layer-swapping", "s", 0.5, 0.5)
    rows = [*runs(1, "a"), *swapping, *runs(2, "b")]
    assert found(rows) == {(f"retraining.epochs {n}", (*pair(one), ("layer-swapping", "s"))) for n, one in ((1, "a"), (2, "b"))}
    keys = [table.key for table in layers_tables(rows)]
    assert len(set(keys)) == len(keys)


def test_types_of_weights_devices_and_corpora_are_apart():
    rows = [*runs(1, "a"), *(replace(row, dtype="bfloat16") for row in runs(1, "b"))]
    assert found(rows) == {("weights float32", pair("a")), ("weights bfloat16", pair("b"))}
    rows = [*runs(1, "a"), *(replace(row, device_type="cuda") for row in runs(1, "b"))]
    assert found(rows) == {("device cpu", pair("a")), ("device cuda", pair("b"))}
    rows = [replace(row, corpus_sha256=content) for one, content in (("a", "1111111"), ("b", "2222222")) for row in runs(1, one)]
    assert found(rows) == {("corpus 111111", pair("a")), ("corpus 222222", pair("b"))}


BESIDE = {"counterfactual": None, "start": None, "early": None, "planted": None}


def beside(rows, **names):
    return [replace(row, settings={**BESIDE, **names}) for row in rows]


def test_other_models_to_compare_with_are_apart_by_their_names():
    rows = [*beside(runs(1, "a")), *beside(runs(1, "b"), start="base epoch-000050")]
    assert found(rows) == {("start default", pair("a")), ("start base epoch-000050", pair("b"))}
    rows = [*beside(runs(1, "a"), counterfactual="one"), *beside(runs(1, "b"), counterfactual="other")]
    assert found(rows) == {("counterfactual one", pair("a")), ("counterfactual other", pair("b"))}
    again = [*beside(runs(1, "a")), *beside(runs(1, "b"), start="base"), *beside(runs(1, "c", model="n"))]
    assert {words: len(members) for words, members in found(again)} == {"start default": 2, "start base": 2}
    agreement = [table for table in layers_tables(again) if table.name == "layers-agreement"]
    assert {table.title.partition(": ")[2]: table.rows[0][2].value for table in agreement} == {"start base": 1, "start default": 2}
    same = [*beside(runs(1, "a"), start="base"), *beside(result("layer-retraining", "c", 0.5, 0.5, retraining={"epochs": 1}), start="base")]
    assert {words for words, _ in found(same)} == {"", "run a1", "run c"}, "of one name and other weights: by their ids"


def test_results_of_an_older_version_are_with_those_whose_other_models_are_known():
    old = runs(1, "a")[:3]
    assert found([*old, *beside(runs(1, "a")[3:])]) == {("", pair("a"))}
    rows = [*old, *beside(runs(1, "b")), *beside(runs(1, "c"), start="base")]
    assert found(rows) == {("start unknown", (pair("a")[1],)), ("start default", pair("b")), ("start base", pair("c"))}


def test_results_that_no_option_tells_apart_stand_alone_by_their_ids():
    rows = [*runs(1, "a"), *result("layer-retraining", "c", 0.5, 0.5, retraining={"epochs": 1})]
    assert found(rows) == {("", (pair("a")[0],)), ("run a1", (pair("a")[1],)), ("run c", (("layer-retraining", "c"),))}


def test_agreement_counts_a_model_once():
    rows = [*runs(1, "a"), *runs(2, "b"), *runs(1, "c", model="n"), *runs(1, "d", rows=60)]
    tables = [table for table in layers_tables(rows) if table.name == "layers-agreement"]
    titles = [table.title.removeprefix("Agreement of techniques and of models: ") for table in tables]
    assert titles == ["retraining.epochs 1", "retraining.epochs 2", "rows 60, retraining.epochs 1"]
    assert [[(row[0].text, row[2].value) for row in table.rows] for table in tables] == [
        [("layer-retraining, forgetting-gradients", 2), ("models", 1)],
        [("layer-retraining, forgetting-gradients", 1)],
        [("layer-retraining, forgetting-gradients", 1)],
    ]
    (alone,) = [t for t in layers_tables([*runs(1, "a"), *runs(1, "c", model="n")]) if t.name == "layers-agreement"]
    assert (alone.key, alone.title) == ("layers-agreement", "Agreement of techniques and of models")
