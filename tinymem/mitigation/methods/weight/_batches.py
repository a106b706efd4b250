"""Batches of forget and retain rows together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

Sampler = Literal["shuffled", "balanced"]
Order = Sequence[Sequence[Tensor]]
"""Batches of each epoch: row indices [B] into the union of rows, in which the forget rows come first."""


def steps_per_epoch(forget: int, retain: int, sampler: Sampler, batch_size: int) -> int:
    """Batches that one call of `batches` gives."""
    if sampler == "shuffled":
        return -(-(forget + retain) // batch_size)
    return -(-retain // max(1, batch_size // 2))


def batches(forget: int, retain: int, sampler: Sampler, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the batches of one epoch, as row indices [B] into the union, in which the forget rows come first.

    `shuffled`: the shuffled union. `balanced`: half of each batch are forget rows (all of them, where there are fewer), and an epoch is one
    pass over the retain rows.
    """
    if sampler == "shuffled":
        yield from torch.randperm(forget + retain, generator=generator).split(batch_size)
        return
    half = max(1, batch_size // 2)
    order = torch.randperm(forget, generator=generator)
    for k, kept in enumerate((forget + torch.randperm(retain, generator=generator)).split(half)):
        seen = order[torch.arange(k * half, k * half + min(half, forget)) % forget]
        yield torch.cat([seen, kept])
