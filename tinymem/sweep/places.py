"""Worker processes of a sweep on this machine: a core each, or a GPU, and a share of the memory."""

from __future__ import annotations

import os
from pathlib import Path

from tinymem.recipe.sweep import Limits
from tinymem.runtime.device import available_cores, resolve_device
from tinymem.runtime.slots import ONE_THREAD, device_slots, with_environment
from tinymem.sweep.worker_process import WorkerProcess

MEMORY_SHARE = 0.9


def local_workers(folder: Path, device: str, jobs: int | None, plugins: tuple[Path, ...] = (), *, gpus: int = 1) -> list[WorkerProcess]:
    """Workers of this machine: `jobs` on the CPU, by default one per core, each with one thread; or on each visible GPU, by default one.

    Raises:
        UserError: fewer GPUs than a worker needs, for models that are spread over so many.
    """
    if gpus > 1:
        resolve_device(device, gpus)
    if device == "cpu":
        slots = with_environment(device_slots(device, jobs or available_cores()), ONE_THREAD)
    else:
        slots = device_slots(device, jobs or 1, gpus)
    return [WorkerProcess(folder, slot, plugins) for slot in slots]


def with_memory(limits: Limits, workers: int) -> Limits:
    """The limits of a recipe; a missing limit of memory becomes each worker's share of the machine."""
    if limits.memory_mb is not None:
        return limits
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    except (ValueError, OSError):
        return limits
    return limits.model_copy(update={"memory_mb": total * MEMORY_SHARE / max(1, workers)})
