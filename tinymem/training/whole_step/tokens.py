"""Pieces of kernels over tiles of tokens: each row [D] of a tile is the residual stream at one token.

A layer norm's scale and shift are folded into the weights behind it (`folding`), so here a norm is only `normalized`.

Shape suffixes: M tokens of a tile, D embedding, F neurons.
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_of(first, end, M: tl.constexpr, D: tl.constexpr):
    """Tokens [M] of this program, which of them are before `end`, and where their rows [M, D] are."""
    rows = first + tl.program_id(0) * M + tl.arange(0, M)
    return rows, rows < end, rows[:, None] * D + tl.arange(0, D)[None, :]


@triton.jit
def weight_rows(weight, start, ROWS: tl.constexpr, D: tl.constexpr, TMA: tl.constexpr):
    """Rows [ROWS, D] of a matrix from `start` on; `weight` is its descriptor (TMA) or its address."""
    if TMA:
        return weight.load([start, 0])
    else:
        return tl.load(weight + (start + tl.arange(0, ROWS))[:, None] * D + tl.arange(0, D)[None, :])


@triton.jit
def gates_at(gates, rows, inside, neurons, T, F: tl.constexpr):
    """Gates, 0 or 1, of neurons in the rows of the batch that tokens `rows` are of; tokens and neurons along axes of their own."""
    return tl.load(gates + (rows // T) * F + neurons, mask=inside, other=0).to(tl.float32)


@triton.jit
def normalized(x_MD, eps, D: tl.constexpr):
    """Rows less their mean, over their deviation; and one over the deviation [M]."""
    centered_MD = x_MD - (tl.sum(x_MD, 1) / D)[:, None]
    rate_M = 1 / tl.sqrt(tl.sum(centered_MD * centered_MD, 1) / D + eps)
    return centered_MD * rate_M[:, None], rate_M


@triton.jit
def through_norm(d_hat_MD, hat_MD, rate_M, D: tl.constexpr):
    """Gradient of rows from that of the normalized rows.

    With x' = (x - mean x) r and r = 1 / sqrt(mean (x - mean x)^2 + eps), dr/dx = -r^2 x' / D, so that a gradient d of x' gives
    r (d - mean d - x' mean(d x')).
    """
    return (d_hat_MD - (tl.sum(d_hat_MD, 1) / D)[:, None] - hat_MD * (tl.sum(d_hat_MD * hat_MD, 1) / D)[:, None]) * rate_M[:, None]


@triton.jit
def store_normalized(x_MD, hat, rate, rows, inside, at, eps, D: tl.constexpr):
    """Write the normalized rows and their rates for the backward pass; returns the rows as written."""
    hat_MD, rate_M = normalized(x_MD, eps, D)
    hat_MD = hat_MD.to(hat.dtype.element_ty)
    tl.store(hat + at, hat_MD, mask=inside[:, None])
    tl.store(rate + rows, rate_M, mask=inside)
    return hat_MD
