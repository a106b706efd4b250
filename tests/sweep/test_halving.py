"""Successive halving: on a synthetic objective whose ranking is known, and on a real model beside the full grid."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import environment

from tinymem.errors import Stopped, UserError
from tinymem.mitigation.method import UNLEARNERS
from tinymem.mitigation.subject import subject_of_corpus
from tinymem.recipe.method import Method
from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sweep import Halving, Range, SweepRecipe, axis, parse_sweep
from tinymem.report.configuration import row_score, row_scores
from tinymem.results.row import MeasuredRow
from tinymem.results.store import read_rows, write_run
from tinymem.runs.pipeline import Run
from tinymem.runtime.json import JsonObject
from tinymem.runtime.signals import StopFlag
from tinymem.sweep.estimate import Estimator
from tinymem.sweep.halving import FORGET_ROWS, RUNGS, RunScore, Scored, forgot, goes_on, halve, kept_of, left_of, second_rung, stages
from tinymem.sweep.listing import costs
from tinymem.sweep.places import local_workers
from tinymem.sweep.plan import grid_of
from tinymem.sweep.reduced import reduced
from tinymem.sweep.run import Sweep, Tally, open_sweep, run_sweep
from tinymem.sweep.supervisor import Supervisor
from tinymem.sweep.task import Worker
from tinymem.sweep.work import PlannedRun, Rung, WorkUnit, bare_rows, stamped

RATIOS = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08]
GRID = {"balanced-subnet": {"ratio": RATIOS, "epochs": [1, 10, 20], "loss_weight": 0.9}}
Objective = Callable[[float, int], float]


def best_at(ratio: float, epochs: float) -> Objective:
    """A score (in percent of what a perfect edit removes) that falls with the distance from a ratio and, in epochs, from a number."""
    return lambda r, e: 98 - 300 * abs(r - ratio) - 10 * abs(math.log10(e / epochs))


class Synthetic:
    """An engine that makes rows of a known objective, and notes what it ran; after `stop_after` runs a signal comes."""

    def __init__(self, objective: Objective, stop_after: int | None = None) -> None:
        self.objective, self.stop_after, self.made = objective, stop_after, list[tuple[float, int, int | None]]()

    def __call__(self, sweep: Sweep, groups: Sequence[WorkUnit], tally: Tally, stop: StopFlag) -> None:
        for unit in groups:
            for run in unit.runs:
                if self.stop_after is not None and len(self.made) >= self.stop_after:
                    stop.name = "SIGTERM"
                    return
                ratio, epochs = run.config.get("ratio", 0.0), run.config.get("epochs", 1)
                self.made.append((ratio, epochs, unit.rung.number if unit.rung else None))
                write_run(sweep.folder, run.id, stamped([self.row(unit, run, ratio, epochs)], unit))

    def row(self, unit: WorkUnit, run: PlannedRun, ratio: float, epochs: int) -> Any:
        removed = self.objective(ratio, epochs) / 100
        values: Any = {"memorized_before": 1.0, "memorized_after": 1 - removed, "performance_before": 0.99, "performance_after": 0.99}
        return replace(bare_rows(unit, run, "ok", "")[0], **values, message=None, performance_metric="accuracy", artifact="noise")


def searched(run: Run, methods: Any, folder: Path, objective: Objective, **keys: Any) -> tuple[Sweep, Synthetic, Counter[str]]:
    sweep, engine = opened(run, methods, folder, **{"search": "halving", **keys}), Synthetic(objective)
    return sweep, engine, halve(sweep, engine, row_scores, progress=False)


def opened(run: Run, methods: Any, folder: Path, **keys: Any) -> Sweep:
    recipe: SweepRecipe = parse_sweep({"checkpoints": str(run.path), "methods": methods, **keys})
    return open_sweep(recipe, out=folder, runs=folder, device_type="cpu")


def best(rows: Sequence[MeasuredRow]) -> MeasuredRow:
    return min(rows, key=row_score)


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.08])
@pytest.mark.parametrize("epochs", [1, 10, 20])
def test_it_finds_the_best_of_a_known_ranking(tiny_run: Run, tmp_path: Path, ratio: float, epochs: int) -> None:
    _, engine, statuses = searched(tiny_run, [GRID], tmp_path, best_at(ratio, epochs))
    found = best(read_rows(tmp_path))
    assert (found.options["ratio"], (found.config or {})["epochs"]) == (ratio, epochs)
    counts = Counter(number for *_, number in engine.made)
    assert counts[0] == 8 and counts[1] == 2 and statuses == Counter(ok=counts[None])
    in_full = [(r, e) for r, e, number in engine.made if number is None]
    assert in_full == [(ratio, 1), (ratio, 10), *([(ratio, 20)] if epochs > 1 else [])], "more epochs only while more were better"


@pytest.mark.parametrize("metric", ["accuracy", "perplexity"])
@pytest.mark.parametrize("cost", [0, 1])
@pytest.mark.parametrize(("needed", "rungs"), [(2, {0: 8, 1: 8}), (20, {0: 8, 1: 8, None: 24})])
def test_a_rung_on_which_nothing_is_forgotten_drops_nothing(
    tiny_run: Run, tmp_path: Path, needed: int, rungs: dict[int | None, int], cost: int, metric: str
) -> None:
    """An edit that needs several epochs, and one whose many epochs need all rows, whatever it costs: one epoch's order would be wrong."""

    class Shy(Synthetic):
        def row(self, unit: WorkUnit, run: PlannedRun, ratio: float, epochs: int) -> Any:
            steps = epochs if unit.rung is None else min(epochs, 19)
            row = super().row(unit, run, ratio, epochs if steps >= needed else 0)
            worse = cost * (2 + 100 * ratio + epochs / 20) / 100  # the more, the larger the ratio and the more epochs
            worse = 1 + worse if metric == "perplexity" else 1 - worse
            return replace(row, performance_metric=metric, performance_after=row.performance_before * worse)

    def objective(ratio: float, epochs: float) -> float:
        return best_at(0.03, 20)(ratio, int(epochs)) if epochs else ratio

    sweep, engine = opened(tiny_run, [GRID], tmp_path, search="halving"), Shy(objective)
    halve(sweep, engine, row_scores, progress=False)
    found = best(read_rows(tmp_path))
    assert (found.options["ratio"], (found.config or {})["epochs"]) == (0.03, 20)
    made = Counter(number for *_, number in engine.made)
    assert {number: made[number] for number in rungs} == rungs


