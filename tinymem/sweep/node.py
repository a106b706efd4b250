"""Code of a Parsl worker: a supervisor with one worker process, which lives on between tasks. Only that process imports torch."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

from tinymem.recipe.sweep import Limits
from tinymem.runtime.slots import ONE_THREAD, Slot
from tinymem.sweep.places import with_memory
from tinymem.sweep.supervisor import Supervisor
from tinymem.sweep.work import Event, WorkUnit
from tinymem.sweep.worker_process import WorkerProcess

_supervisors: dict[tuple[str, ...], Supervisor] = {}


def do_groups(folder: str, device: str, limits: str, plugins: list[str], groups: list[str]) -> list[Event]:
    """Run groups in a Parsl worker, under its own supervisor. Returns the events of runs."""
    events: list[Event] = []
    supervisor = supervisor_here(folder, device, limits, plugins)
    supervisor.tell, supervisor.limits = events.append, with_memory(Limits.model_validate_json(limits), _workers())
    supervisor.run([WorkUnit.of_json(group) for group in groups])
    return events


def supervisor_here(folder: str, device: str, limits: str, plugins: list[str]) -> Supervisor:
    """The supervisor of this Parsl worker, with its one worker process."""
    key = (folder, device, *plugins)
    if key not in _supervisors:
        environment = ONE_THREAD if device == "cpu" else {}
        slot = Slot(str(os.getpid()), device, environment)
        worker = WorkerProcess(Path(folder), slot, tuple(Path(plugin) for plugin in plugins))
        _supervisors[key] = Supervisor(Path(folder), [worker], Limits.model_validate_json(limits))
        atexit.register(_supervisors[key].close)
    return _supervisors[key]


def _workers() -> int:
    """Parsl workers on this node, which share its memory."""
    return int(os.environ.get("PARSL_WORKER_COUNT", "1"))
