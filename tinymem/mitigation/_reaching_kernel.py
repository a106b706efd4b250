"""How many numbers reach each of some values, in one pass that writes nothing of the numbers' size."""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK, BLOCKS, WARPS = 512, 4096, 8


@triton.jit
def _count(numbers, values, counts, N, VALUES: tl.constexpr, BLOCKS: tl.constexpr, CHUNK: tl.constexpr):
    which = tl.arange(0, VALUES)
    value = tl.load(values + which)
    found = tl.zeros((VALUES, CHUNK), tl.int32)
    for start in range(tl.program_id(0).to(tl.int64) * CHUNK, N, BLOCKS * CHUNK):
        at = start + tl.arange(0, CHUNK)
        there = at < N
        number = tl.load(numbers + at, mask=there, other=0)
        found += (there[None, :] & (number[None, :] >= value[:, None])).to(tl.int32)
    tl.atomic_add(counts + which, tl.sum(found, 1).to(tl.int64))


def reaching(numbers_N: Tensor, values_V: Tensor) -> Tensor:
    """Counts [V] (int64) of the numbers, whose memory is one piece, that are at least each value; V is a power of two."""
    counts_V, N = torch.zeros(len(values_V), dtype=torch.int64, device=numbers_N.device), numbers_N.numel()
    blocks = min(BLOCKS, triton.cdiv(N, CHUNK))
    with torch.cuda.device_of(numbers_N):
        _count[(blocks,)](numbers_N, values_V, counts_V, N, len(values_V), blocks, CHUNK, num_warps=WARPS)
    return counts_V
