"""One pass over the gradient of a mask's weights, the weights and the scores: SGD's velocity, changed in place.

In torch's operations the same takes eight passes, and the weights in the layout of the scores.
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE, WARPS = (64, 64), 4


@triton.jit
def _accelerate(
    gradients, weights, scores, velocities, inputs, outputs, sign, momentum, decay,
    TRANSPOSED: tl.constexpr, FIRST: tl.constexpr, TI: tl.constexpr, TO: tl.constexpr,
):  # fmt: skip
    i, o = tl.program_id(0) * TI + tl.arange(0, TI), tl.program_id(1) * TO + tl.arange(0, TO)
    there = (i[:, None] < inputs) & (o[None, :] < outputs)
    at = i.to(tl.int64)[:, None] * outputs + o[None, :]
    stored = at
    if TRANSPOSED:
        stored = o.to(tl.int64)[None, :] * inputs + i[:, None]
    weight = tl.load(weights + stored, mask=there, other=0.0).to(tl.float32)
    gradient = tl.load(gradients + stored, mask=there, other=0.0).to(tl.float32)
    score = tl.load(scores + at, mask=there, other=0.0)
    slope = gradient * weight
    slope = sign * tl.where(score > 0, slope, tl.where(score < 0, -slope, 0.0))
    velocity = tl.load(velocities + at, mask=there, other=0.0)
    if FIRST:
        slope += decay * score
        velocity *= momentum
    tl.store(velocities + at, velocity + slope, mask=there)


@triton.jit
def _transpose(matrix, out, rows, columns, TR: tl.constexpr, TC: tl.constexpr):
    r, c = tl.program_id(0) * TR + tl.arange(0, TR), tl.program_id(1) * TC + tl.arange(0, TC)
    tile = tl.load(matrix + r.to(tl.int64)[:, None] * columns + c[None, :], mask=(r[:, None] < rows) & (c[None, :] < columns), other=0.0)
    place = out + c.to(tl.int64)[:, None] * rows + r[None, :]
    tl.store(place, tl.trans(tile), mask=(c[:, None] < columns) & (r[None, :] < rows))


def transpose(matrix_RC: Tensor, out: Tensor) -> None:
    """Write the transpose of a contiguous matrix to the contiguous memory of another tensor of its size."""
    (rows, columns), (TR, TC) = matrix_RC.shape, TILE
    with torch.cuda.device_of(matrix_RC):
        _transpose[(triton.cdiv(rows, TR), triton.cdiv(columns, TC))](matrix_RC, out, rows, columns, TR, TC, num_warps=WARPS)


def accelerate(
    gradient_IO: Tensor,
    weight_IO: Tensor,
    score_IO: Tensor,
    velocity_IO: Tensor,
    *,
    sign: float,
    momentum: float,
    decay: float,
    first: bool,
) -> None:
    """Add sign * gradient * weight * sgn(score) to a matrix's velocity, and of a step's `first` gradient what SGD adds besides.

    Score and velocity are contiguous; weight and gradient too, or both are the transposes of contiguous matrices.
    """
    (inputs, outputs), (TI, TO), transposed = score_IO.shape, TILE, not weight_IO.is_contiguous()
    if transposed:
        assert weight_IO.T.is_contiguous() and gradient_IO.T.is_contiguous()
    tensors, grid = (gradient_IO, weight_IO, score_IO, velocity_IO), (triton.cdiv(inputs, TI), triton.cdiv(outputs, TO))
    with torch.cuda.device_of(score_IO):
        _accelerate[grid](*tensors, inputs, outputs, sign, momentum, decay, transposed, first, TI, TO, num_warps=WARPS)
