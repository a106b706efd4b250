"""The verbs that look at a finished run or edit its model, in every format."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import tinymem

from tinymem.data.math.sequences import to_text
from tinymem.data.rows import Rows
from tinymem.mitigation.methods.neuron import nemo
from tinymem.models.checkpoint import load_checkpoint
from tinymem.results.read import as_json, with_intervals
from tinymem.results.share import Share
from tinymem.runs.pipeline import Run
from tinymem.runtime.files import file_sha256

COLUMNS = [
    "method", "config", "seed", "protocol", "artifact", "status", "memorized_before", "memorized_after", "forget_memorized_before",
    "forget_memorized_after", "holdout_memorized_before", "holdout_memorized_after", "rows_scored", "performance_metric",
    "performance_before", "performance_after", "performance_ceiling", "seconds", "peak_mb", "device", "edited_parameters",
]  # fmt: skip
METHOD_NAMES = ["act", "durable", "balanced-subnet", "finetune-clean"]


def mitigate(checkpoint: Path, *words: object) -> list[dict[str, Any]]:
    done = tinymem("mitigate", checkpoint, *words, "--format", "json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_mitigate_does_what_run_did(tiny_run: Run, tmp_path: Path) -> None:
    rows = mitigate(tiny_run.checkpoint, "--method", "act", "--ratio", "0.05", "--out", tmp_path / "edited")
    for row, other in zip(rows, tiny_run.rows, strict=False):
        for column in COLUMNS:
            if column not in ("seconds", "peak_mb"):
                assert row[column] == other[column], column
    loaded = load_checkpoint(tmp_path / "edited")
    metadata = loaded.metadata
    assert [with_intervals(row) for row in metadata.mitigation or ()] == rows
    assert metadata.recipe == tiny_run.recipe.model_dump(mode="json")
    assert metadata.weights_sha256 == {"model.safetensors": file_sha256(tmp_path / "edited" / "model.safetensors")}
    zeros = [int((layer.mlp.c_proj.weight == 0).all(0).sum()) for layer in loaded.model.transformer.h]
    assert zeros == [int(0.05 * 192)] * 2


def test_evaluate(tiny_run: Run, tmp_path: Path) -> None:
    done = tinymem("evaluate", tiny_run.checkpoint, "--json")
    measured, row = json.loads(done.out), tiny_run.rows[0]
    assert measured["memorized"]["noise"]["share"] == row["memorized_before"]
    assert measured["accuracy"] == row["performance_before"] and measured["accuracy_ceiling"] == row["performance_ceiling"]
    tokens = Share(row["performance_count_before"], row["performance_tokens"])
    assert (measured["accuracy_count"], measured["accuracy_tokens"]) == (tokens.count, tokens.rows) and tokens.share == measured["accuracy"]
    assert (measured["accuracy_low"], measured["accuracy_high"]) == tokens.interval
    tasks = measured["accuracy_by_task"].values()
    assert sum(task["count"] for task in tasks) == tokens.count and all(task["low"] < task["share"] <= task["high"] for task in tasks)
    copied = shutil.copytree(tiny_run.checkpoint, tmp_path / "elsewhere")  # without its corpus: generated anew
    elsewhere = json.loads(tinymem("evaluate", copied, "--json").out)
    assert {**elsewhere, "checkpoint": ""} == {**measured, "checkpoint": ""}
    shorter = json.loads(tinymem("evaluate", tiny_run.checkpoint, "--prompt", 10, "--match", 3, "--json").out)
    assert (shorter["prompt"], shorter["match"]) == (10, 3) and shorter["memorized"]["noise"] != measured["memorized"]["noise"]
    reference = json.loads(tinymem("evaluate", tiny_run.checkpoint, "--protocol", "reference", "--json").out)
    assert reference["protocol"] == "reference" and reference["accuracy"] != measured["accuracy"]


def write_rows(path: Path, ids: np.ndarray, how: str) -> Path:
    rows, texts = ids.tolist(), [to_text(row) for row in ids]
    lines = {"list": rows, "ids": [{"ids": r} for r in rows], "text": [{"text": t} for t in texts], "string": texts}
    if how == "npy":
        np.save(path.with_suffix(".npy"), ids)
        return path.with_suffix(".npy")
    if how.startswith("parquet"):
        column = {"ids": rows} if how == "parquet ids" else {"text": texts}
        pq.write_table(pa.table(column), path.with_suffix(".parquet"))
        return path.with_suffix(".parquet")
    path.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[how]))
    return path.with_suffix(".jsonl")


@pytest.mark.filterwarnings("ignore:.*not memorized by the model")
def test_rows_of_your_own_in_every_format(tiny_run: Run, tmp_path: Path) -> None:
    corpus = tiny_run.corpus()
    forget, retain = corpus.planted["noise"].ids, corpus.clean[:40]
    found = []
    for how in ("list", "ids", "text", "string", "npy", "parquet ids", "parquet text"):
        folder = tmp_path / how
        folder.mkdir()
        files = ("--forget", write_rows(folder / "forget", forget, how), "--retain", write_rows(folder / "retain", retain, how))
        row = mitigate(tiny_run.checkpoint, "--method", "durable", "--ratio", 0.01, *files, "--prompt", 12, "--match", 12)[0]
        found.append({k: v for k, v in row.items() if k not in ("seconds", "peak_mb", "id")})
    assert all(row == found[0] for row in found)
    memorized, holdout = found[0]["memorized_count_before"], found[0]["rows_holdout"]
    assert found[0]["artifact"] == "rows" and found[0]["rows_scored"] == 16 == found[0]["rows_forget"] + holdout
    assert holdout == memorized - round(memorized / 2) == found[0]["holdout_memorized_count_before"] > 0
    assert (found[0]["prompt"], found[0]["match"], found[0]["rows_left_out"]) == (12, 12, 0)
    assert found[0]["rows_id"]
    assert found[0]["performance_metric"] == "perplexity" and found[0]["performance_ceiling"] is None
    assert 0 < found[0]["memorized_before"] <= 1 and found[0]["edited_parameters"] > 0


@pytest.mark.filterwarnings("ignore:.*not memorized by the model")
def test_rows_to_keep_are_looked_at_where_those_to_forget_are(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NeMo says what activations are ordinary: those of the same positions, not of whole rows with their unlike first token."""
    seen: list[Rows] = []
    real = nemo.activity
    monkeypatch.setattr(nemo, "activity", lambda model, rows, *rest: seen.append(rows) or real(model, rows, *rest))
    corpus = tiny_run.corpus()
    forget, retain = (write_rows(tmp_path / name, corpus.clean[rows], "npy") for name, rows in (("f", slice(4)), ("r", slice(4, 24))))
    window = ("--prompt", 12, "--match", 9, "--forget-fraction", 1)
    mitigate(tiny_run.checkpoint, "--method", "nemo", "--forget", forget, "--retain", retain, *window)
    assert [len(rows) for rows in seen] == [10, 4]
    for rows in seen:
        assert set(rows.prompt.tolist()) == {12} and rows.end.tolist() == rows.lengths().clamp(max=21).tolist()


