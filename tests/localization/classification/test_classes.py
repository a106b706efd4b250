"""`tinymem localize classes`: rows, tables and the picture of classifiers with flipped labels, and going on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import sets, tinymem

from tinymem.data.tokenizers import tokenizer_files
from tinymem.localization.classification.tasks import TASKS, generated
from tinymem.models.checkpoint import math_config, save_checkpoint
from tinymem.models.gpt2 import GPT
from tinymem.recipe.classification import GENERATED, parse_classification
from tinymem.report.figures.figure import FigureData
from tinymem.report.figures.of_classes import depth_over_generalization
from tinymem.report.figures.points import Inputs
from tinymem.report.tables.classes import classes_tables
from tinymem.results.localization import read_localization
from tinymem.results.row import LocalizationRow

SMALL = [
    "rows=72", "test_rows=20", "words=9", "halves=3", "half_epochs=4", "classifier={epochs: 40, learning_rate: 1.0e-2, batch_size: 18}",
    "retraining.epochs=1",
]  # fmt: skip
WORDS = (*sets(SMALL), "--techniques", "layer-swapping,centroids", "--device", "cpu")


pytestmark = pytest.mark.xdist_group("classes")  # their models are trained once


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "model"
    model = GPT(math_config(n_positions=32, n_layer=2, n_head=2, n_embd=24), seed=0)
    save_checkpoint(model, place, metadata={}, tokenizer_files=tokenizer_files(32))
    return place


@pytest.fixture(scope="module")
def done(checkpoint: Path) -> Path:
    out = checkpoint.parent / "out"
    found = tinymem("localize", "classes", checkpoint, "--out", out, "--tasks", "keyword,topic", *WORDS)
    assert found.code == 0 and "Flipped labels by task" in found.out and "generalization score" in found.out, found.err
    return out


def of(out: Path, task: str, method: str, score: str) -> list[Any]:
    return [r.score for r in read_localization(out) if (r.artifact, r.method, r.score_name) == (task, method, score)]


@pytest.mark.thorough
@pytest.mark.training
def test_each_task_is_summarized_and_localized(done: Path) -> None:
    for task, classes in (("keyword", 2), ("topic", 6)):
        [count], [wrong], [memorized] = (of(done, task, "summary", score) for score in ("classes", "flipped", "memorized"))
        assert (count, wrong) == (classes, 11) and memorized >= 10 / 11
        [score], [probability] = of(done, task, "summary", "generalization"), of(done, task, "summary", "probability")
        assert 0 <= score <= 1 and 0 < probability < 1
        weights, [center] = of(done, task, "layer-swapping", "weight"), of(done, task, "layer-swapping", "center")
        assert len(weights) == 2 and center == pytest.approx((weights[0] + 2 * weights[1]) / sum(weights))
        whole = [
            r.score for r in read_localization(done) if (r.artifact, r.score_name, r.layer, r.window) == (task, "error", 0, 2)
        ]  # all blocks are the counterfactual's, which never saw a flipped label; only the head did
        assert whole[0] is not None and whole[0] > 0.5
    kept = {path.parent.name.partition("-")[0]: path for path in done.glob("classifiers/*/model.safetensors")}
    assert set(kept) == {"keyword", "topic"} and all((path.parent / "counterfactual.safetensors").is_file() for path in kept.values())


@pytest.mark.thorough
@pytest.mark.training
def test_it_goes_on_where_it_was(done: Path, checkpoint: Path) -> None:
    files = sorted(done.rglob("*.*"))
    lost = next(path for path in done.glob("localization/*.json") if '"centroids"' in path.read_text() and '"topic"' in path.read_text())
    before, rows = {path: path.stat().st_mtime_ns for path in files}, json.loads(lost.read_text())
    lost.unlink()
    again = tinymem("localize", "classes", checkpoint, "--out", done, "--tasks", "keyword,topic", *WORDS)
    assert again.code == 0 and sorted(done.rglob("*.*")) == files
    assert [path for path in files if path.stat().st_mtime_ns != before[path]] == [lost]
    assert [row["score"] for row in json.loads(lost.read_text())] == [row["score"] for row in rows]


@pytest.mark.thorough
@pytest.mark.training
def test_the_report_has_tables_and_picture(done: Path) -> None:
    shown = tinymem("report", done, "--tables", "classes,classes-depth", "--format", "json")
    tables = {table["name"]: table for table in json.loads(shown.out)["tables"]}
    assert set(tables) == {"classes", "classes-depth"} and len(tables["classes"]["rows"]) == 2
    [figure] = depth_over_generalization(Inputs(localization=read_localization(done)))
    assert isinstance(figure, FigureData) and figure.key.startswith("classes-")
    assert {(line["technique"], line["task"]) for line in figure.lines} == {("layer-swapping", task) for task in ("keyword", "topic")}
    assert figure.draw(figure.lines).axes[0].get_xlabel().startswith("rows predicted better")


@pytest.mark.training
def test_labels_of_a_file_and_what_is_not_memorized(checkpoint: Path, tmp_path: Path) -> None:
    rows = generated("topic", 260, words=9, vocabulary=tuple(str(10 + i) for i in range(70)))
    with (tmp_path / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("words", "kind"), *zip(rows.texts, rows.labels, strict=True)])
    words = ("--data", tmp_path / "own.csv", "--text", "words", "--label", "kind", *WORDS, *sets(["classifier.epochs=1", "binarize=true"]))
    found = tinymem("localize", "classes", checkpoint, "--out", tmp_path / "out", *words)
    assert found.code == 0 and "own.csv: expected at least 10 memorized labels" in found.out.replace("\n", " ")
    assert (
        of(tmp_path / "out", "own.csv", "summary", "classes") == [2]
        and tinymem("localize", "classes", checkpoint, "--out", tmp_path / "out", *words).code == 0
    )


def test_what_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    base = ("localize", "classes", checkpoint, "--out", tmp_path / "out")
    assert "give --data" in tinymem(*base, "--label", "kind").one_line_error()
    assert "did you mean" in tinymem(*base, "--set", "halfs=3").one_line_error()
    assert "tasks" in tinymem(*base, "--tasks", "keywords").one_line_error()
    assert "found nothing there" in tinymem(*base, "--data", "./nothing.csv").last_line_error()
    (tmp_path / "each.csv").write_text("text,label\n" + "".join(f"{20 + i} 30,kind {i}\n" for i in range(30)))
    said = tinymem(*base, "--data", tmp_path / "each.csv", *WORDS).last_line_error()
    assert "got none of its classes; have rows of each class in the training and in the test part" in said


def test_the_recipe_names_the_tasks_that_there_are() -> None:
    assert list(GENERATED) == list(TASKS) and parse_classification({}).halves == 10


def test_depth_is_ranked_against_generalization() -> None:
    base = {"model_id": "m", "run": "r", "model_name": "m", "status": "ok", "seed": 0, "n_layer": 2, "unit": "layer"}
    rows = []
    for i, (task, score, center) in enumerate((("a", 0.5, 0.2), ("b", 0.7, 0.4), ("c", 0.6, 0.3), ("d", 0.9, 0.35))):
        common = {**base, "artifact": task, "id": f"{i}"}
        rows += [LocalizationRow(**common, benchmark="classes", method="summary", score_name="generalization", score=score)]
        rows += [
            LocalizationRow(**common, benchmark="layers", method="layer-swapping", score_name=name, score=value, layer=layer, config={})
            for name, value, layer in (("weight", 1.0, 0), ("weight", 1.0, 1), ("relative_center", center, None))
        ]
    others = [replace(row, corpus_sha256="other", config={"words": 20}, score=1.0) for row in rows if row.score is not None]
    [tasks, depth, *apart] = classes_tables([*rows, *others])
    assert [table.notes[1] for table in apart if table.name == "classes"] == ["Options: words 20."], "other options, another table"
    assert [line[0].text for line in tasks.rows] == ["d", "b", "c", "a"] and [line[5].value for line in tasks.rows] == [0.35, 0.4, 0.3, 0.2]
    [[label, cell, other]] = depth.rows
    assert label.text == "layer-swapping, center" and cell.value == pytest.approx(0.8) and other.value is None and " to " in cell.small


def task_rows(one: str, corpus: str, center: float, epochs: int = 1, seed: int = 0) -> list[LocalizationRow]:
    """A summary and one technique's findings of a task."""
    base = {
        "model_id": "m",
        "run": "r",
        "model_name": "m",
        "status": "ok",
        "seed": seed,
        "n_layer": 2,
        "artifact": "own.csv",
        "unit": "layer",
    }
    summary = LocalizationRow(**base, id=f"sum{corpus}{seed}", benchmark="classes", method="summary", score_name="memorized", score=center)
    config = {"retraining": {"epochs": epochs}, "seed": seed}
    found = LocalizationRow(
        **base, id=one, benchmark="layers", method="layer-retraining", config=config, score_name="weight", layer=0, score=1.0
    )
    rows = [summary, found, replace(found, layer=None, score_name="relative_center", score=center)]
    return [replace(row, corpus_sha256=corpus) for row in rows]