@pytest.mark.parametrize(("removed", "second"), [(1.5, 2), (0.5, 8), (-20, 8), (None, 2)])
def test_whether_something_was_forgotten_decides_and_no_score(tiny_run: Run, tmp_path: Path, removed: float | None, second: int) -> None:
    """Of passes that all cost more than they bring; one and a half percent is more than the tolerance, and failed passes are not kept."""

    class Harmful(Synthetic):
        def row(self, unit: WorkUnit, run: PlannedRun, ratio: float, epochs: int) -> Any:
            row = replace(super().row(unit, run, ratio, epochs), performance_after=0.99 * (1 - ratio - 0.05))
            return row if removed is not None else replace(row, status="failed", message="no")

    sweep, engine = opened(tiny_run, [GRID], tmp_path, search="halving"), Harmful(lambda ratio, epochs: removed or 0.0)
    halve(sweep, engine, row_scores, progress=False)
    assert Counter(number for *_, number in engine.made)[1] == second
    if second == 2:
        assert {r for r, _, number in engine.made if number is None} == {0.01}, "the least harmful, or the first"


def test_a_perfect_edit_ends_the_search(tiny_run: Run, tmp_path: Path) -> None:
    _, engine, _ = searched(tiny_run, [GRID], tmp_path, lambda ratio, epochs: 99.5 if epochs > 1 else 50)
    assert [e for _, e, number in engine.made if number is None] == [1, 10]


