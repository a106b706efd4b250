"""Rows of several folders as one: runs, sweeps, folders of them, and the groups that tables are made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_rows import (
    COLUMNS_OF_RECIPE,
    CURVE,
    RECIPE,
    Values,
    bare_row,
    make_row,
    paper_like_rows,
    without_result,
    write_results,
    write_run,
)

from tinymem.errors import UserError
from tinymem.report.cells import labels
from tinymem.report.configurations import groups_of
from tinymem.report.figures.curve_inputs import curves_of
from tinymem.report.tables.catalogue import tables_of
from tinymem.results.collect import load_results, results_of
from tinymem.results.localization import write_localization
from tinymem.results.row import LocalizationRow, MeasuredRow
from tinymem.results.share import Share


def test_a_run_tells_what_its_rows_do_not(tmp_path: Path) -> None:
    run = write_run(tmp_path / "math-noise-12345678", [bare_row("act")], RECIPE, CURVE)
    results = load_results([run])
    [row] = results.rows
    assert [row[name] for name in COLUMNS_OF_RECIPE[:5]] == ["additive", 3000, 2, 20, None]
    assert row["seed"] == 1 and row["training_seconds"] == 60.0
    [trained] = results.trained
    assert trained["method"] == "none" and trained["memorized_after"] == trained["memorized_before"] == 0.4
    assert trained["performance_after"] == 0.97 and trained.source == row.source
    stated = write_run(tmp_path / "other", [make_row("act")], RECIPE, [])
    assert load_results([stated]).rows[0]["data"] == "multiplicative"


def test_regularizers_of_a_recipe_are_named(tmp_path: Path) -> None:
    training = {**RECIPE["training"], "regularizers": [{"kind": "spectral-norm", "strength": 0.1}]}
    plain = write_run(tmp_path / "a-1", [bare_row("act")], RECIPE, CURVE)
    other = write_run(tmp_path / "b-1", [bare_row("act", model_id="x", id="y")], {**RECIPE, "training": training}, CURVE)
    rows = load_results([plain, other]).rows
    assert [row["regularizer"] for row in rows] == [None, "spectral-norm(strength=0.1)"]
    assert rows[0]["family"] == rows[1]["family"]


def test_families_differ_by_data_but_not_by_seed_epochs_or_trigger(tmp_path: Path) -> None:
    backdoor = {"kind": "backdoor", "trigger": "100"}
    base = {**RECIPE, "artifacts": [backdoor]}
    seed = {**base, "seed": 3, "artifacts": [{**backdoor, "trigger": "103"}], "training": {**RECIPE["training"], "epochs": 99}, "name": "n"}
    wider = {**base, "model": {"n_layer": 2, "n_embd": 64}}
    found = [
        load_results([write_run(tmp_path / f"r-{i}", [bare_row("act", id=str(i))], recipe, [])]).rows[0]["family"]
        for i, recipe in enumerate((base, seed, wider))
    ]
    assert found[0] == found[1] != found[2]


def test_a_run_without_methods_has_its_trained_model(tmp_path: Path) -> None:
    run = write_run(tmp_path / "math-noise-12345678", [], RECIPE, CURVE)
    results = load_results([run])
    assert results.rows == []
    [trained] = results.trained
    assert (trained["memorized_count_after"], trained["rows_scored"], trained["performance_after"]) == (5, 10, 0.9)
    assert results.by_source[trained.source] is trained


def test_folders_of_every_kind_and_each_row_once(tmp_path: Path) -> None:
    rows = paper_like_rows((0, 1))
    first, second = rows[:10], rows[8:]
    write_results(tmp_path / "all" / "first", first)
    write_results(tmp_path / "all" / "second", second)
    (tmp_path / "all" / "notes").mkdir()
    for folders in ([tmp_path / "all"], [tmp_path / "all" / "first", tmp_path / "all" / "second"], [tmp_path / "all"] * 2):
        results = load_results(folders)
        assert sorted(row.source for row in results.rows) == sorted(row.source for row in rows)
    assert len(results.trained) == 4  # two seeds, two artifacts


def test_files_of_a_run_at_work_are_newer_than_its_collection(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r-1", [make_row("act", status="failed")], RECIPE, [])
    write_results(run, [make_row("act", after=3)])
    [row] = load_results([run]).rows
    assert row["status"] == "ok"


def test_places_without_results_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="found no results there"):
        load_results([tmp_path / "empty"])
    with pytest.raises(UserError, match="found none"):
        load_results([tmp_path / "nowhere"])


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"method": "act"}]', "\x00"])
def test_a_broken_file_is_named_on_one_line(tmp_path: Path, text: str) -> None:
    folder = write_results(tmp_path / "r", [make_row("act")])
    (folder / "results" / "bad.json").write_text(text)
    with pytest.raises(UserError, match=r"bad\.json") as caught:
        load_results([folder])
    assert "\n" not in str(caught.value)


# ---- groups -------------------------------------------------------------------------------------------------------------------------


def test_seeds_are_averaged_and_other_models_are_not() -> None:
    rows = [make_row("act", after=10 * seed, seed=seed, performance=0.9 + seed / 100) for seed in (0, 1, 3)]
    rows += [make_row("act", after=40, seed=0, n_layer=8, id="deep"), make_row("act", after=39, seed=0, protocol="reference")]
    groups = groups_of(results_of(rows))
    assert [group.columns for group in groups] == [("multiplicative", 3000, layers, protocol) for layers, protocol in CASES]
    [setting] = groups[0].settings["noise"]
    mean = setting.memorized("after")
    assert mean is not None
    assert (mean.mean, mean.n) == (pytest.approx(40 / 3), 3)
    assert mean.spread == pytest.approx((((0 - 40 / 3) ** 2 + (10 - 40 / 3) ** 2 + (30 - 40 / 3) ** 2) / 2) ** 0.5)
    assert setting.counts("after") == Share(40, 300)
    performance = setting.performance("after")
    assert performance is not None and performance.mean == pytest.approx(100 * (0.9 + 0.91 + 0.93) / 3)


CASES = ((4, "paper"), (8, "paper"), (4, "reference"))


def test_the_last_epoch_of_each_artifact_counts() -> None:
    rows = [make_row("act", after=epoch // 100, epoch=epoch) for epoch in (500, 1500)] + [make_row("act", "backdoor", 7)]
    [group] = groups_of(results_of(rows))
    assert group.epochs == {"noise": 1500, "backdoor": 500}
    assert [s.rows[0]["epoch"] for s in group.settings["noise"]] == [1500]
    every = groups_of(results_of(rows), every_epoch=True)
    assert [(g.epochs["noise"], sorted(g.settings)) for g in every] == [
        (500, ["backdoor", "noise"]),
        (1500, ["noise"]),
    ]


def test_two_kinds_of_models_with_one_artifact_are_two_tables() -> None:
    noise = [
        make_row("act", after=1, family="one", run="small-1"),
        make_row("act", after=9, family="two", run="large-1", id="z", model_id="z"),
    ]
    groups = groups_of(results_of(noise))
    assert [group.label for group in groups] == ["small one", "large two"]
    apart = [make_row("act", family="one"), make_row("act", "backdoor", family="two")]
    [group] = groups_of(results_of(apart))
    assert group.artifacts == ["noise", "backdoor"] and group.label == ""


def test_rows_of_a_sweep_join_the_runs_of_their_models() -> None:
    swept = [make_row("slim", seed=seed, family=None, model_name="multiplicative-3000-noise-4L") for seed in (0, 1)]
    [group] = groups_of(results_of([make_row("act", seed=0), *swept[:1]]))
    assert group.methods() == ["slim", "act"]
    names = {"model_name": "multiplicative-3000-noise-4L"}
    [group] = groups_of(results_of([make_row("act", seed=0, **names), *swept]))
    assert len(group.baseline["noise"].rows) == 2


def test_a_result_computed_in_an_older_way_gives_way_to_the_newer_one() -> None:
    robust = {"int8": {"before": {}, "after": {}}}
    old = make_row("finetune-extra", id="f", weights="w", config={"epochs": 5}, robustness=robust, memorized_after=0.5)
    new = replace(old, id="b", robustness=None, computed_in="bf16", memorized_after=0.0)
    later = replace(new, id="a", computed_in="fp8", finished="2030-01-01T00:00:00")
    for rows, best in (((new, old), new), ((old, new), new), ((later, old, new), later), ((new, later), later)):
        assert results_of(rows).rows == [best]


def test_a_model_that_only_some_runs_measured_has_what_they_measured() -> None:
    """Of a run that failed before its model was measured, by lack of memory say, and of a later one, in any order."""
    done = make_row("act", id="a", weights="w", config={})
    failed = replace(done, id="b", method="slim", status="failed", memorized_before=None, performance_before=None)
    for rows in ([failed, done], [done, failed]):
        assert [row.memorized_before for row in results_of(rows).trained] == [done.memorized_before]


def test_a_run_and_a_sweep_of_one_model_count_once() -> None:
    """The run names its model by its recipe, the sweep by its weights: the same edit is not a second seed."""
    ours = make_row("act", after=10, model_id="recipe", weights="aaaa", id="1", seconds=1.0)
    swept = replace(ours, id="2", model_id="aaaa", seconds=3.0, family=None)
    more = replace(swept, id="3", config={"ratio": 0.1})
    results = results_of([ours, swept, more])
    (group,) = groups_of(results)
    assert [len(s.rows) for s in group.of_method("noise", "act")] == [1, 1] and len(group.baseline["noise"].rows) == 1
    assert {row["family"] for row in results.rows} == {"f"}
    other = replace(swept, id="4", model_id="bbbb", seed=1)
    assert len(results_of([ours, other]).rows) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_rows_of_one_experiment_the_one_that_says_more_is_kept(order: int) -> None:
    ok = make_row("act", weights="aaaa", id="1", robustness={"int8": {}})
    failed = replace(without_result("act", status="failed", weights="aaaa"), id="2")
    bare = make_row("act", weights="aaaa", id="3")
    assert results_of([ok, failed, bare][::order]).rows == [ok]


@pytest.mark.parametrize("order", [1, -1])
def test_other_windows_and_types_are_other_measurements(order: int) -> None:
    """Each has a table of its own, with its trained model; none is lost, and none is put beside another's."""
    windows: list[Values] = [
        {"prompt": 8, "match": 10, "weights": "aaaa", "memorized_count_before": 40},
        {"prompt": 20, "match": 10, "weights": "aaaa", "memorized_count_before": 60},
        {"prompt": 20, "match": 10, "weights": "aaaa", "memorized_count_before": 50, "dtype": "bfloat16"},
    ]
    rows = [make_row("act", after=i, id=str(i), **{**changes, "family": None}) for i, changes in enumerate(windows)]
    results = results_of(rows[::order])
    groups = groups_of(results)
    assert len(results.rows) == len(results.trained) == len(groups) == 3
    found = {g.label: (g.baseline["noise"].counts("before"), g.best("noise", "act").counts("after")) for g in groups}  # type: ignore[union-attr]
    assert found == {
        "prompt 8, match 10, float32": (Share(40, 100), Share(0, 100)),
        "prompt 20, match 10, float32": (Share(60, 100), Share(1, 100)),
        "prompt 20, match 10, bfloat16": (Share(50, 100), Share(2, 100)),
    }
    older = replace(rows[0], prompt=None, match=None, id="older")
    assert len(results_of([older, rows[0]]).rows) == 1, "a row from before the columns is the same experiment, where there is one window"
    assert len(results_of([older, *rows[:2]]).rows) == 3, "and where there are two nobody knows"


