"""Gradients of a layer's matrices: products with a sum over all tokens, which programs share, some tokens each (split-K).

Sums of pieces are added atomically, in fp32, so that two runs are not bit-equal.

Shape suffixes: K tokens of a tile, C columns of a gradient, N neurons, D embedding, O sixteen ones.
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import triton
import triton.language as tl

from tinymem.training.whole_step.forward import VARYING
from tinymem.training.whole_step.tokens import gates_at


@triton.jit(do_not_specialize=[*VARYING, "piece"])
def attention_weight_gradients(
    d_qkv, hat, d_mid, att, d_w_qkv, d_b_qkv, d_w_out, first, end, piece, D: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Of y = x' W^T + b, dW = d_y^T x' and db = the sum of d_y: C rows of the joint projection's, or of the out-projection's, a program."""
    tile = tl.program_id(0)
    columns, c = tl.arange(0, D), tl.arange(0, C)
    if tile < 3 * D // C:
        left, right, width, column, out = d_qkv, hat, 3 * D, tile * C, d_w_qkv
    else:
        left, right, width, column, out = d_mid, att, D, tile * C - 3 * D, d_w_out
    sum_CD = tl.zeros((C, D), tl.float32)
    sum_CO = tl.zeros((C, 16), tl.float32)  # the bias's, 16 times: a product with ones costs less than a sum over tokens in each turn
    ones_KO = tl.full((K, 16), 1.0, tl.float32).to(d_qkv.dtype.element_ty)
    start = first + tl.program_id(1) * piece
    stop = tl.minimum(start + piece, end)
    for k in tl.range(start, stop, K, num_stages=STAGES):
        rows = k + tl.arange(0, K)
        inside = (rows < stop)[:, None]
        d_KC = tl.load(left + rows[:, None] * width + column + c[None, :], mask=inside, other=0.0)
        x_KD = tl.load(right + rows[:, None] * D + columns[None, :], mask=inside, other=0.0)
        sum_CD = tl.dot(d_KC.T, x_KD, sum_CD)
        sum_CO = tl.dot(d_KC.T, ones_KO, sum_CO)
    tl.atomic_add(out + (column + c)[:, None] * D + columns[None, :], sum_CD, sem="relaxed")
    if tile < 3 * D // C:
        tl.atomic_add(d_b_qkv + column + c, tl.max(sum_CO, 1), sem="relaxed")


@triton.jit(do_not_specialize=[*VARYING, "piece"])
def block_weight_gradients(
    hat, d_end, w_in, b_in, w_down, gates, T, d_w_in, d_b_in, d_w_down, first, end, piece, D: tl.constexpr, F: tl.constexpr,
    N: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Of N neurons' weights in the feed-forward block, whose activity is computed again.

    With a = W_in m' + b_in [N, K] and y = relu(a)^T W_down^T, a gradient d of y gives d_a = [a > 0] (W_down^T d^T), so that of W_in is
    d_a m', that of b_in the sum of d_a, and that of W_down (relu(a) d)^T. `w_down` is transposed, [F, D]; its gradient is as the model's
    weight, [D, F]. A neuron that `gates` (or None) switch off for a token has a = 0 there.
    """
    n, columns = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, D)
    at = n[:, None] * D + columns[None, :]
    w_in_ND, w_down_ND, b_N = tl.load(w_in + at), tl.load(w_down + at), tl.load(b_in + n)
    in_ND = tl.zeros((N, D), tl.float32)
    down_ND = tl.zeros((N, D), tl.float32)
    sum_N = tl.zeros((N,), tl.float32)
    start = first + tl.program_id(1) * piece
    stop = tl.minimum(start + piece, end)
    for k in tl.range(start, stop, K, num_stages=STAGES):
        rows = k + tl.arange(0, K)
        there, inside = rows[:, None] * D + columns[None, :], (rows < stop)[:, None]
        hat_KD = tl.load(hat + there, mask=inside, other=0.0)
        d_KD = tl.load(d_end + there, mask=inside, other=0.0)  # 0 behind the last token, so that nothing comes from there
        a_NK = tl.dot(w_in_ND, hat_KD.T) + b_N[:, None]
        if gates is not None:
            a_NK *= gates_at(gates, rows[None, :], (rows < stop)[None, :], n[:, None], T, F)
        d_a_NK = tl.where(a_NK > 0, tl.dot(w_down_ND, d_KD.T), 0.0)
        sum_N += tl.sum(d_a_NK, 1)
        in_ND = tl.dot(d_a_NK.to(hat_KD.dtype), hat_KD, in_ND)
        down_ND = tl.dot(tl.maximum(a_NK, 0.0).to(hat_KD.dtype), d_KD, down_ND)
    tl.atomic_add(d_w_in + at, in_ND, sem="relaxed")
    tl.atomic_add(d_w_down + columns[None, :] * F + n[:, None], down_ND, sem="relaxed")
    tl.atomic_add(d_b_in + n, sum_N, sem="relaxed")
