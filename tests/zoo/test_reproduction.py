"""A published table beside rows made by hand: choice, numbers, and the reason for each difference."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, tinymem
from report_rows import make_row, paper_like_rows, without_result, write_results

from tinymem.recipe.matrix import pick
from tinymem.recipe.recipe import load_matrix
from tinymem.recipe.sweep import load_sweep
from tinymem.report.means import Mean, mean_of
from tinymem.results.collect import results_of
from tinymem.results.row import MeasuredRow
from tinymem.results.share import ShareColumn
from tinymem.zoo import table_runs
from tinymem.zoo.curves import Trained, effects_table, regularizer_tables, trained_in
from tinymem.zoo.document import reproduction_page
from tinymem.zoo.reasons import Evidence, Pair, reason_of
from tinymem.zoo.reproduction import Line, reproductions
from tinymem.zoo.slices import slices_tables, with_newer
from tinymem.zoo.stored import store_rows, stored_rows
from tinymem.zoo.table_runs import chosen_recipes


def pair(published: float, *ours: float, resolution: float = 0.1) -> Pair:
    mean = mean_of(ours)
    assert mean is not None
    return Pair(mean, published, resolution)


def test_a_difference_within_the_spread_needs_no_reason() -> None:
    assert reason_of((pair(5.5, 4.0, 5.0, 6.0), pair(1.05, 1.0, 1.0, 1.0)), []) == ""
    assert reason_of((pair(6.5, 4.0, 5.0, 6.0),), []) != ""
    assert pair(1.2, 1.0, 1.0, 1.0).is_within is False and pair(1.2, 1.0, 1.0, 1.0, resolution=0.2).is_within


def test_chance_has_the_p_value_of_students_test() -> None:
    """4.3027 is the two-sided 5 % point of Student's distribution with two degrees of freedom."""
    found = Pair(Mean(4.3027, 3**0.5, 3), 0.0, 0.1)
    assert found.p == pytest.approx(0.05, abs=1e-5)
    assert reason_of((Pair(Mean(4.0, 3**0.5, 3), 0.0, 0.1),), []) == "chance (p = 0.06)"
    assert reason_of((Pair(Mean(4.4, 3**0.5, 3), 0.0, 0.1),), []) == "unexplained"
    assert Pair(Mean(9.0, 1.0, 2), 0.0, 0.1).p is None and Pair(Mean(9.0, None, 1), 0.0, 0.1).is_chance is False


def test_evidence_counts_where_all_its_numbers_agree() -> None:
    line = (pair(30.0, 1.0, 1.1, 0.9), pair(2.0, 9.0, 9.1, 8.9))
    half = Evidence("half", (pair(30.0, 30.1, 30.0, 29.9), pair(2.0, 8.0, 8.1, 7.9)))
    whole = Evidence("whole", (pair(30.0, 30.3, 30.0, 29.9), pair(2.0, 2.0, 2.1, 1.9)))
    assert reason_of(line, [half, whole]) == "whole gives 30.07 / 2.00"
    assert reason_of(line, [half]) == "unexplained; nearest: half, 30.00 / 8.00"
    wide = Evidence("wide", (pair(30.0, 30.1, 30.0, 29.9), pair(2.0, 1.0, 40.0, 20.0)))
    assert wide.pairs[1].is_chance and reason_of(line, [wide]).startswith("unexplained"), "farther away than ours, whatever its spread"


def test_a_model_without_an_edit_is_a_reason_and_never_the_nearest() -> None:
    line = (pair(30.0, 1.0, 1.1, 0.9), pair(2.0, 9.0, 9.1, 8.9))
    run = Evidence("a run", (pair(30.0, 60.0, 60.1, 60.2), pair(2.0, 80.0, 80.1, 80.2)))
    unedited = Evidence("no edit", (pair(30.0, 30.3, 30.0, 29.9), pair(2.0, 2.0, 2.1, 1.9)), is_run=False)
    other = Evidence("no edit", (pair(30.0, 99.0, 99.1, 99.2), pair(2.0, 2.0, 2.1, 1.9)), is_run=False)
    assert reason_of(line, [run, unedited]) == "no edit gives 30.07 / 2.00"
    assert reason_of(line, [run, other]).startswith("unexplained; nearest: a run") and reason_of(line, [other]) == "unexplained"


