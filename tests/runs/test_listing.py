"""`tinymem runs`: the state of runs and sweeps from their files; and what `--dry-run` says before there are any."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers import METHODS, QUICKSTART, SMALLER, TINY, files_in, sets, tinymem

from tinymem.recipe.recipe import dump_recipe, load_recipe
from tinymem.recipe.sizes import planned_parameters
from tinymem.results.localization import MODELS
from tinymem.results.reasons import grouped_reasons
from tinymem.results.row import MitigationRow, Status
from tinymem.results.store import PLANNED, write_run
from tinymem.runs.dry_run import estimate
from tinymem.runs.listing import Listed, list_folders
from tinymem.runs.pipeline import Run
from tinymem.runtime.locks import is_taken, locked


def row(run: str, status: Status = "ok", message: str | None = None, method: str = "act") -> MitigationRow:
    return MitigationRow(method=method, artifact="noise", status=status, id=run, message=message)


def one(folder: Path) -> Listed:
    (found,) = list_folders([folder])
    return found


def test_states_of_a_run(tiny_run: Run, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run.path, tmp_path / "runs" / tiny_run.path.name)
    found = one(run)
    assert (found.name, found.kind, found.state, found.progress, found.why) == (run.name, "run", "done", "trained, 4 of 4 methods", "")
    assert found.bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    with locked(run / ".lock", wait=False):
        assert one(run).state == "running"
    stored = run / "results" / f"{tiny_run.rows[0].id}.json"
    rows = json.loads(stored.read_text())
    stored.unlink()
    found = one(run)
    assert (found.state, found.progress, found.why) == ("waiting", "trained, 3 of 4 methods", "left: run 1 method, report")
    broken = [{**line, "status": "failed", "message": "no luck"} for line in rows]
    stored.write_text(json.dumps(broken))
    (run / "results.jsonl").write_text(json.dumps(broken[0]) + "\n")
    assert one(run).state == "failed" and one(run).why == "failed: 1 run of act: no luck"
    shutil.rmtree(run / "checkpoint")
    (run / "results.jsonl").unlink()
    assert (one(run).state, one(run).progress) == ("waiting", "at epoch 6 of 6")


def test_a_run_is_done_if_the_command_would_find_it_done(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`runs`, `run --list` and `run --dry-run` agree, whatever it is that makes `run` measure again, and say it."""
    run = shutil.copytree(tiny_run.path, tmp_path / "runs" / tiny_run.path.name)
    words = ("run", QUICKSTART, *sets([*TINY, METHODS]), "--runs", run.parent, "--device", "cpu", "--json")

    def agreed(*overrides: str) -> tuple[str, str, str]:
        recipe = load_recipe(QUICKSTART, [*TINY, METHODS, *overrides])
        (run / "recipe.yaml").write_text(dump_recipe(recipe))
        (there,), (dry,) = (json.loads(tinymem(*words, *sets(list(overrides)), option).out) for option in ("--list", "--dry-run"))
        found = one(run)
        assert (found.name, found.state, there["left"]) == (there["run"], there["state"], dry["to do"])
        return found.state, found.progress, found.why

    assert agreed() == ("done", "trained, 4 of 4 methods", "")
    every = "act, durable, balanced-subnet, finetune-clean"
    assert agreed("evaluation.ks=[5]") == ("waiting", "trained, 0 of 4 methods", f"again: {every} (measured without k=5)")
    assert agreed("mitigation.robustness=true")[2] == f"again: {every} (measured without robustness as asked)"
    assert agreed("mitigation.methods=[act]") == ("done", "trained, 1 of 1 method", "")
    assert agreed("mitigation.methods=[{act: {ratio: 0.3}}]")[2] == "left: run 1 method, report"
    (run / "report.html").unlink()
    assert agreed()[::2] == ("waiting", "left: report")
    monkeypatch.setattr("tinymem.mitigation.run.MEASURING_EPOCH", 999)
    assert agreed()[1:] == ("trained, 0 of 4 methods", f"again: {every} (measured by older code)")


def test_a_run_whose_recipe_cannot_be_read_here_is_listed(tiny_run: Run, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run.path, tmp_path / "runs" / tiny_run.path.name)
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text() + "of_tomorrow: 1\n")
    found = one(run)
    assert (found.state, found.progress) == ("unknown", "trained") and "unknown key 'of_tomorrow'" in found.why


