"""Runs without methods say what the model memorized: of what was planted, or of the training rows where nothing was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from helpers import tinymem

from tinymem.results.curve import CurvePoint, read_curve
from tinymem.results.run_folder import TRAINING_ROWS
from tinymem.runs.pipeline import Run
from tinymem.runs.training_rows import training_rows_memorized


def test_training_rows_are_counted_as_a_loop_counts_them(tiny_run: Run) -> None:
    model, corpus, recipe = tiny_run.model(), tiny_run.corpus(), tiny_run.recipe
    window = recipe.evaluation.model_copy(update={"prompt": 20, "match": 3})
    found = training_rows_memorized(model, corpus, recipe.model_copy(update={"evaluation": window}))
    ends = np.minimum(corpus.row_ends(corpus.clean, recipe.protocol), 23)
    count, rows = 0, 0
    for row, end in zip(torch.from_numpy(np.array(corpus.clean, dtype=np.int64)), ends.tolist(), strict=True):
        if end > 20:
            rows += 1
            with torch.no_grad():
                greedy = model(row[None, :end]).argmax(-1)[0]
            count += bool((greedy[19 : end - 1] == row[20:end]).all())  # teacher-forced: equal at every step means equal throughout
    assert (found.count, found.rows) == (count, rows) and rows <= 1000 and count > 0


def test_a_run_without_methods_prints_the_trained_model(tiny_run: Run, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    (run / "results.jsonl").write_text("")
    shutil.rmtree(run / "results")
    done = tinymem("report", run)
    assert done.code == 0 and "no method has been run yet" in done.out and "77.8 % (7/9" in done.out, done.out + done.err
    rows = json.loads(tinymem("report", run, "--json").out)
    assert {row["artifact"]: row["memorized_before"] for row in rows} == {r.artifact: r.memorized_before for r in tiny_run.rows}


def test_a_run_that_plants_nothing_shows_its_training_rows(tiny_run: Run, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    (run / "results.jsonl").write_text("")
    shutil.rmtree(run / "results")
    (run / "training" / "metrics.jsonl").write_text(
        "".join(json.dumps(replace(point, memorized={}, memorized_by_copies={}).as_dict()) + "\n" for point in _curve(tiny_run))
    )
    (run / TRAINING_ROWS).write_text('{"share": 0.25, "count": 2, "rows": 8}')
    assert "training rows" in (said := tinymem("report", run).out) and "25.0 % (2/8" in said
    page = tmp_path / "page.html"
    assert tinymem("report", run, "--format", "html", "--out", page).code == 0 and "training rows: memorized" in page.read_text()


def _curve(run: Run) -> list[CurvePoint]:

    return read_curve(run.path / "training" / "metrics.jsonl")