def test_runs_that_differ_in_the_window_show_their_own_numbers(tmp_path: Path) -> None:
    """Their model is trained once, and their rows have no window of their own: the recipe has it."""
    folders = []
    for prompt, count in ((8, 40), (14, 60)):
        recipe = {**RECIPE, "evaluation": {**RECIPE.get("evaluation", {}), "prompt": prompt, "match": 6}}
        row = bare_row("act", id=str(prompt), weights="aaaa", memorized_count_before=count, memorized_before=count / 100)
        folders.append(write_run(tmp_path / f"r-{prompt:08}", [row], recipe, CURVE))
    for order in (1, -1):
        results = load_results(folders[::order])
        assert {row.prompt: row.memorized_count_before for row in results.rows} == {8: 40, 14: 60}
        assert {row.prompt: row.memorized_count_before for row in results.trained} == {8: 40, 14: 60}
        [table] = tables_of(results, ["variants"])
        assert [line[0].text for line in table.rows] == [folder.name for folder in folders[::order]]
        assert [line[2].text.partition(" ")[0] for line in table.rows] == ["40.00", "60.00"][::order]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_versions_of_a_plugin_the_later_result_counts(order: int) -> None:
    first = make_row("act", after=10, weights="aaaa", id="1", plugin="1" * 64, finished="2026-01-01T10:00:00+00:00")
    later = replace(first, id="2", plugin="2" * 64, finished="2026-01-01T11:00:00+00:00", memorized_count_after=20)
    failed = replace(without_result("act", status="failed", weights="aaaa"), plugin="3" * 64, id="3", finished="2026-01-01T12:00:00+00:00")
    assert results_of([first, later][::order]).rows == [later]
    assert results_of([first, later, failed][::order]).rows == [failed], "a version that fails does not show the numbers of the one before"
    assert results_of([replace(row, finished=None) for row in (first, later)][::order]).rows[::order] == [
        replace(first, finished=None),
        replace(later, finished=None),
    ], "of runs nobody knows which is the later"
    other = replace(first, id="4", config={"ratio": 0.2}, options={"ratio": 0.2})
    [group] = groups_of(results_of([other, later, make_row("zero", weights="aaaa")][::order]))
    options = {setting.options for setting in group.settings["noise"]}
    assert options == {"ratio=0.2, plugin 11111111", "plugin 22222222", ""}, "options that versions were tried with say which"


