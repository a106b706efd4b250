"""The processes of a training run, each on its part of every batch: Lightning Fabric starts several, one needs nothing.

Gradients are averaged here, in one all-reduce of one flat buffer between the backward pass and the optimizer, and not by DDP's wrapper:
models this small have nothing to overlap it with, and so the whole step, all-reduce included, goes into one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tinymem.runtime.device import machines, processes

if TYPE_CHECKING:
    from lightning.fabric import Fabric

PRECISION: Literal["32-true"] = "32-true"


@dataclass(frozen=True)
class OneProcess:
    """The only process of a training run, in Fabric's words."""

    device: torch.device
    loggers: list[Any] = field(default_factory=list)
    global_rank: int = 0
    world_size: int = 1

    def barrier(self) -> None:
        """Wait for nobody."""

    def log_dict(self, metrics: Mapping[str, float], step: int) -> None:
        """Hand numbers to every logger."""
        for logger in self.loggers:
            logger.log_metrics(metrics, step=step)


def make_processes(device: str, loggers: list[Any] | None = None) -> Fabric | OneProcess:
    """This process among those that `torchrun` started together, in fp32 (precision is the step's business)."""
    (_, all_of_them), nodes = processes(), machines()
    if all_of_them == 1:
        here = torch.device(device)
        return OneProcess(torch.device("cuda", here.index or 0) if here.type == "cuda" else here, loggers or [])
    from lightning.fabric import Fabric  # takes seconds: only several processes pay for it

    accelerator = "cuda" if device.startswith("cuda") else "cpu"
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


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make every process's gradients their mean. Fixed shapes and nothing read back: a CUDA graph can hold it."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    average(flat)
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])


def average(values: Tensor) -> None:
    """Make the values of every process their mean."""
    dist.all_reduce(values)
    values /= dist.get_world_size()


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
