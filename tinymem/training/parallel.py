"""Several processes, each on its part of every batch: Lightning Fabric finds the devices and starts the process group.

Gradients are averaged here, in one all-reduce of one flat buffer between the backward pass and the optimizer, and not by DDP's wrapper:
models this small have nothing to overlap it with, and so the whole step, all-reduce included, goes into one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tinymem.runtime.device import machines, processes

if TYPE_CHECKING:
    from lightning.fabric import Fabric

PRECISION: Literal["32-true"] = "32-true"


def make_fabric(device: str, loggers: list[Any] | None = None) -> Fabric:
    """Fabric in fp32 (precision is the step's business): one device, or under `torchrun` one for each process."""
    from lightning.fabric import Fabric  # takes seconds: only training pays for it

    accelerator = "cuda" if device.startswith("cuda") else "cpu"
    (_, all_of_them), nodes = processes(), machines()
    if all_of_them > 1:
        fabric = Fabric(
            accelerator=accelerator,
            strategy="ddp",
            devices=all_of_them // nodes,
            num_nodes=nodes,
            precision=PRECISION,
            loggers=loggers or [],
        )
        fabric.launch()
        return fabric
    devices: Any = 1 if accelerator == "cpu" else [torch.device(device).index or 0]
    return Fabric(accelerator=accelerator, devices=devices, precision=PRECISION, loggers=loggers or [])


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make every process's gradients their mean. Fixed shapes and nothing read back: a CUDA graph can hold it."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether a flag is set in any process; all processes must call this at the same step."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return flag
    count = torch.tensor(float(flag), device=device)
    dist.all_reduce(count)
    return bool(count > 0)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar over all processes, on its device."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
        return value / dist.get_world_size()
    return value