def test_two_models_made_elsewhere_may_have_one_name() -> None:
    own = {"data": None, "data_size": None, "n_layer": None, "family": None, "epoch": None, "run": None, "model_name": "gpt"}
    rows = [make_row("act", "rows", after=i, weights=weights, id=weights, **own) for i, weights in enumerate(("aaaa11", "bbbb22"))]
    found = {g.label: g.best("rows", "act").counts("after") for g in groups_of(results_of(rows))}  # type: ignore[union-attr]
    assert found == {"gpt aaaa11": Share(0, 100), "gpt bbbb22": Share(1, 100)}
    assert not any(group.repeated for group in groups_of(results_of(rows)))


def trained_run(folder: Path, changes: Values, count: int, **row: object) -> Path:
    """The folder of a run whose recipe has some changes, and whose model has memorized so many rows of a hundred."""
    memorized = {"memorized_count_before": count, "memorized_before": count / 100, "rows_scored": 100}
    ours = bare_row("act", id=folder.name, run=folder.name, weights=folder.name, **{**memorized, **row})
    return write_run(folder, [ours], {**RECIPE, **changes}, CURVE)


@pytest.mark.parametrize("changes", [{"training": {**RECIPE["training"], "warmup_steps": 60}}, {"counterfactual": "only"}])
def test_models_that_were_trained_otherwise_are_no_seeds(tmp_path: Path, changes: Values) -> None:
    folders = [trained_run(tmp_path / "a-11111111", {}, 40), trained_run(tmp_path / "b-22222222", changes, 60)]
    found = [group.baseline["noise"].counts("before") for group in groups_of(load_results(folders))]
    assert found == [Share(40, 100), Share(60, 100)]
    again = trained_run(tmp_path / "c-33333333", {"seed": 5}, 60)
    [group] = groups_of(load_results([folders[0], again]))
    assert group.baseline["noise"].counts("before") == Share(100, 200), "other seeds are"


