"""Hashes on tensors of int64: the same bits on every device.

torch has no unsigned 64-bit arithmetic; products and sums of int64 wrap, as the hashes require, and only the shift to the right
needs care.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(value: int) -> int:
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


GOLDEN, FIRST, SECOND = (_signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(values: Tensor, bits: int) -> Tensor:
    """Shift 64-bit integers to the right, filling with zeros."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(values: Tensor) -> Tensor:
    """Mix the bits of each int64 of a tensor (Steele, Lea and Flood 2014: the generator's output for this state)."""
    values = values + GOLDEN
    values = (values ^ _shift(values, 30)) * FIRST
    values = (values ^ _shift(values, 27)) * SECOND
    return values ^ _shift(values, 31)


def chance(hashes: Tensor, probability: float) -> Tensor:
    """Mask, shaped as the hashes: True for a share of `probability` of them, by their upper 53 bits."""
    return _shift(hashes, 11) < int(probability * 2**53)


def stream(seed: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """A stream [count] of pseudo-random int64 from a seed."""
    key = splitmix64(torch.tensor(seed, dtype=torch.int64, device=device))
    return splitmix64(key + GOLDEN * torch.arange(count, device=device))
