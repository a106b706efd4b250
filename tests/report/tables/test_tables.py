"""The paper's tables from rows made by hand: every number by hand too, and the same numbers in every format."""

from __future__ import annotations

import csv
import doctest
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from helpers import half_written, tinymem
from page_checker import Checker
from report_rows import CURVE, RECIPE, Values, bare_row, make_row, paper_like_rows, without_result, write_results, write_run
from rich.console import Console

from tinymem.errors import UserError
from tinymem.evaluation.metric import METRICS, MetricColumn, metric
from tinymem.recipe.paper import GRID, RUNS
from tinymem.report import means, selection
from tinymem.report.energy import PERLMUTTER, POLARIS, load_machine, machine_of
from tinymem.report.render import text as render_module
from tinymem.report.render.html import to_html
from tinymem.report.render.terminal import print_tables
from tinymem.report.render.text import latex_text, render, to_wide_csv
from tinymem.report.tables import cost as tables_cost
from tinymem.report.tables import table as table_module
from tinymem.report.tables.catalogue import CLASSES, LAYERS, ORDER, tables_of
from tinymem.report.tables.cost import PUBLISHED, PUBLISHED_LARGE, amount, spent_by_phase
from tinymem.report.tables.table import Cell, Column, Table, anchor
from tinymem.results.collect import results_of
from tinymem.results.read import as_json, with_intervals
from tinymem.results.row import MeasuredRow
from tinymem.results.share import Share
from tinymem.runs.pipeline import Run


def table(rows: list[MeasuredRow], name: str) -> Table:
    [found] = tables_of(results_of(rows), [name])
    return found


def line(found: Table, *words: str) -> list[Cell]:
    """The row that begins with these words."""
    [row] = [row for row in found.rows if tuple(cell.text for cell in row[: len(words)]) == words]
    return list(row[len(words) :])


def texts(cells: list[Cell]) -> list[str]:
    return [cell.text for cell in cells]


# ---- tables 1 and 2, best runs, fronts ----------------------------------------------------------------------------------------------


