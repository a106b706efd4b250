"""Worker processes of a search: they live on between its rungs, and end with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tinymem.errors import Stopped
from tinymem.recipe.sweep import parse_sweep
from tinymem.report.configuration import row_scores
from tinymem.results.store import read_rows
from tinymem.runs.pipeline import Run
from tinymem.sweep.contest import search
from tinymem.sweep.halving import RUNGS, halve
from tinymem.sweep.plan import Plan
from tinymem.sweep.run import LocalEngine, Sweep, kept_workers, local_engine, open_sweep, run_sweep
from tinymem.sweep.worker_process import WorkerProcess

pytestmark = [pytest.mark.processes, pytest.mark.thorough]


def opened(run: Run, folder: Path) -> Sweep:
    methods: list[Any] = [{"subnet": {"ratio": [0.05, 0.1, 0.2, 0.3], "epochs": [1, 2]}}]
    recipe = parse_sweep({"checkpoints": str(run.path), "methods": methods, "search": "halving"})
    return open_sweep(recipe, out=folder, runs=folder, device_type="cpu")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The worker processes that are started."""
    found, start = list[Any](), WorkerProcess._start

    def counted(worker: WorkerProcess) -> None:
        start(worker)
        found.append(worker.process)

    monkeypatch.setattr(WorkerProcess, "_start", counted)
    return found


def test_one_process_does_all_rungs_and_the_full_runs(tiny_run: Run, tmp_path: Path, started: list[Any]) -> None:
    """With the numbers that a process for each rung has."""
    search(opened(tiny_run, tmp_path / "kept"), local_engine("cpu", 1), row_scores, progress=False)
    assert len(started) == 1 and started[0].returncode is not None
    halve(opened(tiny_run, tmp_path / "apart"), local_engine("cpu", 1), row_scores, progress=False)
    assert len(started) == 3 and all(process.returncode is not None for process in started)
    for part in ("", RUNGS):
        kept, apart = (read_rows(tmp_path / name / part) for name in ("kept", "apart"))
        numbers = [(row.id, row.status, row.memorized_after, row.performance_after) for row in kept]
        assert numbers and numbers == [(row.id, row.status, row.memorized_after, row.performance_after) for row in apart]
    assert not [*tmp_path.rglob("logs")]


def test_a_signal_ends_them(tiny_run: Run, tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, give = local_engine("cpu", 1), WorkerProcess.give

    def given(worker: WorkerProcess, *work: Any) -> None:
        give(worker, *work)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(WorkerProcess, "give", given)
    with pytest.raises(Stopped):
        search(opened(tiny_run, tmp_path / "s"), engine, row_scores, progress=False)
    assert len(started) == 1 and started[0].returncode == -signal.SIGKILL
    assert isinstance(engine, LocalEngine) and engine.kept is None


def test_those_of_one_sweep_end_with_it(tiny_run: Run, tmp_path: Path, started: list[Any]) -> None:
    engine = local_engine("cpu", 1)
    sweep = opened(tiny_run, tmp_path / "s")
    run_sweep(sweep, engine, progress=False)
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    with kept_workers(engine):
        run_sweep(opened(tiny_run, tmp_path / "t"), engine, progress=False)
        assert started[1].poll() is None
    assert started[1].returncode == -signal.SIGKILL


def test_those_that_are_not_needed_end_and_one_that_has_died_is_replaced(tiny_run: Run, tmp_path: Path, started: list[Any]) -> None:
    """Two work on the first sweep's passes, one on the second's: it has died between them, which costs that pass no attempt."""
    engine, whole = local_engine("cpu", 2), opened(tiny_run, tmp_path / "s")
    one = opened(tiny_run, tmp_path / "t")
    one.plan = Plan(groups=one.plan.groups[:1])
    assert isinstance(engine, LocalEngine)
    with kept_workers(engine):
        run_sweep(whole, engine, progress=False)
        assert len(started) == 2 and [process.poll() for process in started] == [None, None]
        for process in started:
            process.kill()
            process.wait()
        run_sweep(one, engine, progress=False)
        assert len(started) == 3 and sum(worker.process is not None for worker in engine.kept or []) == 1
    assert {row.attempts for row in read_rows(tmp_path / "t")} == {1}
