"""Work on many small tensors at once: a GPU spends more time on starting a kernel for each than on their entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TOGETHER = 1 << 20
"""Entries that are worked on at once."""


def grouped(tensors: Sequence[Tensor], most: int) -> Iterator[list[int]]:
    """Indices of tensors in a row, of one type and device, that have at most `most` entries together; one that has more is alone."""
    group, entries = list[int](), 0
    for i, tensor in enumerate(tensors):
        alike = not group or (tensor.dtype, tensor.device) == (tensors[group[0]].dtype, tensors[group[0]].device)
        if group and not (alike and entries + tensor.numel() <= most):
            yield group
            group, entries = [], 0
        group.append(i)
        entries += tensor.numel()
    if group:
        yield group


def concatenated(tensors: Sequence[Tensor]) -> Tensor:
    """The entries [P] of tensors in a row; of one tensor no copy where it lies in a row already."""
    import torch

    return torch.cat([tensor.flatten() for tensor in tensors]) if len(tensors) > 1 else tensors[0].flatten()


def segment_sums(flat_P: Tensor, lengths: Sequence[int]) -> Tensor:
    """Sums [G] of integers [P] over G parts in a row of these lengths, exact modulo 2^64."""
    import torch

    if len(lengths) == 1:
        return flat_P.sum(dtype=torch.int64).view(1)
    total_P = torch.nn.functional.pad(flat_P.to(torch.int64).cumsum(0), (1, 0))
    return total_P[torch.tensor([*accumulate(lengths, initial=0)], device=flat_P.device)].diff()
