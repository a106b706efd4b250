"""Devices, processes and cores of this machine."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymem.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def resolve_device(device: str, gpus: int = 1) -> str:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:1` to a device that exists; with several `gpus` to `cuda`, the first of them.

    Raises:
        UserError: an unknown name, or a GPU that is not there.
    """
    import torch

    check_device_name(device)
    if gpus > 1:
        if device not in ("auto", "cuda"):
            raise UserError(f"expected --device cuda to spread a model over {gpus} GPUs, got {device}; CUDA_VISIBLE_DEVICES says which")
        if (count := torch.cuda.device_count()) < gpus:
            raise UserError(f"expected {gpus} GPUs here to spread a model over, found {count or 'none'}; lower --gpus, or a recipe's gpus")
        return "cuda"
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        raise UserError(f"expected a GPU for --device {device}, found none; try --device cpu")
    if int(device.partition(":")[2] or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"expected --device cuda:N with N below the {count} visible GPUs, got {device}; try --device cuda:{count - 1}")
    return device


def check_device_name(device: str) -> None:
    """Raise UserError unless the name may be one of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", device):
        raise UserError(f"expected --device auto, cpu or cuda (a certain one: cuda:1), got '{device}'")


def device_is_here(device: str) -> bool:
    """Whether a resolved device, or one that was named for another machine, can be used on this one."""
    import torch

    return device == "cpu" or torch.cuda.is_available()


def spread_devices(device: str, gpus: int) -> list[str]:
    """The devices of a model that is on one, or spread over several GPUs."""
    return [f"cuda:{k}" for k in range(gpus)] if gpus > 1 else [device]


def describe_device(device: str, gpus: int = 1) -> str:
    """Name for result rows: the GPU's, with their number where a model is spread, or the number of CPU threads."""
    import torch

    if device.startswith("cuda"):
        return (f"{gpus} x " if gpus > 1 else "") + torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} threads)"


def processes() -> tuple[int, int]:
    """This process's number and the number of all that `torchrun` started together: 0 and 1 without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def machines() -> int:
    """Number of machines that the processes of `torchrun` are spread over, evenly."""
    return max(1, processes()[1] // int(os.environ.get("LOCAL_WORLD_SIZE", processes()[1])))


@cache
def triton_there() -> bool:
    """Whether triton is installed, which compiles kernels; torch for GPUs includes it."""
    return find_spec("triton") is not None


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus_of(device: str) -> list[str]:
    """The GPUs that `cuda` (all that are visible) or `cuda:N` means, as CUDA_VISIBLE_DEVICES names them for a child process."""
    import torch

    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    visible = names or [str(i) for i in range(torch.cuda.device_count())]
    return [visible[int(device.partition(":")[2])]] if ":" in device else visible


def python_path() -> str:
    """PYTHONPATH for a child process that must import this very package: its folder, before the user's PYTHONPATH."""
    return os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])


def in_one_transfer(values: Sequence[Tensor]) -> list[Any]:
    """Small tensors of one shape and type as Python's lists or numbers; one transfer to the CPU, of whatever devices they are."""
    import torch

    return torch.stack([value.to(values[0].device) for value in values]).tolist() if values else []