@pytest.mark.filterwarnings("ignore:.*not memorized by the model")
def test_rows_of_different_lengths(tiny_run: Run, tmp_path: Path) -> None:
    corpus = tiny_run.corpus()
    long = write_rows(tmp_path / "long", corpus.clean[:20], "npy")
    short = write_rows(tmp_path / "short", corpus.planted["noise"].ids[:, :26], "npy")
    window = ("--prompt", 12, "--match", 12, "--method", "balanced-subnet", "--ratio", 0.01)
    one = mitigate(tiny_run.checkpoint, "--forget", short, "--retain", long, *window)
    other = mitigate(tiny_run.checkpoint, "--forget", long, "--retain", short, *window)
    assert one[0]["status"] == other[0]["status"] == "ok" and one[0]["id"] != other[0]["id"]


# ---- report, methods ------------------------------------------------------------------------------------------------------------------


def test_report_json_has_the_columns_of_the_issue(tiny_run: Run) -> None:
    rows = json.loads(tinymem("report", tiny_run.path, "--format", "json").out)
    assert rows == list(map(with_intervals, as_json(tiny_run.rows))) and len(rows) == 8
    for row in rows:
        assert set(COLUMNS) <= set(row)
        assert not [column for column in COLUMNS if row[column] is None]


def test_report_formats(tiny_run: Run, tmp_path: Path) -> None:
    table = list(csv.DictReader(io.StringIO(tinymem("report", tiny_run.path, "--format", "csv").out)))
    assert [row["method"] for row in table] == [row["method"] for row in tiny_run.rows]
    assert tinymem("report", tiny_run.path, "--format", "markdown").out.splitlines()[2].startswith("| method |")
    assert "finetune-clean" in tinymem("report", tiny_run.path).out
    page = tmp_path / "page.html"
    assert tinymem("report", tiny_run.path, "--format", "html", "--out", page).out.strip() == str(page)
    assert page.read_text().lstrip().lower().startswith("<!doctype html") and "balanced-subnet" in page.read_text()
    assert tinymem("report", tiny_run.path, "--format", "json", "--out", tmp_path / "rows.json").out == ""
    assert json.loads((tmp_path / "rows.json").read_text()) == list(map(with_intervals, as_json(tiny_run.rows)))
    folder = tmp_path / "page"
    assert tinymem("report", tiny_run.path, "--format", "html", "--out", folder).out.strip() == str(folder / "report.html")
    assert [path.name for path in folder.iterdir()] == ["report.html"], "the page alone, as the help says"
    only = tinymem("report", tiny_run.path, "--format", "csv", "--out", folder).one_line_error()
    assert "ends in .csv" in only and "without --format a folder gets every format" in only


