"""Memory and disk that are free: what cannot fit is refused before anything is allocated."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tinymem.errors import UserError
from tinymem.runtime.device import spread_devices

GIBIBYTE = 2**30
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: str) -> int | None:
    """Free bytes of a GPU, or of this machine's memory within the limit of its container; None where the system does not say."""
    if device.startswith("cuda"):
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    known = [size for size in (_of_machine(), _of_container()) if size is not None]
    return min(known) if known else None


def largest_memory() -> int:
    """Bytes of this machine's memory, within the limit of its container, or of the largest GPU, whichever is more; free or not."""
    import torch

    gpus = [torch.cuda.get_device_properties(k).total_memory for k in range(torch.cuda.device_count())]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        machine = min(machine, int((CGROUP / "memory.max").read_text()))
    return max([machine, *gpus])


def refuse_beyond_memory(
    needed: int, device: str, what: str, remedy: str = "use a larger machine or a smaller model", gpus: int = 1
) -> None:
    """Raise UserError where `needed` bytes exceed the free memory of a device, or of so many GPUs together."""
    known = [free_memory(name) for name in spread_devices(device, gpus)]
    free = sum(size for size in known if size is not None)
    if None not in known and needed > free:
        place = f"{gpus} GPUs" if gpus > 1 else device if device.startswith("cuda") else "this machine"
        raise UserError(
            f"expected room for {what} in the memory of {place}, got {_size(free)} free where {_size(needed)} are needed; {remedy}"
        )


def refuse_beyond_disk(needed: int, path: Path, what: str) -> None:
    """Raise UserError where `needed` bytes exceed what is free on the disk of a path, which need not exist yet."""
    place = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if needed > (free := shutil.disk_usage(place).free):
        raise UserError(
            f"expected room for {what} on the disk of {path}, got {_size(free)} free where {_size(needed)} are needed; "
            "free some or name another place"
        )


def _of_machine() -> int | None:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _of_container() -> int | None:
    """Room below the limit of this process's control group; files that it has read do not count, they go first."""
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text())  # "max": no limit
        used = int((CGROUP / "memory.current").read_text())
        cached = next(
            int(line.split()[1]) for line in (CGROUP / "memory.stat").read_text().splitlines() if line.startswith("inactive_file")
        )
        return max(0, limit - used + cached)
    return None


def _size(count: int) -> str:
    return f"{count / GIBIBYTE:.1f} GiB" if count >= GIBIBYTE / 10 else f"{count / 2**20:.2f} MiB"