def test_a_method_whose_grid_shares_one_pass_runs_in_full(tiny_run: Run, tmp_path: Path) -> None:
    searched(tiny_run, [{"durable": {"ratio": [0.01, 0.1]}}, "npo", GRID], tmp_path, best_at(0.03, 10))
    rows = read_rows(tmp_path)
    assert {str(row.options["ratio"]) for row in rows if row.method == "durable"} == {"0.01", "0.1"}
    assert Counter(row.method for row in rows) == {"durable": 2, "npo": 1, "balanced-subnet": 3}
    assert {row.method for row in read_rows(tmp_path / RUNGS)} == {"balanced-subnet"}


def test_with_everything_kept_it_is_the_full_grid(tiny_run: Run, tmp_path: Path) -> None:
    objective = best_at(0.03, 10)
    whole = opened(tiny_run, [GRID], tmp_path / "whole")
    run_sweep(whole, Synthetic(objective), progress=False)
    searched(tiny_run, [GRID], tmp_path / "search", objective, **{"search": {"keep": 1}})
    assert {(r.id, r.memorized_after) for r in read_rows(tmp_path / "whole")} == {
        (r.id, r.memorized_after) for r in read_rows(tmp_path / "search")
    }
    assert not (tmp_path / "search" / RUNGS).exists()


def test_it_goes_on_where_it_was_stopped(tiny_run: Run, tmp_path: Path) -> None:
    """After any number of runs: the same rows, and none made twice."""
    objective = best_at(0.05, 20)
    _, whole, _ = searched(tiny_run, [GRID], tmp_path / "whole", objective)
    rows = {(row.id, row.memorized_after) for row in read_rows(tmp_path / "whole")}
    for count in (3, 8, 9, 11, len(whole.made) - 1):
        folder = tmp_path / str(count)
        first = Synthetic(objective, stop_after=count)
        with pytest.raises(Stopped):
            halve(opened(tiny_run, [GRID], folder, search="halving"), first, row_scores, progress=False)
        _, second, _ = searched(tiny_run, [GRID], folder, objective)
        assert sorted([*first.made, *second.made], key=str) == sorted(whole.made, key=str)
        assert {(row.id, row.memorized_after) for row in read_rows(folder)} == rows


def test_runs_without_a_result_are_not_chosen(tiny_run: Run, tmp_path: Path) -> None:
    class Failing(Synthetic):
        def row(self, unit: WorkUnit, run: PlannedRun, ratio: float, epochs: int) -> Any:
            row = super().row(unit, run, ratio, epochs)
            return replace(row, status="failed", message="no") if ratio == 0.05 else row

    halve(opened(tiny_run, [GRID], tmp_path, search="halving"), Failing(best_at(0.05, 10)), row_scores, progress=False)
    assert best(read_rows(tmp_path)).options["ratio"] in (0.04, 0.06)


def test_rungs_by_hand(tiny_run: Run, tmp_path: Path) -> None:
    unit = opened(tiny_run, [GRID], tmp_path).plan.groups[0]
    cheap = second_rung(unit)
    assert cheap.rung == Rung(1, retain=0.05, forget=FORGET_ROWS) and [run.config["epochs"] for run in cheap.runs] == [20]
    assert [[run.config["epochs"] for run in part.runs] for part in stages(unit)] == [[1, 10], [20]]
    assert [kept_of(count, Halving()) for count in (2, 6, 12, 39)] == [1, 1, 3, 9]
    assert WorkUnit.of_json(cheap.to_json()) == cheap
    runs = stages(unit)[0].runs

    def scored(*totals: float, memorized: float) -> dict[str, RunScore]:
        return {run.id: RunScore(total, memorized) for run, total in zip(runs, totals, strict=True)}

    assert goes_on(runs, scored(-50, -60, memorized=-70), 1) and not goes_on(runs, scored(-50, -60, memorized=-70), 40)
    assert not goes_on(runs, scored(-60, -50, memorized=-70), 1), "more epochs were worse"
    assert goes_on(runs, scored(3, 5, memorized=0), 1), "and nothing is forgotten yet"
    assert forgot(runs, scored(3, 5, memorized=-1.1), 1) and not forgot(runs, scored(3, 5, memorized=-1), 1) and not forgot(runs, {}, 1)


