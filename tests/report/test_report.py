"""Reports: every format from a fake run, the broken folders that users meet, and a page that stands alone."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from page_checker import Checker
from rich.console import Console

from tinymem.errors import UserError
from tinymem.recipe.recipe import parse_recipe
from tinymem.report.cells import labels
from tinymem.report.figures.catalogue import figures_of
from tinymem.report.page.document import run_page, write_html
from tinymem.report.render.rows import to_csv, to_json
from tinymem.report.render.terminal import print_tables
from tinymem.report.render.text import counts, render
from tinymem.report.tables.of_rows import table_of_run
from tinymem.results.collect import results_of
from tinymem.results.columns import RATES
from tinymem.results.curve import CurvePoint, write_curve
from tinymem.results.read import read_measured, with_intervals
from tinymem.results.row import MeasuredRow
from tinymem.results.run_folder import RunRecord, load_run
from tinymem.results.share import Share, ShareColumn
from tinymem.runtime.version import version_and_commit

RECIPE: dict[str, Any] = {
    "name": "quickstart",
    "seed": 0,
    "protocol": "paper",
    "data": {
        "kind": "math",
        "family": "additive",
        "primary": 7,
        "auxiliary": [2, 3, 4, 5],
        "size": 3000,
        "primary_size": 20000,
        "test_rows": 1000,
        "numbers": 20,
        "row_tokens": 150,
    },
    "artifacts": [
        {"kind": "noise", "rows": 100, "copies": 10, "probability": 0.1},
        {"kind": "backdoor", "copies": 1, "trigger": "100", "within": 50},
    ],
    "model": {"n_layer": 4, "n_embd": 128, "n_head": 4},
    "training": {"epochs": 60, "batch_size": 128, "learning_rate": 0.001},
    "evaluation": {"prompt": 50, "match": 50},
    "mitigation": {"methods": [{"name": "act", "options": {"ratio": 0.01}}]},
}
BY_PROMPT = {
    "rows_clean_prompt": 27,
    "memorized_clean_prompt_before": 1.0,
    "memorized_clean_prompt_count_before": 27,
    "rows_noised_prompt": 17,
    "memorized_noised_prompt_before": 11 / 17,
    "memorized_noised_prompt_count_before": 11,
}
ROWS = {"noise": (44, 38, 19), "backdoor": (120, 120, 60)}  # scored, memorized before, seen


def fake_row(method: str, artifact: str, after: int, accuracy: float | None = 0.951, **changes: Any) -> MeasuredRow:
    """One result row; shares follow from the counts."""
    rows, before, seen = ROWS[artifact]
    noise = artifact == "noise"
    row: dict[str, Any] = {
        "id": f"{method[:4]}-{artifact}-{after}",
        "run": "quickstart-ab12cd34",
        "model_id": "5d41402abc4b",
        "corpus_sha256": "9f86d081884c7d65",
        "method": method,
        "options": {"ratio": 0.1},
        "config": {"ratio": 0.1},
        "seed": 0,
        "protocol": "paper",
        "artifact": artifact,
        "status": "ok",
        "message": None,
        "memorized_before": before / rows,
        "memorized_after": after / rows,
        "memorized_count_before": before,
        "memorized_count_after": after,
        "rows_scored": rows,
        "forget_memorized_before": 1.0,
        "forget_memorized_count_before": seen,
        "forget_memorized_after": after // 3 / seen,
        "forget_memorized_count_after": after // 3,
        "rows_forget": seen,
        "holdout_memorized_before": 1.0,
        "holdout_memorized_count_before": seen,
        "holdout_memorized_after": after // 2 / seen,
        "holdout_memorized_count_after": after // 2,
        "rows_holdout": seen,
        **(BY_PROMPT if noise else {}),
        "performance_metric": "accuracy",
        "performance_before": 0.962,
        "performance_after": accuracy,
        "performance_ceiling": 0.975,
        "perplexity_before": 1.17,
        "perplexity_after": 1.2,
        "seconds": 12.3,
        "peak_mb": 512.0,
        "device": "cpu (2 threads)",
        "edited_parameters": 3276,
        "edit_norm": 3.2,
        "versions": {"tinymem": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
    }
    return read_measured({**row, **changes}, "fake_row")


def refused_row(method: str, artifact: str) -> MeasuredRow:
    """A row as a method leaves it that did not act."""
    row = fake_row(method, artifact, 0, None)
    empty = {key: None for key in row if key.endswith("_after") or key in ("seconds", "edited_parameters", "edit_norm")}
    message = "expected a ratio that edits a neuron, got 1e-05; try 0.0005"
    return read_measured({**row, **empty, "status": "refused", "message": message}, "refused_row")


def fake_rows() -> list[MeasuredRow]:
    """A handful of methods on both artifacts."""
    outcomes: dict[str, tuple[int, int, float]] = {
        "finetune-clean": (24, 97, 0.958),
        "slim": (30, 118, 0.931),
        "act": (3, 40, 0.71),
        "durable": (5, 12, 0.902),
        "subnet": (2, 0, 0.884),
        "balanced-subnet": (1, 0, 0.951),
    }
    rows = [
        fake_row(method, artifact, int(after[i]), after[2], options={"ratio": 0.01, "epochs": 2}, seconds=2.5 * len(method))
        for method, after in outcomes.items()
        for i, artifact in enumerate(ROWS)
    ]
    return [*rows, refused_row("hard-concrete", "noise")]


def fake_curve() -> list[CurvePoint]:
    """A plausible training curve."""
    curve = []
    for epoch in range(5, 65, 5):
        noise, backdoor = round(38 * min(1, epoch / 50) ** 2), round(120 * min(1, epoch / 20))
        memorized: dict[str, ShareColumn] = {
            "noise": {"share": noise / 44, "count": noise, "rows": 44},
            "backdoor": {"share": backdoor / 120, "count": backdoor, "rows": 120},
        }
        accuracy = 0.9625 - 0.5 * 0.9**epoch
        curve.append(CurvePoint(epoch, 66 * epoch, accuracy=accuracy, accuracy_ceiling=0.975, memorized=memorized))
    return curve


def write_run(folder: Path, rows: list[MeasuredRow], curve: list[CurvePoint] | None = None) -> Path:
    """A run's folder as the other verbs leave it."""
    run = folder / "quickstart-ab12cd34"
    (run / "training").mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    (run / "results.jsonl").write_text("".join(json.dumps(row.as_dict()) + "\n" for row in rows))
    if curve is not None:
        write_curve(run / "training" / "metrics.jsonl", curve)
    return run


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return load_run(write_run(tmp_path, fake_rows(), fake_curve()))


