"""The highest of very many numbers, without sorting them: the K-th highest is found by halving the range of the values.

A sort of N scores takes some twenty bytes a score more, and fails beyond 2^31 of them. Here a pass counts how many scores reach a value;
as many passes as a score has bits find the K-th highest exactly, whatever the scores are. On a GPU a pass counts for fifteen values, and a
quarter of the passes do. Counts are in 64 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tinymem.runtime.device import triton_there

AT_ONCE = 15
"""Values that a kernel counts for in one pass: each pass leaves a sixteenth of the range."""


def highest(parts: Sequence[Tensor], count: int) -> list[Tensor]:
    """Masks, shaped as the parts, of the `count` highest numbers of all parts; ties go to the earlier part, and in it to the earlier entry.

    Raises:
        ValueError: fewer numbers than that.
    """
    if count > sum(part.numel() for part in parts):
        raise ValueError(f"expected at least {count} numbers, got {sum(part.numel() for part in parts)}")
    if not count:
        return [torch.zeros_like(part, dtype=torch.bool) for part in parts]
    parts = [part if part.dtype in (torch.float32, torch.float64, torch.int64) else _widened(part) for part in parts]
    kth = kth_highest(parts, count)
    masks = [part > kth for part in parts]
    left = count - sum(int(mask.sum()) for mask in masks)
    for part, mask in zip(parts, masks, strict=True):
        if left:
            equal = (part == kth).nonzero()[:left]  # along the last dimension first, also of a transposed view
            mask[equal.unbind(1)] = True
            left -= len(equal)
    return masks


def kth_highest(parts: Sequence[Tensor], count: int) -> float:
    """The `count`-th highest number of all parts, which have one type: fp32, fp64 or int64; none is NaN."""
    low, high, number_of = _keys(parts[0].dtype)
    at_once = AT_ONCE if use_kernel(parts) else 1
    while low < high:  # the highest value that at least `count` numbers reach
        steps = [low + -(-(high - low) * k // (at_once + 1)) for k in range(1, at_once + 1)]
        reached = sum(number >= count for number in _reaching(parts, [number_of(step) for step in steps]))
        low, high = (steps[reached - 1] if reached else low), (steps[reached] - 1 if reached < len(steps) else high)
    return number_of(low)


def use_kernel(parts: Sequence[Tensor]) -> bool:
    """True where the kernel can run: on a GPU, with triton installed."""
    return all(part.is_cuda for part in parts) and triton_there()


def _reaching(parts: Sequence[Tensor], values: list[float]) -> list[int]:
    """How many numbers of all parts reach each value; the more, the lower it is."""
    found = [_counts(part, values) for part in parts]
    totals: list[int] = torch.stack([counts.to(found[0].device) for counts in found]).sum(0).tolist()
    return totals


def _counts(part: Tensor, values: list[float]) -> Tensor:
    if len(values) == 1:
        return (part >= values[0]).sum()[None]
    from tinymem.mitigation._reaching_kernel import reaching

    held = part.T if part.dim() == 2 and part.T.is_contiguous() else part.contiguous()
    return reaching(held, torch.tensor([*values, values[-1]], dtype=part.dtype, device=part.device))[: len(values)]


def _widened(part: Tensor) -> Tensor:
    return part.float() if part.is_floating_point() else part.long()


def _keys(dtype: torch.dtype) -> tuple[int, int, Callable[[int], float]]:
    """Lowest and highest integer that stands for a number of a type, and the number of each; the order is that of the numbers."""
    if dtype == torch.int64:
        return -(2**63), 2**63 - 1, lambda key: key
    bits, (whole, real) = (32, "If") if dtype == torch.float32 else (64, "Qd")
    infinity = struct.unpack("<" + whole, struct.pack("<" + real, float("inf")))[0]

    def number_of(key: int) -> float:
        found: float = struct.unpack("<" + real, struct.pack("<" + whole, abs(key) | (1 << (bits - 1) if key < 0 else 0)))[0]
        return found

    return -infinity, infinity, number_of
