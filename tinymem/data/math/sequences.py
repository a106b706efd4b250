"""Synthetic arithmetic sequences and their 14-token text form (paper, section 2.3 and appendix A.1.1).

Sequence i of task k starts from the value i, which is not written; the numbers written are f(i), f(f(i)), ... with f(x) = x + k
(additive) or f(x) = k * x mod m (multiplicative). A row is `^`, the numbers in decimal joined by spaces, `$`, then padding `_`.

Shape suffixes: N sequences, L numbers, T tokens of a row, W digits of the widest number.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tinymem.errors import UserError

Ids = npt.NDArray[np.unsignedinteger]
Numbers = npt.NDArray[np.int64]

CHARACTERS = "0123456789^$ _"
BOS, EOS, SPACE, PAD = 10, 11, 12, 13


def sequences(family: str, k: int, starts: Numbers, numbers: int, modulus: int) -> Numbers:
    """Values [N, L] of task `k` from each start value."""
    if family == "additive":
        return starts[:, None] + k * np.arange(1, numbers + 1, dtype=np.int64)
    columns, value = [], starts
    for _ in range(numbers):
        value = value * k % modulus
        columns.append(value)
    return np.stack(columns, axis=1)


def render(numbers_NL: Numbers, row_tokens: int) -> Ids:
    """Token ids [N, T] (uint8) of integer sequences; a minus sign is not in the vocabulary and is left out.

    Raises:
        UserError: a row needs more than `row_tokens` tokens.
    """
    values_NL = np.abs(numbers_NL)
    N = len(values_NL)
    powers_W = 10 ** np.arange(1, 19, dtype=np.int64)
    digits_NL = 1 + np.searchsorted(powers_W, values_NL, side="right")
    ends_NL = 1 + np.cumsum(digits_NL + 1, axis=1)  # token after each number's separator; BOS is token 0
    longest = int(ends_NL[:, -1].max(initial=0))
    if longest > row_tokens:
        raise UserError(
            f"expected data.row_tokens of at least {longest} for the longest sequence, got {row_tokens}; raise it or lower data.numbers"
        )
    ids_NT = np.full((N, row_tokens), PAD, dtype=np.uint8)
    ids_NT[:, 0] = BOS
    rows_N1 = np.arange(N)[:, None]
    remaining_NL = values_NL.copy()
    for place in range(int(digits_NL.max(initial=1))):  # units, tens, ...: at most 19 passes, each over all numbers at once
        row, column = np.nonzero(digits_NL > place)
        ids_NT[row, ends_NL[row, column] - 2 - place] = remaining_NL[row, column] % 10
        remaining_NL //= 10
    ids_NT[rows_N1, ends_NL - 1] = SPACE
    ids_NT[np.arange(N), ends_NL[:, -1] - 1] = EOS
    return ids_NT


def first_number_end(ids_NT: Ids) -> npt.NDArray[np.int64]:
    """Index [N] of the token after the space that ends the first number: accuracy is scored from there."""
    return 1 + np.argmax(ids_NT == SPACE, axis=1)


def to_text(ids_T: Iterable[int]) -> str:
    """The characters of a row, padding included."""
    return "".join(CHARACTERS[i] for i in ids_T)


def numbers_of(ids_NT: Ids) -> Numbers:
    """The numbers [N, L] that rows were written from."""
    skipped = {BOS, EOS, PAD}
    texts = ("".join(" " if i == SPACE else CHARACTERS[i] for i in row if i not in skipped) for row in ids_NT.tolist())
    return np.array([[int(number) for number in text.split()] for text in texts], dtype=np.int64)


def determined_tokens(universe_NT: Ids, rows_MT: Ids) -> npt.NDArray[np.bool_]:
    """Mask [M, T] of the tokens of `rows` that the tokens before them determine, among all sequences of the universe.

    A token counts as determined when every sequence of the universe that begins with the same prefix continues with the same token.
    The share of determined tokens is the ceiling of token accuracy. Each row must be a row of the universe.
    """
    both_NT = np.concatenate([universe_NT, rows_MT])
    determined_NT = np.ones(both_NT.shape, dtype=bool)
    prefix_N = np.zeros(len(both_NT), dtype=np.int64)
    base = int(both_NT.max(initial=0)) + 1
    for t in range(both_NT.shape[1]):
        extended_N, inverse_N = np.unique(prefix_N * base + both_NT[:, t], return_inverse=True)
        continuations = np.bincount(extended_N // base, minlength=int(prefix_N.max(initial=0)) + 1)  # different next tokens of a prefix
        determined_NT[:, t] = continuations[prefix_N] == 1
        prefix_N = inverse_N
    return determined_NT[len(universe_NT) :]
