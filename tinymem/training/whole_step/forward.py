"""Forward kernels, from one attention to the next: out-projection, feed-forward block, norm, and the next queries, keys and values.

A tile of tokens stays in registers all the way; the hidden neurons are made and used some at a time, and are never written.

Shape suffixes: M tokens of a tile, D embedding, F neurons, V words (padded).
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

import triton
import triton.language as tl

from tinymem.training.whole_step.tokens import gates_at, normalized, store_normalized, through_norm, tile_of, weight_rows

VARYING = ["first", "end", "T"]  # numbers that differ from part to part: no kernel of their own for multiples of 16


@triton.jit
def _queries(hat_MD, w_qkv, b_qkv, qkv, rows, inside, D: tl.constexpr, Q: tl.constexpr, STAGES: tl.constexpr, TMA: tl.constexpr):
    """Write queries, keys and values of normalized rows, Q columns at a time."""
    for start in tl.range(0, 3 * D, Q, num_stages=STAGES):
        columns = start + tl.arange(0, Q)
        y_MQ = tl.dot(hat_MD, weight_rows(w_qkv, start, Q, D, TMA).T) + tl.load(b_qkv + columns)[None, :]
        tl.store(qkv + rows[:, None] * (3 * D) + columns[None, :], y_MQ.to(qkv.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _after_block(
    att, x, w_out, b_out, w_in, b_in, w_down, b_down, gates, T, hat, rate, rows, inside, at, eps, D: tl.constexpr, F: tl.constexpr,
    N: tl.constexpr, STAGES: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """The residual stream [M, D] behind out-projection and feed-forward block, N neurons at a time; `gates` (or None) switch some off."""
    columns = tl.arange(0, D)
    w_out_DD = tl.load(w_out + columns[:, None] * D + columns[None, :])
    x_MD = tl.dot(tl.load(att + at, mask=inside[:, None], other=0.0), w_out_DD.T)
    x_MD += tl.load(x + at, mask=inside[:, None], other=0.0) + tl.load(b_out + columns)[None, :]
    hat_MD = store_normalized(x_MD, hat, rate, rows, inside, at, eps, D)
    x_MD += tl.load(b_down + columns)[None, :]
    for start in tl.range(0, F, N, num_stages=STAGES):
        w_in_ND = weight_rows(w_in, start, N, D, TMA)
        w_down_ND = weight_rows(w_down, start, N, D, TMA)
        neurons = start + tl.arange(0, N)
        a_MN = tl.dot(hat_MD, w_in_ND.T) + tl.load(b_in + neurons)[None, :]
        if gates is not None:
            a_MN *= gates_at(gates, rows[:, None], inside[:, None], neurons[None, :], T, F)
        x_MD = tl.dot(tl.maximum(a_MN, 0.0).to(hat_MD.dtype), w_down_ND, x_MD)
    return x_MD


@triton.jit(do_not_specialize=VARYING)
def first_forward(
    ids, wte, wpe, x, hat, rate, qkv, w_qkv, b_qkv, first, end, T, eps, D: tl.constexpr, M: tl.constexpr, Q: tl.constexpr,
    STAGES: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Embeddings, the first norm, and the first queries, keys and values."""
    rows, inside, at = tile_of(first, end, M, D)
    columns = tl.arange(0, D)
    words = tl.load(ids + rows, mask=inside, other=0)
    x_MD = tl.load(wte + words[:, None] * D + columns[None, :]) + tl.load(wpe + (rows % T)[:, None] * D + columns[None, :])
    tl.store(x + at, x_MD, mask=inside[:, None])
    hat_MD = store_normalized(x_MD, hat, rate, rows, inside, at, eps, D)
    _queries(hat_MD, w_qkv, b_qkv, qkv, rows, inside, D, Q, STAGES, TMA)