def test_runs_that_failed_in_processes_of_their_own(tiny_run: Run, tmp_path: Path) -> None:
    """Their logs say why: of one that has made something, and of one that has left nothing."""
    run = shutil.copytree(tiny_run.path, tmp_path / "matrix-seed1-0123abcd")
    shutil.rmtree(run / "checkpoint")
    (run / "results.jsonl").unlink()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "matrix-seed1.log").write_text("making the corpus\ntinymem: the loss became nan\n")
    (tmp_path / "logs" / "matrix-seed2.log").write_text("tinymem: expected room\n")
    (tmp_path / "logs" / "matrix-seed3.log").write_text("tinymem: stopped by SIGINT after epoch 1; the same command goes on from here\n")
    found = list_folders([tmp_path])
    assert [(listed.name, listed.state, listed.why) for listed in found] == [
        ("matrix-seed1-0123abcd", "failed", "the loss became nan"),
        ("matrix-seed2", "failed", "expected room"),
    ]


def test_states_of_a_sweep(tmp_path: Path) -> None:
    sweep = tmp_path / "sweeps" / "mine"
    sweep.mkdir(parents=True)
    (sweep / "sweep.yaml").write_text("name: mine\n")
    (sweep / PLANNED).write_text('{"runs": 3}')
    write_run(sweep, "a", [row("a")])
    write_run(sweep, "b", [row("b", "refused", "ratio 0.001 zeroes nothing")])
    assert (one(sweep).state, one(sweep).progress) == ("waiting", "2 of 3 runs, 1 ok, 1 refused")
    write_run(sweep, "c", [row("c", "refused", "ratio 0.002 zeroes nothing", "zero")])
    assert (one(sweep).state, one(sweep).why) == ("done", "refused: 2 runs of act, zero: ratio 0.001 zeroes nothing")
    write_run(sweep, "c", [row("c", "timeout", "stopped after 3 s")])
    assert one(sweep).state == "failed" and "timeout: 1 run of act: stopped after 3 s" in one(sweep).why
    with locked(sweep / "claims.lock", "some group", wait=False):
        assert one(sweep).state == "running"


@pytest.mark.parametrize(
    "text", ["[]", '{"models": 3}', '{"models": ["a"], "done": [[1]]}', '{"models": [], "done": [], "failed": {"a": 1}}', '{"failed": []}']
)
def test_a_damaged_list_of_localized_models_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("name: mine\n")
    (tmp_path / MODELS).write_text(text)
    told = tinymem("runs", tmp_path)
    assert told.code == 2 and f"in {tmp_path / MODELS}, got " in told.one_line_error()


def test_reasons_are_grouped_by_what_they_say_and_count_runs_once() -> None:
    rows = [
        row("a", "refused", "got 1"),
        row("a", "refused", "got 1"),
        row("b", "refused", "got 2.5e-3"),
        row("c", "failed", "got 1"),
        row("d"),
    ]
    assert list(map(str, grouped_reasons(rows))) == ["refused: 2 runs of act: got 1", "failed: 1 run of act: got 1"]


def test_a_lock_is_seen_without_being_taken(tmp_path: Path) -> None:
    assert not is_taken(tmp_path / "none") and not (tmp_path / "none").exists()
    (tmp_path / "free").touch()
    assert not is_taken(tmp_path / "free")
    with locked(tmp_path / "free", wait=False):
        assert is_taken(tmp_path / "free")
    assert not is_taken(tmp_path / "free")