def test_a_counterfactual_is_never_best_and_has_no_curve_of_the_model(tmp_path: Path) -> None:
    folders = [trained_run(tmp_path / "a-11111111", {"counterfactual": True}, 40)]
    folders.append(trained_run(tmp_path / "b-22222222", {"counterfactual": "only"}, 0))
    results = load_results(folders)
    [table] = tables_of(results, ["variants"])
    assert [[cell.best for cell in line if cell.best] for line in table.rows][1] == []
    assert [curve.name for curve in curves_of(results.records)] == ["a-11111111"]


def test_a_text_that_changed_under_one_recipe_makes_another_model(tmp_path: Path) -> None:
    rows = [("a-11111111", 40, "a" * 64), ("b-11111111", 60, "b" * 64)]
    folders = [trained_run(tmp_path / name, {}, count, corpus_sha256=corpus) for name, count, corpus in rows]
    results = load_results(folders)
    found = {group.label: group.baseline["noise"].counts("before") for group in groups_of(results)}
    assert found == {"corpus aaaaaa": Share(40, 100), "corpus bbbbbb": Share(60, 100)}
    [table] = tables_of(results, ["variants"])
    assert [[cell.text.partition(" ")[0] for cell in line[:3]] for line in table.rows] == [
        ["a-11111111", "aaaaaaaa", "40.00"],
        ["b-11111111", "bbbbbbbb", "60.00"],
    ]
    assert len(curves_of(results.records)) == 2


def test_edits_that_saw_other_rows_are_settings_of_their_own() -> None:
    shown = [make_row("act", after=a, id=str(i), forget=f, forget_fraction=p) for i, (a, f, p) in enumerate(FORGOTTEN)]
    (group,) = groups_of(results_of(shown))
    found = {setting.options: setting.memorized("after").mean for setting in group.of_method("noise", "act")}
    assert found == {
        "forget all, forget fraction 0.5": 10.0,
        "forget noise, forget fraction 0.5": 20.0,
        "forget all, forget fraction 0.25": 30.0,
    }
    assert labels(shown) == [f"act (forget {f}; forget_fraction {p})" for _, f, p in FORGOTTEN]


FORGOTTEN = [(10, "all", 0.5), (20, "noise", 0.5), (30, "all", 0.25)]


