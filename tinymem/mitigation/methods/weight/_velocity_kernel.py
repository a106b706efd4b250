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
    if TRANSPOSED:
        weight = tl.load(weights + (o.to(tl.int64)[None, :] * inputs + i[:, None]), mask=there, other=0.0).to(tl.float32)
    else:
        weight = tl.load(weights + at, mask=there, other=0.0).to(tl.float32)
    score = tl.load(scores + at, mask=there, other=0.0)
    slope = tl.load(gradients + at, mask=there, other=0.0).to(tl.float32) * weight
    slope = sign * tl.where(score > 0, slope, tl.where(score < 0, -slope, 0.0))
    velocity = tl.load(velocities + at, mask=there, other=0.0)
    if FIRST:
        slope += decay * score
        velocity *= momentum
    tl.store(velocities + at, velocity + slope, mask=there)


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

    All are contiguous [I, O]; the weight may be the transpose of a contiguous matrix, which is read as it lies.
    """
    (inputs, outputs), (TI, TO) = score_IO.shape, TILE
    transposed = not weight_IO.is_contiguous()
    weight_IO = weight_IO if not transposed or weight_IO.T.is_contiguous() else weight_IO.T.contiguous().T
    tensors, grid = (gradient_IO.contiguous(), weight_IO, score_IO, velocity_IO), (triton.cdiv(inputs, TI), triton.cdiv(outputs, TO))
    with torch.cuda.device_of(score_IO):
        _accelerate[grid](*tensors, inputs, outputs, sign, momentum, decay, transposed, first, TI, TO, num_warps=WARPS)