def test_mitigate_prints_what_run_prints_in_every_format(tiny_run: Run) -> None:
    mitigate = ("mitigate", tiny_run.checkpoint, "--method", "act", "--ratio", "0.05", "--format")
    heads = [" ".join(line.split()) for line in tinymem("report", tiny_run.path).out.splitlines() if line.startswith("method")]
    assert heads[0] in " ".join(tinymem(*mitigate, "table").out.split())
    for format, start in {"html": "<!DOCTYPE html>", "latex": "% needs", "markdown": "### ", "csv": "kind,", "json": "["}.items():
        done = tinymem(*mitigate, format)
        assert done.code == 0 and done.out.startswith(start), f"{format}: {done.err}"
        assert "measuring what the model memorized before" in done.err, "it may take longer than the method"


def test_methods(plugin: Path) -> None:
    listed = tinymem("methods").out
    assert all(name in listed for name in METHOD_NAMES) and "halver" not in listed
    assert "halver" in tinymem("methods", "--plugin", plugin).out
    facts = json.loads(tinymem("methods", "show", "balanced-subnet", "--json").out)
    assert {"part": "option", "name": "sampler", "value": "shuffled", "type": "shuffled | balanced"} in facts
    assert [fact["value"] for fact in facts if fact["name"] == "loss_weight" and fact["part"].startswith("grid")] == 2 * ["0.9, 0.7, 0.5"]
    shown = tinymem("methods", "show", "balanced-subnet").out
    assert all(word in shown for word in ("Source:", "--loss-weight", "0.9", "grid"))


def test_plugin(tiny_run: Run, plugin: Path) -> None:
    row = mitigate(tiny_run.checkpoint, "--plugin", plugin, "--method", "halver", "--factor", 0.9)[0]
    assert row["method"] == "halver" and row["config"] == {"factor": 0.9} and row["edited_parameters"] > 1000