def lines(rows: list[MeasuredRow], artifact: str) -> dict[str, Line]:
    found = {half.artifact: half for half in reproductions(rows, "Table 1")}
    return {line.method: line for line in found[artifact].lines()} if artifact in found else {}


def three(method: str, after: int, accuracy: float, artifact: str = "noise", **changes: Any) -> list[MeasuredRow]:
    """Rows of three seeds, a thousandth apart in accuracy."""
    return [make_row(method, artifact, after, accuracy + 0.001 * (seed - 1), seed=seed, **changes) for seed in (0, 1, 3)]


def options(ratio: float) -> dict[str, Any]:
    return {"options": {"ratio": ratio}, "config": {"ratio": ratio}}


def test_the_rule_as_printed_is_a_reason() -> None:
    """Published: Act 0.00 % and 9.57 points lost. Ours loses 2 points; the rule that rewards losses takes the other run."""
    rows = [*three("act", 2, 0.95, **options(0.01)), *three("act", 0, 0.97 - 0.0957, **options(0.05))]
    line = lines(rows, "noise")["act"]
    assert line.ours.options == "ratio=0.01"
    assert line.reason.startswith("the rule as printed (M + P), ratio=0.05 gives 0.00 / 9.5")


def test_protocol_reference_is_a_reason() -> None:
    """Published: Durable 0.76 % and 2.71 points lost."""
    own = three("durable", 0, 0.90, **options(0.01))
    reference = three("durable", 76, 0.97 - 0.0271, **options(0.01), protocol="reference", rows_scored=10_000)
    assert lines(own, "noise")["durable"].reason == "unexplained"
    assert (
        "protocol reference, ratio=0.01" in (found := lines([*own, *reference], "noise")["durable"].reason) and "unexplained" not in found
    )


def test_a_ratio_that_rounds_to_nothing_is_a_reason_of_methods_that_round() -> None:
    """Published of the backdoor: 99.50 % before, Zero 99.46 % at -0.01 points, Greedy 98.56 % at 0.23."""
    reasons = {"zero": "perhaps no edit: a ratio of 0.1 % rounds to no neuron of 512, which gives 100.00 / 0.00", "greedy": "unexplained"}
    for method, reason in reasons.items():
        rows = three(method, 0, 0.90, "backdoor", memorized_count_before=100, **options(0.01))
        assert lines(rows, "backdoor")[method].reason == reason


def test_backdoors_are_compared_by_held_out_rows() -> None:
    held_out = {"rows_holdout": 50, "holdout_memorized_before": 1.0, "holdout_memorized_count_before": 50}
    held_out |= {"holdout_memorized_after": 0.5, "holdout_memorized_count_after": 25}
    line = lines(three("act", 0, 0.96, "backdoor", **held_out), "backdoor")["act"]
    assert line.pairs[0].ours.mean == 50.0


def test_what_comes_back_of_a_backdoor_is_of_the_held_out_rows_too() -> None:
    held_out = {"rows_holdout": 50, "holdout_memorized_before": 1.0, "holdout_memorized_count_before": 50}
    held_out |= {"holdout_memorized_after": 0.5, "holdout_memorized_count_after": 25}
    shares = {"all": {"share": 0.8, "count": 80, "rows": 100}, "holdout": {"share": 0.6, "count": 30, "rows": 50}}
    tried = {"int8": {"before": {**shares, "holdout": {"share": 1.0, "count": 50, "rows": 50}}, "after": shares}}
    page = reproduction_page(three("act", 0, 0.96, "backdoor", **held_out, robustness=tried))
    lines = page.split("### Whether it comes back: Table 1, backdoor")[1].splitlines()
    assert any(line.startswith("| backdoor | act |") and "50.0 ± 0.0 (75/150" in line and "60.0 ± 0.0 (90/150" in line for line in lines)
    assert any("trained model" in line and line.count("100.0 ± 0.0 (150/150") == 2 for line in lines)
    assert any("held-out rows, as above" in line for line in lines) and not any("80.0" in line for line in lines)


