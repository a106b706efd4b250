"""Worker processes of our own on one machine, under a supervisor that outlives them.

A `ProcessPoolExecutor` loses everything when one worker dies, and none can be stopped. Here a run that takes too long or too much memory is
killed with its worker, and only that run gets a row with the reason; a worker that dies otherwise is replaced, and its work is tried again,
a bounded number of times. Where a result cannot be written, as on a full disk, all stops: its run is left to do. Work of other supervisors
in the same folder, here or on another machine, is waited for and not repeated.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

from tinymem.errors import CouldNotWrite
from tinymem.recipe.sweep import Limits
from tinymem.results.row import Status
from tinymem.results.store import Index, compact, write_run
from tinymem.runtime.signals import StopFlag
from tinymem.sweep.claims import COMPACTION, Claims
from tinymem.sweep.work import Event, WorkUnit, bare_rows, stamped
from tinymem.sweep.worker_process import WorkerProcess

TICK_SECONDS = 0.2
BUSY_SECONDS = 1.0


def stop_all(workers: Iterable[WorkerProcess]) -> None:
    """Stop worker processes, and remove the folders of their logs that are empty."""
    for worker in workers:
        worker.stop()
        with suppress(OSError):
            worker.log.parent.rmdir()


class Supervisor:
    """Supervisor of worker processes. `run` may be called again: the workers stay alive until `close`."""

    def __init__(
        self,
        folder: Path,
        workers: list[WorkerProcess],
        limits: Limits,
        *,
        compact_every: int | None = None,
        tell: Callable[[Event], None] = lambda _event: None,
        stop: StopFlag | None = None,
    ) -> None:
        self.folder, self.workers, self.limits, self.compact_every, self.tell = folder, workers, limits, compact_every, tell
        self.stop = stop or StopFlag()
        self.claims, self.index = Claims(folder), Index(folder)
        self.queue: deque[WorkUnit] = deque()
        self.busy: list[WorkUnit] = []
        self.looked = 0.0
        self.finished = 0

    def run(self, groups: Iterable[WorkUnit]) -> None:
        """Run all groups; returns when every run of them has rows, or a signal has come.

        Raises:
            CouldNotWrite: a result, as on a full disk; the workers are stopped, and the runs without rows are left to do.
        """
        self.queue.extend(groups)
        while not self.stop.name and (self.queue or self.busy or any(worker.group for worker in self.workers)):
            self._hand_out()
            self._wait()
            for worker in self.workers:
                self._listen(worker)
                self._judge(worker)
            if self.compact_every and self.finished >= self.compact_every:
                self.compact()

    def close(self) -> None:
        """Stop all worker processes, and remove the folder of logs if it is empty."""
        stop_all(self.workers)

    def compact(self, *, patience: float = 0.0) -> None:
        """Move results to Parquet, unless another process is doing so for longer than `patience` seconds."""
        end = time.monotonic() + patience
        while not (mine := self.claims.take(COMPACTION)) and time.monotonic() < end:
            time.sleep(TICK_SECONDS)
        if mine:
            try:
                compact(self.folder)
            finally:
                self.claims.release(COMPACTION)
        self.finished = 0

    def give_up(self, group: WorkUnit, message: str) -> None:
        """Write failed rows for the runs of a group that have none, unless another process is at work on it."""
        self._condemn(group, {run.id for run in group.runs}, "failed", message)
        self.busy.clear()

    def _hand_out(self) -> None:
        self._look_at_busy()
        for worker in self.workers:
            if worker.group is None and self.queue:
                worker.give(self._next_for(worker), self.folder)

    def _next_for(self, worker: WorkerProcess) -> WorkUnit:
        """A group of the model that the worker has loaded, else of the model that the fewest other workers have."""
        mine = next((i for i, group in enumerate(self.queue) if group.model_key == worker.model_key), None)
        if mine is None:
            others = [other.model_key for other in self.workers if other is not worker and other.group]
            places = {group.model_key: i for i, group in reversed(list(enumerate(self.queue)))}
            mine = min(places.items(), key=lambda item: (others.count(item[0]), item[1]))[1]
        group = self.queue[mine]
        del self.queue[mine]
        return group

    def _wait(self) -> None:
        working = [worker.connection for worker in self.workers if worker.group and worker.connection]
        if working:
            wait(working, TICK_SECONDS)
        elif self.busy:
            time.sleep(TICK_SECONDS)

    def _listen(self, worker: WorkerProcess) -> None:
        for event in worker.events():
            kind = event["event"]
            if kind == "begin":
                worker.charge(event["runs"], event["spent"])
            elif kind == "run":
                self._count(event)
            elif kind == "busy":
                assert worker.group is not None
                self.busy.append(worker.group)
                worker.group = None
            elif kind == "done":
                worker.group = None
            elif kind == "unwritable":
                self.queue.clear()
                self.busy.clear()
                self.close()
                raise CouldNotWrite(event["message"])

    def _count(self, event: Event) -> None:
        self.finished += not event.get("found")
        self.tell(event)

    def _judge(self, worker: WorkerProcess) -> None:
        """Stop workers whose runs exceed a limit; replace workers that have died."""
        if worker.process is None:
            return
        if worker.is_dead():
            self._died(worker)
        elif worker.group is not None:
            memory, limit = worker.resident_mb(), self.limits
            if limit.seconds is not None and worker.seconds > limit.seconds:
                self._end(worker, "timeout", f"stopped after {limit.seconds:g} s, the sweep's limits.seconds")
            elif limit.memory_mb is not None and memory > limit.memory_mb:
                self._end(
                    worker, "failed", f"stopped at {memory:.0f} MB of memory, over the sweep's limits.memory_mb = {limit.memory_mb:.0f}"
                )

    def _end(self, worker: WorkerProcess, status: Status, message: str) -> None:
        self._listen(worker)  # it may have ended in time after all
        group, charged = worker.group, set(worker.charged)
        if group is None:
            return
        worker.stop()
        self._condemn(group, charged, status, message)

    def _died(self, worker: WorkerProcess) -> None:
        self._listen(worker)
        group, charged = worker.group, set(worker.charged)
        how = worker.stop()
        if group is None:
            return
        if group.attempt >= self.limits.attempts:
            self._condemn(group, charged, "failed", f"the worker died {group.attempt} times, last by {how}")
        else:
            self.queue.append(replace(group, attempt=group.attempt + 1))

    def _condemn(self, group: WorkUnit, charged: set[str], status: Status, message: str) -> None:
        """Write rows for runs that were stopped, and continue with the others of the group."""
        if not self.claims.take(group.name):  # another sweep took it over the moment our worker died; it has its own limits
            self.busy.append(group)
            return
        try:
            for run in group.runs:
                known = self.index.find(run.id) if run.id in charged else None
                if run.id in charged and (known is None or known.finished == run.replaces):
                    write_run(self.folder, run.id, stamped(bare_rows(group, run, status, message), group))
                    self._count({"event": "run", "id": run.id, "status": status, "message": message, "seconds": 0.0})
        finally:
            self.claims.release(group.name)
        left = [run for run in group.runs if run.id not in charged]
        if left:
            self.queue.append(replace(group, runs=left, attempt=1))

    def _look_at_busy(self) -> None:
        """Retry the groups that another process had claimed: finished ones are skipped, dropped ones are run here."""
        if not self.busy or time.monotonic() - self.looked < BUSY_SECONDS:
            return
        self.looked = time.monotonic()
        still = []
        for group in self.busy:
            if self.claims.take(group.name):
                self.claims.release(group.name)
                self.queue.append(group)
            else:
                still.append(group)
        self.busy = still