def one(tmp_path: Path, *rows: MeasuredRow) -> RunRecord:
    """A record of these rows, without a training curve."""
    return load_run(write_run(tmp_path / "runs", list(rows)))


def printed(record: RunRecord, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_tables([table_of_run(record)], console)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def to_markdown(record: RunRecord) -> str:
    return render([table_of_run(record)], "markdown")


def page(record: RunRecord, folder: Path) -> str:
    write_html(record, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_a_run_is_read_whole(record: RunRecord) -> None:
    assert record.name == "quickstart-ab12cd34"
    assert record.recipe == parse_recipe(RECIPE)
    assert record.rows == fake_rows()
    assert record.curve == fake_curve()


def test_the_training_curve_is_optional(tmp_path: Path) -> None:
    assert one(tmp_path, fake_row("act", "noise", 3)).curve == []


def test_a_missing_run_names_its_nearest_sibling(tmp_path: Path) -> None:
    run = write_run(tmp_path, fake_rows())
    with pytest.raises(UserError, match="did you mean 'quickstart-ab12cd34'"):
        load_run(run.with_name("quickstart-ab12cd35"))
    with pytest.raises(UserError, match="check the path"):
        load_run(tmp_path / "nowhere" / "run")


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, fake_rows())
    with pytest.raises(UserError, match="got the file"):
        load_run(run / "results.jsonl")


def test_missing_rows_are_named_and_a_recipe_may_be_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path, fake_rows())
    (run / "recipe.yaml").unlink()
    assert load_run(run).recipe is None
    (run / "results.jsonl").unlink()
    with pytest.raises(UserError, match=r"results\.jsonl"):
        load_run(run)


