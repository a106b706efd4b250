"""Backward pass of attention over rows of few tiles, in one pass: the gradients of all queries of a row and head stay in registers.

`kernels.row_attention`, for longer rows, goes through the tiles twice, once for the keys and once for the queries.

Shape suffixes: S tokens of a tile, K width of a head.
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call,assignment"
# ruff: noqa: ANN001, ANN201, ANN202, RUF005

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(pointer, at, T, WIDTH: tl.constexpr, K: tl.constexpr):
    return tl.load(pointer + at[:, None] * WIDTH + tl.arange(0, K)[None, :], mask=at[:, None] < T, other=0.0)


@triton.jit
def _write(pointer, at, values_SK, T, WIDTH: tl.constexpr, K: tl.constexpr):
    tl.store(pointer + at[:, None] * WIDTH + tl.arange(0, K)[None, :], values_SK.to(pointer.dtype.element_ty), mask=at[:, None] < T)


@triton.jit(do_not_specialize=["first_row", "T"])
def attention_backward(
    qkv, out, sums, d_out, d_qkv, scale, slope, first_row, T, H: tl.constexpr, K: tl.constexpr, S: tl.constexpr, TILES: tl.constexpr
):
    """Gradient of a row's joint projection for one head.

    With scores c = q k^T slope, shares p = softmax c (computed again from the base-2 logarithms of their `sums`) and o = p v, a gradient g
    of o gives that of v, p^T g; of c, d = p (g v^T - sum(g o)); of q, d k slope; and of k, d^T q slope. Scores lie [keys, queries].
    """
    row, head = first_row + tl.program_id(0) // H, tl.program_id(0) % H
    start = row.to(tl.int64) * T * (H * K) + head * K
    there = 3 * row.to(tl.int64) * T * (H * K) + head * K
    tile = tl.arange(0, S)
    change, total, d_q = (), (), ()
    for i in tl.static_range(TILES):
        at = i * S + tile
        g_SK, o_SK = _tile(d_out + start, at, T, H * K, K), _tile(out + start, at, T, H * K, K)
        change = change + (tl.sum(g_SK.to(tl.float32) * o_SK.to(tl.float32), 1),)
        total = total + (tl.load(sums + (row * H + head) * T + at, mask=at < T, other=float("inf")),)
        d_q = d_q + (tl.zeros((S, K), tl.float32),)
    for j in tl.static_range(TILES):
        keys = j * S + tile
        k_SK, v_SK = _tile(qkv + there + H * K, keys, T, 3 * H * K, K), _tile(qkv + there + 2 * H * K, keys, T, 3 * H * K, K)
        d_k = tl.zeros((S, K), tl.float32)
        d_v = tl.zeros((S, K), tl.float32)
        for i in tl.static_range(TILES):
            if i >= j:
                queries = i * S + tile
                q_SK, g_SK = _tile(qkv + there, queries, T, 3 * H * K, K), _tile(d_out + start, queries, T, H * K, K)
                p_SS = tl.exp2(tl.dot(k_SK, q_SK.T) * scale - total[i][None, :])
                if i == j:
                    p_SS = tl.where(queries[None, :] >= keys[:, None], p_SS, 0.0)
                d_SS = (p_SS * (tl.dot(v_SK, g_SK.T) - change[i][None, :])).to(q_SK.dtype)
                d_v = tl.dot(p_SS.to(g_SK.dtype), g_SK, d_v)
                d_k = tl.dot(d_SS, q_SK, d_k)
                d_q = d_q[:i] + (tl.dot(d_SS.T, k_SK, d_q[i]),) + d_q[i + 1 :]
        _write(d_qkv + there, keys, d_q[j] * slope, T, 3 * H * K, K)  # no later keys see these queries
        _write(d_qkv + there + H * K, keys, d_k * slope, T, 3 * H * K, K)
        _write(d_qkv + there + 2 * H * K, keys, d_v, T, 3 * H * K, K)
