"""Which parts of this machine worker processes get: a core each, or a GPU."""

from __future__ import annotations

import os
from pathlib import Path

from tinymem.recipe.sweep import Limits
from tinymem.runtime.device import available_cores, gpus_of
from tinymem.sweep.slot import Slot

MEMORY_SHARE = 0.9
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def local_slots(folder: Path, device: str, workers: int | None, per_device: int, plugins: tuple[Path, ...] = ()) -> list[Slot]:
    """A slot per core, or `per_device` for each GPU that is visible; `workers` says how many instead."""
    if device == "cpu":
        places = [("cpu", ONE_THREAD)] * (workers or available_cores())
    else:
        places = [("cuda", {"CUDA_VISIBLE_DEVICES": gpu}) for _ in range(per_device) for gpu in gpus_of(device)]
        places = [places[i % len(places)] for i in range(workers or len(places))]
    return [Slot(folder, number, place, environment, plugins) for number, (place, environment) in enumerate(places)]


def with_memory(limits: Limits, workers: int) -> Limits:
    """The limits, with each worker's share of the machine where the recipe does not say."""
    if limits.memory_mb is not None:
        return limits
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    except (ValueError, OSError):
        return limits
    return limits.model_copy(update={"memory_mb": total * MEMORY_SHARE / max(1, workers)})