def test_options_and_devices_are_settings_of_their_own() -> None:
    rows = [make_row("act", after=after, options={"ratio": r}, config={"ratio": r, "of": "eligible"}) for after, r in ((5, 0.1), (1, 0.2))]
    rows.append(make_row("act", after=5, options={"ratio": 0.1}, config={"ratio": 0.1, "of": "eligible"}, device_type="cuda", id="gpu"))
    [group] = groups_of(results_of(rows))
    assert [s.options for s in group.settings["noise"]] == ["ratio=0.1, on cpu", "ratio=0.2, on cpu", "ratio=0.1, on cuda"]
    best = group.best("noise", "act")
    assert best is not None and best.options == "ratio=0.2, on cpu"


def test_refused_and_failed_rows_are_never_best() -> None:
    rows = [without_result("act", status=status, id=status, config={"how": status}) for status in ("refused", "failed", "timeout")]
    [group] = groups_of(results_of(rows))
    assert group.best("noise", "act") is None and len(group.failed["noise"]) == 3 and group.methods() == ["act"]
    [group] = groups_of(results_of([*rows, make_row("act", after=40)]))
    best = group.best("noise", "act")
    assert best is not None and best.rows[0]["status"] == "ok"


def test_the_limit_is_the_time_of_fine_tuning_on_extra_data() -> None:
    [group] = groups_of(results_of(paper_like_rows()))
    assert group.seconds_limit("noise") == 25.0
    best = group.best("noise", "balanced-subnet")
    assert best is not None and best.options == "ratio=0.1"
    without = [row for row in paper_like_rows() if row.method != "finetune-extra"]
    [group] = groups_of(results_of(without))
    best = group.best("noise", "balanced-subnet")
    assert group.seconds_limit("noise") is None and best is not None and best.options == "ratio=0.3"


def test_the_most_repeated_class_stands_for_noise_in_text() -> None:
    classes = {
        copies: {"share": share, "count": round(share * 250), "rows": 250} for copies, share in (("1", 0.0), ("10", 0.1), ("1000", 0.4))
    }
    text = {"data": "wiki", "data_size": None, "performance_metric": "perplexity", "performance_before": 56.0}
    row = make_row("act", performance=57.0, memorized_by_copies_before=classes, memorized_by_copies_after=classes, **text)
    [group] = groups_of(results_of([row]))
    [setting] = group.settings["noise"]
    mean = setting.memorized("after")
    assert mean is not None and mean.mean == 40.0 and setting.counts("after") == Share(100, 250)
    candidate = setting.candidate()
    assert candidate is not None and (candidate.metric, candidate.performance_after) == ("perplexity", 57.0)


def test_regularized_models_by_equation_3() -> None:
    def trained(options: str, memorized: int, accuracy: float, seconds: float) -> list[MeasuredRow]:
        values = {"memorized_count_before": memorized, "performance_before": accuracy, "training_seconds": seconds}
        return [
            make_row("act", seed=seed, regularizer=f"spectral-norm{options}", model_id=f"{options}{seed}", id=f"{options}{seed}", **values)
            for seed in (0, 1)
        ]

    base = [make_row("act", seed=seed, training_seconds=100.0) for seed in (0, 1)]
    [group] = groups_of(results_of([*base, *trained("(strength=0.1)", 1, 0.95, 150.0), *trained("", 30, 0.97, 120.0)]))
    best = group.best_training("noise", "spectral-norm")
    assert best is not None and best.options == "spectral-norm(strength=0.1)" and best.method == "spectral-norm"
    assert len(group.baseline["noise"].rows) == 2 and len(group.settings["noise"]) == 1


def test_rows_are_read_as_json_numbers(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "r", [make_row("act", after=3)])
    [row] = load_results([folder]).rows
    assert row == make_row("act", after=3) and json.loads(json.dumps(row.as_dict())) == row.as_dict()


def test_a_localization_that_two_folders_hold_counts_once(tmp_path: Path) -> None:
    """Of the same scorer on the same model the later result counts, and one that failed does not take the place of one that did not."""
    weight = LocalizationRow(method="layer-swapping", artifact="noise", status="ok", id="a", benchmark="layers", score_name="weight")
    first, again = ([replace(weight, layer=layer, score=score) for layer in (0, 1)] for score in (0.25, 0.5))
    other = replace(weight, id="b", method="centroids", score=1.0)
    for name, rows in (("one", first), ("two", again), ("three", [replace(weight, status="failed")])):
        write_localization(tmp_path / name, "a", rows)
    write_localization(tmp_path / "two", "b", [other])
    found = load_results([tmp_path / name for name in ("one", "two", "three")]).localization
    assert [(row.id, row.layer, row.score) for row in found] == [("a", 0, 0.5), ("a", 1, 0.5), ("b", None, 1.0)]
