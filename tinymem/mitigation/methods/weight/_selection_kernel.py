"""Weights without the K of each row whose |score| is most extreme, in five launches however many rows: a radix select.

The bits of a non-negative float order as the float does. Four times a launch counts, for each digit of eight bits, how many keys that agree
with what is known of the K-th have that digit; the next launch reads off one digit more. The last launch knows the K-th key exactly, and
among equal keys takes the earlier. Counts are kept per chunk of a row, so no launch waits for another's atomics and all runs are equal.
Of long rows (more than `MANY` chunks) the counts of all chunks are summed between launches, since each block reads them all, and of the
last round's one column is: how many keys equal to the K-th lie in the chunks up to each.

Shape suffixes: G rows, N entries of a row, C chunks of a row, R rounds, V values of a digit.
"""

# Kernels are no typed Python, and triton is there only where a GPU is.
# mypy: disable-error-code="import-not-found,untyped-decorator,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tinymem.training.kernels.launch import launch

CHUNK, WARPS, MANY = 4096, 8, 256
ROUNDS = 4
VALUES = tl.constexpr(256)
BITS = tl.constexpr(8)
FIRST = tl.constexpr(128)  # values of the first digit
FEW = tl.constexpr(2)  # rounds after which so few keys agree that each is counted by itself
TOGETHER = tl.constexpr(16)  # chunks whose counts are summed at once


@triton.jit
def _key(scores, row, at, N, LOWEST: tl.constexpr):
    bits = tl.load(scores + row.to(tl.int64) * N + at, mask=at < N, other=0.0).to(tl.int32, bitcast=True) & 0x7FFFFFFF
    if LOWEST:
        bits = 0x7FFFFFFF - bits
    return bits


@triton.jit
def _known(counts, digits, row, K, G, C: tl.constexpr, KNOWN: tl.constexpr):
    """The first `KNOWN` digits of the K-th key, how many of the keys that begin so are still to be taken, and how many there are.

    All but the last of them were read off, and put into `digits`, by the launch before.
    """
    if KNOWN == 1:
        prefix, left = K * 0, K
    else:
        prefix, left = tl.load(digits + (KNOWN * G + row) * 2), tl.load(digits + (KNOWN * G + row) * 2 + 1)
    values = tl.arange(0, VALUES)
    if C == 1:
        found = tl.load(counts + ((KNOWN - 1) * G + row) * VALUES + values)
    else:
        found = tl.zeros((VALUES,), counts.dtype.element_ty)
        for start in range(0, C, TOGETHER):
            chunks = start + tl.arange(0, TOGETHER)
            at = (((KNOWN - 1) * G + row) * C + chunks[:, None]) * VALUES + values[None, :]
            found += tl.sum(tl.load(counts + at, mask=chunks[:, None] < C, other=0), 0)
    at_least = tl.sum(found, 0) - tl.cumsum(found, 0) + found
    digit = tl.sum((at_least >= left).to(tl.int32), 0) - 1
    left -= tl.sum(tl.where(values > digit, found, 0), 0)
    return prefix * VALUES + digit, left, tl.sum(tl.where(values == digit, found, 0), 0)


@triton.jit(do_not_specialize=["K"])
def _count(
    scores,
    counts,
    known,
    digits,
    N,
    K,
    G,
    C: tl.constexpr,
    KC: tl.constexpr,
    ROUND: tl.constexpr,
    LOWEST: tl.constexpr,
    CHUNK: tl.constexpr,
):
    row, chunk = tl.program_id(1), tl.program_id(0)
    at = chunk.to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    key = _key(scores, row, at, N, LOWEST)
    agrees = at < N
    shifted = key >> (BITS * (3 - ROUND))
    if ROUND > 0:
        prefix, left, _ = _known(known, digits, row, K, G, KC, ROUND)
        if chunk == 0:
            tl.store(digits + ((ROUND + 1) * G + row) * 2, prefix)
            tl.store(digits + ((ROUND + 1) * G + row) * 2 + 1, left)
        agrees = agrees & ((shifted >> BITS) == prefix)
    place = counts + ((ROUND * G + row) * C + chunk) * VALUES
    if ROUND == 0:  # a key has 31 bits, so its first digit has seven
        found, values = tl.histogram(shifted, FIRST, mask=agrees), tl.arange(0, FIRST)
        tl.store(place + values, found)
        tl.store(place + FIRST + values, tl.zeros_like(found))
        for later in tl.static_range(FEW, 4):  # which add to theirs
            tl.store(place + later * G * C * VALUES + tl.arange(0, VALUES), tl.zeros((VALUES,), counts.dtype.element_ty))
    elif ROUND < FEW:
        tl.store(place + tl.arange(0, VALUES), tl.histogram(shifted & (VALUES - 1), VALUES, mask=agrees))
    else:
        tl.atomic_add(place + (shifted & (VALUES - 1)), 1, mask=agrees, sem="relaxed")