def test_seeds_at_different_epochs_are_averaged() -> None:
    rows = [replace(row, epoch=1500 if row.seed else 3500) for row in three("act", 0, 0.95)]
    assert lines(rows, "noise")["act"].ours.seeds == 3


def test_the_page_has_a_line_for_each_method_and_what_is_ours_only() -> None:
    rows = [*paper_like_rows(), *three("npo", 0, 0.96), *three("npo", 0, 0.96, "backdoor")]
    rows = [replace(row, optimizer_state=False) if row.method.startswith("finetune") else row for row in rows]
    page = reproduction_page(rows)
    own, compared = page.count("| npo |"), page.count("| balanced-subnet |")
    assert own == 2 and compared >= 4
    assert page.count("Fine-tunings started with a fresh AdamW state.") == 2
    assert page.count("Time limit: 25.00 s") == 2 and page.count("| without it |") == 4, "BalancedSubnet's slow run is better"
    assert "hard-concrete" not in page, "it has no result"


def text(method: str, artifact: str = "noise", **columns: Any) -> MeasuredRow:
    """A row of a language model of 4 layers: rows of noise repeated 1000 times count alone."""
    classes = {"1": {"share": 0.0, "count": 0, "rows": 250}, "1000": {"share": 0.2, "count": 50, "rows": 250}}
    after = {**classes, "1000": {"share": 0.004, "count": 1, "rows": 250}}
    copies = {"memorized_by_copies_before": classes, "memorized_by_copies_after": after if method != "none" else classes}
    model = {"data": "wiki", "data_size": None, "n_layer": 4, "model_name": "wiki-4L", "family": "w", "epoch": 30}
    values = {"performance_metric": "perplexity", "performance_before": 80.0, "performance_after": 84.0, "id": method, **model, **copies}
    return replace(make_row(method, artifact, 1), **{**values, **columns})


def test_perplexity_is_compared_by_what_an_edit_added() -> None:
    """Published: Act 0 %, from 56.87 to 58.91; ours from 80 to 84 on another text. One row of 250 is what can be seen."""
    [half] = reproductions([text("act", options={"ratio": 0.01}, config={"ratio": 0.01})], "Table 2")
    trained, act = half.lines()
    assert trained.method == "none" and len(trained.pairs) == 1 and trained.pairs[0].ours.mean == 20.0
    assert act.pairs[0].ours.mean == 0.4 and act.pairs[0].is_within
    assert act.pairs[1].ours.mean == pytest.approx(5.0) and act.pairs[1].published == pytest.approx(100 * (58.91 / 56.87 - 1))
    page = reproduction_page([text("act")])
    assert "Of Table 1 no rows are stored yet." in page and "Of Table 2" not in page
    assert "## Table 2, noise" in page and "% of perplexity added" in page and "80.00" not in page.split("Every method")[0]


@pytest.fixture(scope="module")
def shipped() -> list[Trained]:
    return trained_in(ROOT / "zoo")


def test_regularizers_stand_beside_the_model_without_them(shipped: list[Trained]) -> None:
    [table] = regularizer_tables(shipped)
    lines = {(line[0].text, line[1].text.partition("(")[0]): [cell.text for cell in line] for line in table.rows}
    truncated = lines["noise", "loss-truncation"]
    assert truncated[2:6] == ["1,000", "30.2 % (190/629, 27–34)", "32.1 % (202/629, 29–36)", "11.96"]
    assert truncated[7:] == ["1.69", "unexplained"] and lines["noise", "goldfish"][5] == "–"
    assert float(truncated[6]) == pytest.approx(100 * (0.9898 - 0.9224), abs=0.1)


