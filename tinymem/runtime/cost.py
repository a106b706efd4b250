"""Seconds and peak memory of a piece of work."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

MEBIBYTE = 1024**2


@dataclass
class Cost:
    """Seconds and peak memory in MiB, filled in when the work ends."""

    seconds: float = 0.0
    peak_mb: float = 0.0


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Time the body, and its peak memory in MiB: allocated on the GPU that had most, resident set of the process on a CPU."""
    cost = Cost()
    gpus = _gpus(device) if device.type == "cuda" else []
    for gpu in gpus:
        torch.cuda.synchronize(gpu)
        torch.cuda.reset_peak_memory_stats(gpu)
    if not gpus:
        _reset_peak_resident()
    started = time.perf_counter()
    yield cost
    for gpu in gpus:
        torch.cuda.synchronize(gpu)
    cost.seconds = time.perf_counter() - started
    cost.peak_mb = max(map(torch.cuda.max_memory_allocated, gpus)) / MEBIBYTE if gpus else _peak_resident()


def _gpus(device: torch.device) -> list[torch.device]:
    """The device, and the other GPUs on which this process has something, as of a model that is spread."""
    own = device.index if device.index is not None else torch.cuda.current_device()
    return [torch.device("cuda", k) for k in range(torch.cuda.device_count()) if k == own or torch.cuda.memory_allocated(k)]


def _reset_peak_resident() -> None:
    with suppress(OSError):  # Linux: 5 resets the high-water mark of this process
        Path("/proc/self/clear_refs").write_text("5")


def _peak_resident() -> float:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of the whole life of the process