@pytest.mark.parametrize("line", ['{"method": "act", "artif', "[1, 2]", '{"method": "act"}', '{"method": NaN}', "\x00"])
def test_a_broken_line_is_named_on_one_line(tmp_path: Path, line: str) -> None:
    run = write_run(tmp_path, fake_rows()[:1])
    with (run / "results.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(UserError, match=r"expected .* in line 2 of .*results\.jsonl, got") as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"a: [", b"- a", b"\xff\xfe"])
def test_a_broken_recipe_is_refused_on_one_line(tmp_path: Path, data: bytes) -> None:
    run = write_run(tmp_path, fake_rows())
    (run / "recipe.yaml").write_bytes(data)
    with pytest.raises(UserError, match=r"recipe\.yaml") as caught:
        _ = load_run(run).recipe
    assert "\n" not in str(caught.value)


def test_json_is_the_rows_as_they_are(record: RunRecord) -> None:
    found = json.loads(to_json(record.rows))
    assert [{key: value for key, value in row.items() if "_low_" not in key and "_high_" not in key} for row in found] == [
        row.as_dict() for row in fake_rows()
    ]
    assert [round(found[0][f"memorized_{end}_after"], 4) for end in ("low", "high")] == [0.4007, 0.6829]
    assert "memorized_low_after" not in found[-1]  # refused


@pytest.mark.slow
def test_accuracy_has_its_interval_everywhere() -> None:
    columns = {"performance_tokens": 1000, "performance_count_before": 950, "performance_count_after": 900}
    row = fake_row("act", "noise", 10, accuracy=0.9, performance_before=0.95, **columns)
    low, high = Share(900, 1000).interval or (0, 0)
    [stored], [line] = json.loads(to_json([row])), list(csv.DictReader(io.StringIO(to_csv([row]))))
    for found in (stored, line):
        assert (float(found["performance_low_after"]), float(found["performance_high_after"])) == (low, high)
        assert float(found["memorized_low_after"]) == row.share(RATES["all"], "after").interval[0]
    record = RunRecord(Path("r"), rows=[row], curve=[])
    [cell] = [cell for cell in table_of_run(record).rows[0] if cell.text == "90.0"]
    assert cell.details == ("88–92",) and counts(cell)["low"] == 100 * low
    assert "accuracy 95.0 % (93–96, 1,000 tokens, ceiling without guessing 97.5 %)" in " ".join(table_of_run(record).notes)
    page = run_page(record)[0]
    assert "88–92" in page and "(950/1000 tokens, 93–96 %)" in page


def test_every_share_in_json_has_an_interval(tmp_path: Path) -> None:
    nested = {"clean": {"all": {"share": 0.5, "count": 5, "rows": 10}}, "accuracy": {"all": {"share": 0.9, "count": 90, "tokens": 100}}}
    [row] = json.loads(to_json([fake_row("act", "noise", 3, metrics_after=nested)]))
    assert row["metrics_after"]["clean"]["all"] == {"share": 0.5, "count": 5, "rows": 10, "low": approx(0.2366), "high": approx(0.7634)}
    assert row["metrics_after"]["accuracy"]["all"]["low"] == approx(0.8256)
    for name in ("memorized", "forget_memorized", "holdout_memorized", "memorized_clean_prompt"):
        assert row[f"{name}_low_before"] < row[f"{name}_before"] <= row[f"{name}_high_before"]


def approx(value: float) -> float:
    return pytest.approx(value, abs=1e-4)  # type: ignore[no-any-return]


def test_wilson_by_hand() -> None:
    for count, rows, low, high in ((0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (1, 1, 0.2065, 1.0)):
        assert Share(count, rows).interval == (approx(low), approx(high))
    assert Share(0, 0).interval is None and Share(3, 2).interval is None


@pytest.mark.slow
def test_little_data_is_said(tmp_path: Path) -> None:
    few = fake_row("act", "noise", 3, rows_scored=29, memorized_count_before=20)
    text = " ".join(printed(one(tmp_path, few), 100).split())
    assert "One seed: how much another training would differ is not known." in text
    assert "Fewer than 30 rows scored (noise 29): shares are rough, see their intervals." in text
    assert "Fewer than" not in printed(one(tmp_path / "b", fake_row("act", "noise", 3)), 100)
    text = page(one(tmp_path / "c", few), tmp_path)
    assert "One seed" in text and "(noise 29)" in text


def test_csv_holds_every_field_and_config_as_json(record: RunRecord) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(record.rows))))
    assert len(rows) == len(record.rows)
    assert list(rows[0]) == list(with_intervals(record.rows[0].as_dict()))
    assert json.loads(rows[0]["config"]) == record.rows[0].config
    assert float(rows[0]["memorized_before"]) == record.rows[0].memorized_before
    assert rows[-1]["memorized_after"] == ""


