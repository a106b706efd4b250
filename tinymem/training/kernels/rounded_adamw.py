"""One pass over a bf16 parameter, its gradient and its moments: a step of AdamW in fp32, rounded at random to bf16."""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

CHUNK, WARPS = 1024, 4


@triton.jit
def _rounded(value, noise):
    bits = value.to(tl.int32, bitcast=True) + (noise & 0xFFFF).to(tl.int32)
    return (bits & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _step(weights, gradients, means, squares, N, seed, rate, shrink, first, second, beta1, beta2, epsilon, CHUNK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    there = at < N
    gradient = tl.load(gradients + at, mask=there, other=0.0).to(tl.float32)
    mean = tl.load(means + at, mask=there, other=0.0).to(tl.float32)
    square = tl.load(squares + at, mask=there, other=0.0).to(tl.float32)
    mean += (gradient - mean) * (1 - beta1)
    square += (gradient * gradient - square) * (1 - beta2)
    weight = tl.load(weights + at, mask=there, other=0.0).to(tl.float32) * shrink
    weight -= rate / first * mean / (tl.sqrt(square / second) + epsilon)
    noise, other, third, _ = tl.randint4x(seed, at.to(tl.int32))
    tl.store(weights + at, _rounded(weight, noise).to(tl.bfloat16), mask=there)
    tl.store(means + at, _rounded(mean, other).to(tl.bfloat16), mask=there)
    tl.store(squares + at, _rounded(square, third).to(tl.bfloat16), mask=there)


def step(
    weights: Tensor,
    gradients: Tensor,
    means: Tensor,
    squares: Tensor,
    seed: int,
    *,
    rate: float,
    decay: float,
    betas: tuple[float, float],
    corrections: tuple[float, float],
    epsilon: float,
) -> None:
    """Change flat bf16 weights and moments by one step; `corrections` are 1 - beta^steps of the two moments."""
    N, (first, second) = weights.numel(), corrections
    sizes = (N, seed, rate, 1 - rate * decay, first, second, *betas, epsilon)
    _step[(triton.cdiv(N, CHUNK),)](weights, gradients, means, squares, *sizes, CHUNK=CHUNK, num_warps=WARPS)