def test_table_1_by_hand() -> None:
    found = table(paper_like_rows(), "1")
    assert [column.name for column in found.columns][1:4] == ["noise: % memorized", "noise: accuracy %", "noise: seconds"]
    assert [row[0].text for row in found.rows] == [
        "trained model", "finetune-clean", "finetune-extra", "hard-concrete", "act", "zero", "balanced-subnet",
    ]  # fmt: skip
    assert texts(line(found, "trained model"))[:3] == ["40.00 ± 0.00", "97.00 ± 0.00", "–"]
    cells = line(found, "balanced-subnet")  # ratio 0.1 leaves 1, 2 and 4 of 100; ratio 0.3 is slower than finetune-extra
    assert texts(cells)[:3] == ["2.33 ± 1.53", "96.10 ± 0.00", "6.00 ± 0.00"]
    assert cells[0].value == pytest.approx(7 / 3) and cells[0].n == 3 and cells[0].details == ("7/300", "1–5", "n=3")
    assert cells[0].spread == pytest.approx((((1 - 7 / 3) ** 2 + (2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2) / 2) ** 0.5)
    assert cells[0].sources == cells[1].sources and len(cells[0].sources) == 3
    assert texts(line(found, "hard-concrete")) == ["–"] * 6
    assert "hard-concrete on noise: no result (refused: why)." in found.notes
    assert "noise: 3 seeds (0, 1, 3), mean ± sample standard deviation; models after epoch 3,500." in found.notes
    assert [row[0].text for row in found.rows if row[1].best] == ["finetune-extra"]


def test_sources_are_the_rows_that_hold_the_number() -> None:
    rows = paper_like_rows()
    known = results_of(rows).by_source
    for cell in line(table(rows, "1"), "act")[:2]:
        values = [known[source] for source in cell.sources]
        assert {row.options["ratio"] for row in values} == {0.05} and {row.artifact for row in values} == {"noise"}
        field = "memorized_after" if cell.share else "performance_after"
        assert cell.value == pytest.approx(100 * sum(row[field] for row in values) / 3)


def test_one_seed_has_no_spread_and_a_tried_method_without_result_no_number() -> None:
    found = table([make_row("act", after=1), without_result("slim", status="failed")], "1")
    assert texts(line(found, "act")) == ["1.00", "95.00", "1.00"]
    assert line(found, "act")[0].spread is None
    assert "noise: seed 0; models after epoch 3,500." in found.notes
    assert "noise: no limit of time, as fine-tuning on extra data (finetune-extra) was not run." in found.notes


def test_table_2_has_perplexities() -> None:
    text = {"data": "wiki", "data_size": None, "performance_metric": "perplexity", "performance_before": 56.0, "performance_ceiling": None}
    found = table([make_row("act", after=2, performance=58.5, **text)], "2")
    assert found.columns[2].title == "perplexity" and texts(line(found, "act"))[:2] == ["2.00", "58.50"]
    own = table([make_row("act", "rows", performance=20.0, **{**text, "data": None, "n_layer": None})], "3")
    assert own.title == "Table 3. Own rows"


def test_one_model_on_rows_of_several_files_has_a_table_for_each() -> None:
    own: Values = {"data": None, "data_size": None, "n_layer": None, "family": None, "model_name": "gpt", "weights": "w"}
    first, second = ({"rows_id": rows, "rows_scored": scored} for rows, scored in (("aaaaaa11", 100), ("bbbbbb22", 50)))
    rows = [make_row("act", "rows", **own, **first, id="1"), make_row("act", "rows", after=10, **own, **second, id="2")]
    rows.append(make_row("zero", "rows", **own, **second, id="3"))
    found = {table.title: table for table in tables_of(results_of(rows), ["3"])}
    assert list(found) == ["Table 3. Own rows, rows aaaaaa", "Table 3. Own rows, rows bbbbbb"]
    cells = [[texts(line(table, name))[0] for name in ("trained model", "act")] for table in found.values()]
    assert cells == [["40.00", "0.00"], ["80.00", "20.00"]]
    older = [replace(row, rows_id=None) for row in rows[1:]]
    [alone] = tables_of(results_of([*rows[1:], *older]), ["3"])
    assert alone.title == "Table 3. Own rows" and texts(line(alone, "act"))[0] == "20.00" and line(alone, "act")[0].n == 1


def test_own_rows_have_a_limit_of_perplexity() -> None:
    own: Values = {"data": None, "data_size": None, "n_layer": None, "performance_metric": "perplexity", "performance_before": 22.0}
    rows = [make_row(method, "rows", performance=after, **own) for method, after in (("act", 500.0), ("slim", 499.0))]
    found = table(rows, "3")
    assert texts(line(found, "act"))[0] == "–" and texts(line(found, "slim"))[1] == "499.00"
    assert "act on rows: no result (perplexity of 500 and more)." in found.notes


def test_regularizers_cost_what_they_add_to_training() -> None:
    base = [make_row("act", seed=seed, training_seconds=100.0 + seed) for seed in (0, 1)]
    other = {"regularizer": "spectral-norm(strength=0.1)", "memorized_count_before": 1, "performance_before": 0.95, "id": "reg"}
    found = table([*base, make_row("act", training_seconds=160.0, model_id="reg", **other)], "1")
    assert texts(line(found, "spectral-norm (trained with)")) == ["1.00", "95.00", "59.5"]
    assert len(line(found, "act")[0].sources) == 2, "methods on regularized models are no part of the method's row"


def test_best_runs_by_hand() -> None:
    found = table(paper_like_rows(), "best")
    cells = dict(zip([c.title for c in found.columns], line(found, "noise", "balanced-subnet"), strict=False))
    assert texts(line(found, "noise", "balanced-subnet"))[0] == "ratio=0.1"
    memorized, accuracy = 100 * (7 / 3 - 40) / 40, 100 * (96.1 - 97) / 97
    numbers = [cell.value for cell in line(found, "noise", "balanced-subnet")[1:7]]
    assert numbers == pytest.approx([7 / 3, memorized, 96.1, accuracy, 6.0, memorized - accuracy])
    assert texts(line(found, "noise", "balanced-subnet"))[7:] == ["3", "2", ""]
    assert texts(line(found, "noise", "zero"))[-1] == "slow"
    assert texts(line(found, "noise", "finetune-extra"))[-1] == "front"
    assert cells and not [row for row in found.rows if row[1].text == "hard-concrete"]
    printed = table([replace(row, protocol="reference") for row in paper_like_rows()], "best")
    assert line(printed, "noise", "balanced-subnet")[6].value == pytest.approx(memorized + accuracy)
    assert "M + P in accuracy" in printed.notes[0]


def test_the_front_by_hand() -> None:
    outcomes = {0.1: (10, 0.96), 0.2: (5, 0.95), 0.3: (5, 0.95), 0.4: (5, 0.94), 0.5: (12, 0.965)}
    rows = [make_row("act", after=a, performance=p, options={"ratio": r}, config={"ratio": r}) for r, (a, p) in outcomes.items()]
    found = table(rows, "pareto")
    assert [row[2].text for row in found.rows] == ["ratio=0.2", "ratio=0.3", "ratio=0.1", "ratio=0.5"]
    assert [row[5].value for row in found.rows] == pytest.approx([2.0, 2.0, 1.0, 0.5])
    assert [row[5].text for row in found.rows] == ["+2.00", "+2.00", "+1.00", "+0.50"]


def test_other_metrics_and_what_comes_back_by_hand() -> None:
    def measured(clean: float, auc: float | None) -> Values:
        return {"clean-continuation": {"all": {"share": clean}}, "membership": {"min-k++": {"all": {"auc": auc}}}, "perplexity": 1.5}

    def tried(before: float, after: float) -> Values:
        return {"int8": {when: {"all": {"share": share}} for when, share in (("before", before), ("after", after))}}

    known = {"metrics_before": measured(0.1, 0.9), "robustness": tried(0.4, 0.3)}
    rows = [make_row("act", seed=seed, metrics_after=measured(0.2 + seed / 10, None), **known) for seed in (0, 1)]
    rows.append(make_row("zero"))  # an old row, without any
    found = table(rows, "metrics")
    assert [column.title for column in found.columns] == ["artifact", "method", "options", "clean %", "membership AUC"]
    assert found.notes[0] == (
        "Clean: rows that now continue as their clean counterpart does. Extraction strength: 1 less the smallest share of a row from "
        "which the rest follows. n, p: rows that n samples produce with probability p. Edit distance: 0 is the artifact word for word. "
        "Membership: Min-k%++, 0.5 is chance. Of all scored rows; the rows behind each number also have "
        "those of the forget and the holdout rows."
    )
    assert texts(line(found, "noise", "trained model", "")) == ["10.0 ± 0.0", "0.900 ± 0.000"]
    assert texts(line(found, "noise", "act", "")) == ["25.0 ± 7.1", "–"]
    assert line(found, "noise", "act", "")[0].sources == tuple(row.source for row in rows[:2])
    assert [row[1].text for row in found.rows] == ["trained model", "act"]
    back = table(rows, "returns")
    assert [column.title for column in back.columns][3:] == ["untouched", "int8"]
    found_values = [[cell.value for cell in line(back, "noise", name, "")] for name in ("trained model", "act")]
    assert found_values == [pytest.approx([40.0, 40.0]), pytest.approx([0.0, 30.0])]
    assert [row[1].text for row in back.rows] == ["trained model", "act"]
    assert not tables_of(results_of([make_row("act")]), ["metrics", "returns"])
    only_last = table([make_row("act"), make_row("zero", robustness=tried(0.4, 0.3))], "returns")
    assert [row[1].text for row in only_last.rows] == ["trained model", "zero"], "its numbers are of the run that has them"
    assert [cell.value for cell in line(only_last, "noise", "trained model", "")] == pytest.approx([40.0, 40.0])


def test_the_columns_of_a_metric_of_ones_own() -> None:
    """They stand after the built-in ones, in every format; a metric that nobody registers is named below the table."""
    known = {"clean-continuation": {"all": {"share": 0.1}}}
    rows = [make_row("act", metrics_before=known, metrics_after={**known, "own": {"all": [], "best": {"share": 0.25}}, "other": 2})]
    unknown = table(rows, "metrics")
    assert [column.title for column in unknown.columns][3:] == ["clean %"]
    assert "Not shown: other, own; give the file that registers such a metric as --plugin." in unknown.notes
    columns = MetricColumn("own %", ("best", "share"), scale=100, digits=2, note="Own: mine."), MetricColumn("own list", ("all",))
    with METRICS.temporary():
        metric("own", column=columns)(lambda view, kind: None)
        metric("other", column=MetricColumn("other", digits=0))(lambda view, kind: None)
        found = table(rows, "metrics")
    assert [column.title for column in found.columns][3:] == ["clean %", "other", "own %"]
    assert texts(line(found, "noise", "act", "")) == ["10.0", "2", "25.00"] and not any("Not shown" in note for note in found.notes)
    assert found.notes[0].endswith(
        "Own: mine. Of all scored rows; the rows behind each number also have those of the forget and the holdout rows."
    )
    for format in ("markdown", "latex", "csv", "json"):
        assert all(word in render([found], format) for word in ("own", "25.0", "other"))
    assert "25.00" in to_html(found, {})


def test_table_5_is_that_of_the_methods() -> None:
    found = table([make_row("zero"), make_row("balanced-subnet"), make_row("not-registered")], "5")
    assert texts(line(found, "zero")) == ["neuron", "zeroth", "yes", "", "threshold", ""]
    assert texts(line(found, "balanced-subnet")) == ["weight", "first", "", "", "optimization", "yes"]
    assert len(found.rows) == 2


# ---- cost ---------------------------------------------------------------------------------------------------------------------------


def test_equations_4_and_5_give_the_papers_energy_and_carbon() -> None:
    assert POLARIS.kilowatt_hours(1) == pytest.approx((0.5 * 225 + 4 * 250 + 0.3725 * 512) * 1.58 / 1000)
    for phase, machine in (("training", POLARIS), ("mitigation", POLARIS), ("large", PERLMUTTER)):
        assert machine.kilowatt_hours(PUBLISHED[phase].node_hours) == pytest.approx(PUBLISHED[phase].energy, abs=1)
        assert machine.kilograms(PUBLISHED[phase].node_hours) == pytest.approx(PUBLISHED[phase].carbon, abs=2)
    # Table 9 takes 0.60 node hours, 1.35 kWh, and unrounded carbon, for a run of phase (iii).
    large = PUBLISHED["large"]
    assert round(0.60 * 102_698) == PUBLISHED_LARGE.node_hours
    assert large.carbon / large.runs * 102_698 == pytest.approx(PUBLISHED_LARGE.carbon, abs=1)
    assert round(1.35 * 102_698) == PUBLISHED_LARGE.energy
    ratios = [PUBLISHED_LARGE.node_hours / 6251, PUBLISHED_LARGE.energy / 12_871, PUBLISHED_LARGE.carbon / 5097]
    assert [round(100 * ratio) for ratio in ratios] == [986, 1077, 712]  # printed as increases


def test_the_grid_counts_the_runs_of_the_paper() -> None:
    assert sum(GRID.values()) == 170
    assert 672 * 170 == 114_240 and sum(RUNS.values()) == 113_160


def test_a_run_costs_once_and_a_model_too() -> None:
    rows = [
        make_row("act", artifact, seconds=7200.0, id="one", model_id="m", training_seconds=3600.0) for artifact in ("noise", "backdoor")
    ]
    rows += [make_row("slim", seconds=1800.0, model_id="m", training_seconds=3600.0), without_result("ig")]
    rows += [make_row("act", "rows", seconds=900.0, data=None, id="large", model_id="big")]
    spent = spent_by_phase(results_of(rows))
    assert [spent[phase].runs for phase in ("training", "mitigation", "large")] == [1, 2, 1]
    assert [spent[phase].node_hours for phase in ("training", "mitigation", "large")] == [1.0, 2.5, 0.25]
    watts = (0.5 * 225 + 0.3725 * 512) * 1.58
    assert spent["mitigation"].energy == pytest.approx(2.5 * watts / 1000)
    assert spent["mitigation"].carbon == pytest.approx(2.5 * watts / 1000 * 0.396)


def test_cost_tables_by_hand() -> None:
    rows = [make_row("act", seed=seed, seconds=3600.0) for seed in (0, 1)]
    phases = table(rows, "7")
    assert texts(line(phases, "(ii) mitigation, small models", "ours, measured"))[:2] == ["cpu (2 threads)", "2.00"]
    assert texts(line(phases, "(ii) mitigation, small models", "paper, as printed"))[1:] == ["6,251", "12,871", "5,097"]
    assert texts(line(phases, "(ii) mitigation, small models", "paper, a third"))[1] == "2,084"
    per_run = table(rows, "8")
    assert texts(line(per_run, "(ii) mitigation, small models", "ours, measured"))[:2] == ["2", "1.00"]
    assert texts(line(per_run, "(ii) mitigation, small models", "paper, as printed"))[:2] == ["102,698", "0.0609"]
    saved = line(table(rows, "9"), "node hours", "ours")
    assert [cell.value for cell in saved] == pytest.approx([2.0, 2 * 726 / 3 / 1216, 726 / 3 / 1216])
    measured = [*rows, make_row("act", "rows", data=None, seconds=7200.0, id="large")]
    assert [cell.value for cell in line(table(measured, "9"), "node hours", "ours")] == pytest.approx([2.0, 4.0, 2.0])
    planned = table(rows, "projection")
    assert [cell.value for cell in line(planned, "act")] == [3600.0, 2, 5, 3360, 3360.0]
    assert texts(line(planned, "ig")) == ["–", "0", "5", "2,520", "–"]
    assert table(rows, "6").rows[2][0].text == "cpu (2 threads)"


def test_machines(tmp_path: Path) -> None:
    assert machine_of("NVIDIA H100 80GB HBM3").gpu_watts == 700 and machine_of("NVIDIA H100 80GB HBM3").gpus == 1
    assert machine_of("cpu (2 threads)").gpus == 0
    one, two = machine_of("NVIDIA H100 80GB HBM3"), machine_of("2 x NVIDIA H100 80GB HBM3")
    assert two.gpus == 2 and two.kilowatt_hours(1) == pytest.approx(2 * one.kilowatt_hours(1))
    path = tmp_path / "mine.yaml"
    path.write_text("cpu_watts: 65\ngpus: 0\ncarbon: 50\n")
    assert load_machine(path) == replace(POLARIS, name="mine", cpu_watts=65, gpus=0, carbon=50)
    wrong = (("pue: .nan", "at least 1"), ("pue: 0.2", "at least 1"), ("carbon: .inf", "got inf"), ("gpu_usage: 7", "at most 1"))
    kinds = (("watts: 3", "unknown field 'watts'"), ("pue: much", "number"), ("- 1", "got list"), ("a: [", "YAML"), ("name: 5", "text"))
    for text, word in (*wrong, *kinds):
        path.write_text(text)
        with pytest.raises(UserError, match=word) as caught:
            load_machine(path)
        assert "\n" not in str(caught.value)


def test_amounts_keep_three_digits() -> None:
    assert [amount(v) for v in (0.0, 6251.4, 33.51, 2.0, 0.204, 0.000921, 0.00001)] == [
        "0", "6,251", "33.5", "2.00", "0.204", "0.000921", "1.00e-05",
    ]  # fmt: skip


@pytest.mark.parametrize("module", [means, render_module, selection, table_module, tables_cost], ids=lambda module: module.__name__)
def test_examples_in_docstrings(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.failed == 0 < done.attempted


# ---- formats ------------------------------------------------------------------------------------------------------------------------

SHARE_CELL = Cell("1.0 ± 0.5", "small", 1.04, 0.5, 2, Share(3, 4), ("s 1", "s<2>"), (1,))
LOW, HIGH = Share(3, 4).interval or (0.0, 1.0)
NASTY = Table(
    "x",
    "x",
    "a|b & <i> 50 % $x_1$",
    (Column("m_e", numeric=False), Column("one", "G & H"), Column("two", "G & H"), Column("three")),
    (
        (
            Cell("a|b<script>"),
            Cell("1.0 ± 0.5", "small", 1.04, 0.5, 2, Share(3, 4), ("s 1", "s<2>"), (1,)),
            Cell("∞", value=float("inf")),
            Cell("–"),
        ),
        (Cell("z"), Cell("0.0", value=0.0, spread=0.0, best=True), Cell("2", value=2), Cell("", marks=(1, 2))),
    ),
    ("a note_1",),
    ("first & last", "{second}"),
)


def json_links(table: Table) -> dict[str, str]:
    return {source: f"#json-{anchor(source)}" for source in table.sources}


def test_markdown() -> None:
    lines = [text for text in render([NASTY], "markdown").splitlines() if text.startswith("|")]
    assert len(lines) == 4 and all(len(re.findall(r"(?<!\\)\|", text)) == 5 for text in lines)
    assert "a\\|b&lt;script&gt;" in lines[2] and "1.0 ± 0.5 (3/4, 30–95, n=2, small) [1]" in lines[2] and "**0.0**" in lines[3]
    assert lines[1] == "| --- | ---: | ---: | ---: |"


def test_latex() -> None:
    text = render([NASTY], "latex")
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [part for part in body.splitlines() if part.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", part)) for part in rows[1:]] == [3, 3, 3]
    assert r" & \multicolumn{2}{c}{G \& H} &" in rows[0] and r"\cmidrule(lr){2-3}" in body
    assert r"1.0 $\pm$ 0.5 (3/4, 30--95, n=2, small)\textsuperscript{1}" in body and r"$\infty$" in body and r"\textbf{0.0}" in body
    plain = re.sub(r"\\[a-zA-Z]+(\{\})?|\\[&%$#_{}\\]|\$-\$", "", text)
    assert plain.count("{") == plain.count("}") and not set("±∞–−→") & set(text) and text.isascii()
    assert latex_text("a_b \\ ^~") == r"a\_b \textbackslash{} \textasciicircum{}\textasciitilde{}"


def test_csv_holds_every_number_with_its_rows() -> None:
    lines = list(csv.DictReader(io.StringIO(render([NASTY], "csv"))))
    assert len(lines) == 8
    assert lines[1] == {
        "table": "x", "line": "1", "row": "a|b<script>", "column": "G & H: one", "text": "1.0 ± 0.5", "small": "small", "value": "1.04",
        "spread": "0.5", "n": "2", "count": "3", "rows": "4", "low": str(100 * LOW), "high": str(100 * HIGH), "marks": "1",
        "sources": "s 1 s<2>",
    }  # fmt: skip
    assert lines[5]["value"] == "0.0" and lines[2]["value"] == "inf"
    wide = list(csv.reader(io.StringIO(to_wide_csv(NASTY))))
    assert wide[0] == ["m_e", "G & H: one", "G & H: two", "three"] and wide[2] == ["z", "0.0", "2", ""]
    assert wide[1] == ["a|b<script>", "1.04", "inf", ""], "a missing number is empty"


def test_json_keeps_zeros_and_has_no_infinity() -> None:
    [found] = json.loads(render([NASTY], "json"), parse_constant=lambda name: pytest.fail(name))["tables"]
    assert found["rows"][0][1]["sources"] == ["s 1", "s<2>"]
    assert [found["rows"][0][1][name] for name in ("count", "rows", "low", "high")] == [3, 4, 100 * LOW, 100 * HIGH]
    assert found["rows"][0][2]["value"] == "inf"
    assert found["rows"][1][1] == {"text": "0.0", "value": 0.0, "spread": 0.0, "best": True}


def test_html_leads_every_number_to_its_rows() -> None:
    text = to_html(NASTY, json_links(NASTY))
    checker = Checker(text)
    assert checker.open == [] and "<script" not in text and len(checker.ids) == len(set(checker.ids))
    assert {"#json-s-1", "#json-s-2-"} <= set(checker.targets)
    assert all(target[1:] in checker.ids for target in checker.targets if target.startswith("#note"))
    assert "#json" not in to_html(NASTY, {})
    many = replace(NASTY, rows=((*NASTY.rows[0][:1], Cell("1", value=1, sources=tuple(f"r{i}" for i in range(20))), *NASTY.rows[0][2:]),))
    assert "and 12 more" in to_html(many, json_links(many)) and to_html(many, json_links(many)).count('href="#json-r') == 8


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_the_terminal_shows_whole_tables(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    print_tables(tables_of(results_of(paper_like_rows()), ["1", "best", "7"]), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert "balanced-subnet" in text and any(one in " ".join(text.split()) for one in ("7/300, 1–5, n=3", "7 of 300 rows, 1–5 %, n=3"))


def test_the_terminal_falls_back_to_ascii() -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii", write_through=True) as file:
        print_tables(tables_of(results_of(paper_like_rows()), ["1", "best"]), Console(file=file, width=160))
        assert b"2.33 +- 1.53 (7/300, 1-5, n=3)" in raw.getvalue() and b"M - P" in raw.getvalue()


def test_a_table_is_rectangular() -> None:
    with pytest.raises(ValueError, match="expected 4 cells"):
        replace(NASTY, rows=(NASTY.rows[0][:3],))


# ---- the command --------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_runs_give_the_papers_tables(tmp_path: Path) -> None:
    rows = paper_like_rows()
    one, two = write_results(tmp_path / "one", rows[:20]), write_results(tmp_path / "two", rows[20:])
    done = tinymem("report", one, two, "--tables", "1,best")
    assert done.code == 0 and "Table 1. Multiplicative math" in done.out and "Best run" in done.out and "Table 7" not in done.out
    assert "Table 7" not in tinymem("report", one, two).out  # cost only where asked
    found = json.loads(tinymem("report", one, two, "--tables", "all", "--format", "json").out)["tables"]
    others = {
        "variants",
        "2",
        "3",
        "metrics",
        "returns",
        "inj",
        "del",
        "link",
        "findings",
        "tuning",
        *LAYERS,
        *CLASSES,
    }  # of what these rows lack
    assert [t["name"] for t in found] == [name for name in ORDER if name not in others]
    assert tinymem("report", tmp_path, "--tables", "1", "--format", "latex").out.startswith("% needs")
    assert tinymem("report", one, two, "--tables", "1", "--format", "csv", "--out", tmp_path / "t.csv").out == ""
    assert (tmp_path / "t.csv").read_text().startswith("table,line,")


@pytest.mark.thorough
def test_a_page_of_many_runs_never_replaces_the_page_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "runs" / "a-1", [bare_row("act")], RECIPE, CURVE)
    other = write_run(tmp_path / "runs" / "b-1", [bare_row("act", id="b", model_id="b")], {**RECIPE, "seed": 3}, CURVE)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for words, page in (
        ([run, other], Path("report.html")),
        ([run, "--tables", "1"], Path("report.html")),
        ([tmp_path / "runs"], tmp_path / "runs" / "report.html"),
        ([run, other, "--out", "mine.html"], Path("mine.html")),
    ):
        done = tinymem("report", *words, "--format", "html")
        assert done.out.strip() == str(page) and page.is_file(), done.err
    text = Path("mine.html").read_text()
    assert text.index("Variants: 2 runs") < text.index("Table 1.")
    assert not (run / "report.html").exists()


def test_one_run_prints_its_rows_or_its_tables(tiny_run: Run, tmp_path: Path) -> None:
    assert "memorized, forget, holdout, accuracy: % after the edit" in tinymem("report", tiny_run.path).out
    done = tinymem("report", tiny_run.path, "--tables", "all")
    assert done.code == 0
    for expected in ("Table 1. Additive math", "finetune-clean", "Pareto front", "(i) training", "ours, measured", "paper's grid"):
        assert expected in done.out
    assert json.loads(tinymem("report", tiny_run.path, "--format", "json").out) == list(map(with_intervals, as_json(tiny_run.rows)))


@pytest.mark.thorough
def test_a_folder_gets_every_format_and_every_source(tiny_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report"
    done = tinymem("report", tiny_run.path, "--out", out)
    assert done.code == 0 and sorted(done.out.split()) == sorted(str(path) for path in out.rglob("*") if path.is_file())
    assert {"tables.md", "tables.tex", "tables.json", "sources.csv", "rows.json", "report.html"} < {p.name for p in out.iterdir()}
    assert half_written(tmp_path) == []
    rows = json.loads((out / "rows.json").read_text())
    tables = json.loads((out / "tables.json").read_text())["tables"]
    used = {source for t in tables for row in t["rows"] for cell in row for source in cell.get("sources", [])}
    assert used == set(rows) and used <= {row.source for row in tiny_run.rows}
    for t in tables:
        assert (out / f"{t['key']}.csv").is_file()
    page = (out / "report.html").read_text()
    checker = Checker(page.replace("<!DOCTYPE html>", ""))
    assert all(f"json-{anchor(source)}" in checker.ids for source in used)
    assert all(target[1:] in checker.ids for target in checker.targets if target.startswith("#"))


def test_a_machine_of_ones_own(tiny_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "laptop.yaml"
    path.write_text(yaml.safe_dump({"cpu_watts": 15, "gpus": 0, "memory_gb": 16, "pue": 1}))
    done = tinymem("report", tiny_run.path, "--tables", "6,7", "--machine", path, "--format", "markdown")
    assert done.code == 0 and "laptop" in done.out


def test_a_run_that_is_still_training_has_its_costs(tmp_path: Path) -> None:
    done_one = write_run(tmp_path / "a-1", [bare_row("act")], RECIPE, CURVE)
    training = write_run(tmp_path / "b-1", [], {**RECIPE, "seed": 3}, CURVE)
    done = tinymem("report", done_one, training, "--format", "json")
    [found] = [t for t in json.loads(done.out)["tables"] if t["name"] == "1"]
    assert found["rows"][0][1]["n"] == 2, done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tables", "12"], "expected tables of variants, 1, 2"),
        (["--tables", "2"], "expected rows for table 2"),
        (["--tables", "7", "--machine", "none.yaml"], "none.yaml"),
    ],
)
def test_what_cannot_be_shown_is_said_on_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    folder = write_results(tmp_path / "r", [make_row("act")])
    assert message in tinymem("report", folder, *words).one_line_error()
    assert "found none" in tinymem("report", folder, tmp_path / "missing").one_line_error()


def test_html_puts_words_on_the_left_and_numbers_on_the_right() -> None:
    columns = (Column("method", numeric=False), Column("options", numeric=False), Column("score"))
    text = to_html(Table("t", "t", "T", columns, ((Cell("act"), Cell("ratio=0.1"), Cell("-9.0")),)), {})
    assert '<td class="words">ratio=0.1</td>' in text and "<td>-9.0</td>" in text and '<th scope="col" class="words">options</th>' in text