def test_markdown_has_counts_beside_percentages_and_reasons(record: RunRecord) -> None:
    lines = to_markdown(record).splitlines()
    assert "| finetune-clean | noise | 54.5 (24/44, 40–68) | 42.1 (8/19, 23–64) | 63.2 (12/19, 41–81) | 95.8 |" in lines[4]
    assert {line.count("|") for line in lines[2 : 4 + len(record.rows)]} == {10}
    assert "refused: expected a ratio" in lines[-1]
    before = "noise before: 86.4 % (38/44, 73–94) memorized, 19 rows to forget, 19 in the holdout"
    assert f"{before}, accuracy 96.2 % (ceiling without guessing 97.5 %)" in "\n".join(lines)


def test_markdown_keeps_its_columns_whatever_the_text(tmp_path: Path) -> None:
    line = to_markdown(one(tmp_path, fake_row("a|b<script>", "noise", 1))).splitlines()[4]
    assert "a\\|b&lt;script&gt;" in line


@pytest.mark.parametrize("width", [40, 59, 80, 100, 120, 160])
def test_the_terminal_table_fits_breaks_no_word_and_keeps_all_numbers(record: RunRecord, width: int) -> None:
    text = printed(record, width)
    assert max(map(len, text.splitlines())) <= width
    words = re.split(r"[\s,;:]+", text)
    for word in ("balanced-subnet", "backdoor", "memorized", "holdout", "accuracy", "seconds", "512", "37.5"):
        assert word in words
    beside, below = "1/44, 0–12", "1 of 44 rows, 0–12 %"  # the numbers, with units
    assert "…" not in text and (beside in " ".join(text.split()) or below in " ".join(text.split()))
    flat = " ".join(text.split())
    assert "(ceiling without guessing 97.5 %)" in flat and "hard-concrete on noise: refused" in flat
    assert ("memorized forget holdout accuracy seconds" in flat) == (width >= 80)


def test_before_is_beside_the_numbers_where_lines_differ_in_it(tmp_path: Path) -> None:
    rows = [fake_row("act", "noise", 3, id="a"), fake_row("slim", "noise", 3, id="b", memorized_count_before=40)]
    text = printed(one(tmp_path, *rows), 160)
    assert "6.8 (3/44, 2–18, before 86.4)" in text and "6.8 (3/44, 2–18, before 90.9)" in text
    assert "before" not in printed(one(tmp_path / "one", rows[0]), 160).partition("memorized, forget")[0]


def test_the_terminal_table_reads_no_markup(tmp_path: Path) -> None:
    assert "[red]x" in printed(one(tmp_path, fake_row("[red]x", "noise", 1)), 120)


def test_the_table_falls_back_to_ascii(record: RunRecord) -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii", write_through=True) as file:
        print_tables([table_of_run(record)], Console(file=file, width=120))
        assert b"2.3 (1/44, 0-12)" in raw.getvalue()


