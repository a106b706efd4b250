"""Worker slots: the device and the number of threads of each of several processes on one machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from tinymem.runtime.device import available_cores, gpus_of

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Slot:
    """A worker slot: its device and extra environment variables.

    Attributes:
        name: unique among the slots of one supervisor.
        device: `cpu` or `cuda`; the environment selects the GPU of `cuda`.
        environment: variables of the worker process, in addition to those of its supervisor.
    """

    name: str
    device: str
    environment: Mapping[str, str] = field(default_factory=dict)


def device_slots(device: str, per_device: int, gpus: int = 1) -> list[Slot]:
    """Slots on a device as `resolve_device` gives it, each pinned to its GPU, or to several.

    Args:
        device: `cpu`, `cuda` (every visible GPU) or `cuda:N`.
        per_device: slots on the CPU, or on each GPU; neighbors are on different GPUs.
        gpus: of a slot; GPUs that are left over have none.
    """
    visible = [] if device == "cpu" else gpus_of(device)
    groups = [visible[k : k + gpus] for k in range(0, len(visible) - gpus + 1, gpus)]
    places = [("cpu", {})] if device == "cpu" else [("cuda", {"CUDA_VISIBLE_DEVICES": ",".join(group)}) for group in groups]
    return [Slot(str(number), name, environment) for number, (name, environment) in enumerate(places * per_device)]


def with_environment(slots: list[Slot], environment: Mapping[str, str]) -> list[Slot]:
    """The slots with further environment variables."""
    return [Slot(slot.name, slot.device, {**slot.environment, **environment}) for slot in slots]


def fair_threads(processes: int) -> dict[str, str]:
    """Environment that gives each of several processes its share of the cores; empty where the user has set OMP_NUM_THREADS."""
    return {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, available_cores() // processes))}