@triton.jit(do_not_specialize=VARYING)
def block_forward(
    att, x, x_out, hat, rate, hat_next, rate_next, qkv_next, w_out, b_out, w_in, b_in, w_down, b_down, gates, T, w_qkv, b_qkv, first,
    end, eps, D: tl.constexpr, F: tl.constexpr, M: tl.constexpr, N: tl.constexpr, Q: tl.constexpr, STAGES: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """From a layer's attention to the next layer's queries, keys and values."""
    rows, inside, at = tile_of(first, end, M, D)
    x_MD = _after_block(att, x, w_out, b_out, w_in, b_in, w_down, b_down, gates, T, hat, rate, rows, inside, at, eps, D, F, N, STAGES, TMA)
    tl.store(x_out + at, x_MD, mask=inside[:, None])
    hat_MD = store_normalized(x_MD, hat_next, rate_next, rows, inside, at, eps, D)
    _queries(hat_MD, w_qkv, b_qkv, qkv_next, rows, inside, D, Q, STAGES, TMA)


@triton.jit(do_not_specialize=VARYING)
def last_forward(
    att, x, hat, rate, w_out, b_out, w_in, b_in, w_down, b_down, gates, T, ids, shares, head, b_head, losses, loss, d_x, d_head, d_b_head,
    first, end, words, eps, D: tl.constexpr, F: tl.constexpr, V: tl.constexpr, M: tl.constexpr, N: tl.constexpr, STAGES: tl.constexpr,
    TMA: tl.constexpr,
):  # fmt: skip
    """From the last attention to the loss, and back to the gradient of the residual stream before the last norm.

    Where `losses` is not None, each token's loss is put there, and that is all.
    """
    rows, inside, at = tile_of(first, end, M, D)
    x_MD = _after_block(att, x, w_out, b_out, w_in, b_in, w_down, b_down, gates, T, hat, rate, rows, inside, at, eps, D, F, N, STAGES, TMA)
    if losses is not None:
        loss_M, _, _, _, _, _, _ = _losses(x_MD, ids, shares, head, b_head, rows, inside, words, eps, D, V)
        tl.store(losses + rows, loss_M, mask=inside)
    else:
        d_MD = _head(x_MD, ids, shares, head, b_head, loss, d_head, d_b_head, rows, inside, words, eps, D, V)
        tl.store(d_x + at, d_MD.to(d_x.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=VARYING)
def last_hidden(
    att, x, hat, rate, w_out, b_out, w_in, b_in, w_down, b_down, gates, T, norm, hat_end, rate_end, hidden, first, end, eps,
    D: tl.constexpr, F: tl.constexpr, M: tl.constexpr, N: tl.constexpr, STAGES: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """From the last attention to the hidden states that a head with a large vocabulary reads."""
    rows, inside, at = tile_of(first, end, M, D)
    columns = tl.arange(0, D)
    x_MD = _after_block(att, x, w_out, b_out, w_in, b_in, w_down, b_down, gates, T, hat, rate, rows, inside, at, eps, D, F, N, STAGES, TMA)
    hat_MD, rate_M = normalized(x_MD, eps, D)
    tl.store(hat_end + at, hat_MD.to(hat_end.dtype.element_ty), mask=inside[:, None])
    tl.store(rate_end + rows, rate_M, mask=inside)
    hidden_MD = hat_MD * tl.load(norm + columns)[None, :] + tl.load(norm + D + columns)[None, :]
    tl.store(hidden + at, hidden_MD.to(hidden.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _losses(x_MD, ids, shares, head, b_head, rows, inside, words, eps, D: tl.constexpr, V: tl.constexpr):
    """Last norm, tied head, and each token's loss [M]; besides what `_head` needs of them.

    W and b carry the norm's scale and shift, and are padded to V words, whose logits are left out. A token of share 0 reads no target: it
    may be the last of all.
    """
    columns, v = tl.arange(0, D), tl.arange(0, V)
    hat_MD, rate_M = normalized(x_MD, eps, D)
    w_VD = tl.load(head + v[:, None] * D + columns[None, :])
    low_MD = hat_MD.to(w_VD.dtype)
    z_MV = tl.dot(low_MD, w_VD.T) + tl.load(b_head + v)[None, :]
    z_MV = tl.where(v[None, :] < words, z_MV, -1e30)
    share_M = tl.load(shares + rows, mask=inside, other=0.0)
    target_M = tl.load(ids + rows + 1, mask=share_M != 0, other=0)
    peak_M = tl.max(z_MV, 1)
    e_MV = tl.exp(z_MV - peak_M[:, None])
    total_M = tl.sum(e_MV, 1)
    hit_MV = v[None, :] == target_M[:, None]
    loss_M = peak_M + tl.log(total_M) - tl.sum(tl.where(hit_MV, z_MV, 0.0), 1)
    return loss_M, share_M, e_MV / total_M[:, None] - tl.where(hit_MV, 1.0, 0.0), w_VD, low_MD, hat_MD, rate_M


@triton.jit
def _head(x_MD, ids, shares, head, b_head, loss, d_head, d_b_head, rows, inside, words, eps, D: tl.constexpr, V: tl.constexpr):
    """The loss, and the gradients of the head; returns the gradient [M, D] of the rows.

    With logits z = x' W^T + b and a loss of s (log sum exp z - z_target) for a token of share s, the gradient of z is
    s (softmax z - [target]) = d; so that of x' is d W, that of W is d^T x', and that of b the sum of d.
    """
    columns, v = tl.arange(0, D), tl.arange(0, V)
    loss_M, share_M, d_MV, w_VD, low_MD, hat_MD, rate_M = _losses(x_MD, ids, shares, head, b_head, rows, inside, words, eps, D, V)
    tl.atomic_add(loss, tl.sum(loss_M * share_M), sem="relaxed")
    d_MV *= share_M[:, None]
    low_MV = d_MV.to(w_VD.dtype)
    tl.atomic_add(d_head + v[:, None] * D + columns[None, :], tl.dot(low_MV.T, low_MD), sem="relaxed")
    tl.atomic_add(d_b_head + v, tl.sum(d_MV, 0), sem="relaxed")
    return through_norm(tl.dot(low_MV, w_VD), hat_MD, rate_M, D)