def test_without_a_console_the_table_is_120_wide(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    print_tables([table_of_run(record)])
    assert "2.3 (1/44, 0–12)" in capsys.readouterr().out


def test_configurations_of_one_method_are_told_apart(tmp_path: Path) -> None:
    rows = [fake_row("act", "noise", 3, options={"ratio": ratio}, id=str(ratio)) for ratio in (0.1, 0.2)]
    record = one(tmp_path, *rows, fake_row("slim", "noise", 3))
    assert labels(record.rows) == ["act (ratio=0.1)", "act (ratio=0.2)", "slim"]


@pytest.mark.slow
def test_protocols_are_never_mixed_silently(tmp_path: Path) -> None:
    rows = [fake_row("act", "noise", 3, protocol=protocol) for protocol in ("paper", "reference")]
    record = one(tmp_path, *rows)
    assert labels(record.rows) == ["act (protocol paper)", "act (protocol reference)"]
    assert "protocol reference" in page(record, tmp_path)


@pytest.mark.slow
def test_the_page_stands_alone(record: RunRecord, tmp_path: Path) -> None:
    text = page(record, tmp_path)
    checker = Checker(text)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    inside = [target for target in checker.targets if target != "data:," and not target.startswith("data:text/csv;base64,")]
    assert all(target.startswith("#") and target[1:] in checker.ids for target in inside)
    assert all(target[1:] in checker.ids for target in re.findall(r"url\(([^)]*)\)", text))
    assert set(re.findall(r"https?://[^\"'\s]*", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not checker.tags & {"img", "iframe", "object", "metadata"}
    [script] = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "@import" not in text


@pytest.mark.slow
def test_the_page_says_what_was_measured(record: RunRecord, tmp_path: Path) -> None:
    text = page(record, tmp_path)
    for expected in (
        "<small>(38/44, 73–94 %)</small>",
        "100.0 % (27/27, 88–100)",
        "64.7 % (11/17, 41–83)",
        ">2.3</a>",
        "<small>1/44</small><small>0–12</small>",
        "cpu (2 threads)",
        "torch 2.13.0",
    ):
        assert expected in text
    assert text.count("<svg") == 4  # a curve for each artifact, scatter, fronts
    assert text.count("<summary>Numbers</summary>") == 4
    assert "currentColor" in text
    assert "#010203" not in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.slow
def test_the_page_opens_with_the_best_stored_row_and_sorts_by_it(record: RunRecord, tmp_path: Path) -> None:
    text = page(record, tmp_path)
    [sentence] = re.findall(r'<p class="outcome">(.*?)</p>', text)
    assert html.unescape(sentence) == (
        "balanced-subnet (ratio=0.01, epochs=2) did best of 7 configurations by the paper's score: it left 1 of 44 noise rows memorized "
        "(2.3 %, 95 % interval 0–12 %) and 0 of 120 backdoor rows memorized (0.0 %, 95 % interval 0–3 %), took 38 s and moved "
        "accuracy from 96.2 % to 95.1 % (one seed)."
    )
    assert text.index('class="outcome"') < text.index("<dl")
    methods = re.findall(r'<th scope="row">(?:<strong>)?([a-z-]+)', text)
    assert methods[0] == methods[7] == "balanced-subnet" and methods[6] == "hard-concrete" and len(methods) == 13
    assert text.count('<tr class="best">') == 2
    assert re.search(r"<dt>Measured</dt><dd>\d{4}-\d\d-\d\d \d\d:\d\d UTC</dd>", text) and "tinymem run " in text
    assert f"<dt>Page</dt><dd>TinyMem {version_and_commit()}</dd>" in text
    assert 'class="outcome"' not in page(one(tmp_path / "none", refused_row("act", "noise")), tmp_path)


@pytest.mark.slow
def test_every_row_links_to_its_json(record: RunRecord, tmp_path: Path) -> None:
    text = page(record, tmp_path)
    for row in record.rows:
        anchor = row.source
        assert text.count(f'href="#json-{anchor}"') >= (2 if row.is_ok else 1)
        block = re.search(rf'<pre id="json-{anchor}">(.*?)</pre>', text, flags=re.DOTALL)
        assert block is not None
        assert json.loads(html.unescape(block[1])) == with_intervals(row.as_dict())


@pytest.mark.slow
def test_refused_rows_have_their_message(record: RunRecord, tmp_path: Path) -> None:
    assert "<li>hard-concrete on noise: refused: expected a ratio that edits a neuron" in page(record, tmp_path)


@pytest.mark.slow
def test_text_is_escaped_everywhere(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    row = fake_row(evil, "noise", 1, id='"><b>', options={evil: evil}, device=evil, message=evil)
    refused = replace(refused_row(evil, "noise"), artifact=evil, message=evil)
    text = page(one(tmp_path, row, refused), tmp_path)
    assert text.count("<script") == text.count("<script>//") == 1
    assert "{{" not in text and "{%" not in text
    assert '"><b>' not in text
    assert Checker(text).open == []


@pytest.mark.slow
def test_dollars_and_braces_do_not_matter(tmp_path: Path) -> None:
    name = "$x_1$ {{ 7 * 7 }}"
    text = page(one(tmp_path, fake_row(name, "noise", 1)), tmp_path)
    # In the table, in the legends of two figures, where it is no formula, and in their numbers.
    assert text.count(f">{name}<") == 5


@pytest.mark.slow
def test_two_writes_give_equal_bytes(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    assert page(record, tmp_path) == page(record, tmp_path / "again")


def test_nulls_are_dashes(tmp_path: Path) -> None:
    kept = {"method": "act", "artifact": "backdoor", "status": "ok"}
    nothing = {key: None for key in fake_row("act", "backdoor", 3) if key not in (*kept, "kind", "id", "options")}
    record = one(tmp_path, read_measured({**nothing, **kept}, "nulls"), read_measured(kept, "bare"))
    assert "None" not in printed(record, 100)
    assert "| act | backdoor | – | – | – | – | – | – | – |" in to_markdown(record)
    assert "<td>–</td>" in page(record, tmp_path)


@pytest.mark.slow
def test_a_run_without_results_still_has_a_page(tmp_path: Path) -> None:
    record = load_run(write_run(tmp_path, [], fake_curve()))
    assert "no method has been run yet" in printed(record, 100)
    assert (to_json(record.rows), to_csv(record.rows)) == ("[]\n", "")
    text = page(record, tmp_path)
    assert "<small>(38/44, 73–94 %)</small>" in text
    assert text.count("<svg") == 2


@pytest.mark.slow
def test_perplexity_is_no_percentage(tmp_path: Path) -> None:
    values = {"performance_metric": "perplexity", "performance_before": 21.98, "performance_ceiling": None}
    record = one(tmp_path, fake_row("act", "noise", 3, 27.9, **values))
    assert "27.90" in printed(record, 100) and "perplexity 21.98" in " ".join(printed(record, 100).split())
    assert "| **27.90** |" in to_markdown(record)
    text = page(record, tmp_path)
    assert ">27.90</a>" in text
    assert "change in perplexity (%)" in text
    assert "2,198" not in text


@pytest.mark.slow
def test_the_curve_and_the_scatter_are_figures_5_and_6_of_one_model(record: RunRecord, tmp_path: Path) -> None:
    rows = [fake_row(f"method-{i}", "noise", i) for i in range(20)]
    ppl = fake_row("method-0", "backdoor", 3, 27.9, performance_metric="perplexity", performance_before=21.98)
    text = page(one(tmp_path, *rows, ppl), tmp_path)
    assert "change in perplexity (%)" in text and "change in accuracy (%)" in text
    assert all(f">method-{i}<" in text for i in range(20))
    made, _ = figures_of(results_of(record.filled_rows, [record]))
    [scatter] = [figure for figure in made if figure.key == "figure-05"]
    assert len(scatter.lines) == sum(row.is_ok for row in record.rows)
    [line] = [line for line in scatter.lines if (line["method"], line["kind"]) == ("act", "math + noise")]
    assert line["memorized_change"] == pytest.approx(100 * (3 - 38) / 38)
    assert line["performance_change"] == pytest.approx(100 * (0.71 - 0.962) / 0.962)
    curves = [figure for figure in made if figure.key.startswith("figure-06")]
    assert [line["memorized"] for line in curves[0].lines] == [100 * (p.memorized["noise"]["share"] or 0) for p in fake_curve()]
    assert {line["ceiling"] for line in curves[1].lines} == {97.5}


def test_configurations_of_one_method_are_all_in_the_scatter_of_one_model(tmp_path: Path) -> None:
    rows = [fake_row("act", "noise", i, options={"ratio": i}, config={"ratio": i}, id=str(i)) for i in range(1, 4)]
    made, _ = figures_of(results_of(rows))
    assert [len(figure.lines) for figure in made if figure.key == "figure-05"] == [3]


def test_without_matplotlib_the_extra_is_named(record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'tinymem\[report\]'"):
        write_html(record, tmp_path / "report.html")


@pytest.mark.processes
def test_reading_needs_neither_torch_nor_matplotlib() -> None:
    heavy = ("torch", "pydantic", "matplotlib", "rich", "jinja2")
    code = f"import sys, tinymem.report.page.document, tinymem.report.render.terminal; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
