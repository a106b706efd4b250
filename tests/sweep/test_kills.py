"""Sweeps that are killed: workers, supervisors, all of them, twice at once. Counted: runs, kills, lost, doubled, done again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, environment, files_of_at_most, tinymem

from tinymem.errors import CouldNotWrite, Stopped
from tinymem.mitigation.method import UNLEARNERS
from tinymem.recipe.sweep import Limits, SweepRecipe, parse_sweep
from tinymem.registry import load_plugin
from tinymem.results.store import FAILURES, read_rows
from tinymem.runs.pipeline import Run
from tinymem.runtime.files import disk_errors_named
from tinymem.runtime.signals import StopFlag
from tinymem.runtime.slots import Slot
from tinymem.sweep.models import HASHES
from tinymem.sweep.places import local_workers
from tinymem.sweep.run import Sweep, open_sweep, run_sweep
from tinymem.sweep.supervisor import Supervisor
from tinymem.sweep.worker_process import WorkerProcess, remove_stale_logs

FAKES = ROOT / "tests" / "support" / "sweep_fakes.py"
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with UNLEARNERS.temporary():
        load_plugin(FAKES)
        yield


def recipe_of(run: Run, *methods: Row, **keys: Any) -> SweepRecipe:
    return parse_sweep({"checkpoints": str(run.checkpoint), "methods": list(methods), **keys})


def opened(recipe: SweepRecipe, tmp_path: Path) -> Sweep:
    return open_sweep(recipe, out=tmp_path / "sweep", runs=tmp_path, device_type="cpu", plugins=[FAKES])


def engine(workers: int, tell: Callable[[Supervisor, Row], None] = lambda _supervisor, _event: None) -> Any:
    """The local engine, with an eye on every event."""

    def run(sweep: Sweep, groups: Any, tally: Any, stop: StopFlag) -> None:
        def heard(event: Row) -> None:
            tally(event)
            tell(supervisor, event)

        started = local_workers(sweep.folder, "cpu", workers, sweep.plugins)
        supervisor = Supervisor(sweep.folder, started, sweep.recipe.limits, compact_every=sweep.recipe.compact_every, tell=heard, stop=stop)
        try:
            supervisor.run(groups)
        finally:
            supervisor.close()

    return run


def executions(tmp_path: Path) -> Counter[str]:
    """How often each fake run was started."""
    path = tmp_path / "log"
    return Counter(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else Counter()


def assert_complete(tmp_path: Path, runs: int, *, again: int = 0) -> None:
    """Every run has its rows, once, and no more than `again` were started twice."""
    rows = read_rows(tmp_path / "sweep")
    counted = Counter((row["id"], row["artifact"]) for row in rows)
    assert len({row["id"] for row in rows}) == runs, "lost runs"
    assert set(counted.values()) == {1}, "doubled rows"
    done = executions(tmp_path)
    assert len(done) == runs and done.total() <= runs + again, f"{done.total() - runs} runs were done again, at most {again} had to be"


@pytest.mark.thorough
@pytest.mark.processes
def test_killed_workers_are_replaced_and_stopping_is_no_loss(tiny_run: Run, tmp_path: Path) -> None:
    runs, kills, stop_at = 30, [3, 9], 16
    seen: list[Row] = []

    def disturb(supervisor: Supervisor, event: Row) -> None:
        seen.append(event)
        if len(seen) in kills:
            next(worker.process for worker in supervisor.workers if worker.group and worker.process).send_signal(signal.SIGKILL)
        if len(seen) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    recipe = recipe_of(tiny_run, {"name": "fake", "options": {"number": list(range(runs)), "seconds": 0.03}}, compact_every=5)
    with pytest.raises(Stopped, match="stopped by SIGTERM; the same command goes on"):
        run_sweep(opened(recipe, tmp_path), engine(2, disturb))
    assert stop_at <= len({row["id"] for row in read_rows(tmp_path / "sweep")}) < runs
    assert run_sweep(opened(recipe, tmp_path), engine(1)) == {"ok": runs}
    assert_complete(tmp_path, runs, again=len(kills) + 2)  # what was under way when they were killed and stopped
    assert len(list((tmp_path / "sweep" / "parquet").iterdir())) > 1 and not list((tmp_path / "sweep" / "results").iterdir())
    assert not list((tmp_path / "sweep" / "logs").glob("*"))


@pytest.mark.thorough
@pytest.mark.processes
def test_what_goes_wrong_goes_wrong_alone(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"seconds": 10.0, "memory_mb": 1000, "attempts": 2}
    recipe = recipe_of(
        tiny_run,
        {"name": "fake", "options": {"number": [0, 1, 2]}},
        *({"name": "fake", "options": {"number": n, "how": how}} for n, how in ((3, "raise"), (4, "hang"), (5, "eat"), (6, "die"))),
        limits=limits,
    )
    statuses = run_sweep(opened(recipe, tmp_path), engine(1))
    assert statuses == {"ok": 3, "failed": 3, "timeout": 1}
    rows = {row["config"]["number"]: row for row in read_rows(tmp_path / "sweep")}
    assert rows[4]["status"] == "timeout" and "limits.seconds" in rows[4]["message"]
    assert "limits.memory_mb" in rows[5]["message"] and "died 2 times" in rows[6]["message"] and "signal 9" in rows[6]["message"]
    assert executions(tmp_path) == {"0": 1, "1": 1, "2": 1, "3": 1, "4": 1, "5": 1, "6": 2}
    facts = {column: rows[0][column] for column in ("model_name", "data", "n_layer", "epoch", "seed", "protocol")}
    assert all({**rows[n], **facts} == rows[n].as_dict() for n in rows)
    table = [json.loads(line) for line in (tmp_path / "sweep" / FAILURES).read_text().splitlines()]
    text = next(row for row in table if row["message"].startswith("Arithmetic"))["traceback"]
    assert len(table) == 4 and 'sweep_fakes.py", line' in text and "in go_wrong" in text
    assert 'File "tinymem/mitigation/' in text and 'File "/' not in text, "no place of this machine"

    again = opened(recipe, tmp_path)
    assert not again.left() and run_sweep(again, engine(1)) == statuses, "failed runs are not tried again by themselves"
    monkeypatch.setenv("FAKE_HEALED", "1")
    assert len(again.left(retry_failed=True)) == 4
    assert run_sweep(again, engine(1), retry_failed=True) == {"ok": 7}
    assert_complete(tmp_path, 7, again=5)
    assert (tmp_path / "sweep" / FAILURES).read_text() == ""


@pytest.mark.processes
def test_a_full_disk_stops_the_sweep_and_leaves_its_runs_to_do(tiny_run: Run, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_run, {"name": "fake", "options": {"number": [0, 1]}})
    opened_first = opened(recipe, tmp_path)
    with files_of_at_most(2000), pytest.raises(CouldNotWrite, match=r"could not write .*results/.*\.json: .*; free or change the place"):
        run_sweep(opened_first, engine(1))
    assert executions(tmp_path).total() == 1 and not [*(tmp_path / "sweep").glob("results/*")], (
        "stopped at the first, and nothing failed for good"
    )
    assert run_sweep(opened(recipe, tmp_path), engine(1)) == {"ok": 2}


def test_on_a_full_disk_the_state_of_a_sweep_is_said(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(json.dumps({"name": "mine", "checkpoints": str(tiny_run.checkpoint), "methods": ["act"]}))
    (tmp_path / "sweep" / HASHES).mkdir(parents=True)  # where no file can be written
    said = tinymem("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "sweep", "--status")
    assert said.code == 0 and "mine, of the trained models' runs: 5 left" in said.out


@pytest.mark.processes
@pytest.mark.parametrize("output", ["json", "csv"])
def test_what_a_sweep_came_to_is_printed_in_the_format_asked_for(tiny_run: Run, tmp_path: Path, output: str) -> None:
    methods = [{"fake": {"number": [0, 1]}}, {"fake": {"number": 2, "how": "raise"}}]
    (tmp_path / "sweep.yaml").write_text(json.dumps({"name": "mine", "checkpoints": str(tiny_run.checkpoint), "methods": methods}))
    words = ("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "sweep", "--plugin", FAKES, "--jobs", 1, "--device", "cpu")
    done = tinymem(*words, "--format", output)
    assert done.code == 1 and "1 run failed" in done.err
    if output == "csv":
        assert done.out.splitlines() == ["sweep,runs,failed,ok", "mine,3,1,2"]
        return
    reason = {"status": "failed", "runs": 1, "methods": ["fake"], "message": "ArithmeticError: a half of nothing"}
    counts = {"sweep": "mine", "folder": str(tmp_path / "sweep"), "runs": 3, "statuses": {"failed": 1, "ok": 2}}
    assert json.loads(done.out) == [{**counts, "reasons": [reason]}]


def test_a_full_disk_says_what_is_free(tmp_path: Path) -> None:
    full = r"could not write .*/new/rows\.json: No space left on device, [\d.,]+ \wB are free; free or change"
    with pytest.raises(CouldNotWrite, match=full), disk_errors_named(tmp_path / "new" / "rows.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_dead_workers_last_words_are_its_error(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path, Slot("0", "cpu", {}))
    worker.log.parent.mkdir()
    worker.log.write_text(
        'Traceback (most recent call last):\n  File "/home/me/run.py", line 3, in work\nOSError: no /home/me/x.json there\n'
    )
    assert worker._last_words() == "OSError: no x.json there" and not worker.log.exists()
    worker.log.write_text("Error: " + 200 * "word ")
    assert worker._last_words().endswith(" word ...")


@pytest.mark.thorough
@pytest.mark.processes
def test_two_supervisors_at_once_of_which_one_is_killed(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 40
    recipe = tmp_path / "sweep.yaml"
    numbers = list(range(runs))
    recipe.write_text(f"checkpoints: {tiny_run.checkpoint}\nmethods: [{{fake: {{number: {numbers}, seconds: 0.02}}}}]\ncompact_every: 7\n")
    monkeypatch.setenv("FAKE_SECONDS", "0.4")  # so long that some are left when the kill comes, on a busy machine too
    first, second = start(recipe, tmp_path), start(recipe, tmp_path)
    until(lambda: len(workers_of(tmp_path)) == 2 and executions(tmp_path).total() >= 6)
    first.kill()
    first.communicate()
    assert executions(tmp_path).total() < runs
    out, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    assert f"{runs} runs: {runs} ok" in out
    until(lambda: not any(alive(pid) for pid in workers_of(tmp_path)))  # they die with their supervisors
    remove_stale_logs(tmp_path / "sweep")  # as the next start does
    assert not list((tmp_path / "sweep" / "logs").glob("*"))
    assert_complete(tmp_path, runs, again=1)  # at most what the killed one's worker was at


def start(recipe: Path, tmp_path: Path) -> subprocess.Popen[str]:
    words = ["sweep", recipe, "--out", tmp_path / "sweep", "--plugin", FAKES, "--jobs", 1, "--device", "cpu"]
    command = [sys.executable, "-m", "tinymem", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(tmp_path: Path) -> set[int]:
    path = tmp_path / "log"
    return {int(line.split()[1]) for line in path.read_text().splitlines()} if path.exists() else set()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_limits_default_to_a_share_of_the_machine() -> None:
    from tinymem.sweep.places import with_memory

    one, two = with_memory(Limits(), 1), with_memory(Limits(), 2)
    assert one.memory_mb and two.memory_mb and one.memory_mb == 2 * two.memory_mb
    assert with_memory(Limits(memory_mb=7), 2).memory_mb == 7
