"""Our rows beside the paper's tables: numbers as printed, differences, footnotes, and models that are not compared."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, tinymem
from report_rows import Values, make_row, paper_like_rows, write_results

from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.paper import METHODS
from tinymem.report.compare import compare_with_published
from tinymem.report.published import Published, footnotes, published
from tinymem.report.tables.table import Cell, Table
from tinymem.results.collect import results_of
from tinymem.results.row import MeasuredRow
from tinymem.runs.pipeline import Run

# Spot checks, typed in from the paper's tables by hand: table, artifact or model, method, the three numbers.
PRINTED: list[tuple[str, str, str, tuple[float, float, float | None]]] = [
    ("Table 1", "noise", "none", (34.73, 96.98, None)),
    ("Table 1", "noise", "sou", (0.81, 87.02, 313.45)),
    ("Table 1", "noise", "balanced-subnet", (0.06, 96.11, 6.00)),
    ("Table 1", "backdoor", "none", (99.50, 96.97, None)),
    ("Table 1", "backdoor", "finetune-extra", (5.17, 96.99, 24.51)),
    ("Table 1", "backdoor", "subnet", (1.10, 61.63, 0.23)),
    ("Table 2", "noise", "none", (13.06, 56.87, None)),
    ("Table 2", "noise", "example-tied-dropout", (0.0, math.inf, 2577.24)),
    ("Table 2", "noise", "balanced-subnet", (0.0, 57.18, 92.56)),
    ("Table 2", "backdoor", "none", (100.0, 63.15, None)),
    ("Table 2", "backdoor", "durable-agg", (100.0, 612.46, 0.35)),
    ("Table 2", "backdoor", "balanced-subnet", (0.0, 71.86, 917.96)),
    ("Table 3", "pythia-2.8b", "greedy", (4.36, 32.35, 7545.78)),
    ("Table 3", "pythia-6.9b", "balanced-subnet", (6.53, 22.73, 233.42)),
]


def compared(rows: list[MeasuredRow]) -> tuple[list[Table], list[str]]:
    return compare_with_published(results_of(rows))


def cells(table: Table, method: str) -> dict[str, Cell]:
    [row] = [row for row in table.rows if row[0].text == method]
    return dict(zip([column.name for column in table.columns], row, strict=True))


def of(origin: str, what: str) -> Published:
    [found] = [p for p in published() if p.origin == origin and what in (p.column("artifact"), p.column("model_name"))]
    return found


@pytest.mark.parametrize(("origin", "what", "method", "numbers"), PRINTED)
def test_published_numbers_are_as_printed(origin: str, what: str, method: str, numbers: tuple[float, float, float | None]) -> None:
    row = of(origin, what).rows[method]
    assert (row.memorized, row.performance, row.seconds) == numbers


def test_published_data_is_whole() -> None:
    tables = [p for p in published() if p.origin.startswith("Table")]
    assert [len(p.rows) for p in tables] == [18, 18, 18, 18, 9, 9]
    assert set(tables[0].rows) <= set(METHODS)
    known = set(UNLEARNERS.names()) | {"none", "spectral-norm", "loss-truncation", "example-tied-dropout"}
    used: set[str] = set()
    for p in published():
        assert set(p.rows) <= known
        used |= {*p.notes, *(note for row in p.rows.values() for note in row.notes)}
        for row in p.rows.values():
            assert 0 <= row.memorized <= 100 and (row.performance is None or row.performance > 0)
    assert used == set(footnotes())


def test_what_is_known_to_be_wrong_is_said() -> None:
    def notes(origin: str, what: str, method: str) -> tuple[str, ...]:
        return of(origin, what).rows[method].notes

    assert all("zero" in notes(f"Table {t}", a, "zero") for t in (1, 2) for a in ("noise", "backdoor"))
    assert all("running-sum" in notes(f"Table {t}", a, "sou") for t in (1, 2) for a in ("noise", "backdoor"))
    assert all("tied" in notes(f"Table {t}", a, "example-tied-dropout") for t in (1, 2) for a in ("noise", "backdoor"))
    assert "misfiled" in notes("Table 2", "backdoor", "spectral-norm") and "misfiled" not in notes("Table 2", "noise", "spectral-norm")
    assert "pooled" in of("Table 2", "backdoor").notes and "pooled" not in of("Table 2", "noise").notes
    assert "rewarded" in notes("Table 1", "noise", "act") and "rewarded" not in notes("Table 1", "noise", "finetune-clean")
    twins = of("Table 2", "backdoor").rows
    assert (twins["slim"].performance, twins["slim"].seconds) == (twins["zero"].performance, twins["zero"].seconds)


def test_differences_by_hand() -> None:
    tables, unmatched = compared(paper_like_rows())
    assert unmatched == [] and [t.title.rpartition(", ")[2] for t in tables] == ["noise: ours and Table 1", "backdoor: ours and Table 1"]
    found = cells(tables[0], "balanced-subnet")
    assert found["% memorized: difference"].value == pytest.approx(7 / 3 - 0.06) and found["% memorized: difference"].text == "+2.27"
    assert found["accuracy %: difference"].value == pytest.approx(96.1 - 96.11)
    assert found["seconds: times"].value == pytest.approx(1.0)
    assert len(found["% memorized: difference"].sources) == 3
    base = cells(tables[0], "trained model")
    assert base["% memorized: difference"].text == "+5.27" and base["seconds: paper"].text == "–"
    missing = cells(tables[0], "greedy")
    assert (missing["% memorized: ours"].text, missing["% memorized: paper"].text, missing["% memorized: difference"].text) == (
        "–",
        "5.98",
        "–",
    )


def test_footnotes_stand_below_the_table_that_needs_them() -> None:
    [noise, _], _ = compared(paper_like_rows())
    zero = cells(noise, "zero")["method"]
    assert any("other 511 neurons" in noise.footnotes[mark - 1] for mark in zero.marks) and zero.marks == tuple(sorted(zero.marks))
    assert not cells(noise, "finetune-extra")["method"].marks
    marks = {mark for row in noise.rows for mark in row[0].marks}
    assert marks == set(range(1, len(noise.footnotes) + 1))
    assert any("padding" in note for note in noise.notes) and any("Protocol `reference`" in note for note in noise.notes)
    [reference, _], _ = compared([replace(row, protocol="reference") for row in paper_like_rows()])
    assert not any("Protocol `reference`" in note for note in reference.notes)


def test_other_epochs_are_stated_and_the_training_curve_is_nearer() -> None:
    tables, _ = compared([make_row("act", seed=seed, epoch=500) for seed in (0, 1)])
    assert [t.title.partition("ours and ")[2] for t in tables] == ["Table 1", "training curve, mean of 2 seeds"]
    assert "Ours after epoch 500, theirs after 3,500: not like with like." in tables[0].notes
    curve = cells(tables[1], "trained model")
    assert curve["% memorized: paper"].value == 19.65 and not any("not like with like" in note for note in tables[1].notes)
    [close], _ = compared([make_row("act", epoch=3300)])
    assert not any("not like with like" in note for note in close.notes)


def test_infinite_perplexity_has_no_difference() -> None:
    text: Values = {"data": "wiki", "data_size": None, "performance_metric": "perplexity", "performance_before": 57.0, "epoch": 100}
    tied = make_row("act", regularizer="example-tied-dropout", model_id="t", id="t", **text)
    [table], _ = compared([make_row("act", performance=58.0, **text), tied])
    found = cells(table, "example-tied-dropout")
    assert found["perplexity: paper"].text == "∞" and found["% memorized: difference"].value == 40.0
    assert cells(table, "act")["perplexity: difference"].value == pytest.approx(58 - 58.91)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_layer": 3}, "layers 4 (ours: 3)"),
        ({"data": "additive", "n_layer": 2}, "data multiplicative (ours: additive)"),
        ({"data": "additive", "data_size": 1000, "n_layer": 4}, "nearest published model has sequences a task 20,000 (ours: 1,000)"),
        ({"data": "wiki", "data_size": None, "n_layer": 3}, "nearest published model has layers 4 (ours: 3)"),
        ({"data_size": 300}, "sequences a task 3,000 (ours: 300)"),
        ({"artifact": "canary"}, "the paper has no such artifact"),
    ],
)
def test_other_models_are_not_compared(changes: dict[str, Any], said: str) -> None:
    tables, [line] = compared([make_row("act", **changes)])
    assert tables == [] and "not compared" in line and said in line


def test_pythia_by_its_name() -> None:
    own: Values = {
        "family": None,
        "data": None,
        "data_size": None,
        "n_layer": None,
        "epoch": None,
        "performance_metric": "perplexity",
        "performance_before": 22.0,
    }
    rows = [
        make_row("slim", "rows", performance=23.0, model_name=f"pythia-{size}-deduped", id=size, model_id=size, **own)
        for size in ("2.8b", "1b")
    ]
    [table], [line] = compared(rows)
    assert cells(table, "slim")["perplexity: difference"].value == pytest.approx(23.0 - 23.22)
    assert "pythia-1b" in line


def test_the_command(tmp_path: Path, tiny_run: Run) -> None:
    folder = write_results(tmp_path / "r", paper_like_rows())
    done = tinymem("compare", folder, "--with", "published")
    assert done.code == 0 and "ours and Table 1" in done.out and "other 511 neurons" in " ".join(done.out.split())
    found = json.loads(tinymem("compare", folder, "--format", "json").out)["tables"]
    assert len(found) == 2 and found[0]["footnotes"]
    none = tinymem("compare", tiny_run.path)
    assert none.code == 0 and none.out.count("not compared; the nearest published model has") == 2
    assert json.loads(tinymem("compare", tiny_run.path, "--format", "json").out) == {"tables": []}
    assert tinymem("compare", folder, "--format", "latex", "--out", tmp_path / "t.tex").out == "" and (tmp_path / "t.tex").exists()
    assert "--with" in tinymem("compare", folder, "--with", "hearsay").one_line_error()
    assert "found none" in tinymem("compare", tmp_path / "none").one_line_error()
    shipped = ROOT / "zoo"
    assert "expected rows of methods in" in tinymem("compare", shipped, "--format", "json").one_line_error()
    assert "found none; name runs or sweeps" in tinymem("report", shipped).one_line_error()
