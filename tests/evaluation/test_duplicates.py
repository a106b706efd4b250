"""Duplicates among memorized rows: groups as by comparing every row with every other one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tinymem.evaluation.duplicates import GRAM, groups_of
from tinymem.evaluation.memorized_sets import Found, without_duplicates

Rows = list[list[int]]


def by_brute_force(rows: Rows, overlap: float) -> list[int]:
    """The first row of the group of each: all pairs are compared, and what is linked is reached step by step."""
    grams = [{tuple(row[i : i + GRAM]) for i in range(len(row) - GRAM + 1)} for row in rows]
    linked = np.eye(len(rows), dtype=bool)
    for i, one in enumerate(grams):
        for j, other in enumerate(grams):
            linked[i, j] |= bool(one | other) and len(one & other) / len(one | other) > overlap
    reached = linked
    while not np.array_equal(reached, further := reached @ linked):
        reached = further
    return [int(row.argmax()) for row in reached]


def near_copies(generator: Any) -> Rows:
    rows = np.tile(generator.integers(0, 99, 30), (40, 1))
    rows[np.arange(40), generator.integers(0, 30, 40)] = generator.integers(0, 99, 40)
    return rows.tolist()


def few_words(generator: Any) -> Rows:
    return generator.integers(0, 3, (40, 12)).tolist()


def shared_parts(generator: Any) -> Rows:
    """Parts of one text at any place, each before something of its own; all share a beginning."""
    text, starts = generator.integers(0, 99, 90), generator.integers(0, 60, 40)
    rows = generator.integers(0, 999, (40, 40))
    for row, start in zip(rows, starts, strict=True):
        row[:7], row[10 : 10 + start % 25] = text[:7], text[start : start + start % 25]
    return rows.tolist()


def chain(generator: Any) -> Rows:
    """Each row begins as the one before it ends, in any order."""
    rows = generator.integers(0, 9999, (40, 30))
    for before, row in pairwise(rows):
        row[:9] = before[-9:]
    return generator.permutation(rows).tolist()


def any_length(generator: Any) -> Rows:
    """Some have no 5-gram, some no token."""
    text = generator.integers(0, 4, 60).tolist()
    return [text[start : start + length] for start, length in generator.integers(0, 20, (40, 2)).tolist()]


@pytest.mark.parametrize("overlap", [0, 0.05, 0.3, 0.9, 1])
@pytest.mark.parametrize("made", [near_copies, few_words, shared_parts, chain, any_length])
def test_groups_are_those_of_brute_force(made: Callable[[Any], Rows], overlap: float) -> None:
    for seed in range(3):
        rows = made(np.random.default_rng(seed))
        found, expected = groups_of(rows, overlap), by_brute_force(rows, overlap)
        first = {group: found.index(group) for group in found}
        assert [first[group] for group in found] == expected
        if made is chain and overlap == 0.05:
            assert len({*found}) == 1, "linked through others"


def test_the_closest_of_each_group_is_kept_and_of_several_the_first() -> None:
    rows = shared_parts(np.random.default_rng(0))
    distances = np.random.default_rng(1).integers(0, 3, 40).tolist()
    found = [Found(row, "", 1.0, distance, True, i, 0) for i, (row, distance) in enumerate(zip(rows, distances, strict=True))]
    groups = by_brute_force(rows, 0.05)
    best = {min((i for i in range(40) if groups[i] == group), key=lambda i: (distances[i], i)) for group in groups}
    kept = without_duplicates(found, 0.05)
    assert [row.document for row in kept] == sorted(best, key=lambda i: (distances[i], i)) and 1 < len(kept) < 40
    assert len(without_duplicates(found, 1)) == 40 and without_duplicates([], 0.05) == []


def test_the_bar_counts_rows() -> None:
    class Counting:
        rows = 0.0

        def advance(self, steps: float = 1, note: str = "") -> None:
            self.rows += steps

        def expect(self, total: float) -> None:
            raise AssertionError

    bar = Counting()
    groups_of(few_words(np.random.default_rng(0)) * 5, 0.05, bar)
    assert 190 <= bar.rows <= 200
