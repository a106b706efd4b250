"""Weights as the kernels read them, and the way of their gradients back to the model's.

A norm's scale g and shift s are folded into the linear layer behind it: (x' g + s) W^T + b = x' (W g)^T + (b + W s), so that the kernels
see only the normalized x'. From the gradients G of the folded weight W g and h of the folded bias come those of the model: of W, G g + h s;
of b, h; of g, the sum of W G over rows; of s, that of W h. So scale and shift need no sum over tokens.

Layers are equally far apart in the model's flat weights and gradients: addresses are those of the first, STRIDE goes to the next.

Shape suffixes: R rows of a matrix, D embedding, F neurons, V words (padded).
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, ANN202, SIM102

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _fold(w, b, scale, folded, folded_b, row, R: tl.constexpr, D: tl.constexpr):
    rows, columns = row + tl.arange(0, R), tl.arange(0, D)
    w_RD = tl.load(w + rows[:, None] * D + columns[None, :])
    g_D, s_D = tl.load(scale + columns), tl.load(scale + D + columns)
    tl.store(folded_b + rows, tl.load(b + rows) + tl.sum(w_RD * s_D[None, :], 1))
    tl.store(folded + rows[:, None] * D + columns[None, :], (w_RD * g_D[None, :]).to(folded.dtype.element_ty))


@triton.jit
def _transposed(w, out, column, R: tl.constexpr, D: tl.constexpr, F: tl.constexpr):
    n, columns = column + tl.arange(0, R), tl.arange(0, D)
    w_RD = tl.load(w + columns[None, :] * F + n[:, None])
    tl.store(out + n[:, None] * D + columns[None, :], w_RD.to(out.dtype.element_ty))


@triton.jit
def fold_weights(
    w_qkv, b_qkv, norm_1, w_out, w_in, b_in, norm_2, w_down, wte, norm_f, qkv, qkv_b, out, inner, inner_b, down, head, head_b,
    L, words, STRIDE: tl.constexpr, D: tl.constexpr, F: tl.constexpr, R: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Write copies in the products' type: of QKV, feed-forward input and head folded, of its output transposed, [F, D].

    Programs: R rows of one matrix in the first dimension, a layer in the second; the last one is the head, if its vocabulary is small (V).
    """
    block, layer = tl.program_id(0), tl.program_id(1)
    rows, columns = tl.arange(0, R), tl.arange(0, D)
    here = layer.to(tl.int64) * STRIDE
    if layer == L:
        if V:
            if block == 0:
                v = tl.arange(0, V)
                w_VD = tl.load(wte + v[:, None] * D + columns[None, :], mask=v[:, None] < words, other=0.0)
                tl.store(head_b + v, tl.sum(w_VD * tl.load(norm_f + D + columns)[None, :], 1))
                folded_VD = w_VD * tl.load(norm_f + columns)[None, :]
                tl.store(head + v[:, None] * D + columns[None, :], folded_VD.to(head.dtype.element_ty))
    elif block < 3 * D // R:
        _fold(w_qkv + here, b_qkv + here, norm_1 + here, qkv + layer * 3 * D * D, qkv_b + layer * 3 * D, block * R, R, D)
    elif block < (3 * D + F) // R:
        _fold(w_in + here, b_in + here, norm_2 + here, inner + layer * F * D, inner_b + layer * F, block * R - 3 * D, R, D)
    elif block < (4 * D + F) // R:
        at = (block * R - 3 * D - F + rows)[:, None] * D + columns[None, :]
        tl.store(out + layer * D * D + at, tl.load(w_out + here + at).to(out.dtype.element_ty))
    else:
        _transposed(w_down + here, down + layer * F * D, block * R - 4 * D - F, R, D, F)


@triton.jit
def fold_blocks(
    w_in, b_in, norm_2, w_down, inner, inner_b, down, STRIDE: tl.constexpr, D: tl.constexpr, F: tl.constexpr, R: tl.constexpr
):  # fmt: skip
    """Those of the feed-forward blocks only, programs as of `fold_weights`."""
    block, layer = tl.program_id(0), tl.program_id(1)
    here = layer.to(tl.int64) * STRIDE
    if block < F // R:
        _fold(w_in + here, b_in + here, norm_2 + here, inner + layer * F * D, inner_b + layer * F, block * R, R, D)
    else:
        _transposed(w_down + here, down + layer * F * D, block * R - F, R, D, F)


@triton.jit
def _unfold(w, scale, d_w, d_b, d_scale, row, R: tl.constexpr, D: tl.constexpr):
    rows, columns = row + tl.arange(0, R), tl.arange(0, D)
    at = rows[:, None] * D + columns[None, :]
    w_RD, d_RD, d_R = tl.load(w + at), tl.load(d_w + at), tl.load(d_b + rows)
    g_D, s_D = tl.load(scale + columns), tl.load(scale + D + columns)
    tl.store(d_w + at, d_RD * g_D[None, :] + d_R[:, None] * s_D[None, :])
    tl.atomic_add(d_scale + columns, tl.sum(w_RD * d_RD, 0), sem="relaxed")
    tl.atomic_add(d_scale + D + columns, tl.sum(w_RD * d_R[:, None], 0), sem="relaxed")


@triton.jit
def unfold_gradients(
    w_qkv, norm_1, w_in, norm_2, wte, norm_f, d_w_qkv, d_b_qkv, d_norm_1, d_w_in, d_b_in, d_norm_2, d_wte, d_norm_f, d_head, d_b_head,
    words, STRIDE: tl.constexpr, D: tl.constexpr, F: tl.constexpr, R: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """Turn gradients of folded weights into the model's, in place; the head's, summed apart, are added to the word embeddings'."""
    block, here = tl.program_id(0), tl.program_id(1).to(tl.int64) * STRIDE
    if block < 3 * D // R:
        _unfold(w_qkv + here, norm_1 + here, d_w_qkv + here, d_b_qkv + here, d_norm_1 + here, block * R, R, D)
    elif block < (3 * D + F) // R:
        _unfold(w_in + here, norm_2 + here, d_w_in + here, d_b_in + here, d_norm_2 + here, block * R - 3 * D, R, D)
    elif V:
        if tl.program_id(1) == 0:
            v, columns = tl.arange(0, V), tl.arange(0, D)
            at, real = v[:, None] * D + columns[None, :], v[:, None] < words
            w_VD, d_VD, d_V = tl.load(wte + at, mask=real, other=0.0), tl.load(d_head + at), tl.load(d_b_head + v)
            g_D, s_D = tl.load(norm_f + columns), tl.load(norm_f + D + columns)
            whole_VD = tl.load(d_wte + at, mask=real, other=0.0) + d_VD * g_D[None, :] + d_V[:, None] * s_D[None, :]
            tl.store(d_wte + at, whole_VD, mask=real)
            tl.store(d_norm_f + columns, tl.sum(w_VD * d_VD, 0))
            tl.store(d_norm_f + D + columns, tl.sum(w_VD * d_V[:, None], 0))
