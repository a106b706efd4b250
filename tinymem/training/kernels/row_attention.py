"""Causal attention of short rows, between the product that makes queries, keys and values and the one that reads the result.

Library kernels cut a row into tiles of 128 tokens, so that rows of 150 fill a third of what is computed, and they take queries, keys and
values apart, which costs copies there and back. Here tiles are small, one kernel reads the joint product [B, T, 3 D] in place, and one
kernel writes its whole gradient. Probabilities are computed again instead of stored, as in flash attention (Dao 2023, arXiv 2307.08691).

Shape suffixes: B rows, T tokens, D embedding, H heads; K is the width of a head.
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

# Tile (of queries and of keys), warps, stages: the best of 33 and 42 on an H100 with 128 rows of 150 tokens and 4 heads of 32.
FORWARD = (32, 2, 2)
BACKWARD = (32, 1, 3)
WIDE = (64, 4, 2)  # heads of 64 and more, whose tiles do not fit the registers of so few warps
LOG2E = 1.4426950408889634


@triton.jit
def _place(T, H: tl.constexpr, K: tl.constexpr):
    """Row, head, and where they begin in [B, T, 3, H, K] and in [B, T, H, K]."""
    row, head = tl.program_id(1) // H, tl.program_id(1) % H
    start = row.to(tl.int64) * T * (H * K)
    return 3 * start + head * K, start + head * K


@triton.jit
def _load(pointer, at, T, STRIDE: tl.constexpr, K: tl.constexpr):
    return tl.load(pointer + at[:, None] * STRIDE + tl.arange(0, K)[None, :], mask=at[:, None] < T, other=0.0)


@triton.jit
def _store(pointer, at, values, T, STRIDE: tl.constexpr, K: tl.constexpr):
    tl.store(pointer + at[:, None] * STRIDE + tl.arange(0, K)[None, :], values.to(pointer.dtype.element_ty), mask=at[:, None] < T)


@triton.jit
def _attention_forward(qkv, out, lse, scale, T, H: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr):
    """Output, and the base-2 logarithm of each query's sum."""
    inputs, outputs = _place(T, H, K)
    queries = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    q = _load(qkv + inputs, queries, T, 3 * H * K, K)
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    sums = tl.zeros((BLOCK, K), tl.float32)
    for start in range(0, (tl.program_id(0) + 1) * BLOCK, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        k = _load(qkv + inputs + H * K, keys, T, 3 * H * K, K)
        v = _load(qkv + inputs + 2 * H * K, keys, T, 3 * H * K, K)
        scores = tl.where(queries[:, None] >= keys[None, :], tl.dot(q, tl.trans(k)) * scale, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))  # finite: every query sees the first key
        shares = tl.exp2(scores - new_peak[:, None])
        shrink = tl.exp2(peak - new_peak)
        total = total * shrink + tl.sum(shares, 1)
        sums = sums * shrink[:, None] + tl.dot(shares.to(v.dtype), v)
        peak = new_peak
    _store(out + outputs, queries, sums / total[:, None], T, H * K, K)
    tl.store(lse + tl.program_id(1) * T + queries, peak + tl.log2(total), mask=queries < T)


@triton.jit
def _to_keys(qkv, out, lse, d_out, d_qkv, scale, slope, T, H: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr):
    """Gradients of one tile's keys and values, from all later queries."""
    inputs, outputs = _place(T, H, K)
    keys = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k = _load(qkv + inputs + H * K, keys, T, 3 * H * K, K)
    v = _load(qkv + inputs + 2 * H * K, keys, T, 3 * H * K, K)
    d_k = tl.zeros((BLOCK, K), tl.float32)
    d_v = tl.zeros((BLOCK, K), tl.float32)
    for start in range(tl.program_id(0) * BLOCK, T, BLOCK):
        queries = start + tl.arange(0, BLOCK)
        q = _load(qkv + inputs, queries, T, 3 * H * K, K)
        g = _load(d_out + outputs, queries, T, H * K, K)
        change = tl.sum(g.to(tl.float32) * _load(out + outputs, queries, T, H * K, K).to(tl.float32), 1)
        sums = tl.load(lse + tl.program_id(1) * T + queries, mask=queries < T, other=float("inf"))
        shares = tl.exp2(tl.dot(k, tl.trans(q)) * scale - sums[None, :])  # [keys, queries]
        shares = tl.where(queries[None, :] >= keys[:, None], shares, 0.0)
        d_v += tl.dot(shares.to(g.dtype), g)
        d_scores = shares * (tl.dot(v, tl.trans(g)) - change[None, :])
        d_k += tl.dot(d_scores.to(q.dtype), q)
    _store(d_qkv + inputs + H * K, keys, d_k * slope, T, 3 * H * K, K)
    _store(d_qkv + inputs + 2 * H * K, keys, d_v, T, 3 * H * K, K)