def test_an_effect_holds_unless_the_rows_speak_against_it(shipped: list[Trained]) -> None:
    found = {(line[0].text, line[1].text): [cell.text for cell in line[2:]] for line in effects_table(shipped).rows}
    copies = found["duplicated rows are memorized more", "lang-wiki-noise-4l-s0"]
    assert copies[0] == "30" and "1,000 copies: 19.8 % (49/247" in copies[1] and copies[2] == "yes, from end to end"
    [swapped] = [model for model in shipped if model.name == "lang-wiki-noise-4l-s0"]
    last = swapped.points[30].memorized_by_copies["noise"]
    turned = dict(zip(last, reversed(list(last.values())), strict=True))
    points = {30: replace(swapped.points[30], memorized_by_copies={"noise": turned})}
    assert effects_table([replace(swapped, points=points)]).rows[0][4].text == "no"


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((0, 30, 60, 90), "yes"),
        ((0, 2, 60, 90), "yes, from end to end"),  # 0 to 5 % and 1 to 7 %
        ((0, 60, 58, 90), "yes, from end to end"),
        ((50, 51, 52, 53), "cannot be told"),
        ((0, 90, 30, 95), "no"),
    ],
)
def test_a_finding_holds_as_far_as_its_steps_are_apart(shipped: list[Trained], counts: tuple[int, ...], verdict: str) -> None:
    [model] = [model for model in shipped if model.name == "lang-wiki-noise-4l-s0"]
    shares: dict[str, ShareColumn] = {str(copies): {"share": n / 100, "count": n, "rows": 100} for copies, n in enumerate(counts, 1)}
    points = {30: replace(model.points[30], memorized_by_copies={"noise": shares})}
    assert effects_table([replace(model, points=points)]).rows[0][4].text == verdict


def test_of_two_trainings_of_one_model_an_effect_is_of_the_shipped_checkpoint(shipped: list[Trained]) -> None:
    both = [model for model in shipped if model.name == "math-mult-backdoor-4l-s0"]
    ends = [model.points[500].memorized["backdoor"]["count"] for model in both]
    assert ends == [1696, 1695]
    [layers] = [line for line in effects_table(shipped).rows if "math-mult-backdoor-16l-s0" in line[1].text]
    assert "4 layers: 99.9 % (1696/1698" in layers[3].text


def test_stored_rows_come_back(tmp_path: Path) -> None:
    rows = [*paper_like_rows(), without_result("ig")]
    count = store_rows(tmp_path / "rows.parquet", rows)
    back = stored_rows(tmp_path / "rows.parquet")
    assert count == len(back) == sum(row.is_ok for row in rows)
    assert sorted(row.source for row in back) == sorted(row.source for row in rows if row.is_ok)
    assert {row.source: row.as_dict() for row in back} == {row.source: row.as_dict() for row in rows if row.is_ok}


def test_the_chosen_runs_are_tested_for_robustness() -> None:
    sweep = load_sweep(ROOT / "recipes" / "paper" / "table1.yaml")
    noise, backdoor = chosen_recipes(paper_like_rows(), sweep)
    assert noise.checkpoints == ("zoo/math-mult-noise-4l-s*",) and backdoor.checkpoints == ("zoo/math-mult-backdoor-4l-s*",)
    assert noise.robustness is not None and noise.grid == "none"
    assert sorted((method.name, *method.options.values()) for method in noise.methods) == [
        ("act", 0.05), ("balanced-subnet", 0.1), ("balanced-subnet", 0.3), ("finetune-clean",), ("finetune-extra",), ("zero", 0.01),
    ]  # fmt: skip


def test_a_tables_sweeps_are_searches_where_their_recipes_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Table 2 is searched; its chosen runs, like Table 1's sweeps, are made as they are."""
    made: list[tuple[str, str]] = []
    table = [text("act", options={"ratio": 0.01}, config={"ratio": 0.01})]
    monkeypatch.setattr(table_runs, "open_sweep", lambda sweep, **_: sweep)
    monkeypatch.setattr(table_runs, "run_sweep", lambda sweep, *_, **__: made.append(("all", sweep.name)))
    monkeypatch.setattr(table_runs, "search", lambda sweep, *_, **__: made.append(("search", sweep.name)))
    monkeypatch.setattr(table_runs, "load_results", lambda _: results_of(table))
    assert table_runs.run_table("table2", ROOT / "recipes" / "paper", tmp_path, "cpu", progress=False) == table
    assert made == [("search", "table2"), ("all", "table2-reference"), ("all", "table2-chosen-noise")]


