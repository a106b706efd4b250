"""Many runs, trained only or whole: each a separate process, a fixed number at a time on each device.

A run is `python -m tinymem train RECIPE --only NAME`, or `run`, pinned to its GPU by CUDA_VISIBLE_DEVICES. Whatever becomes of it, the
others go on; finished ones are found, and one that was cut off continues from its resume point. Long runs start first, so that the last to
end are short. When the supervisor dies, its processes stop too (`signals.hold_lifeline`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinymem.recipe.recipe import Recipe
from tinymem.recipe.sizes import training_flops
from tinymem.runs.job_progress import JobProgress
from tinymem.runs.mps import mps_server
from tinymem.runs.pipeline import is_complete, is_trained
from tinymem.runtime.device import python_path, resolve_device
from tinymem.runtime.signals import LIFELINE, StopFlag, stop_signals
from tinymem.runtime.slots import Slot, device_slots, fair_threads, with_environment

# -P: a file of the working directory must not stand in for a library. So the package's own folder is named too (`_process`).
COMMAND = (sys.executable, "-P", "-m", "tinymem")
Verb = Literal["train", "run"]
POLL_SECONDS = 0.2
LOGS = "logs"


@dataclass(frozen=True)
class Failure:
    """A run without checkpoint or results: exit code (negative: killed by that signal), the end of its log, and the log's path."""

    name: str
    code: int
    reason: str
    log: Path


@dataclass(frozen=True)
class _Running:
    recipe: Recipe
    process: subprocess.Popen[bytes]
    log: Path
    before: int
    """Bytes of the log that an earlier start wrote."""
    started: float


def do_many(
    verb: Verb,
    recipe_file: Path,
    overrides: list[str],
    recipes: list[Recipe],
    *,
    runs: Path,
    device: str,
    jobs: int,
    mps: bool = False,
    plugins: Sequence[Path] = (),
) -> list[Failure]:
    """Train the runs that are not finished, or do all of them, `jobs` at a time on each device; returns the failed ones.

    Raises:
        UserError: no such device, or no MPS.
        Stopped: a signal came, and all processes have stopped, with resume points.
    """
    pending = [recipe for recipe in recipes if not (is_trained(runs, recipe) if verb == "train" else is_complete(runs, recipe, device))]
    progress = JobProgress(runs, pending, verb, found=len(recipes) - len(pending))
    slots = job_slots(device, jobs)
    shares = {"machine_share": 1 / len(slots), "gpu_share": 1 / jobs} if len(slots) > 1 else {}
    command = [*COMMAND, verb, str(recipe_file), *_words("--set", overrides), *_words("--plugin", plugins), "--runs", str(runs)]
    server: AbstractContextManager[dict[str, str]] = mps_server() if mps else nullcontext({})
    with server as environment, stop_signals() as stop:
        supervisor = _Supervisor(command, runs, with_environment(slots, environment), pending, progress, shares)
        supervisor.work(stop)
    if stop.name:
        raise stop.stopped(", and every run has a resume point")
    return supervisor.failures


def job_slots(device: str, jobs: int) -> list[Slot]:
    """Slots for `jobs` processes on each GPU (`auto` and `cuda`: all that are visible), with a fair share of the cores, or on the CPU.

    On the CPU weights depend on the number of threads, so that training has its own, however many jobs there are.
    """
    slots = device_slots(device := resolve_device(device), jobs)
    return slots if device == "cpu" else with_environment(slots, fair_threads(len(slots)))


def _words(option: str, values: Iterable[object]) -> list[str]:
    return [word for value in values for word in (option, str(value))]


class _Supervisor:
    """Supervisor that fills every slot until no run is left."""

    def __init__(
        self, command: list[str], runs: Path, slots: list[Slot], pending: list[Recipe], progress: JobProgress, shares: dict[str, float]
    ) -> None:
        self.command, self.runs, self.slots, self.progress, self.shares = command, runs, slots, progress, shares
        self.waiting = sorted(pending, key=training_flops)  # the last is next
        self.running: dict[str, _Running] = {}
        self.failures: list[Failure] = []

    def work(self, stop: StopFlag) -> None:
        """Run all pending runs; a stop signal ends them, with resume points."""
        stopping = False
        try:
            while self.running or (self.waiting and not stop.name):
                if not stop.name:
                    self._start()
                elif not stopping:
                    stopping = True
                    self._let_go()
                time.sleep(POLL_SECONDS)
                self._collect()
        finally:
            self._let_go()
            for running in self.running.values():
                running.process.wait()

    def _start(self) -> None:
        for slot in self.slots:
            if slot.name not in self.running and self.waiting:
                self.running[slot.name] = self._process(self.waiting.pop(), slot)

    def _process(self, recipe: Recipe, slot: Slot) -> _Running:
        log = self.runs / LOGS / f"{recipe.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **slot.environment, LIFELINE: "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path()}
        before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*self.command, *_words("--set", self._energy(recipe)), "--only", recipe.name, "--device", slot.device],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=environment,
            )
        return _Running(recipe, process, log, before, time.monotonic())

    def _energy(self, recipe: Recipe) -> list[str]:
        """Overrides of the run's shares of machine and GPU, except those that its recipe sets."""
        given = recipe.training.energy.model_fields_set
        return [f"training.energy.{name}={share:.4f}" for name, share in self.shares.items() if name not in given]

    def _collect(self) -> None:
        for name, running in list(self.running.items()):
            code = running.process.poll()
            if code is not None:
                del self.running[name]
                self._ended(running, code)
        self.progress.now_and_then([running.recipe for running in self.running.values()])

    def _ended(self, running: _Running, code: int) -> None:
        assert running.process.stdin is not None
        running.process.stdin.close()
        seconds, reason = time.monotonic() - running.started, _last_line(running) if code else None
        if reason is not None:
            self.failures.append(Failure(running.recipe.name, code, reason, running.log))
        others = [other.recipe for other in self.running.values()]
        self.progress.ended(running.recipe, seconds, others, failed=reason)

    def _let_go(self) -> None:
        """Close the lifelines: every process stops as soon as it has written a resume point."""
        for running in self.running.values():
            assert running.process.stdin is not None
            running.process.stdin.close()


def _last_line(running: _Running) -> str:
    written = running.log.read_bytes()[running.before :].decode(errors="replace")
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    return lines[-1].removeprefix("tinymem: ") if lines else "said nothing"