def test_a_source_whose_rows_changed_is_two_tasks() -> None:
    rows = [*task_rows("a", "1111111", 0.25), *task_rows("b", "2222222", 0.75), *task_rows("c", "3333333", 0.5, seed=1)]
    found = {line[0].text: (line[2].value, line[5].value) for line in classes_tables(rows)[0].rows}
    assert found == {"own.csv, rows 111111": (25, 0.25), "own.csv, rows 222222": (75, 0.75), "own.csv": (50, 0.5)}
    same_rows = [*task_rows("a", "1111111", 0.25), *task_rows("c", "3333333", 0.75, seed=1)]
    assert [(line[0].text, line[2].value) for line in classes_tables(same_rows)[0].rows] == [("own.csv", 50)], "seeds are averaged"


def test_techniques_of_a_task_with_other_options_are_shown_too() -> None:
    rows = [*task_rows("a", "1111111", 0.25), *task_rows("b", "1111111", 0.75, epochs=2)[1:]]
    found = {line[0].text: line[5].value for line in classes_tables(rows)[0].rows}
    assert found == {"own.csv, retraining.epochs 1": 0.25, "own.csv, retraining.epochs 2": 0.75}


def test_a_task_asked_with_several_options_is_in_no_correlation() -> None:
    scores = {"a": 0.2, "b": 0.5, "c": 0.9}
    rows = [replace(row, artifact=name, id=f"{row.id}{name}") for name, score in scores.items() for row in task_rows("t", "1111111", score)]
    rows += [replace(row, score_name="generalization") for row in rows if row.benchmark == "classes"]
    again = [replace(row, artifact="b", id="again") for row in task_rows("t", "1111111", 0.1, epochs=2)[1:]]
    (alone,), (both,) = ([t for t in classes_tables(found) if t.name == "classes-depth"] for found in (rows, [*rows, *again]))
    assert (alone.rows[0][1].n, len(alone.notes)) == (3, 1)
    assert both.rows[0][1].n == 2 and both.notes[1].endswith(": b, retraining.epochs 1, b, retraining.epochs 2.")