def test_a_worse_pass_that_forgot_tells_nothing_of_the_better_ones() -> None:
    units: list[Any] = ["0.01", "0.05", "0.1", "0.3", "refused"]
    ranked = [
        Scored(score, forgot, unit)
        for score, forgot, unit in zip((0, 0, 0, 4900, math.inf), (False,) * 3 + (True, False), units, strict=True)
    ]
    assert [one.unit for one in left_of(ranked, 1)] == units[:4], "none was better than no edit, and the refused one has no result"
    forgetting = Scored(-3.0, True, units[3])
    assert left_of([forgetting, *ranked[:3]], 1) == [forgetting]
    assert left_of([ranked[-1]] * 2, 1) == [ranked[-1]]


def test_an_artifact_that_was_forgotten_counts(tiny_run: Run, tmp_path: Path) -> None:
    """A rung that forgets one artifact and makes another known better, so that the mean is 0, tells its passes apart."""

    class Two(Synthetic):
        def __call__(self, sweep: Sweep, groups: Sequence[WorkUnit], tally: Tally, stop: StopFlag) -> None:
            for unit, run in [(group, run) for group in groups for run in group.runs]:
                rows = [replace(self.row(unit, run, sign, 1), artifact=kind) for kind, sign in (("noise", 1), ("backdoor", -1))]
                write_run(sweep.folder, run.id, stamped(rows, unit))
                self.made.append((run.config["ratio"], run.config["epochs"], unit.rung.number if unit.rung else None))

    sweep, engine = opened(tiny_run, [GRID], tmp_path, search="halving"), Two(lambda sign, _epochs: 30 * sign)
    halve(sweep, engine, row_scores, progress=False)
    assert Counter(number for *_, number in engine.made)[1] == 2


def test_a_rungs_rows(tiny_run: Run) -> None:
    """Fewer rows to train on and fewer test rows; what is memorized is scored on all, as before."""
    subject = subject_of_corpus(tiny_run.model(), tiny_run.corpus(), tiny_run.recipe)
    small = reduced(subject, Rung(1, retain=0.1, forget=3))
    assert len(small.data.retain) == round(0.1 * len(subject.data.retain)) and len(small.data.forget) == 3
    all_clean = replace(subject, data=replace(subject.data, clean=subject.data.retain.ids))
    assert small.data.clean is None and (reduced(all_clean, Rung(1, retain=0.1, forget=3)).data.clean == small.data.retain.ids).all()
    held = {tuple(row) for row in subject.data.retain.ids.tolist()}
    assert {tuple(row) for row in small.data.retain.ids.tolist()} <= held
    for kind, flags in subject.before.memorized.items():
        assert (small.before.memorized[kind] == flags).all()
    assert small.before.accuracy.rows < subject.before.accuracy.rows and small.request.metrics == ()
    assert len(reduced(subject, Rung(0, retain=1.0, forget=None, tests=1.0)).data.forget) == len(subject.data.forget)


def in_process(sweep: Sweep, groups: Sequence[WorkUnit], tally: Tally, stop: StopFlag) -> None:
    worker = Worker(sweep.folder, "cpu")
    for unit in groups:
        worker.work(unit, lambda _: None)