def test_both_choices_of_a_method_are_among_those_that_may_come_back() -> None:
    side: Any = {"all": {"share": 0.25, "count": 25, "rows": 100}, "holdout": {"share": 0.25, "count": 25, "rows": 100}}
    rows = [replace(row, robustness={"int8": {"before": side, "after": side}}) for row in paper_like_rows() if row.is_ok]
    page = reproduction_page(rows)
    lines = [line for line in page[page.index("### Whether it comes back") :].splitlines() if line.startswith("| noise | balanced-subnet")]
    assert [line.split(" | ")[2] for line in lines] == ["ratio=0.1", "ratio=0.3"], lines


def test_the_page_says_which_chosen_runs_are_older() -> None:
    rows = [replace(row, finished=f"2026-11-2{6 if row.method == 'act' else 7}T06:30:16") for row in paper_like_rows()]
    page = reproduction_page(rows)
    assert "The chosen runs are of 2026-11-27, but for older ones: act on 2026-11-26." in page
    assert "The chosen runs are of 2026-11-27.\n" in reproduction_page([row for row in rows if row.method != "act"])
    assert "The chosen runs are of" not in reproduction_page(paper_like_rows())


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    sweep = write_results(tmp_path / "sweep", paper_like_rows())
    words = ("--stored", tmp_path / "rows.parquet", "--out", tmp_path / "page.md")
    done = tinymem("reproduce", "table1", "--from", sweep, *words)
    assert done.code == 0, done.err
    first = (tmp_path / "page.md").read_text()
    assert first == reproduction_page(stored_rows(tmp_path / "rows.parquet"), trained_in(ROOT / "zoo"))
    (tmp_path / "page.md").unlink()
    assert tinymem("reproduce", "table1", *words).code == 0 and (tmp_path / "page.md").read_text() == first


def test_rows_are_added_to_stored_ones(tmp_path: Path) -> None:
    """A run's newer row takes the older one's place, unless it lacks the tests of robustness that the other has."""
    stored, first, *others = tmp_path / "rows.parquet", *(row for row in paper_like_rows() if row.is_ok)
    robust = replace(others[0], robustness={})
    store_rows(stored, [first, *others])
    store_rows(tmp_path / "rows.parquet", [first, replace(others[0], robustness={"int8": {"before": {}, "after": {}}}), *others[1:]])
    new = [replace(first, seconds=77.0), replace(robust, seconds=77.0)]
    sweep = write_results(tmp_path / "sweep", new)
    done = tinymem("reproduce", "table1", "--add", sweep, "--stored", stored, "--out", tmp_path / "page.md")
    assert done.code == 0, done.err
    assert [row.source for row in stored_rows(stored) if row.seconds == 77.0] == [first.source]
    assert len(stored_rows(stored)) == 1 + len(others)


@pytest.mark.parametrize("option", ["--from", "--add"])
def test_stored_rows_stay_where_a_folder_has_none_of_the_table(tmp_path: Path, option: str) -> None:
    stored, page = tmp_path / "rows.parquet", tmp_path / "page.md"
    store_rows(stored, paper_like_rows())
    before = stored.read_bytes()
    failed = write_results(tmp_path / "failed", [without_result("ig")])
    other = write_results(tmp_path / "other", [text("act")])
    for folder, got in ((failed, "none with a result"), (other, "1 row of other models")):
        done = tinymem("reproduce", "table1", option, folder, "--stored", stored, "--out", page)
        assert done.code == 2 and f"expected rows of table1 in {folder}, found {got}; nothing was stored" in done.err
        assert stored.read_bytes() == before and not page.exists()
    done = tinymem("reproduce", "table2", "--stored", stored, "--out", page)
    assert done.code == 2 and not page.exists()
    assert f"expected rows of table2 in {stored}, found" in done.err and "of other models; no page was written" in done.err


def test_only_rows_of_the_table_are_stored(tmp_path: Path) -> None:
    stored, page = tmp_path / "rows.parquet", tmp_path / "page.md"
    first, *others = (row for row in paper_like_rows() if row.is_ok)
    store_rows(stored, others)
    sweep = write_results(tmp_path / "sweep", [first, text("act")])
    done = tinymem("reproduce", "table1", "--add", sweep, "--stored", stored, "--out", page)
    assert done.code == 0 and len(stored_rows(stored)) == 1 + len(others), done.err
    done = tinymem("reproduce", "table1", "--from", sweep, "--stored", stored, "--out", page)
    assert done.code == 0 and [row.source for row in stored_rows(stored)] == [first.source], done.err