@triton.jit(do_not_specialize=["K"])
def _equal(counts, known, digits, equal, K, G, C, KC: tl.constexpr, TOGETHER: tl.constexpr):
    """How many keys of each chunk are the K-th."""
    row, chunks = tl.program_id(1), tl.program_id(0) * TOGETHER + tl.arange(0, TOGETHER)
    kth, _, _ = _known(known, digits, row, K, G, KC, 4)
    found = tl.load(counts + ((3 * G + row) * C + chunks) * VALUES + (kth & (VALUES - 1)), mask=chunks < C, other=0)
    tl.store(equal + row * C + chunks, found, mask=chunks < C)


@triton.jit
def dropped_of_chunk(
    scores, counts, known, digits, upto, N, K, G, C: tl.constexpr, KC: tl.constexpr, LOWEST: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """Entries of this program's chunk of its row, which of them are of the row, and which are among its K; once all digits are counted."""
    row, chunk = tl.program_id(1), tl.program_id(0)
    at = chunk.to(tl.int64) * CHUNK + tl.arange(0, CHUNK)
    inside = at < N
    key = _key(scores, row, at, N, LOWEST)
    kth, left, same = _known(known, digits, row, K, G, KC, 4)
    equal = (key == kth) & inside
    if same > left:  # the first ones of equal keys
        before = left * 0  # of them in earlier chunks
        if KC == C:
            for start in range(0, C, TOGETHER):
                chunks = start + tl.arange(0, TOGETHER)
                last = ((3 * G + row) * C + chunks) * VALUES + (kth & (VALUES - 1))
                before += tl.sum(tl.load(counts + last, mask=chunks < chunk, other=0), 0)
        else:
            before += tl.load(upto + row * C + chunk - 1, mask=chunk > 0, other=0)
        equal = equal & (before + tl.cumsum(equal.to(tl.int32), 0) <= left)
    return at, inside, (key > kth) | equal


@triton.jit(do_not_specialize=["K"])
def _write(
    weights, scores, counts, known, digits, upto, out, N, K, G, C: tl.constexpr, KC: tl.constexpr, LOWEST: tl.constexpr, CHUNK: tl.constexpr
):
    at, inside, dropped = dropped_of_chunk(scores, counts, known, digits, upto, N, K, G, C, KC, LOWEST, CHUNK)
    entry = tl.program_id(1).to(tl.int64) * N + at
    weight = tl.load(weights + entry, mask=inside, other=0.0)
    tl.store(out + entry, tl.where(dropped, 0.0, weight).to(out.dtype.element_ty), mask=inside)


def masked(weights_GN: Tensor, scores_GN: Tensor, count: int, *, lowest: bool, dtype: torch.dtype) -> Tensor:
    """The weights [G, N] in `dtype` without the `count` of each row whose fp32 |score| is highest (or lowest)."""
    weights_GN, scores_GN = weights_GN.contiguous(), scores_GN.contiguous()
    out_GN = torch.empty(scores_GN.shape, dtype=dtype, device=scores_GN.device)
    grid, found, sizes = counted(scores_GN, count, lowest=lowest)
    launch(_write, *grid)(weights_GN, scores_GN, *found, out_GN, *sizes, LOWEST=lowest, CHUNK=CHUNK, num_warps=WARPS)
    return out_GN


def counted(scores_GN: Tensor, count: int, *, lowest: bool) -> tuple[tuple[int, int], tuple[Tensor, ...], tuple[int, ...]]:
    """Count the digits of all keys: what a kernel needs that asks `dropped_of_chunk`.

    Returns:
        Its grid; `counts`, `known`, `digits` and `upto`; and N, K, G, C and KC.
    """
    (G, N), device = scores_GN.shape, scores_GN.device
    C = triton.cdiv(N, CHUNK)
    counts = torch.empty(ROUNDS, G, C, VALUES.value, dtype=torch.int32, device=device)
    digits = torch.empty(ROUNDS + 1, G, 2, dtype=torch.int64, device=device)
    known, KC = (counts, C) if C <= MANY else (torch.empty(ROUNDS, G, 1, VALUES.value, dtype=torch.int64, device=device), 1)
    for digit in range(ROUNDS):
        options = {"ROUND": digit, "LOWEST": lowest, "CHUNK": CHUNK, "num_warps": WARPS}
        launch(_count, C, G)(scores_GN, counts, known, digits, N, count, G, C, KC, **options)
        if KC != C:
            known[digit] = counts[digit].sum(1, keepdim=True)
    upto = counts if KC == C else _equal_upto(counts, known, digits, count)
    return (C, G), (counts, known, digits, upto), (N, count, G, C, KC)


def _equal_upto(counts: Tensor, known: Tensor, digits: Tensor, count: int) -> Tensor:
    """How many keys of the chunks up to each, and of it, are the K-th [G, C]."""
    _, G, C, _ = counts.shape
    equal_GC = torch.empty(G, C, dtype=torch.int32, device=counts.device)
    launch(_equal, triton.cdiv(C, VALUES.value), G)(counts, known, digits, equal_GC, count, G, C, 1, VALUES.value)
    return equal_GC.cumsum(1)
