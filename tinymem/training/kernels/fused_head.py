"""The language-model head and its cross-entropy in one kernel each way: logits live in registers and are never written.

The embedding is narrow (D = 128), so a tile of rows stays on the chip while the vocabulary streams past it, as keys do in flash
attention. The gradient computes the tiles again: about 5/3 of the arithmetic, a hundredth of the memory traffic.
Idea: Wijmans et al. 2024, "Cut your losses in large-vocabulary language models" (arXiv 2411.09009).

Shape suffixes: N rows, D embedding (`loss.FUSED_WIDTHS`), V vocabulary, S pieces of a loop that run side by side.
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tinymem.training.kernels.launch import launch

PIECES = 8
# Tile of rows, tile of the vocabulary, warps, stages: the best of six each on an H100 with 19,072 rows and 50,257 words.
FORWARD = (128, 64, 4, 3)
BACKWARD_HIDDEN = (64, 128, 4, 3)
BACKWARD_WEIGHT = (128, 64, 4, 2)
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile(pointer, rows, total, D: tl.constexpr):
    columns = tl.arange(0, D)
    return tl.load(pointer + rows[:, None] * D + columns[None, :], mask=rows[:, None] < total, other=0.0)


@triton.jit
def _forward(x, w, peaks, sums, N, V, STEP: tl.constexpr, D: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr):
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    piece = tl.program_id(1)
    x_tile = _tile(x, rows, N, D)
    peak = tl.full((BN,), -1e30, tl.float32)  # finite: a tile past the vocabulary must not give inf - inf
    total = tl.zeros((BN,), tl.float32)
    for start in range(0, STEP, BV):
        words = piece * STEP + start + tl.arange(0, BV)
        logits = tl.dot(x_tile, tl.trans(_tile(w, words, V, D))) * LOG2E
        logits = tl.where(words[None, :] < V, logits, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(logits, 1))
        total = total * tl.exp2(peak - new_peak) + tl.sum(tl.exp2(logits - new_peak[:, None]), 1)
        peak = new_peak
    tl.store(peaks + piece * N + rows, peak, mask=rows < N)
    tl.store(sums + piece * N + rows, total, mask=rows < N)


@triton.jit
def _backward_hidden(x, w, lse, g, out, N, V, STEP: tl.constexpr, D: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr):
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    piece = tl.program_id(1)
    x_tile = _tile(x, rows, N, D)
    lse_rows = tl.load(lse + rows, mask=rows < N, other=float("inf"))
    gradient = tl.zeros((BN, D), tl.float32)
    for start in range(0, STEP, BV):
        words = piece * STEP + start + tl.arange(0, BV)
        w_tile = _tile(w, words, V, D)
        shares = tl.exp2(tl.dot(x_tile, tl.trans(w_tile)) * LOG2E - lse_rows[:, None])
        shares = tl.where(words[None, :] < V, shares, 0.0)  # past the vocabulary exp2(0 - lse) is inf where all logits are very low
        gradient += tl.dot(shares.to(w_tile.dtype), w_tile)
    gradient *= tl.load(g + rows, mask=rows < N, other=0.0)[:, None]
    columns = tl.arange(0, D)
    tl.store(out + piece * N * D + rows[:, None] * D + columns[None, :], gradient, mask=rows[:, None] < N)


@triton.jit
def _backward_weight(x, w, lse, g, out, N: tl.constexpr, V, D: tl.constexpr, BN: tl.constexpr, BV: tl.constexpr):
    words = tl.program_id(0) * BV + tl.arange(0, BV)
    w_tile = _tile(w, words, V, D)
    gradient = tl.zeros((BV, D), tl.float32)
    for start in range(0, N, BN):
        rows = start + tl.arange(0, BN)
        x_tile = _tile(x, rows, N, D)
        lse_rows = tl.load(lse + rows, mask=rows < N, other=float("inf"))
        g_rows = tl.load(g + rows, mask=rows < N, other=0.0)
        shares = tl.exp2(tl.dot(w_tile, tl.trans(x_tile)) * LOG2E - lse_rows[None, :]) * g_rows[None, :]
        gradient += tl.dot(shares.to(x_tile.dtype), x_tile)
    columns = tl.arange(0, D)
    tl.store(out + words[:, None] * D + columns[None, :], gradient, mask=words[:, None] < V)


class _FusedHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        weight_VD = weight_VD.to(hidden_ND.dtype)  # here, so that the gradient goes back to the fp32 weight without rounding
        losses_N, sums_N = head_forward(hidden_ND, weight_VD, targets_N)
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, sums_N)
        return losses_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_ND, weight_VD, targets_N, sums_N = ctx.saved_tensors
        d_weight_VD = torch.empty_like(weight_VD, dtype=torch.float32)
        d_hidden_ND = head_backward(hidden_ND, weight_VD, targets_N, sums_N, gradients[0].float().contiguous(), d_weight_VD)
        return d_hidden_ND.to(hidden_ND.dtype), d_weight_VD, None


def head_forward(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [N], and the logarithm of each row's sum of exponentials [N]; both operands in one type."""
    (N, D), V = hidden_ND.shape, len(weight_VD)
    BN, BV, warps, stages = FORWARD
    peaks_SN, sums_SN = hidden_ND.new_empty(2, PIECES, N, dtype=torch.float32)
    grid, step = (triton.cdiv(N, BN), PIECES), _step(V, BV)
    launch(_forward, *grid)(hidden_ND, weight_VD, peaks_SN, sums_SN, N, V, step, D, BN, BV, num_warps=warps, num_stages=stages)
    lse_N = torch.logsumexp(peaks_SN * 0.6931471805599453 + sums_SN.log(), 0)
    return lse_N - (hidden_ND.float() * weight_VD[targets_N].float()).sum(1), lse_N


def head_backward(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, lse_N: Tensor, g_N: Tensor, d_weight_VD: Tensor) -> Tensor:
    """Gradient [N, D] of the hidden states in fp32, from those of the losses; that of the weight is written to `d_weight_VD`, in fp32."""
    (N, D), V, lse_N = hidden_ND.shape, len(weight_VD), lse_N * 1.4426950408889634
    BN, BV, warps, stages = BACKWARD_HIDDEN
    d_hidden_SND = hidden_ND.new_empty(PIECES, N, D, dtype=torch.float32)
    grid, step = (triton.cdiv(N, BN), PIECES), _step(V, BV)
    arguments = (hidden_ND, weight_VD, lse_N, g_N)
    launch(_backward_hidden, *grid)(*arguments, d_hidden_SND, N, V, step, D, BN, BV, num_warps=warps, num_stages=stages)
    BN, BV, warps, stages = BACKWARD_WEIGHT
    launch(_backward_weight, triton.cdiv(V, BV))(*arguments, d_weight_VD, N, V, D, BN, BV, num_warps=warps, num_stages=stages)
    # The target's own share: one row of the weight for each row of hidden states, and the other way round.
    d_weight_VD.index_add_(0, targets_N, hidden_ND.float() * g_N[:, None], alpha=-1)
    return d_hidden_SND.sum(0).addcmul_(weight_VD[targets_N].float(), g_N[:, None], value=-1)


def _step(V: int, tile: int) -> int:
    return triton.cdiv(triton.cdiv(V, PIECES), tile) * tile


def fused_head_losses(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Cross-entropy [N] of `hidden @ weight.T` in fp32, from bf16 operands."""
    losses_N: Tensor = _FusedHead.apply(hidden_ND.contiguous(), weight_VD.contiguous(), targets_N)
    return losses_N
