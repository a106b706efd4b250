"""Rows that are one: groups of rows that are linked, one to the next, by common token 5-grams.

Two rows are linked where they share more than a given part of the 5-grams that either has (Jaccard). An index lists the rows of each
5-gram, and two passes join what is linked. The first counts how often two rows follow one another in these lists, which is at most what
they have in common: rows that it links are linked, and of near copies it joins nearly all. The second counts what each row has in common
with every row before it, over the 5-grams alone whose rows are still in several groups: no other can join groups.

Shape suffixes: T tokens of all rows, N rows, P pairs of a row and a 5-gram in it, G 5-grams.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinymem.runtime.progress import Bar, SilentBar

GRAM = 5
BAR_ROWS = 64  # between two moves of the bar
Ints = NDArray[np.int64]


def groups_of(rows: Sequence[Sequence[int]], overlap: float, bar: Bar | None = None) -> list[int]:
    """The group of each row: the number of one of its rows.

    Args:
        rows: token ids, of any lengths.
        overlap: share of common 5-grams above which two rows are linked.
        bar: counts rows.
    """
    row_P, gram_P = _grams(rows)
    if not len(row_P):
        return [*range(len(rows))]
    groups = _Groups(len(rows))
    size_N = np.bincount(row_P, minlength=len(rows))
    by_gram_P = np.argsort(gram_P, kind="stable")
    row_P, gram_P = row_P[by_gram_P], gram_P[by_gram_P]
    _join_neighbors(row_P, gram_P, size_N, overlap, groups)
    several_P = _in_several_groups(groups.label_N[row_P], gram_P)
    _join_all(row_P[several_P], gram_P[several_P], size_N, overlap, groups, bar or SilentBar())
    found: list[int] = groups.label_N.tolist()
    return found


class _Groups:
    """Groups of rows, at first of one row each; the label of a group is one of its rows."""

    def __init__(self, rows: int) -> None:
        self.label_N = np.arange(rows)
        self._members = [[row] for row in range(rows)]

    def join(self, i: int, j: int) -> None:
        """Make the groups of two rows one."""
        few, many = sorted((int(self.label_N[i]), int(self.label_N[j])), key=lambda label: len(self._members[label]))
        if few != many:
            self.label_N[self._members[few]] = many
            self._members[many] += self._members[few]
            self._members[few] = []


def _grams(rows: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Row and 5-gram of each different 5-gram of each row, by row; 5-grams are numbered."""
    size = max(1, sum(map(len, rows)))
    row_T = np.repeat(np.arange(len(rows)), np.array([len(row) for row in rows], dtype=np.int64))
    token_T = _numbered(np.array([token for row in rows for token in row], dtype=np.int64))
    gram_T = token_T
    for further in range(1, GRAM):
        gram_T = _numbered(gram_T[:-1] * size + token_T[further:])
    whole_T = row_T[: len(gram_T)] == row_T[GRAM - 1 :]
    pair_P = np.unique(row_T[: len(gram_T)][whole_T] * size + gram_T[whole_T])
    return pair_P // size, pair_P % size


def _numbered(values: Ints) -> Ints:
    """The place of each value among the different ones, in order."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _linked(common: Ints, one: Ints, other: Ints, overlap: float) -> NDArray[np.bool_]:
    """Whether rows with so many 5-grams in common, and so many of their own, are linked."""
    return common / (one + other - common) > overlap


def _join_neighbors(row_P: Ints, gram_P: Ints, size_N: Ints, overlap: float, groups: _Groups) -> None:
    """Join rows that follow one another in the lists of so many 5-grams that they are linked."""
    same_P = gram_P[1:] == gram_P[:-1]
    pair, common = np.unique(row_P[:-1][same_P] * len(size_N) + row_P[1:][same_P], return_counts=True)
    one, other = pair // len(size_N), pair % len(size_N)
    linked = _linked(common, size_N[one], size_N[other], overlap)
    for i, j in zip(one[linked].tolist(), other[linked].tolist(), strict=True):
        groups.join(i, j)


def _in_several_groups(label_P: Ints, gram_P: Ints) -> NDArray[np.bool_]:
    """Which entries are of 5-grams whose rows are in several groups."""
    first_G = np.flatnonzero(np.diff(gram_P, prepend=-1))
    several_G = np.minimum.reduceat(label_P, first_G) != np.maximum.reduceat(label_P, first_G)
    return np.repeat(several_G, np.diff(first_G, append=len(gram_P)))


def _join_all(row_P: Ints, gram_P: Ints, size_N: Ints, overlap: float, groups: _Groups, bar: Bar) -> None:
    """Join each row with those before it that it is linked with; entries are by 5-gram, within one by row."""
    first_P = np.maximum.accumulate(np.where(np.diff(gram_P, prepend=-1) != 0, np.arange(len(gram_P)), 0))
    order_P = np.argsort(row_P, kind="stable")  # of each row its places in the lists
    bounds = np.searchsorted(row_P[order_P], np.arange(1, len(size_N)))
    for j, places in enumerate(np.split(order_P, bounds)):
        if len(places):
            before = [row_P[first:place] for first, place in zip(first_P[places].tolist(), places.tolist(), strict=True)]
            common_N = np.bincount(np.concatenate(before), minlength=1)
            (others,) = common_N.nonzero()
            linked = others[_linked(common_N[others], size_N[others], size_N[j], overlap)]
            for label in np.unique(groups.label_N[linked]).tolist():
                groups.join(j, label)
        if j % BAR_ROWS == BAR_ROWS - 1:
            bar.advance(BAR_ROWS)
