"""Backward kernels over tiles of tokens: from one attention's gradient to the one below.

Gradients between kernels are in the type of the products (bf16 on GPUs); those of biases of the residual stream are summed here, those of
matrices in `weight_gradients`.

Shape suffixes: M tokens of a tile, N neurons, D embedding, R rows of the batch, V words (padded).
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

import triton
import triton.language as tl

from tinymem.training.whole_step.forward import VARYING
from tinymem.training.whole_step.tokens import gates_at, through_norm, tile_of, weight_rows


@triton.jit
def _through_queries(
    d_qkv, hat, rate, d_mid, w_qkv, rows, inside, at, D: tl.constexpr, Q: tl.constexpr, STAGES: tl.constexpr, TMA: tl.constexpr
):
    """Gradient [M, D] of a layer's input x, which goes past attention and through it: d_mid + norm'(d_qkv W_qkv)."""
    d_MD = tl.zeros((rows.shape[0], D), tl.float32)
    for start in tl.range(0, 3 * D, Q, num_stages=STAGES):
        columns = start + tl.arange(0, Q)
        d_MQ = tl.load(d_qkv + rows[:, None] * (3 * D) + columns[None, :], mask=inside[:, None], other=0.0)
        d_MD = tl.dot(d_MQ, weight_rows(w_qkv, start, Q, D, TMA), d_MD)
    hat_MD = tl.load(hat + at, mask=inside[:, None], other=0.0).to(tl.float32)
    rate_M = tl.load(rate + rows, mask=inside, other=0.0)
    return through_norm(d_MD, hat_MD, rate_M, D) + tl.load(d_mid + at, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=VARYING)
def block_backward(
    d_qkv, hat_above, rate_above, d_above, w_qkv, hat, rate, w_in, b_in, w_down, w_out, gates, T, d_end, d_mid, d_att, d_b_down,
    d_b_out, first, end, ABOVE: tl.constexpr, PARK: tl.constexpr, D: tl.constexpr, F: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    Q: tl.constexpr, STAGES: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """From the gradients of the layer above (ABOVE; else from that of the last residual stream, `d_above`) to that of this attention.

    With m = x + att W_out^T + b_out, a = m' W_in^T + b_in (m' the normalized m) and y = m + relu(a) W_down^T + b_down, a gradient d of y
    gives that of a, d_a = [a > 0] (d W_down), of m, d + norm'(d_a W_in), and of att, d_m W_out; the biases' are sums over tokens.
    a is computed again. `w_down` is transposed, [F, D]. d (`d_end`) and d_m (`d_mid`) are written for the weights' gradients.
    A neuron that `gates` (or None) switch off for a token has a = 0 there.
    PARK: d waits in memory, not in registers, while the neurons are gone through.
    """
    rows, inside, at = tile_of(first, end, M, D)
    columns = tl.arange(0, D)
    if ABOVE:
        d_MD = _through_queries(d_qkv, hat_above, rate_above, d_above, w_qkv, rows, inside, at, D, Q, STAGES, TMA)
        tl.store(d_end + at, d_MD.to(d_end.dtype.element_ty), mask=inside[:, None])
    else:
        d_MD = tl.load(d_above + at, mask=inside[:, None], other=0.0).to(tl.float32)
    tl.atomic_add(d_b_down + columns, tl.sum(d_MD, 0), sem="relaxed")
    hat_MD = tl.load(hat + at, mask=inside[:, None], other=0.0)
    low_MD = d_MD.to(hat_MD.dtype)
    d_hat_MD = tl.zeros((M, D), tl.float32)
    for start in tl.range(0, F, N, num_stages=STAGES):
        w_in_ND = weight_rows(w_in, start, N, D, TMA)
        w_down_ND = weight_rows(w_down, start, N, D, TMA)
        neurons = start + tl.arange(0, N)
        a_MN = tl.dot(hat_MD, w_in_ND.T) + tl.load(b_in + neurons)[None, :]
        if gates is not None:
            a_MN *= gates_at(gates, rows[:, None], inside[:, None], neurons[None, :], T, F)
        d_a_MN = tl.where(a_MN > 0, tl.dot(low_MD, w_down_ND.T), 0.0).to(hat_MD.dtype)
        d_hat_MD = tl.dot(d_a_MN, w_in_ND, d_hat_MD)
    rate_M = tl.load(rate + rows, mask=inside, other=0.0)
    hat_MD = tl.load(hat + at, mask=inside[:, None], other=0.0)
    if PARK:
        tl.debug_barrier()  # what other threads of the program have written
        d_MD = tl.load((d_end if ABOVE else d_above) + at, mask=inside[:, None], other=0.0).to(tl.float32)
    d_MD += through_norm(d_hat_MD, hat_MD.to(tl.float32), rate_M, D)
    low_MD = d_MD.to(hat_MD.dtype)
    tl.store(d_mid + at, low_MD, mask=inside[:, None])
    tl.atomic_add(d_b_out + columns, tl.sum(d_MD, 0), sem="relaxed")
    w_out_DD = tl.load(w_out + columns[:, None] * D + columns[None, :])
    tl.store(d_att + at, tl.dot(low_MD, w_out_DD).to(d_att.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=VARYING)
def queries_backward(
    d_qkv, hat_above, rate_above, d_above, w_qkv, d_end, first, end, D: tl.constexpr, M: tl.constexpr, Q: tl.constexpr,
    STAGES: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """From the gradients of the layer above to that of a layer's output, `d_end`: all that its block's weights need."""
    rows, inside, at = tile_of(first, end, M, D)
    d_MD = _through_queries(d_qkv, hat_above, rate_above, d_above, w_qkv, rows, inside, at, D, Q, STAGES, TMA)
    tl.store(d_end + at, d_MD.to(d_end.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=["first_row", "end_row", "T", "words"])
def first_backward(
    d_qkv, hat, rate, d_mid, w_qkv, ids, d_wte, d_wpe, first_row, end_row, T, words, D: tl.constexpr, R: tl.constexpr, Q: tl.constexpr,
    V: tl.constexpr, STAGES: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """From the first layer to the embeddings: R rows at one position a program, so that nothing but sums is written.

    The gradient of a word is the sum over its tokens: a product of 0 and 1 [V, R] with their gradients [R, D], or with a large vocabulary
    (V = 0) each token's is added to it.
    """
    batch = first_row + tl.program_id(1) * R + tl.arange(0, R)
    rows, inside = batch * T + tl.program_id(0), batch < end_row
    columns = tl.arange(0, D)
    at = rows[:, None] * D + columns[None, :]
    d_RD = _through_queries(d_qkv, hat, rate, d_mid, w_qkv, rows, inside, at, D, Q, STAGES, TMA)
    tl.atomic_add(d_wpe + tl.program_id(0) * D + columns, tl.sum(d_RD, 0), sem="relaxed")
    word_R = tl.load(ids + rows, mask=inside, other=-1)
    if V:
        v = tl.arange(0, V)
        hit_VR = (v[:, None] == word_R[None, :]).to(tl.float32).to(d_qkv.dtype.element_ty)
        d_VD = tl.dot(hit_VR, d_RD.to(hit_VR.dtype))
        tl.atomic_add(d_wte + v[:, None] * D + columns[None, :], d_VD, mask=v[:, None] < words, sem="relaxed")
    else:
        tl.atomic_add(d_wte + word_R[:, None] * D + columns[None, :], d_RD, mask=inside[:, None], sem="relaxed")


@triton.jit(do_not_specialize=VARYING)
def hidden_backward(d_hidden, norm, hat, rate, d_x, d_norm, first, end, D: tl.constexpr, M: tl.constexpr):
    """Through the last norm, x' g + s: the gradient d of its result gives norm'(d g), and those of g and s are sums of d x' and of d."""
    rows, inside, at = tile_of(first, end, M, D)
    columns = tl.arange(0, D)
    d_MD = tl.load(d_hidden + at, mask=inside[:, None], other=0.0)
    hat_MD = tl.load(hat + at, mask=inside[:, None], other=0.0).to(tl.float32)
    tl.atomic_add(d_norm + columns, tl.sum(d_MD * hat_MD, 0), sem="relaxed")
    tl.atomic_add(d_norm + D + columns, tl.sum(d_MD, 0), sem="relaxed")
    rate_M = tl.load(rate + rows, mask=inside, other=0.0)
    d_x_MD = through_norm(d_MD * tl.load(norm + columns)[None, :], hat_MD, rate_M, D)
    tl.store(d_x + at, d_x_MD.to(d_x.dtype.element_ty), mask=inside[:, None])