@triton.jit
def _to_queries(qkv, out, lse, d_out, d_qkv, scale, slope, T, H: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr):
    """Gradient of one tile's queries, from all earlier keys."""
    inputs, outputs = _place(T, H, K)
    queries = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    q = _load(qkv + inputs, queries, T, 3 * H * K, K)
    g = _load(d_out + outputs, queries, T, H * K, K)
    change = tl.sum(g.to(tl.float32) * _load(out + outputs, queries, T, H * K, K).to(tl.float32), 1)
    sums = tl.load(lse + tl.program_id(1) * T + queries, mask=queries < T, other=float("inf"))
    d_q = tl.zeros((BLOCK, K), tl.float32)
    for start in range(0, (tl.program_id(0) + 1) * BLOCK, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        k = _load(qkv + inputs + H * K, keys, T, 3 * H * K, K)
        v = _load(qkv + inputs + 2 * H * K, keys, T, 3 * H * K, K)
        shares = tl.exp2(tl.dot(q, tl.trans(k)) * scale - sums[:, None])
        shares = tl.where(queries[:, None] >= keys[None, :], shares, 0.0)
        d_scores = shares * (tl.dot(g, tl.trans(v)) - change[:, None])
        d_q += tl.dot(d_scores.to(k.dtype), k)
    _store(d_qkv + inputs, queries, d_q * slope, T, 3 * H * K, K)


@triton.jit
def _attention_backward(qkv, out, lse, d_out, d_qkv, scale, slope, T, H: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr):
    if tl.program_id(2) == 0:
        _to_keys(qkv, out, lse, d_out, d_qkv, scale, slope, T, H, K, BLOCK)
    else:
        _to_queries(qkv, out, lse, d_out, d_qkv, scale, slope, T, H, K, BLOCK)


@torch.library.custom_op("tinymem::row_attention", mutates_args=())
def row_attention(qkv_BTE: Tensor, n_head: int) -> tuple[Tensor, Tensor]:
    """Causal attention from the joint projection.

    Args:
        qkv_BTE: queries, keys and values of all heads side by side [B, T, 3 D], the width of a head a power of two of at least 16.
        n_head: heads.

    Returns:
        The heads' outputs side by side [B, T, D], and the base-2 logarithm of each query's sum of exponentials [B, H, T] in fp32.
    """
    qkv_BTE = qkv_BTE.contiguous()
    B, T, E = qkv_BTE.shape
    K = E // 3 // n_head
    block, warps, stages = FORWARD if K < 64 else WIDE
    out_BTD, lse_BHT = qkv_BTE.new_empty(B, T, E // 3), qkv_BTE.new_empty(B, n_head, T, dtype=torch.float32)
    grid = (triton.cdiv(T, block), B * n_head)
    _attention_forward[grid](qkv_BTE, out_BTD, lse_BHT, LOG2E / math.sqrt(K), T, n_head, K, block, num_warps=warps, num_stages=stages)
    return out_BTD, lse_BHT


@torch.library.custom_op("tinymem::row_attention_backward", mutates_args=())
def row_attention_backward(qkv_BTE: Tensor, out_BTD: Tensor, lse_BHT: Tensor, d_out_BTD: Tensor, n_head: int) -> Tensor:
    """Gradient [B, T, 3 D] with respect to the joint projection."""
    qkv_BTE, d_out_BTD = qkv_BTE.contiguous(), d_out_BTD.contiguous()
    B, T, E = qkv_BTE.shape
    K = E // 3 // n_head
    block, warps, stages = BACKWARD if K < 64 else WIDE
    d_qkv_BTE, slope, grid = torch.empty_like(qkv_BTE), 1 / math.sqrt(K), (triton.cdiv(T, block), B * n_head, 2)
    tensors = (qkv_BTE, out_BTD, lse_BHT, d_out_BTD, d_qkv_BTE)
    _attention_backward[grid](*tensors, LOG2E * slope, slope, T, n_head, K, block, num_warps=warps, num_stages=stages)
    return d_qkv_BTE


@row_attention.register_fake
def _(qkv_BTE, n_head):
    B, T, E = qkv_BTE.shape
    return qkv_BTE.new_empty(B, T, E // 3), qkv_BTE.new_empty(B, n_head, T, dtype=torch.float32)


@row_attention_backward.register_fake
def _(qkv_BTE, out_BTD, lse_BHT, d_out_BTD, n_head):
    return torch.empty_like(qkv_BTE, memory_format=torch.contiguous_format)


def _keep(ctx, inputs, output):
    ctx.n_head = inputs[1]
    ctx.save_for_backward(inputs[0], *output)


def _gradient(ctx, d_out_BTD, _):
    return row_attention_backward(*ctx.saved_tensors, d_out_BTD, ctx.n_head), None


row_attention.register_autograd(_gradient, setup_context=_keep)
