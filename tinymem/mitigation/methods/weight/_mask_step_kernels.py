"""What a learned mask's step does between one backward pass and the next forward pass of whole-block kernels.

A feed-forward block has two matrices, in the model's memory [F, D] (to the neurons) and [D, F] (back). Scores follow the published layout,
which is the transpose of either: [D, F], then [F, D], layer after layer.

Shape suffixes: D embedding, F neurons, N of them at a time; C entries of a chunk.
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import triton
import triton.language as tl

from tinymem.mitigation.methods.weight._selection_kernel import dropped_of_chunk


@triton.jit
def learn(
    d_in, d_b_in, norm, d_down, w_in, w_down, scores, velocities, rate, sign, momentum, decay, D: tl.constexpr, F: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    """A step of SGD on the scores of N neurons' weights, in the first or the second matrix of a layer; their gradients are 0 afterwards.

    The first matrix's gradient G is that of W g, with the norm's scale g folded in, and h that of the bias b + W s: W's own is G g + h s.
    With w (1 - d) treated as w (1 -+ |s|), the gradient of a score s is -+ (gradient of w) w sgn(s).
    """
    n_N1, d_1D = (tl.program_id(0) * N + tl.arange(0, N))[:, None], tl.arange(0, D)[None, :]
    wide_ND, tall_ND = n_N1 * D + d_1D, d_1D * F + n_N1
    if tl.program_id(1) == 0:
        h_N1 = tl.load(d_b_in + n_N1)
        slope_ND = tl.load(d_in + wide_ND) * tl.load(norm + d_1D) + h_N1 * tl.load(norm + D + d_1D)
        slope_ND *= tl.load(w_in + wide_ND)
        _descend(slope_ND, scores, velocities, tall_ND, rate, sign, momentum, decay)
        tl.store(d_in + wide_ND, tl.zeros_like(slope_ND))
        tl.store(d_b_in + n_N1, tl.zeros_like(h_N1))
    else:
        slope_ND = tl.load(d_down + tall_ND) * tl.load(w_down + tall_ND)
        _descend(slope_ND, scores + D * F, velocities + D * F, wide_ND, rate, sign, momentum, decay)
        tl.store(d_down + tall_ND, tl.zeros_like(slope_ND))


@triton.jit
def _descend(slope, scores, velocities, at, rate, sign, momentum, decay):
    score = tl.load(scores + at)
    slope = sign * tl.where(score > 0, slope, tl.where(score < 0, -slope, 0.0)) + decay * score
    velocity = tl.load(velocities + at) * momentum + slope
    tl.store(velocities + at, velocity)
    tl.store(scores + at, score - rate * velocity)


@triton.jit(do_not_specialize=["K"])
def keep(
    own, scores, counts, known, digits, upto, w_in, w_down, N, K, G, STRIDE: tl.constexpr, D: tl.constexpr, F: tl.constexpr,
    C: tl.constexpr, KC: tl.constexpr, LOWEST: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Write the weights that a mask leaves, 0 for the others, from `own` in the order of the scores to where the model has them."""
    at, inside, dropped = dropped_of_chunk(scores, counts, known, digits, upto, N, K, G, C, KC, LOWEST, CHUNK)
    entry = tl.program_id(1).to(tl.int64) * N + at
    weight = tl.where(dropped, 0.0, tl.load(own + entry, mask=inside, other=0.0))
    matrix, r = entry // (D * F), entry % (D * F)
    first = matrix % 2 == 0
    layer = matrix // 2 * STRIDE
    tl.store(w_in + layer + (r % F) * D + r // F, weight, mask=inside & first)
    tl.store(w_down + layer + (r % D) * F + r // D, weight, mask=inside & ~first)