def with_a_killed_worker(sweep: Sweep, groups: Sequence[WorkUnit], tally: Tally, stop: StopFlag) -> None:
    """The rungs in a worker process that dies after its first run; what follows here."""
    if sweep.folder.name != RUNGS:
        in_process(sweep, groups, tally, stop)
        return
    workers, killed = local_workers(sweep.folder, "cpu", 1), list[str]()

    def heard(event: Any) -> None:
        tally(event)
        if not killed and workers[0].process:
            killed.append(event["id"])
            workers[0].process.kill()

    supervisor = Supervisor(sweep.folder, workers, sweep.recipe.limits, tell=heard, stop=stop)
    try:
        supervisor.run(groups)
    finally:
        supervisor.close()
    assert killed


@pytest.mark.processes
@pytest.mark.thorough
def test_a_search_of_a_real_model_beside_its_full_grid(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows on all rows are those of the full grid, number for number; those of rungs are the same after a worker has died."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    grid = [{"subnet": {"ratio": [0.05, 0.1, 0.2, 0.3], "epochs": [1, 2]}}]
    run_sweep(opened(tiny_run, grid, tmp_path / "whole"), in_process, progress=False)
    for engine in (in_process, with_a_killed_worker):
        halve(opened(tiny_run, grid, tmp_path / engine.__name__, search="halving"), engine, row_scores, progress=False)
    plain, killed = tmp_path / "in_process", tmp_path / "with_a_killed_worker"
    found, by_id = read_rows(plain), {(row.id, row.artifact): row for row in read_rows(tmp_path / "whole")}
    assert len(found) == 4 and len(by_id) == 16
    for row in found:
        same = by_id[row.id, row.artifact]
        assert (row.memorized_after, row.performance_after, row.rows_retain) == (
            same.memorized_after, same.performance_after, same.rows_retain,
        )  # fmt: skip
    for one, other in ((plain, killed), (plain / RUNGS, killed / RUNGS)):
        assert [numbers_of(row) for row in read_rows(one)] == [numbers_of(row) for row in read_rows(other)]
    assert all(row.status == "ok" for row in read_rows(plain / RUNGS))
    assert all(row.edit_norm for row in found) and not any(row.edit_norm for row in read_rows(plain / RUNGS)), "rungs only rank"


def numbers_of(row: MeasuredRow) -> tuple[Any, ...]:
    return row.id, row.artifact, row.status, row.memorized_after, row.performance_after


def test_ranges_are_axes_of_the_grid() -> None:
    assert Range.model_validate({"from": 0.001, "to": 0.1, "points": 3}).values() == (0.001, 0.01, 0.1)
    assert axis({"from": 1, "to": 3, "points": 9, "scale": "linear"}) == (1, 2, 3) and axis([1, 2]) == (1, 2) and axis(0.1) == (0.1,)
    entry = Method(name="act", options={"ratio": {"from": 0.1, "to": 0.2, "points": 2}})
    assert list(grid_of(UNLEARNERS.get("act"), entry, "none")) == [{"ratio": 0.1}, {"ratio": 0.2}]
    for wrong in ({"from": 0, "to": 1}, {"from": 0.1}, {"from": 0.1, "to": 1, "points": 1}):
        with pytest.raises(UserError, match=r"expected a range \{from, to, points, scale\}"):
            parse_sweep({"checkpoints": "x", "methods": [{"act": {"ratio": wrong}}]})


def test_the_estimate_of_a_search(tiny_run: Run, tmp_path: Path) -> None:
    """By hand, with runs of an epoch's seconds each: 8 half epochs, 2 of all epochs on a twentieth, and 20 epochs on all rows."""

    class Flat(Estimator):
        def run(self, method: str, options: JsonObject, recipe: Recipe) -> tuple[float, float, str]:
            return float(str(options["epochs"])), 0.0, "exact"

    sweep = opened(tiny_run, [GRID], tmp_path, search="halving")
    found = costs(sweep, Flat(probe=False))["balanced-subnet"]
    assert found.total == pytest.approx(8 * 0.5 + 2 * 1 + 20) and found.runs == 8 + 2 + 3
    assert costs(replace(sweep, recipe=sweep.recipe.model_copy(update={"search": None})), Flat(probe=False))["balanced-subnet"].total == 160
