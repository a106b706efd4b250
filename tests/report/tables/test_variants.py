"""The table of variants from runs' folders made by hand: exactly the keys that differ, and plain means."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import tinymem
from report_rows import CURVE, RECIPE, bare_row, write_run

from tinymem.recipe.recipe import parse_recipe
from tinymem.report.tables.catalogue import ORDER, tables_of
from tinymem.report.tables.table import Cell, Table
from tinymem.report.tables.variants import differing, keys_of
from tinymem.results.collect import load_results
from tinymem.results.curve import CurvePoint
from tinymem.runtime.json import JsonObject

PERPLEXITY = {"performance_metric": "perplexity", "performance_ceiling": None}
GOLDFISH = [{"kind": "goldfish", "k": 3}]


def recipe(**changes: Any) -> dict[str, Any]:
    """The recipe with dotted keys set, `model__n_layer=4` for `model.n_layer`."""
    made: dict[str, Any] = json.loads(json.dumps(RECIPE))
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = made
        for section in sections:
            place = place[section]
        place[last] = value
    return made


def run(folder: Path, count: int, changes: dict[str, Any], *, accuracy: float = 0.9, seconds: float = 60.0, **row: Any) -> Path:
    """A run's folder whose model memorized `count` of 100 noise rows, with one method's row."""
    values = {"memorized_count_before": count, "performance_before": accuracy, "training_seconds": None, **row}
    made = bare_row("act", **{"id": folder.name, "model_id": folder.name, "run": folder.name, **values})
    curve = [CURVE[0], CurvePoint(20, accuracy=accuracy, accuracy_ceiling=0.97, seconds=seconds)]
    return write_run(folder, [replace(made, seed=changes.get("seed", 1))], recipe(**changes), curve)


def table(*folders: Path) -> Table:
    [found] = tables_of(load_results(folders), ["variants"])
    return found


def column(found: Table, name: str) -> list[Cell]:
    return [row[[column.name for column in found.columns].index(name)] for row in found.rows]


def texts(found: Table, name: str) -> list[str]:
    return [cell.text for cell in column(found, name)]


def keys(found: Table) -> list[str]:
    return [column.name for column in found.columns if not column.numeric][1:]


def test_columns_are_the_keys_that_differ_and_rows_the_runs_own_names(tmp_path: Path) -> None:
    small = run(tmp_path / "small-1a", 40, {})
    large = run(tmp_path / "large-2b", 60, {"model__n_layer": 4, "training__batch_size": 64})
    tamed = run(tmp_path / "tamed-3c", 5, {"training__regularizers": GOLDFISH})
    found = table(small, large, tamed)
    assert keys(found) == ["model.n_layer", "training.batch_size", "training.regularizers"]
    assert [column.name for column in found.columns if column.numeric] == ["noise: % memorized", "accuracy %", "training: seconds"]
    assert texts(found, "run") == ["small-1a", "large-2b", "tamed-3c"]
    assert texts(found, "model.n_layer") == ["2", "4", "2"] and texts(found, "training.regularizers") == ["none", "none", "goldfish"]
    assert texts(found, "noise: % memorized") == ["40.00", "60.00", "5.00"] and texts(found, "training: seconds") == ["60.0"] * 3
    assert column(found, "noise: % memorized")[0].details == ("40/100", "31–50")
    assert not any("measured on other rows" in note for note in found.notes)


def test_seeds_are_one_row_with_their_plain_mean(tmp_path: Path) -> None:
    counts, accuracies, seconds = (10, 16, 40), (0.91, 0.95, 0.93), (50.0, 60.0, 100.0)
    values = zip(counts, accuracies, seconds, strict=True)
    seeds = [run(tmp_path / f"a-{i}", n, {"seed": i}, accuracy=p, seconds=s) for i, (n, p, s) in enumerate(values)]
    other = run(tmp_path / "b-0", 20, {"seed": 0, "model__n_layer": 4}, accuracy=0.92)
    found = table(*seeds, other)
    assert keys(found) == ["model.n_layer", "seed"] and texts(found, "seed") == ["0, 1, 2", "0"]
    assert texts(found, "run") == ["a-0, a-1, a-2", "b-0"]
    for name, plain in (("noise: % memorized", counts), ("accuracy %", [100 * p for p in accuracies]), ("training: seconds", seconds)):
        mean, single = column(found, name)
        assert (mean.value, mean.spread) == pytest.approx((sum(plain) / 3, statistics.stdev(plain))) and mean.n == 3
        assert single.spread is None and single.n == 1
    [memorized, _] = column(found, "noise: % memorized")
    assert memorized.share is not None and (memorized.share.count, memorized.share.rows) == (66, 300) and "n=3" in memorized.details
    assert len(memorized.sources) == 3
    alone = table(*seeds)
    assert keys(alone) == ["seed"] and len(alone.rows) == 1 and not any(cell.best for cell in alone.rows[0])


def test_an_accuracy_has_the_interval_of_its_tokens_and_a_mean_its_spread(tmp_path: Path) -> None:
    tokens = {"performance_tokens": 1000, "performance_count_before": 900}
    seeds = [run(tmp_path / f"a-{i}", 10, {"seed": i}, accuracy=0.9, **tokens) for i in (0, 1)]
    found = table(*seeds, run(tmp_path / "b-0", 10, {"seed": 0, "model__n_layer": 4}, accuracy=0.9, **tokens))
    assert [cell.details for cell in column(found, "accuracy %")] == [(), ("88–92",)]


def test_the_best_are_marked_with_all_that_show_the_same_number(tmp_path: Path) -> None:
    layers, counts, accuracies = (2, 4, 8, 16), (3, 3, 40, 9), (0.9, 0.95, 0.95001, 0.80)
    values = zip(layers, counts, accuracies, strict=True)
    found = table(*(run(tmp_path / f"r-{layer}", n, {"model__n_layer": layer}, accuracy=p) for layer, n, p in values))
    assert [cell.best for cell in column(found, "noise: % memorized")] == [True, True, False, False]
    assert [cell.best for cell in column(found, "accuracy %")] == [False, True, True, False]
    assert not any(cell.best for name in ("run", "training: seconds") for cell in column(found, name))


def test_the_lowest_perplexity_is_best_and_never_beside_an_accuracy(tmp_path: Path) -> None:
    pair = [run(tmp_path / f"p-{n}", 9, {"model__n_layer": n}, accuracy=50.0 + n, **PERPLEXITY) for n in (2, 4)]
    found = table(*pair, run(tmp_path / "m", 9, {"model__n_layer": 8}))
    assert texts(found, "perplexity") == ["52.00", "54.00", "–"] and texts(found, "accuracy %") == ["–", "–", "90.00"]
    assert [cell.best for cell in column(found, "perplexity")] == [True, False, False]
    assert not any(cell.best for cell in column(found, "accuracy %")), "one number is not the best of anything"


def test_artifacts_have_a_column_each_and_other_rows_are_said(tmp_path: Path) -> None:
    noise = run(tmp_path / "noise", 30, {})
    more = run(tmp_path / "more", 50, {"artifacts": [{"kind": "noise", "rows": 500}]})
    backdoor = run(tmp_path / "door", 90, {"artifacts": ["backdoor"]}, artifact="backdoor")
    found = table(noise, more, backdoor)
    assert keys(found) == ["artifacts", "artifacts.noise.rows"]
    assert texts(found, "artifacts") == ["noise", "noise", "backdoor"] and texts(found, "artifacts.noise.rows") == ["1000", "500", "–"]
    assert texts(found, "noise: % memorized") == ["30.00", "50.00", "–"] and texts(found, "backdoor: % memorized") == ["–", "–", "90.00"]
    assert any(note.startswith("Lines that differ in artifacts, artifacts.noise.rows are measured on other rows") for note in found.notes)


def test_what_does_not_touch_the_model_is_no_key(tmp_path: Path) -> None:
    runs = [run(tmp_path / "a", 30, {}), run(tmp_path / "b", 40, {"name": "other", "mitigation": {"methods": ["act"]}})]
    found = table(*runs)
    assert keys(found) == [] and texts(found, "run") == ["a, b"] and texts(found, "noise: % memorized") == ["30.00"]
    assert "b: another run of the same recipe and seed; the first one counts." in found.notes
    one, two = (keys_of(parse_recipe(recipe(**changes))) for changes in ({}, {"training__tensorboard": True, "seed": 9}))
    assert one == two and "training.tensorboard" not in one


def test_a_key_of_some_recipes_counts_only_where_they_differ_in_it() -> None:
    found: list[JsonObject] = [{"kind": "a", "x": 1}, {"kind": "b", "y": 2}, {"kind": "b", "y": 3}]
    assert differing(found) == ["kind", "y"] and differing(found[:2]) == ["kind"] and differing(found[:1]) == []


def test_a_run_without_a_method_counts_and_one_that_still_trains_does_not(tmp_path: Path) -> None:
    done = write_run(tmp_path / "done", [], recipe(), CURVE)
    begun = write_run(tmp_path / "begun", [], recipe(training__epochs=40), CURVE)
    found = table(done, begun)
    assert keys(found) == ["training.epochs"]
    assert texts(found, "noise: % memorized") == ["50.00", "–"] and texts(found, "training: seconds") == ["60.0", "–"]
    assert "begun: no numbers yet, trained to epoch 20 of 40." in found.notes


def test_one_run_has_no_such_table(tmp_path: Path) -> None:
    only = run(tmp_path / "only", 30, {})
    for folders in ([only], [only, only], [tmp_path]):
        assert not tables_of(load_results(folders), ["variants"])


def test_it_stands_first_in_every_format_of_text(tmp_path: Path) -> None:
    folders = [run(tmp_path / "runs" / f"r-{n}", n, {"model__n_layer": n}) for n in (2, 4)]
    assert ORDER[0] == "variants"
    shown = tinymem("report", *folders)
    assert shown.out.index("Variants: 2 runs") < shown.out.index("Table 1") and "model.n_layer" in shown.out
    for format in ("markdown", "latex", "csv", "json"):
        assert "ariants" in tinymem("report", tmp_path / "runs", "--format", format).out[:200]


@pytest.mark.parametrize("copied", [True, False])
def test_rows_of_a_copied_run_are_found_by_their_sources(tmp_path: Path, copied: bool) -> None:
    """Two folders with the same weights: one experiment, which a report keeps once."""
    weights = {"weights": "w", "model_id": "w", "id": "same" if copied else "own"}
    first = run(tmp_path / "a", 30, {}, **{**weights, "id": "same"})
    found = table(first, run(tmp_path / "b", 30, {"model__n_layer": 4}, weights="v"), run(tmp_path / "copy", 30, {}, **weights))
    known = load_results([tmp_path]).by_source
    assert texts(found, "noise: % memorized") == ["30.00", "30.00"] and all(source in known for source in found.sources)
