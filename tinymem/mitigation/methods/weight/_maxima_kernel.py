"""The highest value of each chunk of a part's weights, in one pass over gradients, weights and what is removed, which writes no values."""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 8


@triton.jit
def _maxima(gradients, weights, removed, maxima, PRODUCT: tl.constexpr, CHUNK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    value = tl.load(gradients + at)
    if PRODUCT:
        value *= tl.load(weights + at).to(tl.float32)
    else:
        value = tl.abs(value)
    value = tl.where(value == value, value, float("inf"))  # what is no number ranks first, as in torch
    value = tl.where(tl.load(removed + at) != 0, float("-inf"), value)
    tl.store(maxima + tl.program_id(0), tl.max(value, 0))


def maxima(gradient_n: Tensor, weight_n: Tensor, removed_n: Tensor, chunk: int, *, product: bool) -> Tensor:
    """The highest gradient * weight, or |gradient|, of each whole chunk's weights that are not removed [n // chunk]; gradients are fp32."""
    maxima_c = torch.empty(len(gradient_n) // chunk, device=gradient_n.device)
    with torch.cuda.device_of(gradient_n):
        _maxima[(len(maxima_c),)](gradient_n, weight_n, removed_n.view(torch.int8), maxima_c, product, chunk, num_warps=WARPS)
    return maxima_c
