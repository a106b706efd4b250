"""Contests: on synthetic scores whose best run is known by brute force, and on a real model beside the full grid."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinymem.cli.sweep_plan import print_fates, print_outcomes
from tinymem.errors import Stopped
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sweep import Halving, SweepRecipe, parse_sweep
from tinymem.report.configuration import row_score, row_scores
from tinymem.results.row import MeasuredRow
from tinymem.results.store import read_rows, write_run
from tinymem.runs.pipeline import Run
from tinymem.runtime.json import JsonObject
from tinymem.runtime.signals import StopFlag
from tinymem.sweep.contest import FORGET_ROWS, GROWING, SCORED, search, second_trial, stored_fates, trial
from tinymem.sweep.estimate import Estimator
from tinymem.sweep.halving import FIRST, RUNGS
from tinymem.sweep.listing import costs
from tinymem.sweep.run import Sweep, Tally, open_sweep, run_sweep
from tinymem.sweep.task import Worker
from tinymem.sweep.work import PlannedRun, WorkUnit, bare_rows, stamped

METHODS: list[Any] = [
    {"act": {"ratio": [0.01, 0.05, 0.1]}},
    {"greedy": {"ratio": [0.0001, 0.001, 0.01, 0.1]}},
    {"subnet": {"ratio": [0.05, 0.1, 0.2, 0.3], "epochs": [1, 10, 20]}},
    {"balanced-subnet": {"ratio": [0.05, 0.1, 0.2], "epochs": [1, 10, 20], "loss_weight": [0.9, 0.5]}},
    "finetune-extra",
    "npo",
]
"""13 passes: of the subnets one for each ratio, of balanced-subnet for each loss weight too."""
Removed = Callable[[str, JsonObject, int | None], float]


def peaks(winner: str, ratio: float = 0.1, epochs: int = 10) -> Removed:
    """Percent removed: 90 at a ratio and number of epochs, less beside them, 95 of the winner there; the same on rungs as on all rows."""

    def removed(method: str, options: JsonObject, rung: int | None) -> float:
        off = 10 * abs(math.log10(float(str(options.get("ratio", ratio))) / ratio))
        return 90 + 5 * (method == winner) - off - 3 * abs(math.log10(int(str(options.get("epochs", epochs))) / epochs))

    return removed


class Synthetic:
    """An engine that makes rows of known scores, and notes what it ran; after `stop_after` runs a signal comes."""

    def __init__(self, removed: Removed, stop_after: int | None = None) -> None:
        self.removed, self.stop_after, self.made = removed, stop_after, list[tuple[str, str, int | None]]()

    def __call__(self, sweep: Sweep, groups: Sequence[WorkUnit], tally: Tally, stop: StopFlag) -> None:
        for unit, run in [(group, run) for group in groups for run in group.runs]:
            if self.stop_after is not None and len(self.made) >= self.stop_after:
                stop.name = "SIGTERM"
                return
            rung = unit.rung.number if unit.rung else None
            self.made.append((unit.method, run.id, rung))
            write_run(sweep.folder, run.id, stamped([self.row(unit, run, self.removed(unit.method, run.config, rung))], unit))

    def row(self, unit: WorkUnit, run: PlannedRun, removed: float) -> Any:
        values: Any = {"memorized_before": 1.0, "memorized_after": 1 - removed / 100, "performance_before": 0.9, "performance_after": 0.9}
        if math.isnan(removed):
            return bare_rows(unit, run, "failed", "no")[0]
        return replace(bare_rows(unit, run, "ok", "")[0], **values, message=None, performance_metric="accuracy", artifact="noise")


def opened(run: Run, folder: Path, methods: Any = METHODS, **keys: Any) -> Sweep:
    recipe: SweepRecipe = parse_sweep({"checkpoints": str(run.path), "methods": methods, **keys})
    return open_sweep(recipe, out=folder, runs=folder, device_type="cpu")


def contested(run: Run, folder: Path, removed: Removed, methods: Any = METHODS, **keys: Any) -> tuple[Synthetic, Counter[str]]:
    engine = Synthetic(removed)
    return engine, search(opened(run, folder, methods, **{"search": "best", **keys}), engine, row_scores, progress=False)


def best(folder: Path) -> MeasuredRow:
    return min(read_rows(folder), key=row_score)


@pytest.mark.parametrize("winner", ["act", "greedy", "subnet", "balanced-subnet", "finetune-extra", "npo"])
def test_it_ends_within_the_tolerance_of_the_full_grids_best(tiny_run: Run, tmp_path: Path, winner: str) -> None:
    """By brute force over the whole grid; with scores that are the same on rungs, the best pass alone runs on all rows."""
    removed = peaks(winner, 0.001 if winner == "greedy" else 0.1)
    run_sweep(opened(tiny_run, tmp_path / "grid"), Synthetic(removed), progress=False)
    engine, statuses = contested(tiny_run, tmp_path / "contest", removed)
    found, whole = best(tmp_path / "contest"), best(tmp_path / "grid")
    assert found.method == whole.method == winner
    assert row_score(found) - row_score(whole) <= 1.0 + 1e-9
    if "epochs" not in (found.config or {}):
        assert row_score(found) == row_score(whole)
    counts = Counter(rung for _, _, rung in engine.made)
    assert counts[None] == statuses["ok"] < len(read_rows(tmp_path / "grid")) / 4
    assert {method for method, _, rung in engine.made if rung is None} <= {winner, "balanced-subnet", "subnet"}


def test_what_runs_on_the_rungs_by_hand(tiny_run: Run, tmp_path: Path) -> None:
    units = {(u.method, str(u.runs[0].config.get("ratio"))): u for u in opened(tiny_run, tmp_path).plan.groups}
    act, greedy, subnet = (trial(units[key]) for key in (("act", "0.01"), ("greedy", "0.0001"), ("subnet", "0.05")))
    assert act.rung == SCORED and SCORED.forget == FORGET_ROWS and [run.config["ratio"] for run in act.runs] == [0.01, 0.05, 0.1]
    assert [run.config["ratio"] for run in greedy.runs] == [0.0001, 0.001, 0.01] and greedy.rung == GROWING, (
        "its passes grow with the ratio"
    )
    assert subnet.rung == FIRST and [run.config["epochs"] for run in subnet.runs] == [1]
    assert trial(units["finetune-extra", "None"]).runs[0].config["epochs"] == 1
    assert [run.config["epochs"] for run in second_trial(units["subnet", "0.05"]).runs] == [20]
    assert second_trial(units["act", "0.01"]) == act
    alone = replace(units["greedy", "0.0001"], runs=units["greedy", "0.0001"].runs[-1:])
    assert [run.config["ratio"] for run in trial(alone).runs] == [0.1]
    ids = [run.id for unit in units.values() for form in (trial(unit), second_trial(unit)) for run in form.runs]
    assert not {run.id for unit in units.values() for run in unit.runs} & set(ids)


def test_all_passes_compete_and_a_quarter_stays(tiny_run: Run, tmp_path: Path) -> None:
    engine, _ = contested(tiny_run, tmp_path, peaks("npo"))
    first, second = (Counter(method for method, _, rung in engine.made if rung == number) for number in (0, 1))
    assert first == {"act": 3, "greedy": 3, "subnet": 4, "balanced-subnet": 6, "finetune-extra": 1, "npo": 1}
    assert second.total() <= 3, "of 14 passes three stay; those without epochs have their score"
    fates = {fate.method: fate for fate in stored_fates(tmp_path)}
    assert sum(fate.passes for fate in fates.values()) == 14 and sum(fate.kept for fate in fates.values()) == 3
    assert fates["greedy"].dropped == "first rung" and fates["greedy"].full is None
    assert fates["npo"].dropped == "" and fates["npo"].full == pytest.approx(row_score(best(tmp_path)))
    assert fates["act"].form == "64 forget rows, 50% of retain rows" and fates["subnet"].form == "1 epoch, 50% of retain rows"
    assert fates["greedy"].form == "ratios up to 0.01"


def test_a_pass_that_was_better_on_its_rung_than_on_all_rows_is_followed_by_the_next(tiny_run: Run, tmp_path: Path) -> None:
    def removed(method: str, options: JsonObject, rung: int | None) -> float:
        if method == "act":
            return 60 if rung is None else 99.9
        return peaks("npo")(method, options, rung)

    engine, _ = contested(tiny_run, tmp_path, removed)
    assert best(tmp_path).method == "npo"
    assert list(dict.fromkeys(method for method, _, rung in engine.made if rung is None)) == ["act", "npo"]


def test_a_run_within_the_tolerance_of_perfect_ends_it(tiny_run: Run, tmp_path: Path) -> None:
    def removed(method: str, options: JsonObject, rung: int | None) -> float:
        return {"npo": 99.2, "finetune-extra": 100.0 if rung is not None else 99.1}.get(method, 50.0)

    engine, _ = contested(tiny_run, tmp_path / "one", removed)
    assert [method for method, _, rung in engine.made if rung is None] == ["finetune-extra"]
    engine, _ = contested(tiny_run, tmp_path / "none", removed, search={"best_of": "model", "tolerance": 0})
    assert [method for method, _, rung in engine.made if rung is None] == ["finetune-extra", "npo"]


@pytest.mark.parametrize("last", [0, 1])
def test_a_rung_on_which_no_method_forgets_drops_nothing(tiny_run: Run, tmp_path: Path, last: int) -> None:
    """Where the rungs up to the last forget nothing, and cost the more the better a pass is on all rows; brute force says which it is."""
    removed = peaks("balanced-subnet")

    class Costly(Synthetic):
        def row(self, unit: WorkUnit, run: PlannedRun, removed: float) -> Any:
            shy = unit.rung is not None and unit.rung.number <= last
            return replace(super().row(unit, run, 0.0 if shy else removed), performance_after=0.9 * (0.95 - removed / 2000))

    run_sweep(opened(tiny_run, tmp_path / "grid"), Costly(removed), progress=False)
    engine = Costly(removed)
    search(opened(tiny_run, tmp_path / "contest", search="best"), engine, row_scores, progress=False)
    found, whole = best(tmp_path / "contest"), best(tmp_path / "grid")
    assert found.method == whole.method == "balanced-subnet" and row_score(found) - row_score(whole) <= 1.0
    fates = stored_fates(tmp_path / "contest")
    assert sum(fate.kept for fate in fates) == sum(fate.passes for fate in fates) == 14
    in_full = {method for method, _, rung in engine.made if rung is None}
    assert in_full == {fate.method for fate in fates} if last == 1 else "act" not in in_full


def test_a_method_that_forgets_nothing_in_one_epoch_is_dropped_where_another_does(tiny_run: Run, tmp_path: Path) -> None:
    def removed(method: str, options: JsonObject, rung: int | None) -> float:
        return 0.0 if method == "balanced-subnet" and options["epochs"] == 1 else peaks("balanced-subnet")(method, options, rung)

    contested(tiny_run, tmp_path, removed)
    assert {fate.method: fate.dropped for fate in stored_fates(tmp_path)}["balanced-subnet"] == "first rung"


def test_runs_without_a_result_lose(tiny_run: Run, tmp_path: Path) -> None:
    def removed(method: str, options: JsonObject, rung: int | None) -> float:
        return math.nan if method == "finetune-extra" else peaks("npo")(method, options, rung)

    contested(tiny_run, tmp_path, removed)
    assert best(tmp_path).method == "npo"
    fate = next(fate for fate in stored_fates(tmp_path) if fate.method == "finetune-extra")
    assert fate.first is None and fate.dropped == "first rung"


def test_it_goes_on_where_it_was_stopped(tiny_run: Run, tmp_path: Path) -> None:
    """After any number of runs: the same rows and fates, and none made twice."""
    whole, _ = contested(tiny_run, tmp_path / "whole", peaks("balanced-subnet"))
    rows = {(row.id, row.memorized_after) for row in read_rows(tmp_path / "whole")}
    for count in (5, len(whole.made) - 1):
        folder = tmp_path / str(count)
        first = Synthetic(peaks("balanced-subnet"), stop_after=count)
        with pytest.raises(Stopped):
            search(opened(tiny_run, folder, search="best"), first, row_scores, progress=False)
        second, _ = contested(tiny_run, folder, peaks("balanced-subnet"))
        assert sorted([*first.made, *second.made], key=str) == sorted(whole.made, key=str)
        assert {(row.id, row.memorized_after) for row in read_rows(folder)} == rows
        assert stored_fates(folder) == stored_fates(tmp_path / "whole")


def test_what_is_printed(tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = opened(tiny_run, tmp_path, search="best")
    print_fates(sweep)
    assert capsys.readouterr().out == ""
    contested(tiny_run, tmp_path, peaks("npo"))
    print_fates(sweep)
    text = capsys.readouterr().out
    assert "-92.00" in text and "methods in the contest" in text and "dropped methods might" in text and tiny_run.path.name in text
    print_outcomes([(sweep, Counter(ok=3))], "json")
    (found,) = json.loads(capsys.readouterr().out)
    assert found["statuses"] == {"ok": 3}
    assert [(line["method"], line["all rows"]) for line in found["contest"]] == [(f.method, f.full) for f in stored_fates(tmp_path)]


def test_the_estimate_of_a_contest(tiny_run: Run, tmp_path: Path) -> None:
    """By hand, with runs of a second an epoch, or one: half epochs on the first rung, single ones on the second, the longest in full."""

    class Flat(Estimator):
        def run(self, method: str, options: JsonObject, recipe: Recipe) -> tuple[float, float, str]:
            return float(str(options.get("epochs", 1))), 0.0, "exact"

    methods = [{"subnet": {"ratio": [0.1, 0.2, 0.3], "epochs": [1, 20]}}, {"greedy": {"ratio": [0.001, 0.1]}}]
    found = costs(opened(tiny_run, tmp_path, methods, search="best"), Flat(probe=False))
    assert found["subnet"].total == pytest.approx(3 * 0.5 + 1 + 20) and found["greedy"].total == pytest.approx(1)


def test_the_words_of_a_recipe() -> None:
    recipes = [parse_sweep({"checkpoints": "x", "methods": "act", "search": word}) for word in ("best", "halving", {"best_of": "model"})]
    assert [recipe.search for recipe in recipes] == [Halving(best_of="model"), Halving(), Halving(best_of="model")]


@pytest.mark.training
@pytest.mark.thorough
def test_a_contest_on_a_real_model_beside_its_full_grid(tiny_run: Run, tmp_path: Path) -> None:
    """Rows on all rows are those of the full grid, number for number, and the rungs' rows have results."""

    def in_process(sweep: Sweep, groups: Sequence[WorkUnit], tally: Tally, stop: StopFlag) -> None:
        worker = Worker(sweep.folder, "cpu")
        for unit in groups:
            worker.work(unit, lambda _: None)

    methods = [{"subnet": {"ratio": [0.05, 0.3], "epochs": [1, 2]}}, {"act": {"ratio": [0.01, 0.1]}}, "npo", "finetune-clean"]
    run_sweep(opened(tiny_run, tmp_path / "grid", methods), in_process, progress=False)
    search(opened(tiny_run, tmp_path / "contest", methods, search="best"), in_process, row_scores, progress=False)
    whole = {(row.id, row.artifact): row for row in read_rows(tmp_path / "grid")}
    found = read_rows(tmp_path / "contest")
    assert 0 < len(found) < len(whole)
    for row in found:
        same = whole[row.id, row.artifact]
        assert (row.memorized_after, row.performance_after) == (same.memorized_after, same.performance_after)
    assert {row.status for row in read_rows(tmp_path / "contest" / RUNGS)} == {"ok"}
