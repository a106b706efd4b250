"""Reports of models on the Hub: names in place of folders, the numbers that are stored with them, the commit in every row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import tinymem
from hub_stub import Hub

from tinymem.runs.checkpoint_rows import results_of_places, rows_of_checkpoint
from tinymem.runs.pipeline import Run


@pytest.mark.slow
def test_a_model_of_the_hub_is_reported_by_its_name_with_its_commit(hub: Hub, files: dict[str, bytes], made: Path) -> None:
    commit = hub.add("org/m", files).branches["main"]
    results = results_of_places([Path("org/m")])
    found = {row.artifact: row for row in results.trained}
    assert {row.commit for row in results.trained} == {commit} and {row.run for row in results.trained} == {"org/m"}
    assert (found["noise"].memorized_before, found["noise"].memorized_count_after, found["noise"].rows_scored) == (0.5, 4, 8)
    assert found["backdoor"].performance_metric == "accuracy" and found["backdoor"].performance_after == 0.5 and not results.rows
    assert len(results_of_places([Path("org/m"), made]).trained) == 2, "the same weights in two places count once"
    done = tinymem("report", "org/m", "--format", "json")
    assert done.code == 0 and json.loads(done.out)["tables"], done.err
    assert "expected rows of methods in org/m, found none" in tinymem("compare", "org/m").one_line_error()


def test_a_published_edit_is_reported_beside_a_run(hub: Hub, tiny_run: Run, tmp_path: Path) -> None:
    words = ("--method", "act", "--ratio", "0.1", "--out", tmp_path / "edited")
    assert tinymem("mitigate", tiny_run.checkpoint, *words).code == 0
    assert tinymem("push", tmp_path / "edited", "--repo", "org/tiny").code == 0
    branch = next(name for name in hub.repo("org/tiny").branches if name != "main")
    own = rows_of_checkpoint(tmp_path / "edited")
    rows = results_of_places([tiny_run.path, Path(f"org/tiny@{branch}")]).rows
    fetched = [row for row in rows if row.commit]
    assert {row.commit for row in fetched} == {hub.repo("org/tiny").branches[branch]} and len(rows) == len(tiny_run.rows) + 2
    assert [row.memorized_after for row in fetched] == [row.memorized_after for row in own]
    table = tinymem("report", tiny_run.path, f"org/tiny@{branch}", "--tables", "best", "--format", "csv")
    assert table.code == 0 and "act" in table.out, table.err


def test_what_has_no_numbers_is_refused(hub: Hub, files: dict[str, bytes]) -> None:
    hub.add("org/m", {name: content for name, content in files.items() if name != "tinymem.json"})
    assert "`tinymem evaluate` measures it" in tinymem("report", "org/m").one_line_error()
    said = {**json.loads(files["tinymem.json"]), "mitigation": [{"method": 3}]}
    hub.add("org/n", {**files, "tinymem.json": json.dumps(said).encode()})
    assert "expected a row with" in tinymem("compare", "org/n").one_line_error()
    assert "expected a size" in tinymem("report", "org/m", "--max-size", "many").one_line_error()


def test_show_takes_a_name(hub: Hub, files: dict[str, bytes]) -> None:
    hub.add("org/m", files)
    done = tinymem("show", "org/m", "--prompt", "1", "--device", "cpu")
    assert done.code == 0, done.err
