"""docs/extending.md: every example is a whole file that works as a plugin, with a visible effect."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from helpers import QUICKSTART, ROOT, SMALLER, Done, sets, tinymem

from tinymem.evaluation.metric import METRICS
from tinymem.mitigation.method import UNLEARNERS
from tinymem.models.adapters import mlp_parameters
from tinymem.models.families import FAMILIES
from tinymem.recipe.kinds import ARTIFACTS, REGULARIZERS
from tinymem.registry import load_plugin
from tinymem.report.figures.registry import FIGURES
from tinymem.report.tables.registry import TABLES
from tinymem.runs.pipeline import Run, open_run
from tinymem.testing import CHECKS, check, check_artifact, check_metric, check_regularizer, tiny_case

PAGE = ROOT / "docs" / "extending.md"
SECTIONS = {
    title: re.findall(r"^```python\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
}
EXAMPLES = {"A method", "A metric", "A regularizer", "An artifact kind", "A report table", "A figure", "A model family"}


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The file of a section; what it registers does not stay."""
    [text] = SECTIONS[request.param]
    path = tmp_path / "example.py"
    path.write_text(text)
    with ExitStack() as stack:
        for registry in (UNLEARNERS, METRICS, REGULARIZERS, ARTIFACTS, TABLES, FIGURES, FAMILIES):
            stack.enter_context(registry.temporary())
        yield path


def example_of(title: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", [title], indirect=True)


def fine(*words: object) -> Done:
    done = tinymem(*words)
    assert done.code == 0, done.err
    return done


def test_each_kind_has_one_example_of_some_lines() -> None:
    assert set(SECTIONS) == EXAMPLES and all(len(blocks) == 1 for blocks in SECTIONS.values())
    assert all(10 <= len(text.splitlines()) <= 45 for [text] in SECTIONS.values())


@example_of("A method")
def test_a_method(example: Path, tiny_run: Run) -> None:
    assert "contrast" in fine("methods", "--plugin", example).out
    words = ("--plugin", example, "--method", "contrast", "--ratio", 0.1, "--weight", 2, "--format", "json")
    rows = json.loads(fine("mitigate", tiny_run.checkpoint, *words).out)
    assert all(row["status"] == "ok" and row["config"]["weight"] == 2 and row["edited_parameters"] > 0 for row in rows)
    for name in CHECKS:
        check(name, "contrast", "gpt")


@example_of("A metric")
def test_a_metric(example: Path, tiny_run: Run, tmp_path: Path) -> None:
    words = ("--plugin", example, "--method", "act", "--metrics", "default,first-token", "--format", "json")
    rows = json.loads(fine("mitigate", tiny_run.checkpoint, *words).out)
    for row in rows:
        found = row["metrics_before"]["first-token"]["all"]
        assert row["memorized_before"] <= found["share"] <= 1 and found["rows"] == row["rows_scored"]
    folder = tmp_path / "rows"
    (folder / "results").mkdir(parents=True)
    (folder / "results" / f"{rows[0]['id']}.json").write_text(json.dumps(rows))
    assert "first token %" in fine("report", folder, "--tables", "metrics", "--plugin", example, "--format", "markdown").out
    check_metric("first-token")


@pytest.mark.thorough
@pytest.mark.training
@example_of("A regularizer")
def test_a_regularizer(example: Path, tmp_path: Path) -> None:
    def norm(strength: float) -> float:
        runs = tmp_path / f"runs-{strength}"
        chosen = ["mitigation.methods=act", f"training.regularizers=[{{kind: weight-norm, strength: {strength}}}]"]
        fine("run", QUICKSTART, *sets([*SMALLER, *chosen]), "--runs", runs, "--plugin", example, "--device", "cpu")
        [folder] = runs.glob("quickstart-*")
        rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        assert {row["regularizer"].partition("(")[0] for row in rows} == {"weight-norm"}
        return sum(float(p.detach().square().sum()) for p in mlp_parameters(open_run(folder).model(), matrices_only=True).values())

    assert norm(0.1) < 0.9 * norm(0)
    check_regularizer("weight-norm")


@pytest.mark.training
@example_of("An artifact kind")
def test_an_artifact_kind(example: Path, tmp_path: Path) -> None:
    small = [word for word in SMALLER if not word.startswith("artifacts")]
    chosen = ["artifacts=[{kind: backwards, rows: 16, copies: 4}]", "mitigation.methods=act", "evaluation.metrics=[default, membership]"]
    words = ("--runs", tmp_path / "runs", "--plugin", example, "--device", "cpu")
    assert "backwards" in fine("run", QUICKSTART, *sets([*small, *chosen]), *words).out
    [folder] = (tmp_path / "runs").glob("quickstart-*")
    [row] = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert row["artifact"] == "backwards" and row["rows_scored"] == 16
    assert row["metrics_before"]["membership"]["members"]["all"] == 12 and row["metrics_before"]["membership"]["non-members"] == 4
    check_artifact("backwards", rows=16)


@example_of("A report table")
def test_a_table(example: Path, tiny_run: Run) -> None:
    text = fine("report", tiny_run.path, "--plugin", example, "--tables", "statuses", "--format", "markdown").out
    methods = {row.method for row in tiny_run.rows}
    assert all(re.search(rf"^\| {method} +\| 2 \| 0 \| 0 \|$", text, re.MULTILINE) for method in methods), text


@example_of("A figure")
def test_a_figure(example: Path, tiny_run: Run, tmp_path: Path) -> None:
    fine("report", tiny_run.path, "--plugin", example, "--format", "png", "--out", tmp_path / "figures")
    assert (tmp_path / "figures" / "seconds.png").stat().st_size > 1000
    lines = json.loads((tmp_path / "figures" / "seconds.json").read_text())["lines"]
    assert [line["seconds"] for line in lines] == [row.seconds for row in tiny_run.rows]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not memorized by the model")
@example_of("A model family")
def test_a_family(example: Path, tmp_path: Path) -> None:
    load_plugin(example)
    model, data = tiny_case("starcoder2")
    model.save_pretrained(tmp_path / "starcoder2")
    for name, rows in (("forget", data.forget), ("retain", data.retain)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(ids) + "\n" for ids in rows.ids.tolist()))
    files = ("--forget", tmp_path / "forget.jsonl", "--retain", tmp_path / "retain.jsonl", "--prompt", 5, "--match", 5)
    words = ("--method", "durable", "--ratio", 0.1, *files, "--out", tmp_path / "edited", "--plugin", example)
    fine("mitigate", tmp_path / "starcoder2", *words)
    edited = type(model).from_pretrained(tmp_path / "edited")
    assert not torch.equal(edited.model.layers[0].mlp.c_fc.weight, model.model.layers[0].mlp.c_fc.weight)
    for name in CHECKS:
        check(name, "act", "starcoder2")