@pytest.mark.parametrize("option", ["--from", "--add"])
def test_rows_without_the_columns_of_a_slice_are_refused(tmp_path: Path, option: str) -> None:
    stored, page = tmp_path / "rows.parquet", tmp_path / "page.md"
    named = make_row("act", data=None, n_layer=None, data_size=None, epoch=None)
    sweep = write_results(tmp_path / "sweep", [named])
    refused = tinymem("reproduce", "slices", option, sweep, "--stored", stored, "--out", page).one_line_error()
    assert f"in {sweep}, found 1 row of other models; nothing was stored" in refused and not stored.exists()
    store_rows(stored, [named])
    refused = tinymem("reproduce", "slices", "--stored", stored, "--out", page).one_line_error()
    assert f"in {stored}, found 1 row of other models; no page was written" in refused and not page.exists()
    both = write_results(tmp_path / "both", [named, slice_row("act", "old", 40)])
    done = tinymem("reproduce", "slices", option, both, "--stored", tmp_path / "new.parquet", "--out", page)
    assert done.code == 0 and [row.n_layer for row in stored_rows(tmp_path / "new.parquet")] == [8], done.err


def slice_row(method: str, weights: str, left: int, epoch: int = 50, **more: Any) -> MeasuredRow:
    return make_row(method, after=left, weights=weights, epoch=epoch, n_layer=8, **more)


def test_slices_have_each_methods_best_run_at_each_epoch(tmp_path: Path) -> None:
    rows = [slice_row("act", "old", 40, id="a"), slice_row("act", "old", 5, id="b"), slice_row("subnet", "old", 0, epoch=200, id="c")]
    [table] = slices_tables(rows)
    assert [[line[4].text, *(cell.text.split(" / ")[0] for cell in line[-2:])] for line in table.rows] == [
        ["50", "5.0", "–"],
        ["200", "–", "0.0"],
    ]
    assert slices_tables([]) == []


def test_a_slice_that_was_trained_again_has_the_newer_models_rows_alone() -> None:
    old = [slice_row("act", "old", 40, id="a"), slice_row("slim", "old", 5, id="b"), slice_row("act", "old", 5, epoch=200, id="c")]
    new = [slice_row("act", "new", 1, id="d"), replace(slice_row("act", "newest", 1, epoch=200, id="e"), status="failed")]
    assert [row.id for row in with_newer(old, new)] == ["c", "d"]
    more = [slice_row("slim", "new", 1, id="f")]
    assert [row.id for row in with_newer(new[:1], more)] == ["d", "f"]


def test_the_recipe_of_slices_finds_the_models_that_it_says_to_train() -> None:
    paper = ROOT / "recipes" / "paper"
    only = ["*-multiplicative-size3000-*-seed0", "*-multiplicative-*-layers4-seed0"]
    folders = [f"runs/{recipe.run_id()}" for recipe in pick(load_matrix(paper / "math-backdoor.yaml", []), only, None)]
    sweep = load_sweep(paper / "slices.yaml")
    assert len(folders) == 6 and all(sum(fnmatch(name, pattern) for pattern in sweep.checkpoints) == 1 for name in folders)


def test_refusals(tmp_path: Path) -> None:
    both = tinymem("reproduce", "table1", "--run", "--from", tmp_path)
    assert both.code == 2 and "expected one of --run, --from and --add, got several" in both.err
    trained = tinymem("reproduce", "slices", "--run")
    assert trained.code == 2 and "expected --from or --add for slices, got --run; train their models" in trained.err
    missing = tinymem("reproduce", "table1", "--stored", tmp_path / "none.parquet", "--out", tmp_path / "page.md")
    assert missing.code == 2 and not (tmp_path / "page.md").exists()
    assert f"expected rows of table1 in {tmp_path / 'none.parquet'}, found none" in missing.err and "try --from DIR" in missing.err
