"""`tinymem run`: what it leaves, and what it does when it is run again."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import pytest
from helpers import METHODS, QUICKSTART, TINY, Done, files_in, half_written, sets, tinymem

from tinymem.errors import UserError
from tinymem.report.page.outcome import outcome_of
from tinymem.results.run_folder import load_run
from tinymem.runs.pipeline import Run, method_calls, mitigation_stage
from tinymem.runtime.locks import locked
from tinymem.runtime.progress import Progress

METHOD_NAMES = ["act", "durable", "balanced-subnet", "finetune-clean"]


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of the finished run, to be changed."""
    return Run(shutil.copytree(tiny_run.path, tmp_path / "runs" / tiny_run.path.name), tiny_run.recipe)


def run_again(run: Run, *overrides: str, words: tuple[object, ...] = ()) -> Done:
    return tinymem("run", QUICKSTART, *sets([*TINY, METHODS, *overrides]), "--runs", run.path.parent, "--device", "cpu", *words)


def test_what_a_run_leaves(tiny_run: Run) -> None:
    names = {path.name for path in tiny_run.path.iterdir() if not path.name.startswith(".")}
    assert names == {"recipe.yaml", "corpus", "training", "checkpoint", "results", "results.jsonl", "shown", "report.html"}
    assert tiny_run.path.name.startswith("quickstart-") and not half_written(tiny_run.path)
    stored = [json.loads(line) for line in (tiny_run.path / "results.jsonl").read_text().splitlines()]
    single = [row for path in (tiny_run.path / "results").glob("*.json") for row in json.loads(path.read_text())]
    assert sorted(map(str, stored)) == sorted(map(str, single))
    assert [(row["method"], row["artifact"]) for row in stored] == [(m, a) for m in METHOD_NAMES for a in ("noise", "backdoor")]


def test_methods_forget(tiny_run: Run) -> None:
    rows = {(row["method"], row["artifact"]): row for row in tiny_run.rows}
    assert all(row["status"] == "ok" and row["rows_forget"] > 0 for row in rows.values())
    assert rows["balanced-subnet", "backdoor"]["memorized_before"] > 0.9
    assert rows["balanced-subnet", "backdoor"]["memorized_after"] < 0.3
    assert rows["finetune-clean", "backdoor"]["memorized_after"] < 0.3


def test_a_second_run_does_nothing_anew(run: Run) -> None:
    before = files_in(run.path)
    done = run_again(run)
    assert done.code == 0 and "report.html" in done.out and "balanced-subnet" in done.out
    after = files_in(run.path)
    changed = {name for name in after if after[name] != before.get(name)} - {"recipe.yaml", ".lock"}
    assert not changed and set(after) >= set(before)
    assert after["recipe.yaml"][1] == before["recipe.yaml"][1]


def test_another_method_joins_the_run(run: Run) -> None:
    before = files_in(run.path)
    done = run_again(run, "mitigation.methods=[{durable: {ratio: 0.02}}, act]")
    assert done.code == 0 and "1 of 2 mitigations found, 1 to run" in done.err
    after = files_in(run.path)
    new = {name for name in after if name not in before}
    [row] = [name.removeprefix("results/") for name in new if name.startswith("results/")]
    assert new == {f"results/{row}", f"shown/{row}", "asked.json"}
    assert all(after[name] == before[name] for name in before if name.startswith(("results/", "checkpoint/", "training/", "corpus/")))
    methods = [(row["method"], row["config"].get("ratio")) for row in run.rows[::2]]
    assert methods[:2] == [("durable", 0.02), ("act", 0.05)]  # the recipe's first, then those of earlier runs
    assert sorted(methods[2:]) == [("balanced-subnet", 0.1), ("durable", 0.01), ("finetune-clean", None)]
    assert after["report.html"] != before["report.html"]
    assert "durable" in done.out and "finetune-clean" not in done.out.split("not shown: ")[0]
    assert "not shown: 3 results of earlier recipes on the same weights (balanced-subnet, durable, finetune-clean)" in done.out
    asked, earlier = load_run(run.path).parts
    assert [row.method for row in asked.rows[::2]] == ["durable", "act"] and len(earlier.rows) == 6
    page = html.unescape((run.path / "report.html").read_text())
    assert outcome_of(asked.rows) in page and " of 2 configurations" in outcome_of(asked.rows)
    assert page.index("What each method changed") < page.index("<details><summary>") < page.index("finetune-clean")
    whole = tinymem("report", run.path).out
    assert whole.index("durable") < whole.index("earlier recipes, on the same weights") < whole.index("finetune-clean")


def test_what_another_rule_measured_is_not_shown_beside_its_like(run: Run) -> None:
    row = run.rows[0]
    stored = json.loads((run.path / "results" / f"{row.id}.json").read_text())
    for name, config in (("of-before", row.config), ("another-ratio", {**(row.config or {}), "ratio": 0.07})):
        (run.path / "results" / f"{name}.json").write_text(json.dumps([{**one, "id": name, "config": config} for one in stored]))
    assert run_again(run).code == 0
    assert [found.id for found in run.rows].count("another-ratio") == len(stored) and "of-before" not in {found.id for found in run.rows}
    assert (run.path / "results" / "of-before.json").is_file()
    assert run_again(run, "mitigation.methods=[]").code == 0, "nor beside its like where neither is asked for: the newer file counts"
    assert {found.id for found in run.rows if found.config == row.config and found.method == row.method} == {"of-before"}


def test_a_removed_result_is_made_again(run: Run) -> None:
    row = run.rows[0]
    (run.path / "results" / f"{row['id']}.json").unlink()
    assert run_again(run).code == 0
    again = run.rows[0]
    for column in ("id", "memorized_after", "performance_after", "edited_parameters", "edit_norm"):
        assert again[column] == row[column]


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"[{}]", b'[{"status": NaN}]', b"\xff\xfe"])
def test_a_damaged_result_is_named_and_nothing_lost(run: Run, text: bytes) -> None:
    damaged = run.path / "results" / f"{run.rows[0]['id']}.json"
    damaged.write_bytes(text)
    before = files_in(run.path)
    with pytest.raises(UserError, match=f"{damaged.name}.*delete the file") as error:
        mitigation_stage(run, method_calls(run.recipe), device="cpu", progress=Progress())
    assert "\n" not in str(error.value) and files_in(run.path) == before


def test_one_process_at_a_time(run: Run) -> None:
    half = run.path / ".checkpoint.1.ab.tmp"  # what the other one is writing
    half.mkdir()
    with locked(run.path / ".lock", wait=False):
        assert "another process is at work" in run_again(run).last_line_error()
    assert half.is_dir()
    assert run_again(run).code == 0


@pytest.mark.thorough
def test_a_method_that_fails_is_tried_again(run: Run, plugin: Path) -> None:
    failing = "mitigation.methods=[{halver: {factor: 0}}, act]"
    for _ in range(2):
        done = run_again(run, failing, words=("--plugin", plugin))
        assert "failed: halver" in done.last_line_error(1)
        assert "1 of 2 mitigations found, 1 to run" in done.err and "a half of nothing" in " ".join(done.out.split())
        assert [row["status"] for row in run.rows[:4]] == ["failed", "failed", "ok", "ok"]
