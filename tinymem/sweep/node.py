"""What runs in a Parsl worker: a supervisor with one worker process, kept from task to task. Light: only that process imports torch."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Any

from tinymem.recipe.sweep import Limits
from tinymem.runtime.slots import ONE_THREAD, Slot
from tinymem.sweep.places import with_memory
from tinymem.sweep.supervisor import Supervisor
from tinymem.sweep.work import WorkUnit
from tinymem.sweep.worker_process import WorkerProcess

Row = dict[str, Any]
_supervisors: dict[tuple[str, ...], Supervisor] = {}


def do_groups(folder: str, device: str, limits: Row, plugins: list[str], groups: list[Row]) -> list[Row]:
    """What a Parsl worker runs: groups, under its own supervisor. Returns the events of runs."""
    events: list[Row] = []
    supervisor = supervisor_here(folder, device, limits, plugins)
    supervisor.tell, supervisor.limits = events.append, with_memory(Limits(**limits), _workers())
    supervisor.run([WorkUnit.of(group) for group in groups])
    return events


def supervisor_here(folder: str, device: str, limits: Row, plugins: list[str]) -> Supervisor:
    """The supervisor of this Parsl worker, with its one warm process."""
    key = (folder, device, *plugins)
    if key not in _supervisors:
        environment = ONE_THREAD if device == "cpu" else {}
        slot = Slot(str(os.getpid()), device, environment)
        worker = WorkerProcess(Path(folder), slot, tuple(Path(plugin) for plugin in plugins))
        _supervisors[key] = Supervisor(Path(folder), [worker], Limits(**limits))
        atexit.register(_supervisors[key].close)
    return _supervisors[key]


def _workers() -> int:
    """Parsl workers on this node, which share its memory."""
    return int(os.environ.get("PARSL_WORKER_COUNT", "1"))