def test_the_command(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    none = tinymem("runs")
    assert none.code == 0 and "0 runs and sweeps; `tinymem run` makes one" in none.out and tinymem("runs", "--json").out == "[]\n"
    assert "expected a folder of runs or sweeps at there, found none" in tinymem("runs", "there").one_line_error()
    done = tinymem("runs", tiny_run.path.parent)
    assert done.code == 0 and "trained, 4 of 4 methods" in done.out and "1 run or sweep: 1 done" in done.out
    (listed,) = json.loads(tinymem("runs", tiny_run.path.parent, "--json").out)
    assert listed["name"] == tiny_run.path.name and listed["state"] == "done" and listed["bytes"] > 100_000


def test_a_dry_run_says_what_and_does_nothing(tmp_path: Path) -> None:
    words = (QUICKSTART, *sets([*TINY, METHODS]), "--runs", tmp_path / "runs", "--device", "cpu", "--dry-run", "--json")
    (whole,) = json.loads(tinymem("run", *words).out)
    assert whole["to do"] == "make the corpus, train 6 epochs, run 4 methods, report" and whole["time"] > 0
    parameters = planned_parameters(load_recipe(QUICKSTART, TINY))
    assert 7 * 4 * parameters < whole["disk"] < 7 * 4 * parameters + 2_000_000, "weights, and two resume points of three times as much"
    (part,) = json.loads(tinymem("train", *words).out)
    assert part["to do"] == "make the corpus, train 6 epochs" and part["time"] > 0
    assert files_in(tmp_path) == {}


def test_runs_of_one_size_have_one_estimate(tmp_path: Path) -> None:
    recipes = [load_recipe(QUICKSTART, [*TINY, METHODS, f"seed={seed}"]) for seed in (0, 1)]
    first, second = estimate(recipes, tmp_path, "cpu", whole=True)
    assert first.run != second.run and first.seconds == second.seconds > 0, "the speed of a size is probed once"


TOO_MANY = "expected artifacts.{}.rows of at most {} clean rows of the primary task, got {}"
REFERENCE = (
    "expected artifacts.noise.rows from data.test_rows = 20 to half of the 260 rows of the primary task under protocol reference, got {}"
)


@pytest.mark.parametrize(
    ("protocol", "artifacts", "message"),
    [
        ("paper", "{kind: noise, rows: 239}", None),
        ("paper", "{kind: noise, rows: 240}", TOO_MANY.format("noise", 239, 240)),
        ("paper", "{kind: duplication, rows: 140}, {kind: noise, rows: 100}", TOO_MANY.format("duplication", 139, 140)),
        ("paper", "{kind: canary, rows: 250}", None),
        ("reference", "{kind: noise, rows: 130}", None),
        ("reference", "{kind: noise, rows: 131}", REFERENCE.format(131)),
        ("reference", "{kind: noise, rows: 19}", REFERENCE.format(19)),
    ],
)
def test_a_dry_run_refuses_more_rows_than_there_are_as_the_corpus_does(
    protocol: str, artifacts: str, message: str | None, tmp_path: Path
) -> None:
    words = (QUICKSTART, *sets([*TINY, "mitigation.methods=[act]", f"protocol={protocol}", f"artifacts=[{artifacts}]"]))
    dry = tinymem("run", *words, "--runs", tmp_path / "runs", "--device", "cpu", "--dry-run")
    made = tinymem("data", "make", *words, "--out", tmp_path / "corpus")
    if message is None:
        assert (dry.code, made.code) == (0, 0), dry.err + made.err
    else:
        assert dry.last_line_error() == made.last_line_error() == message


def test_a_dry_run_of_what_is_done(tiny_run: Run) -> None:
    before = files_in(tiny_run.path)
    words = (QUICKSTART, *sets([*TINY, METHODS]), "--runs", tiny_run.path.parent, "--device", "cpu", "--dry-run", "--json")
    assert json.loads(tinymem("run", *words).out) == [{"run": tiny_run.path.name, "to do": "nothing", "time": 0.0, "disk": 0}]
    (more,) = json.loads(tinymem("run", *words, "--set", "mitigation.methods=[act, zero]").out)
    assert more["to do"] == "run 1 method, report" and files_in(tiny_run.path) == before


@pytest.mark.thorough
@pytest.mark.processes
def test_a_matrix_is_run_whole(tmp_path: Path) -> None:
    """In processes of their own; then all is found, and one table and one page show all runs."""
    recipe = tmp_path / "many.yaml"
    recipe.write_text(QUICKSTART.read_text() + "\nmatrix: {seed: [0, 1]}\n")
    words = (recipe, *sets([*SMALLER, "mitigation.methods=random-weights"]), "--runs", tmp_path / "runs", "--device", "cpu")
    assert [run["name"] for run in json.loads(tinymem("run", *words, "--list", "--json").out)] == ["quickstart-seed0", "quickstart-seed1"]
    done = tinymem("run", *words, "--jobs", 2)
    assert "2 runs, 0 finished before, 2 to run" in done.err, done.err
    if done.code == 0:
        assert "quickstart-seed1" in done.out and "Variants: 2 runs" in (tmp_path / "runs" / "many.html").read_text()
    assert {listed.state for listed in list_folders([tmp_path / "runs"])} == {"done"}, done.err + done.out
    assert "2 runs, 2 finished before, 0 to run" in tinymem("run", *words).err
    left = tinymem("train", *words, "--only", "*seed0")
    assert "left aside: mitigation, which `tinymem run` does" in left.err
